"""`jobs.transcribe` with an engine that says what it heard by a hash, at a pace that leaves time for faults.

    python -m tests.chaos.driver INPUT --output OUT --model demo ...

Options, signals and exit status are those of the command. The device in the metrics names the node.
"""

from __future__ import annotations

import hashlib
import os
import time

from ray import cloudpickle

from jobs import cli, transcribe
from pipeline.dataflow import cluster
from pipeline.driver import job
from tests import fakes

WINDOW_S = float(os.environ.get("CHAOS_WINDOW_S", "0.15"))


def load_hashing_engine(_options, _run, _workers):
    """An engine whose text depends on the samples alone."""

    def answer(samples, language):
        time.sleep(WINDOW_S)
        return fakes.result(hashlib.sha256(samples.tobytes()).hexdigest(), language=language)

    return fakes.FakeEngine(answer=answer, device=f"cpu:{cluster.this_node()}")


if __name__ == "__main__":
    cloudpickle.register_pickle_by_value(fakes)
    job.load_engine = load_hashing_engine
    cli.run(transcribe.transcribe, "chaos")
