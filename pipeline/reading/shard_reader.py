"""A shard of the plan to decoded audio: the first stage of the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from itertools import chain, takewhile
from types import TracebackType
from typing import Any

import pyarrow as pa

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.planning import MIN_PART_S, estimate_s, part_seconds
from pipeline.reading.audio import MAX_TOGETHER, Decoded, DecodeLimits
from pipeline.reading.channels import Channels, take
from pipeline.reading.decoder import AudioDecoder
from pipeline.reading.shard_audio import DecodedRow, DecodedShard, SampleBuffer
from pipeline.reading.streams import PROBE_S, Streams, TakenStream
from pipeline.reading.windows import Window, audible_windows, cut_windows, even_windows, find_cut
from pipeline.sources.opening import OpenRecording, open_row
from pipeline.sources.recording import RecordingError

HALF_MINUTE_S = 30.0
MIN_BYTES_PER_S = 500  # a declared length that means less is not believed
BATCH_S = 900.0  # seconds of audio whose speech is looked for together: short recordings share the work
BATCH_ROWS = 512  # and so many rows at most: each is an open file, or a part of one
MAX_SPLIT_CHANNELS = 8  # a part of an hour then holds 920 MB
SHORT_S = 30.0  # recordings that seem no longer are decoded several at a time


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What reading depends on; hours are hours of audio."""

    voice_activity: bool
    channels: Channels
    max_hours: float
    shard_hours: float
    streams: Streams = "first"

    @classmethod
    def of(cls, options: Any) -> ReadOptions:
        """What is said of reading in the options of a job (`pipeline.config.JobOptions`)."""
        return cls(**{name: getattr(options, name) for name in cls.names()})

    @classmethod
    def names(cls) -> list[str]:
        """The names of the options, as `pipeline.config.JobOptions` has them."""
        return [field.name for field in fields(cls)]


class DoesNotFit(Exception):
    """A row decodes to more than its shard has room for; it goes to the next round whole."""


class ShardReader:
    """Reads shards; use it as a context manager. Keeps the decoder's process from shard to shard."""

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self._capacity_s = 2 * options.shard_hours * 3600
        self._splits = options.channels == "split"  # `auto` takes each channel by itself
        self._buffer = SampleBuffer(capacity_s=self._capacity_s)
        self._decoder = AudioDecoder(DecodeLimits(max_hours=options.max_hours))

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.close()

    def read(self, shard_id: int, attempt: int, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Decode the rows of a shard, in plan order, to one row of `SHARD_AUDIO`.

        A row that cannot be decoded is a recording with an error. What decodes past twice the shard's size
        goes to `overflow`: the first row is cut there, later ones go whole.
        """
        shard = DecodedShard(self._buffer.lend())
        used_s = added_s = 0.0
        full = False
        waiting: list[tuple[Mapping[str, Any], list[DecodedRow] | RecordingError]] = []
        ahead: dict[int, Decoded | RecordingError | None] = {}
        for index, row in enumerate(rows):
            try:
                if full:
                    raise DoesNotFit
                if index not in ahead:
                    ahead = dict(enumerate(self._decode_ahead(rows[index : index + MAX_TOGETHER]), index))
                stretches = self._stretches(row, self._capacity_s - used_s if used_s else None, ahead[index])
            except DoesNotFit:
                full = True
                shard.overflow.append(dict(row))
                continue
            except RecordingError as error:
                # Its traceback would hold this frame, and with it the samples of the shard, until Python
                # looks for cycles.
                waiting.append((row, error.with_traceback(None)))
                continue
            waiting.append((row, stretches))
            used_s += sum(stretch.channel_seconds for stretch in stretches)
            full = any(stretch.rest for stretch in stretches)
            if used_s - added_s >= BATCH_S or len(waiting) >= BATCH_ROWS:
                self._add(shard, waiting)
                waiting, added_s = [], used_s
        self._add(shard, waiting)
        return shard.table(shard_id, attempt)

    def _decode_ahead(self, rows: Sequence[Mapping[str, Any]]) -> list[Decoded | RecordingError | None]:
        """What the first of these rows decode to, together where they are short.

        None: it is to be decoded by itself. One at least; fewer than `rows` where some are not short.
        """
        short = list(takewhile(_seems_short, rows)) if self.options.channels == "mix" else []
        if len(short) < 2:
            return [None]
        found: list[Decoded | RecordingError | None] = [None] * len(short)
        sources: dict[int, OpenRecording] = {}
        with ExitStack() as opened:
            for index, row in enumerate(short):
                try:
                    source = open_row(row, max_bytes=self._decoder.limits.max_bytes)
                    sources[index] = opened.enter_context(source)
                except RecordingError as error:
                    found[index] = error.with_traceback(None)
            outcomes = self._decoder.decode_starts(list(sources.values()), 2 * SHORT_S)
        for index, outcome in zip(sources, outcomes, strict=True):
            if isinstance(outcome, RecordingError) or (outcome.ended and not outcome.streams):
                found[index] = outcome
        return found

    def _stretches(
        self, row: Mapping[str, Any], room_s: float | None, ahead: Decoded | RecordingError | None
    ) -> list[DecodedRow]:
        """Decode one row, unless it was ahead of its turn; one of each stream that is taken.

        `room_s` is None for the first of a shard. Raises `RecordingError`, `DoesNotFit`.
        """
        if isinstance(ahead, RecordingError):
            raise ahead
        if ahead is not None:
            if room_s is not None and ahead.duration_s > room_s:
                raise DoesNotFit
            return [DecodedRow(audio=ahead, start_s=0.0, whole=True)]
        with open_row(row, max_bytes=self._decoder.limits.max_bytes) as source:
            taken = take(self._decoder, source, streams=self.options.streams, channels=self.options.channels)
            num_channels = self._num_channels(taken)
            found = [self._stretch(one, row, room_s, num_channels) for one in taken]
            if rest := next((stretch.rest for stretch in found if stretch.rest), None):
                found = [self._until(rest[0]["offset_s"], *one) for one in zip(taken, found, strict=True)]
            return [
                replace(stretch, taken=one, whole=stretch.whole and len(found) == 1)
                for one, stretch in zip(taken, found, strict=True)
            ]

    def _stretch(
        self, taken: TakenStream, row: Mapping[str, Any], room_s: float | None, num_channels: int
    ) -> DecodedRow:
        """Decode one stream of a row; `num_channels` come out of all of its streams."""
        source, start_s = taken.source, self._cut_near(taken.cut_by, row["offset_s"])
        if row["duration_s"] is not None:
            return self._middle(taken, row, start_s, room_s)
        limit_s = (self._capacity_s if room_s is None else room_s) / num_channels
        if room_s is None:
            limit_s = max(limit_s, 2 * MIN_PART_S)
        audio = self._decode(source, start_s, row["offset_s"] + limit_s + HALF_MINUTE_S - start_s)
        if audio.ended and (room_s is None or audio.duration_s <= limit_s):
            return DecodedRow(audio=audio, start_s=start_s, whole=row["part"] == 0)
        if room_s is not None:
            raise DoesNotFit
        return self._first_of_several(taken, row, audio, start_s, limit_s)

    def _until(self, nominal_s: float, taken: TakenStream, stretch: DecodedRow) -> DecodedRow:
        """A stream that fitted beside one that goes on in later rows: they begin at its own cut."""
        if stretch.rest:
            return stretch
        end_s = self._cut_near(taken.cut_by, nominal_s)
        return replace(stretch, audio=stretch.audio.first(max(0.0, end_s - stretch.start_s)))

    def _num_channels(self, taken: Sequence[TakenStream]) -> int:
        """How many channels come out. Raises `RecordingError` where they are too many to keep apart."""
        if not self._splits:
            return len(taken)
        num = sum(len(self._decode(stream.source, 0.0, PROBE_S).samples) for stream in taken)
        if num > MAX_SPLIT_CHANNELS:
            allowed = f"{MAX_SPLIT_CHANNELS} can be split"
            raise RecordingError(
                "too_many_channels", f"{taken[0].source.name}: has {num} channels, {allowed}"
            )
        return num

    def _middle(
        self, taken: TakenStream, row: Mapping[str, Any], start_s: float, room_s: float | None
    ) -> DecodedRow:
        """A part that the plan bounds on both sides."""
        if room_s is not None and row["duration_s"] > room_s:
            raise DoesNotFit
        end_s = self._cut_near(taken.cut_by, row["offset_s"] + row["duration_s"])
        audio = self._decode(taken.source, start_s, end_s - start_s)
        return DecodedRow(audio=audio, start_s=start_s, whole=False)

    def _first_of_several(
        self, taken: TakenStream, row: Mapping[str, Any], audio: Decoded, start_s: float, limit_s: float
    ) -> DecodedRow:
        """The start of a recording that turned out too long for a shard; the rest is left to later rows."""
        nominal_s = row["offset_s"] + math.floor(limit_s)
        end_s = self._cut_near(taken.cut_by, nominal_s)
        kept = audio.first(end_s - start_s)
        rest = self._rest(taken.source, row, nominal_s, audio.declared_s)
        return DecodedRow(audio=kept, start_s=start_s, whole=False, rest=rest)

    def _rest(
        self, source: OpenRecording, row: Mapping[str, Any], from_s: float, declared_s: float | None
    ) -> tuple[dict[str, Any], ...]:
        """Rows for what follows `from_s`: several where the declared length can be believed."""
        part_s = part_seconds(self.options.shard_hours)
        num = 1
        ends_s = min(declared_s or 0.0, self.options.max_hours * 3600)
        if self._is_there(source, ends_s):
            num = max(1, round((ends_s - from_s) / part_s))
        return tuple(
            {
                **row,
                "part": row["part"] + 1 + i,
                "offset_s": from_s + i * part_s,
                "duration_s": float(part_s) if i < num - 1 else None,
            }
            for i in range(num)
        )

    def _is_there(self, source: OpenRecording, ends_s: float) -> bool:
        """Whether a recording goes on to about where it is to end."""
        if not 1.0 < ends_s <= source.length / MIN_BYTES_PER_S:
            return False
        try:
            return self._decoder.decode(source, offset_s=ends_s - 1.0, max_s=0.5).duration_s > 0
        except RecordingError:
            return False

    def _cut_near(self, source: OpenRecording, nominal_s: float) -> float:
        """The time of the cut between two parts. Both decode the same minute in the same way."""
        if nominal_s == 0:
            return 0.0
        from_s = nominal_s - HALF_MINUTE_S
        minute = self._decoder.decode(source, offset_s=from_s, max_s=2 * HALF_MINUTE_S)
        return from_s + find_cut(minute.samples[0])

    def _decode(self, source: OpenRecording, offset_s: float, max_s: float) -> Decoded:
        return self._decoder.decode(
            source, offset_s=offset_s, max_s=max_s, channels="split" if self._splits else "mix"
        )

    def _add(
        self, shard: DecodedShard, rows: Sequence[tuple[Mapping[str, Any], list[DecodedRow] | RecordingError]]
    ) -> None:
        """Add rows to the shard, the windows of all found together."""
        audios = [found.audio for _, outcome in rows if isinstance(outcome, list) for found in outcome]
        try:
            windows = iter(self._windows(audios))
        except RecordingError as error:
            if len(rows) > 1:  # one by one, so that only the culprit fails
                for one in rows:
                    self._add(shard, [one])
            else:
                shard.add_failure(rows[0][0], error)
            return
        for row, outcome in rows:
            if isinstance(outcome, RecordingError):
                shard.add_failure(row, outcome)
                continue
            num = 0
            for stretch in outcome:
                num = max(num, stretch.taken.first_channel if stretch.taken else 0)
                for channel in range(len(stretch.audio.samples)):
                    shard.add(row, stretch, channel, next(windows), first_channel=num)
                num += len(stretch.audio.samples)
            shard.overflow += max(outcome, key=lambda stretch: len(stretch.rest)).rest

    def _windows(self, stretches: Sequence[Decoded]) -> list[list[Window]]:
        """The windows of each channel of some stretches, one after the other."""
        channels = [samples for audio in stretches for samples in audio.samples]
        if not self.options.voice_activity:
            gains_db = chain(*(audio.gains_db or (0.0,) * len(audio.samples) for audio in stretches))
            return [
                audible_windows(even_windows(len(samples) / SAMPLE_RATE), samples, gain_db=gain_db)
                for samples, gain_db in zip(channels, gains_db, strict=True)
            ]
        spans = self._decoder.speech_spans(stretches)
        return [cut_windows(speech, samples) for speech, samples in zip(spans, channels, strict=True)]


def _seems_short(row: Mapping[str, Any]) -> bool:
    """Whether a row is a whole recording of at most `SHORT_S`, as far as its bytes tell."""
    is_whole = row["part"] == 0 and row["duration_s"] is None
    return is_whole and estimate_s(row["uri"], row["member"], row["bytes"], None) <= SHORT_S
