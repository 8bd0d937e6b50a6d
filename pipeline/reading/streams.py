"""Which audio streams of a recording are taken: the first that has speech, or all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.reading.decoder import AudioDecoder
from pipeline.sources.opening import OpenRecording

Streams = Literal["first", "all"]
PROBE_S = 0.1  # tells how many streams and channels there are
PIECE_S = 600.0  # that are searched for speech at a time
ENOUGH_S = 1.0  # of speech; less may be a mistake, or all there is


@dataclass(frozen=True, kw_only=True)
class TakenStream:
    """A stream that is taken, or one channel of it.

    `note` says which stream and why, None where there is only one; `choice` says so of its channels.
    """

    source: OpenRecording
    note: str | None = None
    choice: str | None = None
    first_channel: int = 0  # the least number of its first channel among those of all streams
    mixed: OpenRecording | None = None  # all of its channels, where `source` is one of them

    @property
    def cut_by(self) -> OpenRecording:
        """What says where parts are cut: channels of one recording are cut at the same times."""
        return self.mixed or self.source


def take_streams(
    decoder: AudioDecoder, source: OpenRecording, names: tuple[str, ...], wanted: Streams
) -> list[TakenStream]:
    """The streams of a recording that are taken, of those that `names` names. Raises `RecordingError`."""
    if len(names) < 2:
        return [TakenStream(source=source)]
    numbered = [f"{number} ({name})" for number, name in enumerate(names)]
    if wanted == "all":
        return [
            TakenStream(source=replace(source, stream=number), note=f"stream {name} of {len(names)}")
            for number, name in enumerate(numbered)
        ]
    taken, seconds = _first_with_speech(decoder, source, len(names))
    why = "the first that has speech" if seconds else "none has speech"
    others = ", ".join(name for number, name in enumerate(numbered) if number != taken)
    note = f"stream {numbered[taken]}, {why}; not taken: {others}"
    return [TakenStream(source=replace(source, stream=taken), note=note)]


def _first_with_speech(decoder: AudioDecoder, source: OpenRecording, num: int) -> tuple[int, float]:
    """The stream, and seconds of speech in it: enough, or the most of any."""
    found = []
    for number in range(num):
        seconds = _speech_s(decoder, replace(source, stream=number))
        if seconds >= ENOUGH_S:
            return number, seconds
        found.append(seconds)
    taken = max(range(num), key=lambda number: found[number])
    return taken, found[taken]


def _speech_s(decoder: AudioDecoder, source: OpenRecording) -> float:
    """Seconds of speech up to the end of the piece in which there is enough."""
    seconds = 0.0
    for spans in _pieces(decoder, source):
        seconds += sum(end - start for start, end in spans)
        if seconds >= ENOUGH_S:
            break
    return seconds


def _pieces(decoder: AudioDecoder, source: OpenRecording) -> Iterator[list[tuple[float, float]]]:
    at_s = 0.0
    while True:
        piece = decoder.decode(source, offset_s=at_s, max_s=PIECE_S)
        yield decoder.speech_spans([piece])[0]
        if piece.ended or not piece.duration_s:
            return
        at_s += PIECE_S
