"""The tables of what studies measured, full windows and clips apart.

Run as `python -m tests.studies.tables FILE.jsonl ...`. Change is WER less that of the same encoder pass as it
is (dense, or EAS), in points, with the central 95 % of a bootstrap over windows; those that both have count.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from pipeline.metrics.intervals import ratio_interval

Rows = dict[str, dict[str, Any]]  # by window
HEAD = "| | windows | words | WER | change (95 %) | texts the same | CPU | retried |\n|---" + 7 * "|--:" + "|"


def read_rows(path: Path) -> dict[str, Rows]:
    """What a file holds, by variant and window."""
    found: defaultdict[str, Rows] = defaultdict(dict)
    for row in map(json.loads, path.read_text().splitlines()):
        found[row["variant"]][row["window"]] = row
    return found


def line_of(variant: str, rows: Rows, base: Rows) -> str:
    """One variant beside what it is compared with."""
    names = [name for name in rows if name in base]
    mine, theirs = [rows[name] for name in names], [base[name] for name in names]
    words = [row["num_words"] for row in mine]
    more = [one["num_errors"] - other["num_errors"] for one, other in zip(mine, theirs, strict=True)]
    low, high = ratio_interval(more, words) or (0.0, 0.0)
    cells = [
        variant, len(names), sum(words), f"{100 * sum(row['num_errors'] for row in mine) / sum(words):.2f}",
        f"{100 * sum(more) / sum(words):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
        sum(one["text"] == other["text"] for one, other in zip(mine, theirs, strict=True)),
        f"{sum(row['decode_cpu_s'] for row in mine) / sum(row['decode_cpu_s'] for row in theirs):.2f}",
        sum(row["fallback"] is not None for row in mine),
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Prints the tables of full windows and of clips."""
    for path in map(Path, sys.argv[1:]):
        variants = read_rows(path)
        first, sparse = next(iter(variants)), [name for name in variants if name.startswith("EAS")]
        for title, is_full in (("full windows", True), ("clips", False)):
            kinds = {
                name: {window: row for window, row in rows.items() if row["is_full"] == is_full}
                for name, rows in variants.items()
            }
            if not kinds[first]:
                continue
            print(f"\n{path.stem}, {title}\n\n{HEAD}")
            for name, rows in kinds.items():
                print(line_of(name, rows, kinds[sparse[0] if name in sparse else first]))


if __name__ == "__main__":
    main()
