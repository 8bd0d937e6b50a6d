"""What a window of audio is."""

from __future__ import annotations

SAMPLE_RATE = 16_000  # Hz; everything decoded has it
WINDOW_S = 30.0  # the longest window that a Whisper model takes
WINDOW_SAMPLES = 480_000
NUM_FRAMES = 3000  # of 10 ms, in a window
POSITION_S = 0.02  # one encoder position, and one step of the timestamp tokens
POSITION_SAMPLES = 320
