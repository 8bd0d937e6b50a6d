"""Jobs on a Ray cluster whose drivers, workers, actors and nodes are killed while they work."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.output.files import parquet_table
from pipeline.output.store import store_at
from pipeline.schema import METRICS
from tests.chaos.small_cluster import SmallCluster, kill
from tests.chaos.undisturbed import (
    SHARD_HOURS,
    Tally,
    committed_files,
    compare,
    make_recordings,
    rewritten,
    rows_of,
)

DRIVER = ("-m", "tests.chaos.driver")
ACTOR, WORKERS = "TranscribeShard", ("MapBatches(read_shard)", "MapBatches(commit_result)", "ray::IDLE")
START_S = 240.0  # until the first shard is committed, on a machine that has much else to do
RUN_S = 900.0
STOP_S = 30.0
WINDOW_S = 0.15  # that the engine takes for a recording: a pace that leaves time for faults
HANDED_ON_S = 3.0  # in which what a dead node had transcribed is committed by another
SLOW_WINDOW_S = 4.0  # so that a job outlives the seconds in which a node is killed and another one starts


class Stuck(AssertionError):
    """A job did not get to where a fault was to hit it."""


class Bench:
    """A cluster, a small input, and the rows that an undisturbed job makes of it."""

    def __init__(self, scratch: Path, cluster: SmallCluster, *, num_recordings: int, seed: int) -> None:
        self.cluster, self.rng = cluster, random.Random(seed)
        self._scratch, self._number = scratch, 0
        self.folder = make_recordings(scratch / "in", num_recordings)
        self.environment = os.environ | {"RAY_ADDRESS": cluster.address}
        output = self.new_output()
        started = time.monotonic()
        assert self.run(output) == 0, self.log(output)
        self.run_s = time.monotonic() - started
        self.expected, torn = rows_of(output)
        assert len(self.expected) == num_recordings
        assert not torn

    def new_output(self) -> str:
        """The name of an output that no job has used."""
        self._number += 1
        return str(self._scratch / f"out-{self._number:03d}")

    def log(self, output: str) -> str:
        """What the drivers of an output said."""
        return Path(f"{output}.log").read_text()

    def start(self, output: str, window_s: float = WINDOW_S) -> subprocess.Popen[bytes]:
        """Start a driver whose engine takes `window_s` for a recording."""
        with open(f"{output}.log", "ab") as log:
            return subprocess.Popen(
                self.command(output),
                env=self.environment | {"CHAOS_WINDOW_S": str(window_s)},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def command(self, output: str) -> list[str]:
        """The command of a driver."""
        arguments = ["--output", output, "--model", "demo", "--language", "en", "--sparsity", "0"]
        arguments += ["--voice-activity", "off"]
        arguments += [
            "--sparsity",
            "0",
            "--shard-hours",
            str(SHARD_HOURS),
            "--actors",
            "2",
            "--gpus-per-actor",
            "0",
        ]
        return [sys.executable, *DRIVER, str(self.folder), *arguments]

    def run(self, output: str) -> int:
        """Run a driver to its end. Returns its status."""
        return self.start(output).wait(RUN_S)

    def wait_for_commits(self, output: str, more_than: int, process: subprocess.Popen[bytes]) -> bool:
        """Wait until so many shards are committed; False if the driver ended before. Raises `Stuck`."""
        deadline = time.monotonic() + START_S
        while num_commits(output) <= more_than:
            if process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                process.kill()
                raise Stuck(f"{output}: no shard was committed within {START_S:.0f} s")
            time.sleep(0.02)
        return True

    def judge(
        self, output: str, faults: int, *, resumes: int, before: dict[str, object] | None = None
    ) -> Tally:
        """Finish a disturbed job with at most so many further runs, and compare it."""
        survived = store_at(output).read("_SUCCESS") is not None
        for _ in range(resumes):
            survived = survived or self.run(output) == 0
        tally = compare(output, self.expected)
        tally.faults, tally.survived = faults, faults if survived else 0
        tally.touched = rewritten(before or {}, output)
        if not tally.clean:
            tally.notes.append(f"{output}: see {output}.log")
        return tally


def num_commits(output: str) -> int:
    """How many shards of a local output are committed."""
    return len(list(Path(output).glob("metrics/*.parquet")))


@contextmanager
def running(bench: Bench, output: str, window_s: float = WINDOW_S) -> Iterator[subprocess.Popen[bytes]]:
    """A driver that is surely gone afterwards."""
    process = bench.start(output, window_s)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def kill_drivers(bench: Bench, number: int) -> Tally:
    """SIGKILL to the driver at random times after it committed something more, run after run."""
    total = Tally()
    while number > 0:
        output, faults = bench.new_output(), 0
        before: dict[str, object] = {}
        while number > 0:
            with running(bench, output) as process:
                if not bench.wait_for_commits(output, num_commits(output), process):
                    break
                time.sleep(bench.rng.uniform(0.0, 1.0))
                if process.poll() is None:
                    process.kill()
                    process.wait()
                    faults, number = faults + 1, number - 1
                before |= {k: v for k, v in committed_files(output).items() if k not in before}
        total += bench.judge(output, faults, resumes=1, before=before)
    return total


def kill_workers(bench: Bench, number: int, *kinds: str) -> Tally:
    """SIGKILL to processes of the workers while a job runs; it must end well all the same."""
    total = Tally()
    while number > 0:
        output, faults = bench.new_output(), 0
        with running(bench, output) as process:
            bench.wait_for_commits(output, 0, process)
            before = committed_files(output)
            while number > 0 and process.poll() is None:
                victims = bench.cluster.workers(*kinds)
                if victims and kill(bench.rng.choice(victims)):
                    faults, number = faults + 1, number - 1
                time.sleep(bench.rng.uniform(0.3, 2.0))
            process.wait(RUN_S)
        if not faults:
            raise Stuck(f"{output}: there was nothing to kill")
        total += bench.judge(output, faults, resumes=0, before=before)
    return total


def kill_actors(bench: Bench, number: int) -> Tally:
    """SIGKILL to the actors that hold the model."""
    return kill_workers(bench, number, ACTOR)


def kill_readers_and_committers(bench: Bench, number: int) -> Tally:
    """SIGKILL to the processes of the other stages."""
    return kill_workers(bench, number, *WORKERS)


def kill_nodes(bench: Bench, number: int) -> Tally:
    """Nodes are killed with all that runs on them, the oldest first, each replaced by a late one.

    Those that were there at the start go one right after the other, before they can have done everything;
    so late ones must have done what is committed once they are gone.
    """
    output, late, faults, done_before = bench.new_output(), [], 0, 0
    num_at_start = len(bench.cluster.nodes)
    with running(bench, output, SLOW_WINDOW_S) as process:
        for count in range(number):
            waits = count == 0 or count >= num_at_start
            if waits and not bench.wait_for_commits(output, num_commits(output), process):
                break
            if process.poll() is not None:  # a node that dies after the job is no fault
                break
            bench.cluster.kill_node(0)
            faults += 1
            if faults == num_at_start:
                time.sleep(HANDED_ON_S)
                done_before = num_commits(output)
            if faults < min(number, num_at_start):  # a new one takes so long that the last could do the rest
                continue
            while len(bench.cluster.nodes) < num_at_start:
                late.append(bench.cluster.add_node())
                bench.cluster.nodes.append(late[-1])
        process.wait(RUN_S)
    tally = bench.judge(output, faults, resumes=0)
    was_left = faults >= num_at_start and num_commits(output) > done_before
    if was_left and not devices(output) & {f"cpu:{node.node_id}" for node in late}:
        tally.notes.append(f"{output}: no late node was used")
        tally.survived -= 1
    return tally


def devices(output: str) -> set[str]:
    """The devices that the shards of an output were transcribed on."""
    store = store_at(output)
    markers = (parquet_table(store.read(name) or b"", METRICS) for name in store.names("metrics"))
    return {marker.column("device")[0].as_py() for marker in markers}


def start_two_drivers(bench: Bench, number: int) -> Tally:
    """Two drivers start at once on one output: one does the work, the other says so and ends with 1."""
    total = Tally()
    for _ in range(number):
        output = bench.new_output()
        with running(bench, output) as one, running(bench, output) as other:
            statuses = sorted([one.wait(RUN_S), other.wait(RUN_S)])
        tally = bench.judge(output, 1, resumes=0)
        if statuses != [0, 1] or "works on it" not in bench.log(output):
            tally.survived = 0
            tally.notes.append(f"{output}: two drivers ended with {statuses}")
        total += tally
    return total


def terminate_drivers(bench: Bench, number: int) -> Tally:
    """SIGTERM: the driver ends with 1 within 30 s, and the next one goes on."""
    total = Tally()
    for _ in range(number):
        output = bench.new_output()
        with running(bench, output) as process:
            if not bench.wait_for_commits(output, 0, process):
                continue
            time.sleep(bench.rng.uniform(0.0, 1.0))
            before, started = committed_files(output), time.monotonic()
            process.send_signal(signal.SIGTERM)
            status = process.wait(120)
            took_s = time.monotonic() - started
        tally = bench.judge(output, 1, resumes=1, before=before)
        if status not in (0, 1) or took_s > STOP_S:
            tally.survived = 0
            tally.notes.append(f"{output}: SIGTERM ended it with {status} after {took_s:.0f} s")
        total += tally
    return total


Scenario = Callable[[Bench, int], Tally]

SCENARIOS: dict[str, Scenario] = {
    "driver killed": kill_drivers,
    "actor killed": kill_actors,
    "worker killed": kill_readers_and_committers,
    "node killed": kill_nodes,
    "two drivers": start_two_drivers,
    "SIGTERM": terminate_drivers,
}
