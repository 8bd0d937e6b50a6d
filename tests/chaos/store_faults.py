"""A small job whose output, and whose input, lie behind an S3 server that fails now and then.

    python -m tests.chaos.store_faults FOLDER [--runs N] [--seed S] [--seconds T]

Each run is a job of its own in a process of its own, without Ray (see `file_faults`); the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tests.chaos.faulty_s3 import FaultyS3
from tests.chaos.file_faults import DONE, NUM_RECORDINGS, FaultyDisk, in_a_process, run_without_ray
from tests.chaos.undisturbed import Tally, compare, make_recordings, rows_of

BUCKET = "chaos"
SETTINGS = {
    **{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"},
    "AWS_MAX_ATTEMPTS": "2",  # of the client, so that it is our own that are tried
}
SHARE = 0.15  # of the requests are disturbed


@contextmanager
def endpoint(url: str):
    """Let this process reach S3 at a URL, with connections of its own."""
    import s3fs

    os.environ["AWS_ENDPOINT_URL"] = url
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield s3fs.S3FileSystem()
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def run_against(url: str, folder: Path, output: str) -> int:
    """One run of the job, in a process of its own, with S3 at a URL."""

    def call() -> int:
        os.environ["AWS_ENDPOINT_URL"] = url
        disk = FaultyDisk()
        return run_without_ray(folder, output, disk)

    return in_a_process(call)


def run_all(scratch: Path, *, runs: int, seed: int, until: float = float("inf")) -> dict:
    """Jobs into a bucket behind the proxy, each compared with one that went straight to the server."""
    server = StartedServer()
    folder = make_recordings(scratch / "in", NUM_RECORDINGS)
    os.environ.update(SETTINGS)
    total, injected, rng = Tally(), Counter(), random.Random(seed)
    try:
        server.make_bucket()
        assert run_against(server.url, folder, f"s3://{BUCKET}/undisturbed") == DONE
        expected = in_store(server.url, f"s3://{BUCKET}/undisturbed")
        assert len(expected) == NUM_RECORDINGS
        for number in range(runs):
            if time.monotonic() > until:
                break
            output = f"s3://{BUCKET}/out-{seed}-{number}"
            with FaultyS3(server.address, share=SHARE, seed=rng.randrange(1 << 30)) as proxy:
                statuses = [run_against(proxy.url, folder, output)]
                if statuses[-1] != DONE:
                    statuses.append(run_against(proxy.url, folder, output))
            if statuses[-1] != DONE:
                statuses.append(run_against(server.url, folder, output))
            tally = compared(server.url, output, expected)
            tally.faults = proxy.injected.total()
            tally.survived = tally.faults if statuses[-1] == DONE else 0
            if len(statuses) > 1:
                tally.notes.append(f"{output}: statuses {statuses}")
            total, injected = total + tally, injected + proxy.injected
    finally:
        server.stop()
    return {**asdict(total), "injected": dict(sorted(injected.items()))}


class StartedServer:
    """A moto server in a process of its own: what forks must have no threads."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def make_bucket(self) -> None:
        """Wait for the server, and make the bucket."""

        def call() -> int:
            import s3fs

            deadline = time.monotonic() + 120
            while True:
                try:
                    s3fs.S3FileSystem(endpoint_url=self.url).mkdir(BUCKET)
                    return DONE
                except Exception:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.5)

        assert in_a_process(call) == DONE

    def stop(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()


def in_store(url: str, output: str) -> Counter:
    """The rows of an output, read straight from the server."""
    with endpoint(url):
        rows, torn = rows_of(output)
    assert not torn, output
    return rows


def compared(url: str, output: str, expected: Counter) -> Tally:
    """What an output lacks, read straight from the server."""
    with endpoint(url):
        return compare(output, expected)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Begin no run after so many.")
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    print(json.dumps(run_all(given.folder.resolve(), runs=given.runs, seed=given.seed, until=until)))


if __name__ == "__main__":
    main()
