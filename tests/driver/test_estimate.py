"""An estimate before a job: what is found, guessed and decoded, and what a rate makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from jobs.estimate import estimate_inputs
from pipeline.adaptive.policy_file import PolicyFile
from pipeline.config import JobOptions, JobRequest, RunOptions
from pipeline.driver.estimate import estimate_job, read_beginnings, survey_inputs
from pipeline.driver.rate import NoRate, Rate, first_level, rate_of_output, timed_rate, told_rate, wall_hours
from pipeline.engine.sparsify.level import Level
from tests.fakes import FakeEngine, result
from tests.reading.made_audio import vowels, write

ROOT = Path(__file__).parents[2]
OPTIONS = JobOptions(model="m", model_revision="r", dtype="float32", engine_version="1", language="en")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Ten recordings of 6 s, one of noise bytes, a text file."""
    folder = tmp_path_factory.mktemp("in")
    for number in range(10):
        write(folder / f"{number}.wav", vowels(6.0, seed=number))
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(50_000))
    (folder / "notes.txt").write_text("nothing to hear")
    return folder


def request(folder, **options) -> JobRequest:
    return JobRequest(inputs=(str(folder),), output="", model="demo", options=options)


@pytest.fixture(scope="module")
def surveyed(inputs):
    """All of it decoded."""
    return survey_inputs(request(inputs), sample_s=600.0)


def test_recordings_hours_speech_and_failures_are_told(surveyed):
    found = surveyed
    assert (found.num_recordings, found.num_skipped, found.num_shards) == (11, 1, 1)
    assert found.sample.failures == {"corrupt": 1}
    assert found.lengths.num_by_header == 10
    assert found.sample.decoded_hours * 3600 == pytest.approx(60.0, rel=0.01)
    assert found.lengths.hours * 3600 == pytest.approx(60.0, rel=0.15)
    assert 0.5 < found.sample.speech_share <= 1.0


def test_a_sample_is_drawn_by_lot_and_no_larger_than_asked(inputs):
    found = survey_inputs(request(inputs), sample_s=12.0)
    again = survey_inputs(request(inputs), sample_s=12.0)
    assert found.sample == again.sample
    assert found.sample.num_recordings == 8
    assert found.sample.decoded_hours * 3600 <= 8 * 6.0


def test_of_a_long_recording_only_a_part_is_decoded(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 1200, np.int16), 16_000)
    found = survey_inputs(request(tmp_path), sample_s=60.0)
    assert found.lengths.guessed_hours * 3600 == pytest.approx(1200.0)
    assert found.sample.decoded_hours * 3600 == pytest.approx(120.0, abs=31.0)
    assert found.lengths.hours * 3600 == pytest.approx(1200.0, rel=0.3)


def test_a_rate_that_is_told_gives_hours_money_and_wall_time(surveyed):
    outcome = estimate_job(surveyed, told_rate(10.0, 3.0))
    assert outcome.device_hours == pytest.approx(surveyed.lengths.hours / 10)
    assert outcome.cost_usd == pytest.approx(outcome.device_hours * 3.0)
    assert outcome.disk_bytes is None
    json.dumps(outcome.as_dict())


def test_a_rate_that_is_timed_here_counts_speech(surveyed, inputs):
    found = surveyed
    engine = FakeEngine(answer=lambda _samples, language: result(language=language))
    audio = read_beginnings(found, request(inputs), 600.0)
    rate = timed_rate(audio, engine, OPTIONS, RunOptions())
    outcome = estimate_job(found, rate)
    # FakeEngine says 0.25 s of device time for each window: one window a recording, ten of them.
    expected = 2.5 / 3600 * found.lengths.hours / found.sample.decoded_hours
    assert outcome.device_hours == pytest.approx(expected, rel=0.01)
    assert outcome.cost_usd is None
    assert outcome.disk_bytes > 1000


def test_of_every_recording_the_same_share_is_timed_with_as_much_of_its_reference(tmp_path):
    manifest = tmp_path / "in.jsonl"
    with manifest.open("w") as file:
        for seconds in (200, 100, 20):
            write(tmp_path / f"{seconds}.wav", np.tile(vowels(5.0), seconds // 5))
            print(json.dumps({"audio_filepath": f"{seconds}.wav", "text": "a" * seconds}), file=file)
    asked = JobRequest(inputs=(str(manifest),), output="", model="demo")
    found = survey_inputs(asked, sample_s=3600.0)
    shares = {}
    for most_s in (160.0, 3600.0):
        rows = read_beginnings(found, asked, most_s).column("recordings")[0].as_py()
        shares[most_s] = {len(row["reference"]): round(row["duration_s"]) for row in rows}
    assert shares[160.0].keys() == {100, 50, 20}
    assert all(abs(length - seconds) <= 31 for length, seconds in shares[160.0].items())  # cut in a pause
    assert shares[3600.0] == {200: 200, 100: 100, 20: 20}


@pytest.mark.parametrize(("start", "sparsity"), [(0, 0.0), (1, 0.5)])
def test_an_adaptive_job_is_timed_at_the_level_that_it_begins_with(start, sparsity):
    levels = (Level(sparsity=0.5, selector="stride"), Level(sparsity=0.75, selector="stride"))
    policy = PolicyFile(model="demo", model_revision="r", levels=levels, start=start)
    asked = JobRequest(inputs=(), output="", model="demo", policy=policy)
    found = first_level(asked, replace(OPTIONS, model="demo", wer_budget=0.01))
    assert (found.rung, 0.0 if found.level is None else found.level.sparsity) == (start, sparsity)
    fixed = replace(OPTIONS, model="demo", sparsity=0.5, wer_budget=None)
    assert first_level(replace(asked, policy=None), fixed) is None


def test_silence_gives_no_rate_but_says_what_to_give(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(32_000, np.int16), 16_000)
    found = survey_inputs(request(tmp_path), sample_s=60.0)
    audio = read_beginnings(found, request(tmp_path), 60.0)
    with pytest.raises(NoRate, match="give --rtfx or --from"):
        timed_rate(audio, FakeEngine(), OPTIONS, RunOptions())


def test_more_devices_than_shards_do_not_help():
    hours = wall_hours(10.0, 4, 100.0)
    assert hours[16] == hours[4] < hours[1]
    assert Rate(basis="", device="cpu").device_hours(1.0, 1.0) is None


def test_a_short_job_on_one_device_starts_without_ray():
    short, long = (wall_hours(0.1, 4, audio_hours) for audio_hours in (1.0, 1.1))
    assert short[1] < long[1]
    assert short[4] == long[4]


def test_an_earlier_output_gives_its_rate():
    golden = ROOT / "tests" / "golden" / "0.1.0"
    rate = rate_of_output(str(golden), None)
    assert rate.device_s_per_speech_s > 0
    assert rate.bytes_per_speech_s > 0


def test_the_command_prints_a_table_and_json(inputs):
    command = [sys.executable, "-m", "jobs.estimate", str(inputs), "--rtfx", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["num_recordings"] == 11
    assert "1 corrupt" in done.stderr
    wrong = subprocess.run([*command, "--from", "x"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.strip()) == (2, "error: --from and --rtfx exclude each other")


@pytest.mark.parametrize("option", [["--model", "demo"], ["--beam-size", "5"], ["--timed-minutes", "1"]])
def test_an_option_of_what_is_timed_here_is_refused_where_the_rate_is_told(option):
    done = CliRunner().invoke(estimate_inputs, ["in", "--rtfx", "9", *option], standalone_mode=False)
    assert str(done.exception) == f"{option[0]} changes nothing beside --rtfx: leave it out"
