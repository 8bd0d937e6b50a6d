"""Faults of every kind for as long as is asked for, and one table of what came of them.

    python -m tests.chaos.run [--minutes 30] [--seed S] [--folder SCRATCH]

Every operation on a file fails once, an S3 server fails at random, and on a Ray cluster of this machine
drivers, actors, workers and nodes are killed. Every output is compared, by the ids of its rows and the hashes
of their content, with one that nobody disturbed. Ends with 1 if a row was lost or doubled, a file torn or
written again, or a fault not survived. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from dataclasses import asdict, fields
from pathlib import Path

from tests.chaos.ray_faults import SCENARIOS, Bench, Stuck
from tests.chaos.small_cluster import SmallCluster
from tests.chaos.undisturbed import Tally

ROOT = Path(__file__).parents[2]
NUM_RECORDINGS = 48
# Faults in one turn of a kind: so many that each kind has had its turn after some minutes.
PER_TURN = {"driver killed": 4, "actor killed": 8, "worker killed": 8, "node killed": 6}
SHARE_ALONE = 0.2  # of the time goes to what runs without Ray
FILES, STORE = "file operation (EIO, ENOSPC, kill)", "S3 (503, slow, short, lost, reset)"
COLUMNS = ("faults", "survived", "lost", "doubled", "torn", "touched")
HEADINGS = ("injected", "survived", "rows lost", "doubled", "torn", "rewritten")


def without_ray(script: str, scratch: Path, seconds: float, seed: int, *more: str) -> Tally:
    """The tally of a script of this folder that prints it as its last line."""
    folder = scratch / script
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        f"tests.chaos.{script}",
        str(folder),
        "--seed",
        str(seed),
        "--seconds",
        str(seconds),
    ]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Stuck(f"{script} ended with {done.returncode}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Tally(**{field.name: found[field.name] for field in fields(Tally)})


def on_ray(scratch: Path, until: float, seed: int, share: float, tallies: dict[str, Tally]) -> None:
    """Take turns of every kind until the time is over, in each `share` of the faults of a full turn."""
    with SmallCluster() as cluster:
        bench = Bench(scratch, cluster, num_recordings=NUM_RECORDINGS, seed=seed)
        print(f"undisturbed: {bench.run_s:.0f} s a job", flush=True)
        for kind in itertools.cycle(SCENARIOS):
            if time.monotonic() > until:
                return
            number = max(1, round(share * PER_TURN.get(kind, 1)))
            try:
                found = SCENARIOS[kind](bench, number)
            except (Stuck, subprocess.SubprocessError) as error:
                found = Tally(faults=1, notes=[f"{kind}: {error}"])
            tallies[kind] += found
            print(kind, {name: getattr(found, name) for name in COLUMNS}, *found.notes, flush=True)


def table(tallies: dict[str, Tally]) -> str:
    """The tallies as a table for people, their sum last."""
    rows = [*tallies.items(), ("all", sum(tallies.values(), Tally()))]
    lines = [f"{'fault':34}" + "".join(f"{name:>11}" for name in HEADINGS)]
    lines += [f"{kind:34}" + "".join(f"{getattr(tally, c):>11}" for c in COLUMNS) for kind, tally in rows]
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="Default: from the clock.")
    parser.add_argument("--folder", type=Path, default=None, help="Where outputs and logs are kept.")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(1))  # leaves through every `with`
    seed = given.seed if given.seed is not None else int(time.time())
    scratch = Path(tempfile.mkdtemp(prefix="chaos-", dir=given.folder))
    print(f"seed {seed}, {given.minutes:g} minutes, logs in {scratch}", flush=True)
    started, seconds = time.monotonic(), given.minutes * 60
    tallies: dict[str, Tally] = defaultdict(Tally)
    alone_s = seconds * SHARE_ALONE
    try:
        on_ray(scratch, started + seconds - alone_s, seed, min(1.0, given.minutes / 30), tallies)
    except Exception as error:  # the rest is tried all the same
        traceback.print_exc()
        tallies["cluster"] += Tally(faults=1, notes=[f"the cluster: {type(error).__name__}: {error}"])
    print(table(tallies), flush=True)
    tallies[FILES] = without_ray("file_faults", scratch, alone_s * 0.6, seed)
    tallies[STORE] = without_ray("store_faults", scratch, alone_s * 0.4, seed, "--runs", "1000")
    print(table(tallies))
    total = sum(tallies.values(), Tally())
    print(*total.notes, sep="\n")
    print(json.dumps({"seed": seed, "minutes": (time.monotonic() - started) / 60, **asdict(total)}))
    return 0 if total.clean else 1


if __name__ == "__main__":
    sys.exit(main())
