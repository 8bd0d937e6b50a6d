"""The data plane without a model: is a fast device kept busy, what does the host pay, how soon does it start.

Whole jobs run over made archives on a Ray of their own, with an engine that only takes the time that a
device would.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.benchmark.plane.alone import run_alone
from pipeline.benchmark.plane.loads import bundled_speech, loads, write_load, write_manifest
from pipeline.benchmark.plane.paced import PacedEngine, busy_share, busy_stretches
from pipeline.benchmark.plane.process_tree import TreeWatch
from pipeline.config import JobOptions, JobRequest, RunOptions
from pipeline.dataflow import cluster, workers
from pipeline.dataflow.machine import allowed_cpus
from pipeline.demo import SPEECH
from pipeline.driver.job import run_job

SHARD_HOURS = 1.0  # as jobs.transcribe does where nobody says otherwise
# A GPU at RTFx 4000 on a node of ten cores that read: what one reading core has to feed.
RTFX_PER_READER = 400.0
OPTIONS = {
    "sparsity": 0.0,
    "language": "en",
    "task": "transcribe",
    "sparsify_layer": 1,
    "shard_hours": SHARD_HOURS,
}
DECODER = "pipeline.reading.decoder_child"
WORKERS = (DECODER, "ray::Map", "ray::IDLE")  # Ray's own actors have other names


@dataclass(frozen=True, kw_only=True)
class Case:
    """One archive through the plane once, or the medians of several times.

    busy_share: of the time between the first and the last shard, that the device worked. CPU seconds are per
    hour of audio: cpu_s of everything, without what a job of no length costs; workers_cpu_s of the processes
    that read, decode, transcribe and commit; alone_cpu_s of decoding, resampling and voice activity in one
    process. cost and workers_cost are the first two over it. ray_cpu_share: CPU seconds a second of the
    driver and Ray's own processes, whatever the audio. decoders: processes that decoded; readers: workers
    that started them.
    """

    load: str
    num_recordings: int
    hours: float
    wall_s: float
    busy_share: float
    cpu_s: float
    workers_cpu_s: float
    alone_cpu_s: float
    cost: float
    workers_cost: float
    ray_cpu_share: float
    decoders: int
    readers: int


def run_plane(hours: float, *, num_rounds: int, rtfx: float | None, names: Collection[str]) -> dict[str, Any]:
    """Measures start-up and the archives of these names, `hours` hours each, in so many rounds.

    rtfx: how fast the device is; None: 400 for each core that reads. In a round each archive is read by the
    parts alone and then by a job, so that both have the machine at its mood of the moment.
    """
    readers = max(1, max(cluster.MIN_CPUS, allowed_cpus().num) - 1)
    speed = RTFX_PER_READER * readers if rtfx is None else rtfx
    start_up_s = measure_start_up()
    print(f"start-up to the first window {start_up_s:.1f} s", file=sys.stderr, flush=True)
    speech, rounds = bundled_speech(), list[list[Case]]()
    wanted = {name: lengths for name, lengths in loads(hours).items() if name in names}
    with tempfile.TemporaryDirectory() as folder, cluster.connected():
        root = Path(folder)
        write_load(root / "warm", [300] * 8, speech)  # workers and decoders are up after it
        _run(root / "warm", "job", 10 * speed)
        write_load(root / "empty", [1] * 4, speech)
        with TreeWatch() as empty:
            _run(root / "empty", "job", speed)
        for name, lengths in wanted.items():
            write_load(root / name, lengths, speech)
        for number in range(num_rounds):
            rounds.append([])
            for name, lengths in wanted.items():
                rounds[-1].append(_measure(name, root / name, lengths, speed, empty, f"job-{number}"))
                _print(rounds[-1][-1])
    medians = [_median(cases) for cases in zip(*rounds, strict=True)]
    return {
        "rtfx_of_the_device": speed,
        "shard_hours": SHARD_HOURS,
        "empty_job_cpu_s": empty.cpu_s,
        "start_up_s": round(start_up_s, 1),
        "loads": [asdict(one) for one in medians],
        "rounds": [[asdict(one) for one in cases] for cases in rounds],
    }


def measure_start_up() -> float:
    """Seconds from the start of `jobs.transcribe` on the bundled model until its first window is begun."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        command = [sys.executable, "-m", "jobs.transcribe", str(SPEECH / "kitchen.wav"), "--model", "demo"]
        command.append("--no-local")  # it is the start of Ray that is measured
        started = time.time()
        subprocess.run([*command, "--output", str(output)], check=True, capture_output=True)
        marker = next((output / "metrics").glob("*.parquet"))
        begun = pq.read_table(marker, columns=["started_at"]).column(0)[0].as_py()
    return begun.timestamp() - started


def _median(cases: Sequence[Case]) -> Case:
    """The medians of an archive's rounds, each figure for itself."""
    middle = {
        field.name: statistics.median(getattr(case, field.name) for case in cases)
        for field in fields(Case)
        if field.name != "load"
    }
    return Case(load=cases[0].load, **middle)


def _measure(name: str, folder: Path, lengths: list[int], rtfx: float, empty: TreeWatch, job: str) -> Case:
    source = write_manifest(folder, lengths) if name == "manifest" else folder
    alone_cpu_s = run_alone(folder)
    started = time.perf_counter()
    with TreeWatch() as watch:
        share = _run(source, job, rtfx)
    wall_s, hours = time.perf_counter() - started, sum(lengths) / 3600
    workers_s = watch.cpu_s_of(*WORKERS)
    cpu_s = (watch.cpu_s - empty.cpu_s) / hours
    workers_cpu_s = (workers_s - empty.cpu_s_of(*WORKERS)) / hours
    return Case(
        load=name,
        num_recordings=len(lengths),
        hours=hours,
        wall_s=wall_s,
        busy_share=share,
        cpu_s=cpu_s,
        workers_cpu_s=workers_cpu_s,
        alone_cpu_s=alone_cpu_s,
        cost=cpu_s / alone_cpu_s,
        workers_cost=workers_cpu_s / alone_cpu_s,
        ray_cpu_share=(watch.cpu_s - workers_s) / wall_s,
        decoders=watch.count(DECODER),
        readers=watch.num_parents(DECODER),
    )


def _run(source: Path, name: str, rtfx: float) -> float:
    """Runs a job of some name over a folder or manifest; returns the device's busy share."""
    log, output = (source.with_name(f"{source.name}-{name}-{end}") for end in ("busy", "out"))
    log.mkdir()
    request = JobRequest(
        inputs=(str(source),),
        output=str(output),
        model="demo",
        options=OPTIONS,
        duplicates="transcribe",  # recordings of equal length are one file under many names
    )
    totals = run_job(request, RunOptions(local=False), load=partial(load_paced, rtfx=rtfx, folder=log))
    assert not totals["num_failed"], totals
    return busy_share(busy_stretches(log))


def load_paced(
    _options: JobOptions, _run: RunOptions, _workers: workers.Workers, *, rtfx: float, folder: Path
) -> PacedEngine:
    """What `run_job` asks for."""
    return PacedEngine(rtfx=rtfx, folder=folder)


def _print(case: Case) -> None:
    print(
        f"{case.load:9} {case.num_recordings:5} files {case.hours:.1f} h, busy {case.busy_share:.1%}, "
        f"CPU-s an hour {case.cpu_s:.2f}, of workers {case.workers_cpu_s:.2f}, alone {case.alone_cpu_s:.2f}; "
        f"{case.decoders} decoders of {case.readers} readers",
        file=sys.stderr,
        flush=True,
    )
