"""`earshard NAME …` is `python -m jobs.NAME …`."""

from __future__ import annotations

import ast
import importlib
import os
import runpy
import sys
from pathlib import Path

import click

from pipeline import __version__

FOLDER = Path(__file__).parent
NOT_JOBS = {"__init__", "__main__", "cli", "options"}
COMPLETE = "_EARSHARD_COMPLETE"  # what click's scripts for completion set, to `bash_complete` for one


def job_names() -> list[str]:
    """The commands there are."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_JOBS)


def overview() -> str:
    """Every command with the first sentence of its help. Nothing is imported for it."""
    lines = [f"  {name:11} {_first_sentence(name)}" for name in job_names()]
    usage = "usage: earshard COMMAND …        earshard COMMAND --help lists its options"
    return "\n".join([usage, "", *lines, "", "  --version   the version of earshard"])


def _first_sentence(name: str) -> str:
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")


def complete() -> None:
    """Answer a shell that asks how its line goes on. Only the command that the line names is imported."""
    named = os.environ.get("COMP_WORDS", "").split()[1:2]
    stubs = {name: click.Command(name, short_help=_first_sentence(name)) for name in job_names()}
    commands = {name: _command(name) if [name] == named else stub for name, stub in stubs.items()}
    click.Group("earshard", commands=commands).main(prog_name="earshard", complete_var=COMPLETE)


def _command(name: str) -> click.Command:
    module = importlib.import_module(f"jobs.{name}")
    commands = [one for one in vars(module).values() if isinstance(one, click.Command)]
    (own,) = [one for one in commands if one.callback.__module__ == module.__name__]
    return own


def main() -> None:
    """Run the job that the first argument names; status 2 where it names none."""
    if COMPLETE in os.environ:
        complete()
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word == "--version":
        print(f"earshard {__version__}")
    elif word in ("--help", "-h", "help"):
        print(overview())
    elif (name := word.replace("-", "_")) in job_names():
        sys.argv = [f"earshard {name}", *sys.argv[2:]]
        runpy.run_module(f"jobs.{name}", run_name="__main__", alter_sys=False)
    else:
        print(f"error: {word}: no such command; must be {' | '.join(job_names())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
