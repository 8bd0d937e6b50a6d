"""Weights that change at the place where a job found them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from pipeline.config import JobOptions, JobRequest
from pipeline.driver import job
from pipeline.output.files import JOB, metrics_name
from pipeline.output.store import open_store

OPTIONS = JobOptions(model="demo", model_revision="broken", dtype="float32", engine_version="1")
MENDED = replace(OPTIONS, model_revision="mended")


@pytest.fixture
def planned(tmp_path):
    """A job that was planned: its store and request."""
    recordings = tmp_path / "in"
    recordings.mkdir()
    soundfile.write(recordings / "a.wav", np.zeros(16000, np.int16), 16000)
    request = JobRequest(inputs=(str(recordings),), output=str(tmp_path / "out"), model="demo")
    store = open_store(request.output)
    job._open_plan(store, request, OPTIONS)
    return store, request


def test_weights_that_were_mended_go_on_with_the_plan(planned):
    store, request = planned
    plan_hash = json.loads(store.read(JOB))["plan_hash"]
    assert job._open_plan(store, request, MENDED)["plan_hash"] == plan_hash
    stored = json.loads(store.read(JOB))
    assert stored["options"]["model_revision"] == "mended"
    assert stored["fingerprint"] == MENDED.fingerprint()


def test_other_weights_are_refused_once_a_shard_is_committed(planned):
    store, request = planned
    store.publish(metrics_name(0), b"a marker")
    with pytest.raises(job.JobMismatch, match="the revision of --model was broken and is now mended"):
        job._open_plan(store, request, MENDED)
