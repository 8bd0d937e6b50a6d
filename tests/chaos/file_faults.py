"""Every file operation of a small job fails once, and the job ends as if it had not.

A job runs here without Ray: its stages are called one after the other, so that a run takes a fraction of a
second and every operation can be tried. Each run is a forked process. An operation fails with EIO or ENOSPC,
or its process is killed just before it; the run after that is undisturbed and must make the output whole.

    python -m tests.chaos.file_faults FOLDER [--every N] [--seed S] [--seconds T]

prints one JSON line: faults, survived, lost, doubled, torn, touched and the named points that were hit.
"""

from __future__ import annotations

import argparse
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline import errors
from pipeline.config import JobRequest, RunOptions
from pipeline.dataflow import cluster, graph, stages, workers
from pipeline.driver import job
from tests.chaos.undisturbed import (
    SHARD_HOURS,
    Tally,
    committed_files,
    compare,
    make_recordings,
    rewritten,
    rows_of,
)
from tests.fakes import FakeEngine, audio_table, read_recording, result

NUM_RECORDINGS = 5
KINDS = ("EIO", "ENOSPC", "kill")
EVENTS = {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "fsync"}
PLACES = {
    **{"plan/": "plan", "metrics/": "marker", "transcripts/": "transcripts", "_SUCCESS": "_SUCCESS"},
    **{"report": "report", "runs/": "run record", "_job.json": "_job.json", "_tmp/lock": "lock"},
    **{"_tmp/attempts": "attempt", "_tmp/pieces": "piece", "_tmp/excused": "attempt"},
    **{"_tmp": "temporary file"},
}
DONE, STATED = 0, 1  # a job that ended whole, and one that said in one line why not


class FaultyDisk:
    """Counts the operations on files below a folder, and lets the n-th of them fail. Installed once."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self._folder = "\0"
        self._fails_at: int | None = None
        self._kind = ""

    def watch(self, folder: Path, fails_at: int | None, kind: str) -> None:
        """Start counting; `fails_at` None only counts."""
        self._folder, self._fails_at, self._kind = str(folder), fails_at, kind
        sys.addaudithook(self._on_event)

        def fsync(
            descriptor: int,
        ) -> None:  # a killed process loses nothing that was written: no need to sync
            self._on_event("fsync", (os.readlink(f"/proc/self/fd/{descriptor}"),))

        os.fsync = fsync

    def reach(self, point: str) -> None:
        """A named point that is no file operation."""
        self._count(point)

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in EVENTS or not arguments:
            return
        path = str(arguments[1 if event in {"os.link", "os.rename"} else 0])
        if path.startswith(self._folder):
            self._count(f"{event.removeprefix('os.')} {path.removeprefix(self._folder).lstrip('/')}")

    def _count(self, label: str) -> None:
        self.trace.append(label)
        if len(self.trace) - 1 != self._fails_at:
            return
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(getattr(errno, self._kind), os.strerror(getattr(errno, self._kind)))


class InstantReader:
    """Stands for decoding: opens the file that a row names and invents its audio."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk

    def read(self, shard_id: int, attempt: int, rows: list[dict]) -> pa.Table:
        """A row of `SHARD_AUDIO`. 003.wav has no room beside its neighbour, so that its shard overflows."""
        for row in rows:
            with open(row["uri"], "rb"):
                pass
        self._disk.reach("decode")
        taken = [row for row in rows if len(rows) == 1 or row["recording_id"] != "003.wav"]
        recordings = [
            read_recording(row["recording_id"], uri=row["uri"], reference=row["reference"]) for row in taken
        ]
        windows = [(i, 0.0, 1.0, [(0.0, 1.0)]) for i in range(len(taken))]
        overflow = [row for row in rows if row not in taken]
        table = audio_table(recordings, windows, overflow=overflow)
        return table.set_column(0, table.schema.field(0), pa.array([shard_id], pa.int32())).set_column(
            1, table.schema.field(1), pa.array([attempt], pa.int32())
        )


def run_without_ray(folder: Path, output: Path | str, disk: FaultyDisk) -> int:
    """Run the job in this process. Returns the status of its command."""

    def answer(_samples, language):
        disk.reach("infer")
        return result(language=language)

    def run_round(units: Iterable[pa.Table], this_round: stages.RoundContext) -> Iterator[pa.Table]:
        transcribe = stages.TranscribeShard(replace(this_round, load=lambda: FakeEngine(answer=answer)))
        for unit in units:
            try:
                audio = stages.read_shard(unit, this_round)
                marker = this_round.commit(transcribe(audio), this_round)
            except Exception:  # Ray drops the row of a stage that raises, and goes on
                continue
            if marker.num_rows:
                yield marker

    stages._reader = lambda _options: InstantReader(disk)
    graph.run_round = run_round
    cluster.connected, cluster.gpus_held = nullcontext, float
    cluster.this_node = cluster.this_actor = str
    cluster.refuse_private_paths = lambda _paths: None
    workers.choose_workers = lambda _run, _num: workers.Workers(
        min_actors=1, max_actors=1, gpus_per_actor=0, actor_cpus=0.5, threads_per_actor=1
    )
    errors.BACK_OFF_S = (0.0, 0.0, 0.0)
    request = JobRequest(
        inputs=(str(folder),),
        output=str(output),
        model="demo",
        references=str(folder / "references.tsv"),
        options={"language": "en", "sparsify_layer": 1, "task": "transcribe", "shard_hours": SHARD_HOURS},
    )
    try:
        job.run_job(request, RunOptions(local=False))
    except (errors.UserError, errors.UnfinishedError):
        return STATED
    except Exception as error:
        print(repr(error))
        return 3
    return DONE


def in_a_process(call: Callable[[], int]) -> int:
    """Run a call in a forked process. Returns its status, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 4
        try:
            status = call()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    _, state = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(state)


def one_run(folder: Path, output: Path, fails_at: int | None, kind: str, trace_to: Path | None = None) -> int:
    """One run of the job in a process of its own, with a fault or without."""

    def call() -> int:
        disk = FaultyDisk()
        disk.watch(folder.parent, fails_at, kind)
        status = run_without_ray(folder, output, disk)
        if trace_to is not None:
            trace_to.write_text("\n".join(disk.trace))
        return status

    return in_a_process(call)


def try_fault(folder: Path, output: Path, number: int, kind: str, expected: Counter) -> Tally:
    """Let one operation fail, then run the same command until it is done."""
    status = one_run(folder, output, number, kind)
    before = committed_files(str(output))
    tries = 0
    while status != DONE and tries < 3:
        tries += 1
        status = one_run(folder, output, None, "")
    tally = compare(str(output), expected)
    tally.faults, tally.survived = 1, int(status == DONE)
    tally.touched = rewritten(before, str(output))
    if not tally.clean:
        tally.notes.append(f"{kind} at operation {number}: status {status}")
    return tally


def point_of(label: str) -> str:
    """The named point of the issue that an operation belongs to."""
    operation, _, path = label.partition(" ")
    if path.startswith("in"):
        return "list" if operation in {"scandir", "listdir"} else "read"
    inside = path.partition("/")[2]
    place = next((name for start, name in PLACES.items() if inside.startswith(start)), "folder")
    return f"{operation} {place}" if path else operation


def run_all(scratch: Path, *, every: int, seed: int, until: float = float("inf")) -> dict:
    """Every kind of fault at every operation, or at one of `every` chosen by the seed."""
    from pipeline.results import report, report_html  # noqa: F401  loaded once, before the forks

    folder = make_recordings(scratch / "w" / "in", NUM_RECORDINGS)
    reference, trace = scratch / "w" / "undisturbed", scratch / "trace"
    assert one_run(folder, reference, None, "", trace) == DONE
    expected, torn = rows_of(str(reference))
    assert len(expected) == NUM_RECORDINGS, len(expected)
    assert not torn
    labels = [label.replace("undisturbed/", "out/") for label in trace.read_text().splitlines()]
    cases = _cases([point_of(label) for label in labels], every, random.Random(seed))
    in_time = partial(_try_in_time, folder, expected, until)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        tallies = pool.starmap(in_time, cases, chunksize=1)
    tried = [(number, tally) for (number, _), tally in zip(cases, tallies, strict=True) if tally is not None]
    points = Counter(point_of(labels[number]) for number, _ in tried)
    total = sum((tally for _, tally in tried), Tally())
    return {**asdict(total), "operations": len(labels), "points": dict(sorted(points.items()))}


def _try_in_time(folder: Path, expected: Counter, until: float, number: int, kind: str) -> Tally | None:
    """One case in an output of its own; None where it is too late to begin it."""
    if time.monotonic() > until:
        return None
    output = folder.parent / f"out-{number}-{kind}"
    tally = try_fault(folder, output, number, kind, expected)
    shutil.rmtree(output, ignore_errors=True)
    return tally


def _cases(points: list[str], every: int, rng: random.Random) -> list[tuple[int, str]]:
    """Operations and the ways they fail: one of `every`, and each named point at least once."""
    cases = {(number, kind) for kind in KINDS for number in range(len(points)) if rng.randrange(every) == 0}
    for point in sorted(set(points)):
        numbers = [number for number, found in enumerate(points) if found == point]
        cases.add((rng.choice(numbers), rng.choice(KINDS)))
    return rng.sample(sorted(cases), len(cases))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Begin no run after so many.")
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    print(json.dumps(run_all(given.folder.resolve(), every=given.every, seed=given.seed, until=until)))


if __name__ == "__main__":
    main()
