"""`earshard`: its commands, its version, and that it works where it is installed from a wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import __main__ as main
from pipeline import __version__

ROOT = Path(__file__).parents[2]


def run(*arguments, **settings):
    command = [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def test_without_a_command_all_are_listed_with_one_line_each():
    done = run()
    assert done.returncode == 0
    for name in main.job_names():
        (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == [name]]
        assert 20 < len(line) < 120
    assert run("--help").stdout == done.stdout


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout == f"earshard {__version__}\n"


def test_a_command_that_is_not_there_is_wrong_use():
    done = run("translate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: translate: no such command; must be archive | ")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("earshard tr", ["plain,transcribe"]),
        ("earshard transcribe --word", ["plain,--word-timestamps"]),
        ("earshard transcribe --channels ", ["plain,mix", "plain,split", "plain,auto"]),
    ],
)
def test_a_shell_is_told_how_a_line_goes_on(words, wanted):
    given = {"_EARSHARD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert sorted(run(env=os.environ | given).stdout.split()) == sorted(wanted)


def test_the_script_for_completion_asks_this_command():
    script = run(env=os.environ | {"_EARSHARD_COMPLETE": "zsh_source"}).stdout
    assert "#compdef earshard" in script
    assert "_EARSHARD_COMPLETE=zsh_complete earshard" in script


@pytest.mark.slow
def test_a_wheel_works_from_another_folder_without_the_repository(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    for name in ("pipeline", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(built, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("earshard-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    elsewhere.mkdir()
    speech = ROOT / "pipeline" / "demo" / "speech" / "kitchen.wav"
    settings = {**os.environ, "PYTHONPATH": str(site)}
    there = {"cwd": elsewhere, "env": settings, "capture_output": True, "text": True}
    command = [sys.executable, site / "bin" / "earshard", "transcribe", speech, "--model", "demo"]
    done = subprocess.run([*command, "--output", "out"], check=False, **there)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["num_ok"] == 1
    assert (elsewhere / "out" / "report.html").exists()
    where = "import jobs, pipeline; print(jobs.__file__, pipeline.__file__)"
    found = subprocess.run([sys.executable, "-c", where], check=False, **there)
    assert found.stdout.count(str(site)) == 2
