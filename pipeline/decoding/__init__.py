"""Bytes to 16 kHz int16 in a child process that may crash, hang or swell without harm.

`types` says what goes in and out, `decoder` keeps the warm child, `child` is what it runs, `sniffing` finds
the container, `readers` are soundfile and PyAV, `conversion` mixes and resamples.
"""

from pipeline.decoding.decoder import AudioDecoder
from pipeline.decoding.types import (
    MAX_TOGETHER,
    SAMPLE_RATE,
    Decoded,
    DecodeError,
    DecodeLimits,
    Request,
    Source,
)

__all__ = [
    "MAX_TOGETHER",
    "SAMPLE_RATE",
    "AudioDecoder",
    "DecodeError",
    "DecodeLimits",
    "Decoded",
    "Request",
    "Source",
]
