"""Two outputs of the same job beside each other: the share of words that differ, by row. Used by gpu_job.sh.

Run as `python -m tests.compare_rows ONE OTHER`; prints JSON, and ends with 1 where over 0.1 % of the words
differ or a row is missing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jiwer

from pipeline.output.files import read_transcripts

MOST_CHANGED = 0.001


def texts_of(output: str) -> dict[tuple[str, int, int], str]:
    """The text of every row that is `ok`."""
    return {
        (row["recording_id"], row["part"], row["channel"]): row["text"]
        for row in read_transcripts(output)
        if row["status"] == "ok"
    }


def compare(one: str, other: str) -> dict[str, Any]:
    """Words of the first output, and how many of them differ in the second."""
    mine, theirs = texts_of(one), texts_of(other)
    both = [key for key in mine if key in theirs and mine[key]]
    found = jiwer.process_words([mine[key] for key in both], [theirs[key] for key in both])
    changed = found.substitutions + found.deletions + found.insertions
    num_words = found.hits + found.substitutions + found.deletions
    totals = json.loads((Path(other) / "report.json").read_text())
    names = ("device_s", "wall_s", "audio_s", "rtfx", "wer", "devices", "batch_sizes", "peak_memory_bytes")
    return {
        "num_words": num_words,
        "num_changed": changed,
        "changed": changed / num_words,
        "missing": sorted("/".join(map(str, key)) for key in mine.keys() ^ theirs.keys()),
        **{name: totals[name] for name in names},
        "device_busy": totals["device_s"] / totals["wall_s"],
    }


if __name__ == "__main__":
    outcome = compare(*sys.argv[1:3])
    print(json.dumps(outcome))
    sys.exit(outcome["changed"] > MOST_CHANGED or bool(outcome["missing"]))
