"""What a job will take, before it is paid for: a plan, a sample of it decoded, and a rate of the device."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.config import JobOptions, JobRequest
from pipeline.driver.rate import Rate, wall_hours
from pipeline.planning import MIN_PART_S, estimate_s, make_plan
from pipeline.reading.decoder import AudioDecoder
from pipeline.reading.shard_reader import ReadOptions, ShardReader
from pipeline.schema import PLAN
from pipeline.sources.listing import list_recordings
from pipeline.sources.locations import is_url
from pipeline.sources.opening import open_row
from pipeline.sources.recording import Recording, RecordingError, extension

MAX_HEADERS = 2000  # a header takes a few milliseconds; of more recordings, so many are drawn
MIN_SAMPLED = 8  # recordings that are decoded at least, whatever they hold
LEAST_S = 30.0  # of a recording that is timed

log = logging.getLogger("earshard")


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Hours of audio, as they were guessed and as a sample that was decoded says.

    guessed_hours: by stated durations and headers, else by bytes. hours: corrected by the sample.
    guess_error: by how much the guesses of the sample were off, as a share; None where none was decoded.
    """

    guessed_hours: float
    hours: float
    guess_error: float | None
    num_by_header: int
    num_by_bytes: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was really decoded. failures: rows by `error_type`."""

    num_recordings: int
    decoded_hours: float
    guessed_hours: float
    speech_hours: float
    failures: dict[str, int]

    @property
    def speech_share(self) -> float | None:
        """Of the decoded audio."""
        return self.speech_hours / self.decoded_hours if self.decoded_hours else None

    @property
    def failed_share(self) -> float:
        """Of the recordings."""
        return sum(self.failures.values()) / self.num_recordings if self.num_recordings else 0.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job is expected to take; None where nothing is known of it.

    wall_hours: by number of devices, start-up included. disk_bytes: of the output.
    """

    num_recordings: int
    num_skipped: int
    num_shards: int
    lengths: Lengths
    sample: Sample
    rate: Rate | None
    speech_hours: float | None
    device_hours: float | None
    cost_usd: float | None
    wall_hours: dict[int, float] | None
    disk_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        found = asdict(self)
        found["sample"] |= {
            "speech_share": self.sample.speech_share,
            "failed_share": self.sample.failed_share,
        }
        return found


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a job would find and decode. sampled: what of the sample could be read, with guessed seconds."""

    num_recordings: int
    num_skipped: int
    num_shards: int
    lengths: Lengths
    sample: Sample
    sampled: list[tuple[Recording, float]]


def survey_inputs(request: JobRequest, *, sample_s: float) -> Survey:
    """List the inputs, guess their lengths, decode up to `sample_s` seconds of them. Raises `InputError`."""
    listing = list_recordings(request.inputs, all_files=request.all_files)
    recordings = list(listing.recordings)
    options = _read_options(request)
    plan = make_plan(recordings, shard_hours=options.shard_hours)
    with AudioDecoder() as decoder:
        guessed_s, num_by_header = guess_seconds(recordings, decoder)
    drawn = draw_sample(recordings, guessed_s, sample_s)
    sample, sampled = decode_sample(drawn, options, sample_s)
    return Survey(
        num_recordings=len(recordings),
        num_skipped=len(listing.skipped),
        num_shards=len(plan.column("shard_id").unique()),
        lengths=lengths_of(guessed_s, num_by_header, sample),
        sample=sample,
        sampled=sampled,
    )


def read_beginnings(found: Survey, request: JobRequest, most_s: float) -> pa.Table:
    """Recordings of the sample as one shard, a row of `SHARD_AUDIO`: of each the same share, its beginning.

    Side by side, as in a job: recordings differ by a factor of three in what a second of them takes.
    """
    share = most_s / max(most_s, math.fsum(seconds for _, seconds in found.sampled))
    rows, total_s = [], 0.0
    for one, seconds in found.sampled:
        if total_s >= most_s:
            break
        part_s = max(LEAST_S, share * seconds)
        is_whole = seconds <= part_s
        rows.append(_row(one, None) if is_whole else _row(_beginning(one, part_s / seconds), part_s))
        total_s += min(seconds, part_s)
    with ShardReader(_read_options(request)) as reader:
        return reader.read(0, 1, rows)


def _beginning(one: Recording, share: float) -> Recording:
    """With as much of its reference, which is a good part of the bytes of its row."""
    text = one.reference
    return one if text is None else replace(one, reference=text[: round(share * len(text))])


def estimate_job(found: Survey, rate: Rate | None) -> Estimate:
    """What the job is expected to take at a rate."""
    sample, lengths = found.sample, found.lengths
    share = sample.speech_share
    speech_hours = None if share is None else share * lengths.hours
    device_hours = None if rate is None else rate.device_hours(lengths.hours, speech_hours)
    return Estimate(
        num_recordings=found.num_recordings,
        num_skipped=found.num_skipped,
        num_shards=found.num_shards,
        lengths=lengths,
        sample=sample,
        rate=rate,
        speech_hours=speech_hours,
        device_hours=device_hours,
        cost_usd=None if rate is None or device_hours is None else rate.cost_usd(device_hours),
        wall_hours=None
        if device_hours is None
        else wall_hours(device_hours, found.num_shards, lengths.hours),
        disk_bytes=None if rate is None else rate.disk_bytes(speech_hours, found.num_shards),
    )


def guess_seconds(recordings: Sequence[Recording], decoder: AudioDecoder) -> tuple[list[float], int]:
    """Seconds of each recording before it is decoded, and how many of them were stated or told by a header.

    A stated duration is taken; else the header of a local file, of `MAX_HEADERS` of them; else the bytes,
    corrected by what headers said of their kind.
    """
    headers = dict(_read_headers(recordings, decoder))
    ratios = _ratios_by_kind(recordings, headers)
    seconds = [
        headers.get(number, _by_bytes(one) * ratios.get(_kind(one), 1.0))
        for number, one in enumerate(recordings)
    ]
    num_stated = sum(one.duration_s is not None for one in recordings)
    return seconds, len(headers) + num_stated


def _read_headers(recordings: Sequence[Recording], decoder: AudioDecoder) -> Iterator[tuple[int, float]]:
    local = [
        number for number, one in enumerate(recordings) if not is_url(one.uri) and one.duration_s is None
    ]
    for number in sorted(local, key=lambda number: _lot(recordings[number]))[:MAX_HEADERS]:
        try:
            row = _row(recordings[number])
            with open_row(row, max_bytes=decoder.limits.max_bytes) as source:
                found = decoder.decode(source, max_s=0.1)
        except RecordingError:
            continue  # the sample tells how many fail
        if found.ended:
            yield number, found.duration_s
        elif found.declared_s is not None:
            yield number, found.declared_s


def _ratios_by_kind(recordings: Sequence[Recording], headers: Mapping[int, float]) -> dict[str, float]:
    told: defaultdict[str, float] = defaultdict(float)
    guessed: defaultdict[str, float] = defaultdict(float)
    for number, seconds in headers.items():
        told[_kind(recordings[number])] += seconds
        guessed[_kind(recordings[number])] += _by_bytes(recordings[number])
    return {kind: told[kind] / guessed[kind] for kind in told if guessed[kind]}


def _read_options(request: JobRequest) -> ReadOptions:
    return ReadOptions(
        **{name: request.options.get(name, getattr(JobOptions, name)) for name in ReadOptions.names()}
    )


def _by_bytes(one: Recording) -> float:
    return estimate_s(one.uri, one.member, one.bytes, one.duration_s)


def _kind(one: Recording) -> str:
    return extension(one.member or one.uri)


def _lot(one: Recording) -> bytes:
    """An order that has nothing to do with names, the same every time."""
    return hashlib.sha256(one.recording_id.encode()).digest()


def _row(one: Recording, duration_s: float | None = None) -> dict[str, Any]:
    """The recording, or its first seconds, as a row of the plan."""
    known = {name: getattr(one, name, None) for name in PLAN.names}
    return {**known, "part": 0, "offset_s": 0.0, "duration_s": duration_s, "shard_id": 0}


def draw_sample(
    recordings: Sequence[Recording], guessed_s: Sequence[float], most_s: float
) -> list[tuple[Recording, float]]:
    """Recordings by lot, with their guesses, until `most_s` seconds of audio are reached."""
    drawn: list[tuple[Recording, float]] = []
    total_s = 0.0
    for one, seconds in sorted(zip(recordings, guessed_s, strict=True), key=lambda pair: _lot(pair[0])):
        if total_s >= most_s and len(drawn) >= MIN_SAMPLED:
            break
        drawn.append((one, seconds))
        total_s += min(seconds, most_s / MIN_SAMPLED)
    return drawn


def decode_sample(
    drawn: Sequence[tuple[Recording, float]], options: ReadOptions, most_s: float
) -> tuple[Sample, list[tuple[Recording, float]]]:
    """Decode what was drawn, of each recording an eighth of `most_s` at most; also those that succeeded."""
    each_s = max(float(MIN_PART_S), most_s / MIN_SAMPLED)
    sampled, failures = [], defaultdict[str, int](int)
    decoded_s = guessed_s = speech_s = 0.0
    with ShardReader(options) as reader:
        for one, seconds in drawn:
            row = _row(one, each_s if seconds > 2 * each_s else None)
            table = reader.read(0, 1, [row])
            recordings = table.column("recordings")[0].as_py()
            errors = {found["error_type"] for found in recordings if found["error_type"] is not None}
            if errors:
                failures[errors.pop()] += 1
                continue
            decoded_s += max(found["duration_s"] for found in recordings)
            guessed_s += each_s if row["duration_s"] else seconds
            speech_s += sum(found["speech_s"] for found in recordings)
            sampled.append((one, seconds))
    sample = Sample(
        num_recordings=len(drawn),
        decoded_hours=decoded_s / 3600,
        guessed_hours=guessed_s / 3600,
        speech_hours=speech_s / 3600,
        failures=dict(failures),
    )
    return sample, sampled


def lengths_of(guessed_s: Sequence[float], num_by_header: int, sample: Sample) -> Lengths:
    """The hours of all recordings, corrected by what the sample really held and by what failed in it."""
    guessed_hours = math.fsum(guessed_s) / 3600
    ratio = sample.decoded_hours / sample.guessed_hours if sample.guessed_hours else None
    return Lengths(
        guessed_hours=guessed_hours,
        hours=guessed_hours * (ratio or 1.0) * (1 - sample.failed_share),
        guess_error=None if ratio is None else 1 / ratio - 1 if ratio else None,
        num_by_header=num_by_header,
        num_by_bytes=len(guessed_s) - num_by_header,
    )
