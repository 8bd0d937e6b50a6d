"""Rows of a plan through the reader, as tests ask for it."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pipeline.planning import make_plan, overflow_plan
from pipeline.reading.audio import DecodeLimits
from pipeline.reading.decoder import AudioDecoder
from pipeline.reading.shard_reader import ReadOptions, ShardReader
from pipeline.schema import SHARD_AUDIO
from pipeline.sources.listing import list_recordings


def options(**changes):
    values = {"voice_activity": False, "channels": "mix", "max_hours": 24.0, "shard_hours": 1.0}
    return ReadOptions(**(values | changes))


@cache
def _decoder(limits: DecodeLimits) -> AudioDecoder:
    decoder = AudioDecoder(limits)
    atexit.register(decoder.close)
    return decoder


@contextmanager
def open_reader(**changes) -> Iterator[ShardReader]:
    """A reader whose decoder goes on from test to test: its process takes half a second to start."""
    reader = ShardReader(options(**changes))
    reader._decoder = _decoder(reader._decoder.limits)
    yield reader


def plan_of(folder, *, shard_hours=1.0):
    table = make_plan(list_recordings([str(folder)]).recordings, shard_hours=shard_hours)
    return table.to_pylist()


def read(rows, *, attempt=1, **changes):
    with open_reader(**changes) as reader:
        table = reader.read(7, attempt, rows)
    assert table.schema.equals(SHARD_AUDIO)
    table.validate(full=True)
    return table


def content(table):
    """A read shard as (row without samples, samples of each window)."""
    row = table.drop_columns(["samples"]).to_pylist()[0]
    samples = table.column("samples").combine_chunks().values.to_numpy()
    return row, [samples[w["first_sample"] :][: w["num_samples"]] for w in row["windows"]]


def rounds(reader, rows):
    """Read shard after shard until nothing is left over: (recording, [(window, samples)]) of each row."""
    for _ in range(50):
        overflow = []
        for shard in sorted({row["shard_id"] for row in rows}):
            row, samples = content(reader.read(shard, 1, [r for r in rows if r["shard_id"] == shard]))
            overflow += row["overflow"]
            windows = list(zip(row["windows"], samples, strict=True))
            for i, recording in enumerate(row["recordings"]):
                yield recording, [(w, s) for w, s in windows if w["recording"] == i]
        if not overflow:
            return
        first, hours = 1 + max(row["shard_id"] for row in rows), reader.options.shard_hours
        rows = overflow_plan(overflow, first_shard_id=first, shard_hours=hours).to_pylist()
    raise AssertionError("the rounds never end")


def read_all(rows, **changes):
    """All of `rounds`, by (recording_id, part, channel)."""
    found = {}
    with open_reader(**changes) as reader:
        for recording, windows in rounds(reader, rows):
            key = (recording["recording_id"], recording["part"], recording["channel"])
            assert key not in found
            found[key] = (recording, windows)
    return found
