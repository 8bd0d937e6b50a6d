"""0: every row exists and few failed; 1: unfinished, or too many failed; 2: wrong use. One line says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import click
import pytest

from jobs import cli
from jobs.options import status
from pipeline.adaptive.policy_file import PolicyError
from pipeline.benchmark.peers.seat import SeatError
from pipeline.config import OptionError, RunOptions
from pipeline.dataflow.cluster import ClusterError
from pipeline.driver.job import JobMismatch
from pipeline.driver.lock import OutputBusy
from pipeline.driver.rounds import Unfinished
from pipeline.engine import ModelNotFound
from pipeline.output.commit import ForeignMarker
from pipeline.output.retried import OutputError, OutputFailed
from pipeline.output.state import IncompleteOutput
from pipeline.sources.recording import InputError


@pytest.fixture(autouse=True)
def own_signals(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_arguments: None)
    monkeypatch.setattr("sys.argv", ["job"])


def run(action):
    """The exit status of a command that does this."""
    with pytest.raises(SystemExit) as ended:
        cli.run(click.command()(action), "job")
    return ended.value.code


def failing(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OutputBusy("busy"), 1), (Unfinished("left"), 1), (IncompleteOutput("missing"), 1),
        (ForeignMarker("other"), 1), (ClusterError("no cluster"), 1), (OutputFailed("disk full"), 1),
        (cli.Stopped(), 1), (KeyboardInterrupt(), 1),
        (OptionError("--x"), 2), (JobMismatch("other job"), 2), (InputError("no file"), 2),
        (OutputError("read-only"), 2), (cli.WrongUse("no"), 2), (PolicyError("broken"), 2),
        (ModelNotFound("nowhere"), 2), (SeatError("its process ended"), 1), (click.BadParameter("--y"), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)  # fmt: skip
def test_what_stops_a_command_is_one_line_and_its_status(error, wanted, capsys):
    assert run(failing(error)) == wanted
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = filter(None, captured.err.splitlines())
    assert line.startswith("error: ")


def test_a_command_that_ends_prints_its_totals_last_and_gives_its_status(capsys):
    for wanted in (0, 1):
        assert run(lambda wanted=wanted: ({"num_ok": 1}, wanted)) == wanted
        assert capsys.readouterr().out == '{"num_ok": 1}\n'


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.run(click.command()(failing(ZeroDivisionError())), "job")


@pytest.mark.parametrize(
    ("num_failed", "allowed", "wanted"), [(0, 0.0, 0), (1, 0.01, 0), (2, 0.01, 1), (1, 0.0, 1)]
)
def test_failed_rows_are_allowed_up_to_a_share(num_failed, allowed, wanted):
    totals = {"num_recordings": 100, "num_failed": num_failed}
    assert status(totals, RunOptions(max_failed=allowed)) == wanted


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_the_json_line_and_messages_come_whatever_stdout_can_take(encoding):
    code = (
        "import click\nfrom jobs import cli\n"
        "def action():\n"
        "    click.echo('caf\\udce9 ประเทศ')\n"
        "    return {'output': 'ausgänge-出力', 'raw': 'caf\\udce9'}, 0\n"
        "cli.run(click.command()(action), 'job')"
    )
    settings = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith(b"caf")
    assert json.loads(last.decode(encoding)) == {"output": "ausgänge-出力", "raw": "caf\udce9"}
