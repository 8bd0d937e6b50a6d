"""What is taken of a recording: its streams, and with `auto` its channels as their sound has it.

Channels hold one sound where they grow louder and softer together, whatever their gain, polarity or delay:
two microphones in a room do, two ends of a telephone call do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.reading.decoder import AudioDecoder, Span
from pipeline.reading.level import FRAME
from pipeline.reading.streams import PROBE_S, Streams, TakenStream, take_streams
from pipeline.sources.opening import OpenRecording

Channels = Literal["mix", "split", "auto"]
PIECE_S = 120.0  # that are compared at a time
ENOUGH_S = 30.0  # of speech, and some in every channel; 10 s of two voices correlate by up to 0.1
MAX_LOOK_S = 3600.0  # a channel that is silent for so long and goes on is kept apart, so that nothing is lost
MAX_COMPARED = 8
# Correlation of loudness over what is spoken. In real speech two voices reached 0.14 with each other's sound
# 20 dB below their own (0.6 at 12 dB), two microphones in a room with noise 0.92 and more.
ONE_SOUND = 0.5


def take(
    decoder: AudioDecoder, source: OpenRecording, *, streams: Streams, channels: Channels
) -> list[TakenStream]:
    """What is taken of a recording, the same for each of its parts. Raises `RecordingError`."""
    names = decoder.decode(source, max_s=PROBE_S).streams
    taken = take_streams(decoder, source, names, streams)
    return _take_channels(decoder, taken) if channels == "auto" else taken


def _take_channels(decoder: AudioDecoder, streams: Sequence[TakenStream]) -> list[TakenStream]:
    """Streams as they are where their channels are mixed, and once for each channel that is kept apart."""
    found: list[TakenStream] = []
    first = 0
    for stream in streams:
        choice = choose_channels(decoder, stream.source)
        if not choice.apart:
            found.append(replace(stream, first_channel=first, choice=choice.note()))
        for channel in choice.apart:
            found.append(
                replace(
                    stream,
                    source=replace(stream.source, channel=channel),
                    first_channel=first + channel,
                    choice=choice.note(channel),
                    mixed=stream.source,
                )
            )
        first += choice.num if choice.apart else 1
    return found


@dataclass(frozen=True, kw_only=True)
class ChannelChoice:
    """The channels that are kept `apart`, of `num`; none: all are mixed."""

    num: int
    apart: tuple[int, ...] = ()
    why: str = ""

    def note(self, channel: int | None = None) -> str | None:
        """What is to be said of a channel or of the mix; None for a recording that has but one."""
        if not self.why:
            return None
        what = f"mix of {self.num} channels" if channel is None else f"channel {channel} of {self.num}"
        return f"{what}: {self.why}"


def choose_channels(decoder: AudioDecoder, source: OpenRecording) -> ChannelChoice:
    """Listen to a recording from its start until it is clear what its channels hold."""
    num = len(decoder.decode(source, max_s=PROBE_S, channels="split").samples)
    if num == 1:
        return ChannelChoice(num=num)
    if num > MAX_COMPARED:
        return ChannelChoice(num=num, why=f"more than {MAX_COMPARED} are not compared")
    return _listen(decoder, source, num).choice()


def _listen(decoder: AudioDecoder, source: OpenRecording, num: int) -> Heard:
    heard = Heard(num)
    for at_s in np.arange(0.0, MAX_LOOK_S, PIECE_S).tolist():
        piece = decoder.decode(source, offset_s=at_s, max_s=PIECE_S, channels="split")
        if piece.duration_s:
            heard.add(piece.samples, decoder.speech_spans([piece]))
        if piece.ended or not piece.duration_s:
            heard.ended = True
        if heard.ended or heard.is_clear:
            break
    return heard


@dataclass
class Heard:
    """What was heard of `num` channels so far."""

    num: int
    ended: bool = False  # there is no more of it
    _loudness: list[np.ndarray] = field(default_factory=list)  # dB, [channels, frames]
    _speaks: list[np.ndarray] = field(default_factory=list)  # bool, [channels, frames]

    def add(self, samples: np.ndarray, speech: Sequence[Sequence[Span]]) -> None:
        """Take a piece in: int16 [channels, time] at 16 kHz, and the spans of speech in each channel."""
        num_frames = samples.shape[1] // FRAME
        frames = samples[: self.num, : num_frames * FRAME].astype(np.float32).reshape(len(samples), -1, FRAME)
        self._loudness.append(10 * np.log10(np.square(frames).mean(axis=2) + 1))
        speaks = np.zeros((self.num, num_frames), bool)
        for channel, spans in enumerate(speech):
            for start_s, end_s in spans:
                speaks[channel, _frame(start_s) : _frame(end_s)] = True
        self._speaks.append(speaks)

    @property
    def is_clear(self) -> bool:
        """Whether there is enough speech, and some in every channel."""
        speaks = np.concatenate(self._speaks, axis=1)
        return bool(speaks.any(axis=1).all()) and _seconds(speaks.max(axis=0)) >= ENOUGH_S

    def choice(self) -> ChannelChoice:
        """What is taken: of channels with one sound their mix, or the one with most speech."""
        speaks = np.concatenate(self._speaks or [np.zeros((self.num, 0), bool)], axis=1)
        seconds = [_seconds(channel) for channel in speaks]
        # what was silent so far may still speak
        silent = [k for k in range(self.num) if not seconds[k]] if self.ended else []
        if len(silent) == self.num:
            return ChannelChoice(num=self.num, why="nobody speaks")
        speaking = sorted(set(range(self.num)) - set(silent), key=lambda k: (-seconds[k], k))
        groups = self._groups(speaking, speaks.max(axis=0))
        if len(groups) == 1 and len(speaking) == self.num:
            return ChannelChoice(num=self.num, why="they hold one sound")
        return ChannelChoice(num=self.num, apart=tuple(sorted(groups)), why=_why(groups, silent))

    def _groups(self, channels: Sequence[int], spoken: np.ndarray) -> dict[int, list[int]]:
        """Of each sound the channel with most speech, and the others that hold it."""
        alike = _correlations(np.concatenate(self._loudness, axis=1)[:, spoken]) >= ONE_SOUND
        groups: dict[int, list[int]] = {}
        for channel in channels:
            first = next((one for one in groups if alike[one, channel]), None)
            if first is None:
                groups[channel] = []
            else:
                groups[first].append(channel)
        return groups


def _why(groups: dict[int, list[int]], silent: Sequence[int]) -> str:
    remarks = [f"channels {_listed(groups)} hold different sounds"] if len(groups) > 1 else []
    remarks += [f"{_listed(others)} like {first}" for first, others in groups.items() if others]
    remarks += [f"nobody speaks in {_listed(silent)}"] if silent else []
    return "; ".join(remarks)


def _listed(channels: Sequence[int] | dict[int, list[int]]) -> str:
    return ", ".join(str(channel) for channel in sorted(channels))


def _correlations(values: np.ndarray) -> np.ndarray:
    """Of rows, [channels, frames]; 0 where one never changes."""
    centred = values - values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    scaled = centred / np.where(norms > 0, norms, 1)
    return scaled @ scaled.T


def _frame(time_s: float) -> int:
    return round(time_s * SAMPLE_RATE / FRAME)


def _seconds(frames: np.ndarray) -> float:
    return float(frames.sum()) * FRAME / SAMPLE_RATE
