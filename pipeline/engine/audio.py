"""What a window of audio is."""

from __future__ import annotations

SAMPLE_RATE = 16_000  # Hz; everything decoded has it
SAMPLE_RATE = 16_000
