"""The main job as a user runs it: the command line on the bundled model, with and without Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from pipeline.engine.model import int8
from pipeline.metrics.wer import count_errors
from pipeline.output.files import read_transcripts

SPEECH = Path(__file__).parents[2] / "pipeline" / "demo" / "speech"
RECORDINGS = sorted(path for path in SPEECH.glob("*") if path.suffix not in {".tsv", ".md"})
KEYS = [
    *("output", "num_recordings", "num_ok", "num_failed", "audio_s", "speech_s"),
    *("wall_s", "device_s", "rtfx", "wer", "sparsity_mean", "cost_usd"),
]
SMALL_SHARDS = ("--shard-hours", "0.003")

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def command(*arguments):
    return [sys.executable, "-m", "jobs.transcribe", *map(str, arguments)]


def transcribe(*arguments, status=0):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == status, done.stderr
    return done


def totals(done):
    return json.loads(done.stdout.splitlines()[-1])


def error_line(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def rows(output):
    return {(row["recording_id"], row["part"], row["channel"]): row for row in read_transcripts(str(output))}


def files(output):
    """Every file of an output with what tells whether it was touched."""
    return {
        str(path.relative_to(output)): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in Path(output).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundled recordings in a folder of their own."""
    target = tmp_path_factory.mktemp("input")
    for path in RECORDINGS:
        shutil.copy(path, target)
    return target


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """A whole run in small shards that nobody disturbed: (output, its process)."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    references = ("--references", SPEECH / "references.tsv")
    return output, transcribe(folder, "--model", "demo", "--output", output, *SMALL_SHARDS, *references)


def test_every_recording_has_one_row_and_the_last_line_is_json(folder, undisturbed):
    output, done = undisturbed
    assert {key[0] for key in rows(output)} == {path.name for path in folder.iterdir()}
    assert len(rows(output)) == len(RECORDINGS)
    found = totals(done)
    assert found.keys() >= set(KEYS)
    assert (found["num_recordings"], found["num_failed"]) == (len(RECORDINGS), 0)
    assert found["rtfx"] > 0
    assert found["cost_usd"] is None
    assert json.loads((output / "_SUCCESS").read_text()) == found


def test_duckdb_reads_the_output_with_a_glob(undisturbed):
    query = (
        "SELECT status, count(*), sum(duration_s) > 60, "
        "sum(num_substitutions + num_deletions + num_insertions) "
        f"FROM '{undisturbed[0]}/transcripts/*.parquet' GROUP BY status"
    )
    ((status, num, is_long, errors),) = duckdb.sql(query).fetchall()
    assert (status, num, is_long) == ("ok", len(RECORDINGS), True)
    found = totals(undisturbed[1])
    assert errors == found["num_substitutions"] + found["num_deletions"] + found["num_insertions"]


def test_transcripts_are_printed_when_asked_with_their_speed_and_quality(folder, undisturbed):
    output, done = undisturbed
    printed = transcribe(folder, "--model", "demo", "--output", output, *SMALL_SHARDS, "--print-transcripts")
    lines = printed.stdout.splitlines()
    assert lines[-6].split()[-1] == f"{output}/transcripts/*.parquet"
    assert (output / "report.html").exists()
    assert [line.split("earshard ")[1].split()[0] for line in lines[-4:-1]] == [
        "export",
        "report",
        "transcribe",
    ]
    for row in rows(output).values():
        assert f"{row['recording_id']} [{row['language']}] {row['text']}" in lines
    assert f"WER {totals(done)['wer']:.1%}" in lines[len(RECORDINGS)]


def test_the_transcripts_are_right_enough_to_be_speech_recognition(undisturbed):
    assert 0 <= totals(undisturbed[1])["wer"] < 0.5


@pytest.mark.timing
def test_a_complete_output_is_left_as_it_is_within_five_seconds(folder, undisturbed):
    output, done = undisturbed
    before = files(output)
    started = time.monotonic()
    again = transcribe(folder, "--model", "demo", "--output", output, *SMALL_SHARDS)
    took_s = time.monotonic() - started
    assert files(output) == before
    assert totals(again) == totals(done)
    assert took_s < 5


@pytest.mark.parametrize("way", ["--local", "--no-local"])
def test_a_killed_job_is_resumed_and_ends_as_if_undisturbed(folder, undisturbed, tmp_path, way):
    output = tmp_path / "out"
    arguments = (folder, "--model", "demo", "--output", output, *SMALL_SHARDS, way)
    process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    markers = output / "metrics"
    deadline = time.monotonic() + 600
    while len(list(markers.glob("*.parquet")) if markers.exists() else []) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    committed = {name: state for name, state in files(output).items() if name.startswith("metrics/")}
    committed |= {
        name: state
        for name, state in files(output).items()
        if name.startswith("transcripts/") and name.replace("transcripts", "metrics") in committed
    }
    assert len(committed) >= 4
    assert not (output / "_SUCCESS").exists()
    transcribe(*arguments[:-1])  # without Ray, whoever began
    after = files(output)
    assert {name: after[name] for name in committed} == committed
    expected, found = rows(undisturbed[0]), rows(output)
    assert found.keys() == expected.keys()
    for key, row in found.items():
        assert row["text"] == expected[key]["text"]
        assert row["segments"] == expected[key]["segments"]


def test_bad_files_are_rows_that_say_why_and_spare_their_neighbours(undisturbed, tmp_path):
    good = next(path for path in RECORDINGS if path.suffix == ".wav")
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(good, folder / "good.wav")
    (folder / "truncated.wav").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "text.wav").write_text("this is not audio\n" * 50)
    (folder / "empty.wav").touch()
    (folder / "notes.txt").write_text("not a recording")
    done = transcribe(folder, "--model", "demo", "--output", tmp_path / "out", "--max-failed", 0.5)
    found = {key[0]: row for key, row in rows(tmp_path / "out").items()}
    assert found.keys() == {"good.wav", "truncated.wav", "text.wav", "empty.wav"}
    assert found["good.wav"]["text"] == rows(undisturbed[0])[good.name, 0, 0]["text"]
    assert found["truncated.wav"]["partial"]
    for name in ("text.wav", "empty.wav"):
        assert (found[name]["status"], found[name]["text"]) == ("failed", None)
        assert name in found[name]["error_message"]
        assert name in done.stderr
    assert "1 file without a media extension skipped" in done.stderr
    assert totals(done)["num_failed"] == 2
    again = transcribe(folder, "--model", "demo", "--output", tmp_path / "out", status=1)
    assert totals(again)["num_failed"] == 2  # more than one in a hundred


def test_a_missing_input_is_one_line(tmp_path):
    done = transcribe(tmp_path / "nowhere", "--model", "demo", "--output", tmp_path / "out", status=2)
    assert str(tmp_path / "nowhere") in error_line(done)


def test_an_output_that_cannot_be_written_is_one_line(folder):
    done = transcribe(folder, "--model", "demo", "--output", "/proc/nothing", status=2)
    assert "/proc/nothing: cannot write there" in error_line(done)


def test_an_unknown_model_is_one_line_that_names_the_way_out(folder, tmp_path):
    done = transcribe(folder, "--model", "nobody/nothing", "--output", tmp_path / "out", status=2)
    assert "nobody/nothing" in error_line(done)
    assert "--model FOLDER" in error_line(done)


def test_other_options_on_the_same_output_are_refused_by_name(folder, undisturbed):
    output = undisturbed[0]
    before = files(output)
    done = transcribe(
        folder, "--model", "demo", "--output", output, *SMALL_SHARDS, "--sparsity", 0.5, status=2
    )
    assert "--sparsity was adaptive and is now 0.5" in error_line(done)
    assert files(output) == before


def test_other_inputs_on_the_same_output_are_refused(undisturbed, tmp_path):
    output = undisturbed[0]
    done = transcribe(SPEECH, "--model", "demo", "--output", output, *SMALL_SHARDS, status=2)
    assert "INPUT" in error_line(done)


def test_a_wrong_option_is_one_line_that_names_it(folder, tmp_path):
    done = transcribe(folder, "--output", tmp_path / "out", "--sparsity", "most", status=2)
    assert "--sparsity most: must be adaptive, a number from 0 to 0.95, or a policy file" in error_line(done)
    done = transcribe(folder, "--output", tmp_path / "out", "--speed", "high", status=2)
    assert "--speed" in error_line(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not int8.is_supported(), reason="int8 needs an x86 processor and oneDNN")
def test_int8_transcribes_nearly_the_same_words(undisturbed, tmp_path):
    good = next(path for path in RECORDINGS if path.suffix == ".wav")
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(good, folder)
    transcribe(folder, "--model", "demo", "--output", tmp_path / "out", "--dtype", "int8")
    assert json.loads((tmp_path / "out" / "_job.json").read_text())["options"]["dtype"] == "int8"
    full = rows(undisturbed[0])[good.name, 0, 0]
    (quantised,) = rows(tmp_path / "out").values()
    assert count_errors(full["text"], quantised["text"], full["language"]).wer < 0.5


def test_dashes_and_underscores_are_the_same(folder, undisturbed):
    done = transcribe(folder, "--model", "demo", "--output", undisturbed[0], "--shard_hours", 0.003)
    assert totals(done)["num_recordings"] == len(RECORDINGS)


def test_a_second_driver_says_so_and_ends_with_one(folder, tmp_path):
    from pipeline.driver.lock import DriverLock
    from pipeline.output.local_store import LocalStore

    with DriverLock(LocalStore.open(str(tmp_path / "out")), "first-run"):
        done = transcribe(folder, "--model", "demo", "--output", tmp_path / "out", status=1)
    assert "run first-run works on it" in error_line(done)


def test_evaluate_scores_the_output_as_the_job_did(undisturbed):
    output, done = undisturbed
    evaluated = subprocess.run(
        [sys.executable, "-m", "jobs.evaluate", str(output)], capture_output=True, text=True, check=True
    )
    assert totals(evaluated)["wer"] == pytest.approx(totals(done)["wer"])
    assert totals(evaluated)["num_recordings"] == len(RECORDINGS)


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the driver", "to its process group"])
@pytest.mark.parametrize("way", ["--local", "--no-local"])
def test_sigterm_ends_the_job_and_the_same_command_resumes_it(folder, tmp_path, way, send):
    arguments = (folder, "--model", "demo", "--output", tmp_path / "out", *SMALL_SHARDS, way)
    process = subprocess.Popen(
        command(*arguments),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list((tmp_path / "out").glob("metrics/*.parquet")):
        assert process.poll() is None
        time.sleep(0.05)
    send(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "run the same command again to resume" in stderr
    assert "crashed" not in stderr
    assert "constructor arguments" not in stderr  # what Ray says of every actor by default
    assert list((tmp_path / "out" / "_tmp").glob("attempts/*")) == []
    assert not (tmp_path / "out" / "_tmp" / "lock.json").exists()
    assert totals(transcribe(*arguments[:-1]))["num_ok"] == len(RECORDINGS)  # without Ray, whoever began
