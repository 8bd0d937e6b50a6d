"""The recordings that programs are compared on: a manifest, and where each sentence begins."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import UserError, one_line

NO_SPEECH = "zxx"  # ISO 639-2: no linguistic content
PARTS = "parts.tsv"


class CorpusError(UserError):
    """A manifest cannot be read; the message names its line."""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One recording of the corpus.

    file: as the manifest names it. group: its set, the folder it is in where the manifest names none.
    language: a code; `zxx` where nobody speaks. sentences: start in seconds and text of each, of recordings
    that a `parts.tsv` beside them describes (columns file, start_s, end_s, text).
    """

    file: str
    path: Path
    group: str
    language: str
    text: str
    duration_s: float
    sentences: tuple[tuple[float, str], ...] = ()

    @property
    def is_silent(self) -> bool:
        """Whether nobody speaks in it."""
        return self.language == NO_SPEECH


def read_corpus(manifest: Path) -> list[Spoken]:
    """Recordings of a manifest: JSON lines with audio_filepath, text, lang, duration and perhaps set.

    Raises CorpusError naming the line that is wrong.
    """
    found = []
    for number, line in enumerate(_lines(manifest), start=1):
        try:
            found.append(_spoken(json.loads(line), manifest.parent))
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{manifest}: line {number}: {one_line(error)}") from error
        if not found[-1].path.is_file():
            raise CorpusError(f"{manifest}: line {number}: {found[-1].path} is not there")
    if not found:
        raise CorpusError(f"{manifest}: holds no recording")
    return found


def _lines(manifest: Path) -> list[str]:
    try:
        return [line for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise CorpusError(f"{manifest}: {one_line(error)}") from error


def _spoken(row: dict[str, object], folder: Path) -> Spoken:
    file = str(row["audio_filepath"])
    path = folder / file
    return Spoken(
        file=file,
        path=path,
        group=str(row.get("set") or path.parent.name),
        language=str(row["lang"]),
        text=str(row["text"]),
        duration_s=float(str(row["duration"])),
        sentences=_sentences(path.parent / PARTS).get(path.name, ()),
    )


@cache
def _sentences(parts: Path) -> dict[str, tuple[tuple[float, str], ...]]:
    if not parts.is_file():
        return {}
    found: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    with parts.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            found[row["file"]].append((float(row["start_s"]), row["text"]))
    return {file: tuple(sentences) for file, sentences in found.items()}
