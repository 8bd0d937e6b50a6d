"""Plans, samples, markers and audio of a job, made of numbers."""

from __future__ import annotations

from pipeline.engine.sparsify.level import Level
from pipeline.schema import PLAN, table_of
from tests.fakes import audio_table, plan_row, read_recording

LADDER = tuple(Level(selector="stride", sparsity=s) for s in (0.1, 0.3, 0.4, 0.5, 0.6))


def plan(num_rows, seconds):
    """Recordings of 16 kHz wave files, one to a shard."""
    rows = [plan_row(f"{i:05d}.wav", shard_id=i, bytes=int(seconds * 32_000)) for i in range(num_rows)]
    return table_of(PLAN, rows)


def audio(num_windows=4):
    recordings = [read_recording(f"{i}.wav") for i in range(num_windows)]
    return audio_table(recordings, [(i, 0.0, 2.0 + i, [(0.0, 2.0 + i)]) for i in range(num_windows)])


def sample_rows(
    losses, *, num_windows=100, words=60, kept=(1300, 1100, 900, 700, 500), retried=None, unsure=0
):
    """Rows of `SAMPLE`: excess errors spread evenly over windows, by level; `retried` windows by level.

    Dense is as sure of window n as of any before it and surer than of the next; sparse text of `unsure`
    windows is less sure than any of them.
    """
    rows = []
    for level, loss in enumerate(losses, 1):
        num_errors = round(loss * num_windows * words)
        again = (retried or {}).get(level, 0)
        rows += [
            {
                "unit": window % 3, "recording_id": f"{window}.wav", "start_s": 0.0, "level": level,
                **counts(words, num_errors // num_windows + (window < num_errors % num_windows)),
                "kept_positions": kept[level - 1], "total_positions": 1500,
                "retried_positions": 1500 if window < again else 0, "dense_positions": 1500,
                "dense_device_s": 1.0, "sparse_device_s": 0.5,
                "logprob": -0.9 if window < unsure else -0.1, "dense_logprob": -0.2 - window / 1000,
            }
            for window in range(num_windows)
        ]  # fmt: skip
    return rows


def counts(words, errors):
    """A window whose sparse text has so many excess errors; dense differs from itself in one word."""
    found = {"num_words": words, "sparse_errors": errors + 1, "shifted_errors": errors + 1, "dense_errors": 1}
    return found | {"certainty": 1.0}


def marker(shard_id, *, level=3, errors=0, words=600):
    """A committed shard whose shadow is ten windows with so many excess errors each."""
    windows = [counts(words // 10, errors) for _ in range(10)] if words else None
    return {"shard_id": shard_id, "level": level, "shadow_windows": windows}
