"""How much device time a second of speech takes: told, read from an earlier output, or timed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.adaptive.shadow import ShardLevel
from pipeline.config import JobOptions, JobRequest, RunOptions
from pipeline.dataflow.transcription import transcribe_shard
from pipeline.dataflow.workers import local_workers
from pipeline.driver.model import find_model, load_engine, resolve_options
from pipeline.driver.policy import shipped_within
from pipeline.driver.rounds import MAX_LOCAL_HOURS
from pipeline.errors import UserError
from pipeline.longform.transcribe import Transcriber
from pipeline.metrics.cost import SECONDS_PER_HOUR, cost_usd
from pipeline.output.files import existing_store, metrics_name, parquet_bytes, transcripts_name
from pipeline.results.report_source import read_output
from pipeline.schema import TRANSCRIPTS
from pipeline.wording import counted

NUM_DEVICES = (1, 4, 16)
START_S = 20.0  # from the command to the first window, with Ray (docs/performance.md)
LOCAL_START_S = 5.0  # without Ray
FIRST_S = 120.0  # of audio that are timed first
PATIENCE_S = 60.0  # that timing the rest may take
BUSY = 0.95  # share of the time between first and last shard that a device works (docs/performance.md)
METRICS_BYTES = 16_000  # of a shard's metrics, one row, whatever it holds
MAX_SHARDS_READ = 20  # of an earlier output, to see how many bytes its files have


class NoRate(UserError):
    """Nothing can be said of the device time; the message says what to give."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Device seconds by speech, or by audio where that is all that is known.

    basis: where the figures come from, for people. usd_per_hour: of a device; None on a CPU.
    bytes_per_speech_s: of the output, None where nothing is known of it. bytes_per_shard: on top of that.
    """

    basis: str
    device: str
    device_s_per_speech_s: float | None = None
    rtfx: float | None = None
    usd_per_hour: float | None = None
    bytes_per_speech_s: float | None = None
    bytes_per_shard: float = 0.0

    def device_hours(self, audio_hours: float, speech_hours: float | None) -> float | None:
        """Hours of one device; None where the rate is by speech and it is not known how much there is."""
        if self.rtfx is not None:
            return audio_hours / self.rtfx
        if speech_hours is None or self.device_s_per_speech_s is None:
            return None
        return speech_hours * self.device_s_per_speech_s

    def cost_usd(self, device_hours: float) -> float | None:
        """The price of the device hours; None where they have none."""
        return None if self.usd_per_hour is None else device_hours * self.usd_per_hour

    def disk_bytes(self, speech_hours: float | None, num_shards: int) -> int | None:
        """Bytes of the output's Parquet files."""
        if self.bytes_per_speech_s is None or speech_hours is None:
            return None
        content = self.bytes_per_speech_s * speech_hours * SECONDS_PER_HOUR
        return round(content + num_shards * self.bytes_per_shard)


def wall_hours(device_hours: float, num_shards: int, audio_hours: float) -> dict[int, float]:
    """Hours from the command to the end, by number of devices: none has less than a shard to do."""
    found = {}
    for number in NUM_DEVICES:
        used = min(number, max(1, num_shards))
        start_s = LOCAL_START_S if used == 1 and audio_hours <= MAX_LOCAL_HOURS else START_S
        found[number] = start_s / SECONDS_PER_HOUR + device_hours / (used * BUSY)
    return found


def told_rate(rtfx: float, usd_per_hour: float) -> Rate:
    """The rate that `--rtfx` gives."""
    return Rate(basis=f"--rtfx {rtfx:g}", device="as told", rtfx=rtfx, usd_per_hour=usd_per_hour)


def rate_of_output(output: str, usd_per_hour: float | None) -> Rate:
    """What the shards of an earlier output took. Raises `OutputError`, and `NoRate` where none is done."""
    facts = read_output(output, usd_per_hour)
    done = [marker for marker in facts.markers if marker["speech_s"] and marker["device_s"]]
    if not done:
        raise NoRate(f"--from {output}: no shard with speech is done there")
    device_s, speech_s = (sum(marker[name] for marker in done) for name in ("device_s", "speech_s"))
    costs = [marker["cost_usd"] for marker in done if marker["cost_usd"] is not None]
    is_priced = len(costs) == len(done)
    return Rate(
        basis=f"{counted(len(done), 'shard')} of {output}",
        device=done[0]["device"],
        device_s_per_speech_s=device_s / speech_s,
        usd_per_hour=sum(costs) / device_s * SECONDS_PER_HOUR if is_priced else None,
        bytes_per_speech_s=_bytes_of(output, done),
    )


def _bytes_of(output: str, markers: Iterable[dict]) -> float:
    store, read, speech_s = existing_store(output), 0, 0.0
    for marker in islice(markers, MAX_SHARDS_READ):
        for name in (transcripts_name(marker["shard_id"]), metrics_name(marker["shard_id"])):
            read += len(store.read(name) or b"")
        speech_s += marker["speech_s"]
    return read / speech_s


def rate_here(
    audio: Callable[[float], pa.Table], request: JobRequest, run: RunOptions, *, most_s: float
) -> Rate:
    """What a shard takes with the job's model on this machine, all of whose cores it has.

    audio: gives a shard of so many seconds, as `timed_rate` takes it. A short one comes first, which warms
    up and tells how many of the `most_s` seconds can be timed in a minute.

    Raises `OptionError`, `ModelNotFound` and `NoRate`.
    """
    options = resolve_options(request, run)
    engine = load_engine(options, run, local_workers(run))
    level = first_level(request, options)
    try:
        first = timed_rate(audio(min(most_s, FIRST_S)), engine, options, run, sparsity=level)
        affordable_s = PATIENCE_S / (first.device_s_per_speech_s or math.inf)
        if min(most_s, affordable_s) <= FIRST_S:
            return first
    except NoRate:
        affordable_s = most_s  # there may be speech further on
    return timed_rate(audio(min(most_s, affordable_s)), engine, options, run, sparsity=level)


def first_level(request: JobRequest, options: JobOptions) -> ShardLevel | None:
    """How sparse the job begins: dense where it would calibrate first; None at a fixed sparsity."""
    if options.wer_budget is None:
        return None
    snapshot = find_model(options.model, options.model_revision)
    found = request.policy or shipped_within(snapshot, options.wer_budget)
    rung = 0 if found is None else found.start
    level = None if found is None or not rung else found.levels[rung - 1]
    return ShardLevel(rung=rung, level=level, share=0.0, salt="")


def timed_rate(
    audio: pa.Table,
    engine: Transcriber,
    options: JobOptions,
    run: RunOptions,
    *,
    sparsity: ShardLevel | None = None,
) -> Rate:
    """What a shard takes on this machine.

    audio, sparsity: as `transcribe_shard` takes them. Raises `NoRate` where it holds no speech.
    """
    result = transcribe_shard(audio, engine, language=options.language, sparsity=sparsity)
    measures, rows = (result.column(name)[0].as_py() for name in ("measures", "transcripts"))
    speech_s = sum(row["speech_s"] or 0.0 for row in rows)
    if not speech_s:
        raise NoRate("the sample holds no speech, so nothing could be timed: give --rtfx or --from")
    content, beside = _bytes_of_rows(rows)
    return Rate(
        basis=f"{counted(measures['num_windows'], 'window')} timed here",
        device=engine.device,
        device_s_per_speech_s=measures["device_s"] / speech_s,
        usd_per_hour=cost_usd(SECONDS_PER_HOUR, run.gpu_hour_usd, engine.device),
        bytes_per_speech_s=content / speech_s,
        bytes_per_shard=beside + METRICS_BYTES,
    )


def _bytes_of_rows(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Bytes of rows in a file, and of what the file holds whatever its rows: two halves have that twice."""
    middle = len(rows) // 2
    first, second, both = (
        len(parquet_bytes(pa.Table.from_pylist(part, schema=TRANSCRIPTS)))
        for part in (rows[:middle], rows[middle:], rows)
    )
    beside = first + second - both
    return both - beside, beside
