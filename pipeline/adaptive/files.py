"""Names of what a job's policy stores in its output, and the sample read back."""

from __future__ import annotations

from typing import Any

from pipeline.output import files
from pipeline.output.store import Store
from pipeline.schema import SAMPLE

FOLDER = "policy"
POLICY = f"{FOLDER}/policy.json"
DECISION = f"{FOLDER}/calibration.json"


def sample_name(unit: int) -> str:
    """The file of a calibrated unit in the output."""
    return f"{FOLDER}/sample-{unit:05d}.parquet"


def epoch_name(epoch: int) -> str:
    """The file of an epoch's level in the output."""
    return f"{FOLDER}/epoch-{epoch:05d}.json"


def read_sample(store: Store) -> list[dict[str, Any]]:
    """The rows of `SAMPLE` of all units that were decoded."""
    names = [name for name in store.names(FOLDER) if name.startswith(f"{FOLDER}/sample-")]
    return [row for name in names for row in files.parquet_table(store.read(name) or b"", SAMPLE).to_pylist()]
