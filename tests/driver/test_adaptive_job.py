"""Adaptive sparsity on a real Ray: the same rows and levels however the job was carried out."""

from __future__ import annotations

import json
import logging
import sys
from functools import partial

import numpy as np
import pytest
import ray
import soundfile
from ray import cloudpickle

from jobs.options import sparsity_options
from pipeline.adaptive import bounds, gate, job_policy, sampling
from pipeline.adaptive.policy_file import PolicyFile
from pipeline.config import JobRequest, RunOptions
from pipeline.driver import rounds
from pipeline.driver.job import run_job
from pipeline.driver.progress import JobProgress
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.sparsify.level import Level
from pipeline.output import files
from pipeline.output.files import read_transcripts
from pipeline.output.local_store import LocalStore
from pipeline.schema import METRICS
from tests.fakes import RATE
from tests.lossy import LossyEngine

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_FILES = 40


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    for name in (__name__, "tests.fakes", "tests.lossy"):
        cloudpickle.register_pickle_by_value(sys.modules[name])
    # On two CPUs three actors would be refused; these need none to speak of.
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    for name in (__name__, "tests.fakes", "tests.lossy"):
        cloudpickle.unregister_pickle_by_value(sys.modules[name])


@pytest.fixture(scope="module", autouse=True)
def small_scale():
    """What is hours of audio and thousands of words in earnest is seconds and hundreds here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "MAX_SHARE", 0.5)
        patch.setattr(sampling, "MIN_WORDS", 100)
        patch.setattr(bounds, "MIN_DRAWS", 5)
        patch.setattr(sampling, "MAX_WORDS_PER_S", 20.0)
        patch.setattr(sampling, "SHADOW_SHARE", 0.5)
        patch.setattr(job_policy, "EPOCH_SHARDS", 3)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty recordings of two seconds, no two alike: twenty shards of two, seven epochs."""
    target = tmp_path_factory.mktemp("in")
    rng = np.random.default_rng(3)
    for number in range(NUM_FILES):
        samples = rng.integers(-3000, 3000, 2 * RATE).astype(np.int16)
        soundfile.write(target / f"{number:02d}.wav", samples, RATE)
    return target


def load(_options, _run, _workers, *, loss):
    gate.WAIT_S = 5.0  # in the actor: with epochs of three shards one is often overtaken, and needs a round
    return LossyEngine(loss=loss)


def run(folder, output, *, actors=1, loss=0.1, budget=0.05, sparsity="adaptive"):
    policy = sparsity if isinstance(sparsity, PolicyFile) else None
    request = JobRequest(
        inputs=(str(folder),),
        output=str(output),
        model="demo",
        policy=policy,
        options={
            **sparsity_options(sparsity, budget, None, None),
            "language": "en",
            "task": "transcribe",
            "voice_activity": False,
            "shard_hours": 4.2 / 3600,
        },
    )
    given = RunOptions(min_actors=actors, max_actors=actors)
    return run_job(request, given, load=partial(load, loss=loss))


def decisions(output):
    """Every file of the policy, without what a clock says."""
    names = sorted(path.name for path in (output / "policy").glob("*.json"))
    found = {name: json.loads((output / "policy" / name).read_text()) for name in names}
    for level in found.get("calibration.json", {}).get("levels", []):
        del level["dense_device_s"], level["sparse_device_s"]
    return found


def rows(output):
    return sorted(read_transcripts(str(output)), key=lambda row: row["recording_id"])


def markers(output):
    store = LocalStore(output)
    found = [files.parquet_table(store.read(name), METRICS).to_pylist()[0] for name in store.names("metrics")]
    names = ("shard_id", "level", "num_shadow", "shadow_num_errors", "shadow_num_words", "kept_positions")
    return [{name: marker[name] for name in names} for marker in found]


def outcome(output):
    return rows(output), markers(output), decisions(output)


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """An adaptive job that one actor did in one go: (output, totals)."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    return output, run(folder, output)


def test_the_calibrated_level_is_used_and_the_shadow_is_measured(undisturbed):
    output, totals = undisturbed
    found, decided = markers(output), decisions(output)
    start = decided["calibration.json"]["start"]
    assert start > 0
    assert [marker["level"] for marker in found[:6]] == [start] * 6
    assert sum(marker["num_shadow"] for marker in found) > 5
    assert all(marker["shadow_num_words"] == 20 * marker["num_shadow"] for marker in found)
    assert [name for name in decided if name.startswith("epoch-")] == [
        f"epoch-{epoch:05d}.json" for epoch in range(7)
    ]
    assert totals["sparsity_mean"] > 0
    assert totals["adaptive"]["levels"][str(start)] >= 6


def test_three_actors_and_two_kills_change_no_row_and_no_level(folder, undisturbed, tmp_path, monkeypatch):
    """Stopped in the middle of the calibration, and again when some epochs are done and others are not."""
    calibrate, add = rounds.JobRounds.calibrate, JobProgress.add

    def half(self, units, calibration, number):
        calibrate(self, units[: len(units) // 2], calibration, number)
        raise KeyboardInterrupt

    def stopping(self, marker):
        add(self, marker)
        if self._num_done == 8:
            raise KeyboardInterrupt

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(rounds.JobRounds, "calibrate", half)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output, actors=3)
    samples = sorted((output / "policy").glob("sample-*"))
    assert samples
    assert not (output / "policy" / "calibration.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(JobProgress, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output, actors=3)
    assert 8 <= len(markers(output)) < NUM_FILES // 2
    run(folder, output, actors=3)
    assert outcome(output) == outcome(undisturbed[0])


def test_a_level_that_proves_too_lossy_is_left_two_epochs_later(folder, tmp_path):
    levels = tuple(Level(selector="stride", sparsity=sparsity) for sparsity in (0.05, 0.15, 0.5))
    revision = resolve("demo", revision=None).revision
    policy = PolicyFile(model="demo", model_revision=revision, levels=levels, start=3)
    totals = run(folder, tmp_path / "out", loss=2.0, budget=0.013, sparsity=policy)
    by_epoch = [decisions(tmp_path / "out")[f"epoch-{epoch:05d}.json"] for epoch in range(7)]
    assert [level["rung"] for level in by_epoch[:2]] == [3, 3]
    assert by_epoch[-1]["rung"] < 3
    assert [marker["level"] for marker in markers(tmp_path / "out")] == [
        by_epoch[shard // 3]["rung"] for shard in range(NUM_FILES // 2)
    ]
    assert json.loads((tmp_path / "out" / "policy" / "policy.json").read_text()) == policy.as_dict()
    assert totals["adaptive"]["excess"] > 0.01
