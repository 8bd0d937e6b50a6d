"""Programs run over a corpus, each in a process of its own; what is done is on disk and not done again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.benchmark.accuracy.corpus import Spoken
from pipeline.benchmark.accuracy.programs import CONVERTED, OURS
from pipeline.engine import ENGINE_VERSION
from pipeline.engine.model.snapshot import resolve
from pipeline.errors import UnfinishedError, UserError

PACKAGES = {OURS: "earshard", "transformers": "transformers"}  # by the first word of a program's name
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class OtherRunError(UserError):
    """A folder holds the results of other weights or versions."""


class ProgramError(UnfinishedError):
    """A program ended with an error; what it did before is kept."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is compared. output: the folder of the results. asks_language: every program finds it itself."""

    manifest: Path
    recordings: Sequence[Spoken]
    model: Path
    output: Path
    asks_language: bool


def run_program(name: str, request: Request) -> list[dict[str, Any]]:
    """What a program makes of every recording (`programs.Heard` and `cpu_s`), in the order of the manifest.

    What the output holds already is not done again. Raises OtherRunError, ProgramError.
    """
    path = request.output / f"{name.replace(' ', '-')}.jsonl"
    done = _read(path, _header(name, request))
    left = [one for one in request.recordings if one.file not in done]
    for language, some in _by_language(left, asks=request.asks_language):
        with path.open("a", encoding="utf-8") as file:
            for line in _lines(name, request, language, some):
                file.write(line)
                file.flush()
                row = json.loads(line)
                done[row["file"]] = row
    return [done[one.file] for one in request.recordings]


def _header(name: str, request: Request) -> dict[str, Any]:
    first = name.split(maxsplit=1)[0]
    package = PACKAGES.get(first, first)
    try:
        release = version(package)
    except PackageNotFoundError:
        raise OtherRunError(f"--peers: {package} is not installed") from None
    return {
        "program": name,
        "version": f"{release} engine {ENGINE_VERSION}" if first == OURS else release,
        "model_revision": resolve(request.model).revision,
        "language": "auto" if request.asks_language else "given",
    }


def _read(path: Path, header: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Results by file; the file is begun where there is none. The last line may be torn: it is cut off."""
    if not path.exists():
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return {}
    first, *lines = path.read_text(encoding="utf-8").split("\n")
    stored = json.loads(first)
    for key, value in header.items():
        if stored.get(key) != value:
            raise OtherRunError(
                f"{path}: {key} was {stored.get(key)} and is now {value}; choose another --output"
            )
    if lines[-1]:
        path.write_text("\n".join([first, *lines[:-1], ""]), encoding="utf-8")
    rows = [json.loads(line) for line in lines[:-1]]
    return {row["file"]: row for row in rows}


def _by_language(recordings: Iterable[Spoken], *, asks: bool) -> Iterator[tuple[str, list[Spoken]]]:
    """Recordings with the language that a program is given; where nobody speaks it finds one itself."""
    groups: dict[str, list[Spoken]] = {}
    for one in recordings:
        language = "auto" if asks or one.is_silent else one.language
        groups.setdefault(language, []).append(one)
    yield from groups.items()


def _lines(name: str, request: Request, language: str, recordings: Sequence[Spoken]) -> Iterator[str]:
    command = [sys.executable, "-m", "pipeline.benchmark.accuracy.child"]
    command += [name, str(request.manifest), str(request.model), language]
    environment = {
        **os.environ,
        **dict.fromkeys(THREADS, "1"),
        CONVERTED: str(request.output / "ctranslate2"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    files = "\n".join(one.file for one in recordings)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(files)
        child.stdin.close()
        yield from child.stdout
    if child.returncode:
        raise ProgramError(
            f"{name}: ended with status {child.returncode}; run the same command again to resume"
        )
