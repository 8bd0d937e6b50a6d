"""Commands run in this process: as their users run them, but without a second to import everything."""

from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import click
import pytest

from jobs import cli


def run_here(command: click.Command, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What `python -m jobs.NAME` prints, and its status."""
    given, out, err = [str(one) for one in arguments], io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [str(command.name), *given])
        patch.setattr(signal, "signal", lambda *_: None)
        patch.setattr(cli.log, "handlers", [handler])
        with pytest.raises(SystemExit) as end:
            cli.run(command, f"earshard {command.name}")
    return subprocess.CompletedProcess(given, int(end.value.code), out.getvalue(), err.getvalue())
