"""What every fault is measured by: a small job, its undisturbed output, and what differs from it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from pipeline.output.files import parquet_table
from pipeline.output.store import Store, store_at
from pipeline.schema import METRICS, TRANSCRIPTS

RATE = 16_000
SECONDS = 2.0
SHARD_HOURS = 0.0012  # two recordings

Key = tuple[str, int, int]


def make_recordings(folder: Path, number: int) -> Path:
    """Write so many recordings of noise, each of its own, and references of every other one."""
    folder.mkdir(parents=True)
    for i in range(number):
        noise = np.random.default_rng(i).integers(-5000, 5000, round(SECONDS * RATE))
        soundfile.write(folder / f"{i:03d}.wav", noise.astype(np.int16), RATE)
    lines = [f"{i:03d}.wav\treference {i}" for i in range(0, number, 2)]
    (folder / "references.tsv").write_text("\n".join(["audio_filepath\ttext", *lines, ""]))
    return folder


@dataclass
class Tally:
    """Faults that were injected into jobs, and what became of their rows. They add up."""

    faults: int = 0
    survived: int = 0
    lost: int = 0  # rows that are missing, or not what they are without faults
    doubled: int = 0  # rows that are there more than once
    torn: int = 0  # files that cannot be read, or that their marker does not describe
    touched: int = 0  # files that were written again after they were committed
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)})

    @property
    def clean(self) -> bool:
        """Whether every fault was survived and nothing is amiss."""
        return self.faults == self.survived and not (self.lost or self.doubled or self.torn or self.touched)


def rows_of(output: str) -> tuple[Counter[tuple[Key, str]], int]:
    """How often each row is in an output, by its key and the hash of its content; and the torn files."""
    store, torn = store_at(output), 0
    rows: Counter[tuple[Key, str]] = Counter()
    hashes = _promised_hashes(store)
    for name in store.names("transcripts"):
        content = store.read(name) or b""
        if hashes.get(name.rpartition("/")[2]) != hashlib.sha256(content).hexdigest():
            torn += 1
        try:
            rows.update(_hashed(parquet_table(content, TRANSCRIPTS)))
        except (OSError, pa.ArrowException):
            torn += 1
    return rows, torn


def _promised_hashes(store: Store) -> dict[str, str]:
    hashes = {}
    for name in store.names("metrics"):
        try:
            marker = parquet_table(store.read(name) or b"", METRICS).to_pylist()[0]
        except (OSError, pa.ArrowException):
            continue
        hashes[name.rpartition("/")[2]] = marker["transcripts_sha256"]
    return hashes


def _hashed(table: pa.Table) -> Iterator[tuple[Key, str]]:
    for row in table.to_pylist():
        content = json.dumps(row, sort_keys=True, default=str)
        key = (row["recording_id"], row["part"], row["channel"])
        yield key, hashlib.sha256(content.encode()).hexdigest()


def committed_files(output: str) -> dict[str, tuple[int, int, int]]:
    """The files of committed shards with what tells whether one was written again."""
    root = Path(output)
    markers = {path.name for path in root.glob("metrics/*.parquet")}
    found = {}
    for path in root.glob("*/shard-*.parquet"):
        if path.name in markers and path.parent.name in {"metrics", "transcripts"}:
            stat = path.stat()
            found[f"{path.parent.name}/{path.name}"] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return found


def compare(output: str, expected: Mapping[tuple[Key, str], int]) -> Tally:
    """What a finished output lacks or has too much, against the rows of an undisturbed one."""
    rows, torn = rows_of(output)
    keys = Counter(key for key, _ in rows.elements())
    there = store_at(output).read("_SUCCESS") is not None
    tally = Tally(
        lost=sum(1 for row in expected if row not in rows),
        doubled=sum(number - 1 for number in keys.values()),
        torn=torn + (not there),
    )
    if tally.lost or tally.doubled or tally.torn:
        tally.notes.append(f"{output}: {tally.lost} lost, {tally.doubled} doubled, {tally.torn} torn")
    return tally


def rewritten(before: Mapping[str, object], output: str) -> int:
    """How many files that were committed `before` are not what they were."""
    after = committed_files(output)
    return sum(1 for name, state in before.items() if after.get(name) != state)
