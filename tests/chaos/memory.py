"""What a driver and a worker hold as the number of files grows: memory, open files, threads.

    python -m tests.chaos.memory driver FOLDER --files N
    python -m tests.chaos.memory worker FOLDER --files N

A driver's stages run in processes of their own, without Ray; a worker reads, transcribes (with a fake engine)
and commits shard after shard. The last line is JSON: of a driver its peak in bytes, of a worker what it and
its decoder held after every tenth of the files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from pipeline import planning
from pipeline.config import JobRequest, RunOptions
from pipeline.dataflow import cluster, graph, stages, workers
from pipeline.driver import job
from pipeline.output import commit, files, state
from pipeline.output.store import open_store
from pipeline.reading.shard_reader import ReadOptions
from pipeline.sources.listing import list_recordings
from tests.chaos.file_faults import in_a_process
from tests.fakes import FakeEngine, round_context

RATE = 16_000
SECONDS = 0.5
SHARD_HOURS = 0.02
READING = ReadOptions(voice_activity=False, channels="mix", max_hours=1.0, shard_hours=SHARD_HOURS)
KINDS = ("wav", "flac", "ogg", "mp3", "aiff")


def forgetful_engine() -> FakeEngine:
    """A fake engine that keeps nothing of what it was asked."""
    return FakeEngine(calls=deque(maxlen=0))


def make_files(folder: Path, number: int) -> Path:
    """So many names of a few short recordings, one of them broken."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(-5000, 5000, round(SECONDS * RATE)).astype(np.int16)
    for kind in KINDS:
        soundfile.write(folder / f"0.{kind}", noise, RATE)
    (folder / "0.opus").write_bytes(b"not audio" * 100)
    for i in range(1, number // (len(KINDS) + 1)):
        for path in sorted(folder.glob("0.*")):
            os.link(path, folder / f"{i}{path.suffix}")
    return folder


def status_bytes(pid: int | str, field: str) -> int:
    """A line of /proc/PID/status that is in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def driver_peak(scratch: Path, number: int) -> int:
    """The peak of a driver that carries a job of so many files out."""

    def run_round(units: Iterable[pa.Table], this_round: stages.RoundContext) -> Iterator[pa.Table]:
        for unit in units:

            def work(unit: pa.Table = unit) -> int:
                engine = stages.TranscribeShard(replace(this_round, load=forgetful_engine))
                this_round.commit(engine(stages.read_shard(unit, this_round)), this_round)
                stages._reader(this_round.reading).__exit__(None, None, None)
                return 0

            assert in_a_process(work) == 0
            yield commit_marker(this_round, unit.column("shard_id")[0].as_py())

    graph.run_round = run_round
    cluster.connected, cluster.gpus_held = nullcontext, float
    cluster.this_node = cluster.this_actor = str
    cluster.refuse_private_paths = lambda _paths: None
    workers.choose_workers = lambda _run, _num: workers.Workers(
        min_actors=1, max_actors=1, gpus_per_actor=0, actor_cpus=0.5, threads_per_actor=1
    )
    options = {"language": "en", "sparsify_layer": 1, "task": "transcribe", "shard_hours": SHARD_HOURS}
    folder = make_files(scratch / "in", number)
    request = JobRequest(
        inputs=(str(folder),),
        output=str(scratch / "out"),
        model="demo",
        options=options,
        duplicates="transcribe",
    )
    job.run_job(request, RunOptions(local=False))
    return status_bytes("self", "VmHWM")


def commit_marker(this_round: stages.RoundContext, shard_id: int) -> pa.Table:
    """The marker that another process has written."""
    return commit.read_marker(this_round.store, shard_id, this_round.stamp)


def worker_held(scratch: Path, number: int) -> list[dict[str, int]]:
    """What a worker holds after every tenth of so many files."""
    folder = make_files(scratch / "in", number)
    plan = planning.make_plan(list_recordings([str(folder)]).recordings, shard_hours=SHARD_HOURS)
    store = open_store(str(scratch / "out"))
    store.publish(files.plan_name(0), files.parquet_bytes(plan))
    this_round = round_context(store, reading=READING, load=forgetful_engine)
    engine = stages.TranscribeShard(this_round)
    units = state.OutputState(store, this_round.stamp, shard_hours=SHARD_HOURS).units()
    held = []
    for i, unit in enumerate(units, 1):
        audio = stages.read_shard(unit.table(), this_round)
        stages.commit_result(engine(audio), this_round)
        if i * 10 // len(units) > (i - 1) * 10 // len(units):
            held.append(held_now())
    return held


def held_now() -> dict[str, int]:
    """Memory of this process and of its decoder, its open files and its threads."""
    decoder = stages._reader(READING)._decoder._child._process.pid
    return {
        "bytes": status_bytes("self", "VmRSS"),
        "decoder_bytes": status_bytes(decoder, "VmRSS"),
        "open_files": len(os.listdir("/proc/self/fd")),
        "decoder_open_files": len(os.listdir(f"/proc/{decoder}/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("process", choices=("driver", "worker"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, required=True)
    given = parser.parse_args()
    measure = {"driver": driver_peak, "worker": worker_held}[given.process]
    try:
        print(json.dumps(measure(given.folder.resolve(), given.files)))
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
