"""What every command has in common: option names, one-line errors, the exit status, the JSON line."""

from __future__ import annotations

import ctypes
import gc
import io
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.errors import UnfinishedError, UserError

if TYPE_CHECKING:
    from rich.console import Console

OK, UNFINISHED, WRONG_USE = 0, 1, 2
M_ARENA_MAX = -8  # of glibc's malloc.h
NUM_ARENAS = 4
# Dashes and underscores are both accepted in the names of options.
SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}
log = logging.getLogger("earshard")


class WrongUse(UserError):
    """The arguments of a command do not go together."""


class Stopped(BaseException):
    """A signal asked the command to stop."""


def names(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """A click callback that reads names with commas between them."""
    found = tuple(name.strip() for name in text.split(",")) if text else ()
    if not all(found) or len(set(found)) < len(found):
        raise click.BadParameter(f"{text!r}: must be different names with commas between them")
    return found


def run(command: click.Command, name: str) -> NoReturn:
    """Run a command whose function returns (totals, status); print the totals as the last line of stdout.

    Errors that a user can mend are one line on stderr: status 2 for wrong use, 1 for work left undone.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _stop)
    _share_memory()
    for stream in (sys.stdout, sys.stderr):  # what a name holds that they cannot take is escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        answer = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        _fail(f"{error.format_message()} ({name} --help lists the options)", WRONG_USE)
    except UserError as error:
        _fail(str(error), WRONG_USE)
    except UnfinishedError as error:
        _fail(str(error), UNFINISHED)
    except (Stopped, KeyboardInterrupt, click.Abort):
        _fail("stopped; run the same command again to resume", UNFINISHED)
    if not isinstance(answer, tuple):  # --help
        sys.exit(OK)
    totals, status = answer
    print(_as_json(totals), flush=True)
    gc.freeze()  # else the interpreter looks once more through all that torch has imported: 0.4 s
    sys.exit(status)


def _share_memory() -> None:
    """Have the threads of this process, which has just begun, take their memory from a few arenas.

    glibc gives each of them one of its own, up to eight for each CPU, and what one has freed no other takes.
    Dozens wait for an engine at a time, and any of them may drive a lane of it.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, min(NUM_ARENAS, os.cpu_count() or 1))


def _as_json(totals: dict[str, Any]) -> str:
    """One line of JSON in the letters that stdout has."""
    text = json.dumps(totals, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(totals)
    return text


def console(width: int) -> Console:
    """Tables for people, on stderr; `width` columns where that is no terminal."""
    from rich.console import Console

    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else width, highlight=False)


def folder_of(recording_id: str) -> str:
    """The folder of the input that a recording lies in."""
    return recording_id.rpartition("/")[0] or "."


def _stop(_signum: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


def _fail(message: str, status: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(status)
