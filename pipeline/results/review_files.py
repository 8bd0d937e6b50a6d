"""A list of doubtful passages as a page to listen to, a table, or Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import one_line
from pipeline.output.retried import OutputError
from pipeline.results.page import page
from pipeline.results.player import clip_offset_s, clock, linked
from pipeline.results.review import Passage
from pipeline.results.subtitles import shown_text
from pipeline.results.text_files import spreadsheet_safe, writing
from pipeline.wording import counted

PlanRows = Mapping[str, Mapping[str, Any]]  # of PLAN, by recording_id

REVIEW = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("channel", pa.int32(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("error_rate", pa.float64(), nullable=False),
        pa.field("expected_errors", pa.float64(), nullable=False),
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("avg_logprob", pa.float64(), nullable=False),
        pa.field("fallback", pa.string()),
    ]
)


def write_csv(path: str, found: Sequence[Passage], _rows: PlanRows) -> None:
    """A line for each passage; cells that a spreadsheet would run are quoted. Raises `OutputError`."""
    with writing(Path(path)) as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(REVIEW.names)
        for one in found:
            values = (_value(one, name) for name in REVIEW.names)
            lines.writerow([spreadsheet_safe(v) if isinstance(v, str) else v for v in values])


def _value(one: Passage, name: str) -> Any:
    value = getattr(one, name)
    return "; ".join(value) if isinstance(value, tuple) else value


def write_parquet(path: str, found: Sequence[Passage], _rows: PlanRows) -> None:
    """A row of `REVIEW` for each passage. Raises `OutputError`."""
    table = pa.Table.from_pylist(
        [{name: getattr(one, name) for name in REVIEW.names} for one in found], schema=REVIEW
    )
    temporary = f"{path}.part"
    try:
        pq.write_table(table, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {one_line(error)}") from error


def write_html(path: str, found: Sequence[Passage], rows: PlanRows) -> None:
    """A page that plays each passage from where its file lies. Raises `OutputError`."""
    folder = Path(os.path.abspath(path)).parent
    text = page(
        "review.html.j2",
        css="transcript.css",
        script="transcript.js",
        num_passages=counted(len(found), "segment"),
        passages=[_shown(one, rows.get(one.recording_id), folder) for one in found],
    )
    with writing(Path(path)) as file:
        file.write(text)


def _shown(one: Passage, row: Mapping[str, Any] | None, folder: Path) -> dict[str, Any]:
    return {
        "name": shown_text(one.recording_id),
        "speaker": None if one.speaker is None else shown_text(one.speaker),
        "language": one.language,
        "start_s": one.start_s,
        "end_s": one.end_s,
        "clock": clock(one.start_s),
        "text": shown_text(one.text),
        "error_rate": f"{one.error_rate:.0%}",
        "reasons": one.reasons,
        "audio": None if row is None else linked(row, folder),
        "offset_s": clip_offset_s(row),
    }


WRITERS: dict[str, Callable[[str, Sequence[Passage], PlanRows], None]] = {
    "html": write_html,
    "csv": write_csv,
    "parquet": write_parquet,
}
