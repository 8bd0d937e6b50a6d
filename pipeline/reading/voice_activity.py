"""Where there is speech: silero-vad on whatever is not plainly silent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.reading.silero import CONTEXT, FRAME, SileroNetwork

SILENT_BELOW = 16  # of 32768: a frame whose loudest sample is below it (-66 dB) is silent
KEEP_FRAMES = 10  # silent frames kept around others, 0.3 s

# silero-vad's own thresholds, but speech may be as short as a word (its default is 0.25 s) and is padded so
# that soft first and last sounds are kept (its default is 0.03 s)
SPEECH_ABOVE = 0.5
SILENCE_BELOW = 0.35
MIN_SPEECH_S = 0.1
MIN_SILENCE_S = 0.1
PAD_S = 0.2

Span = tuple[float, float]


class VoiceActivity:
    """Finds speech; holds the network. A pure function of the samples."""

    def __init__(self) -> None:
        self._network = SileroNetwork()

    def speech_spans(self, recordings: Sequence[np.ndarray]) -> list[list[Span]]:
        """Spans of speech of each recording, in seconds, ascending and apart from one another.

        Args:
            recordings: int16 at 16 kHz, [time]; many short ones are quicker together than alone.
        """
        found = self.probabilities(recordings)
        return [
            spans_of(values, len(samples) / SAMPLE_RATE)
            for values, samples in zip(found, recordings, strict=True)
        ]

    def probabilities(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The probability of speech in every frame of 512 samples, float32 [frames].

        Silence is 0 without a look, and the network hears the rest as if the silence were not there.
        """
        heard = [np.flatnonzero(_audible(samples)) for samples in recordings]
        frames = [_frames(samples)[places] for samples, places in zip(recordings, heard, strict=True)]
        found = [np.zeros(num_frames(samples), np.float32) for samples in recordings]
        for values, places, said in zip(found, heard, self._network.probabilities(frames), strict=True):
            values[places] = said
        return found


def _frames(samples: np.ndarray) -> np.ndarray:
    """Frames behind the end of the frame before each, int16 [frames, 64 + 512]; a view."""
    padded = np.zeros(CONTEXT + max(1, num_frames(samples)) * FRAME, np.int16)
    padded[CONTEXT : CONTEXT + len(samples)] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]


def num_frames(samples: np.ndarray) -> int:
    """Frames of 512 samples, the last one perhaps not full."""
    return -(-len(samples) // FRAME)


def _audible(samples: np.ndarray) -> np.ndarray:
    """Which frames are not silent or are near such, bool [frames]."""
    num = num_frames(samples)
    padded = np.zeros(num * FRAME, np.int16)
    padded[: len(samples)] = samples
    frames = padded.reshape(num, FRAME)
    loud = (frames.max(axis=1, initial=0) >= SILENT_BELOW) | (frames.min(axis=1, initial=0) <= -SILENT_BELOW)
    sums = np.concatenate([np.zeros(KEEP_FRAMES + 1), np.cumsum(loud), np.full(KEEP_FRAMES, loud.sum())])
    return sums[2 * KEEP_FRAMES + 1 :] > sums[: -2 * KEEP_FRAMES - 1]


def spans_of(probabilities: np.ndarray, duration_s: float) -> list[Span]:
    """Spans of speech from the probability of every frame: begun above 0.5, ended below 0.35.

    Speech shorter than 0.1 s is none, silence shorter than 0.1 s does not end it; each span is padded by
    0.2 s, and spans that then touch are one.
    """
    spans = [span for span in _raw_spans(probabilities) if span[1] - span[0] >= MIN_SPEECH_S]
    joined: list[Span] = []
    for first, last in spans:
        start, end = max(0.0, first - PAD_S), min(duration_s, last + PAD_S)
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if end > start]


def _raw_spans(probabilities: np.ndarray) -> list[Span]:
    """Spans by hysteresis, as silero-vad's `get_speech_timestamps` finds them, before padding."""
    frame_s = FRAME / SAMPLE_RATE
    spans: list[Span] = []
    start, silent_since = None, None
    for i, probability in enumerate(probabilities.tolist()):
        if probability >= SPEECH_ABOVE:
            silent_since = None
            start = i if start is None else start
        elif start is not None and probability < SILENCE_BELOW:
            silent_since = i if silent_since is None else silent_since
            if (i - silent_since) * frame_s >= MIN_SILENCE_S:
                spans.append((start * frame_s, silent_since * frame_s))
                start, silent_since = None, None
    if start is not None:
        spans.append((start * frame_s, len(probabilities) * frame_s))
    return spans
