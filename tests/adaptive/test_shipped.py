"""The evidence that ships: whose it is, and what a job begins with."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.adaptive import shipped
from pipeline.adaptive.policy_file import PolicyFile, parse_policy, read_policy
from pipeline.engine.model.snapshot import Snapshot, resolve, weights_digest
from pipeline.engine.model.tensors import map_safetensors
from pipeline.engine.sparsify.level import Level
from tests.real_weights import WEIGHTS, needs_weights

FILES = sorted(shipped.POLICIES.glob("*.json"))


def entry(change, bound):
    named = {"wer_change": change, "wer_change_bound": bound, "excess": change, "excess_bound": bound}
    return named | {"num_words": 3000, "device_ratio": 0.6}


POLICY = PolicyFile(
    model="openai/whisper-some",
    model_revision="",
    levels=(Level(thin_ends=True), Level(selector="stride", sparsity=0.5)),
    start=2,
    evidence={"levels": [entry(0.0, 0.002), entry(0.003, 0.008)]},
    weights="abc",
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_policy_has_evidence_for_each_level_and_starts_within_the_default_budget(path):
    policy = read_policy(path)
    assert policy.weights
    assert len(policy.evidence["levels"]) == len(policy.levels) == policy.start
    for level in policy.evidence["levels"]:
        assert level["num_words"] > 1000
        assert level["wer_change"] <= level["wer_change_bound"]
        assert level["excess"] <= level["excess_bound"]
    assert shipped.within(policy, 0.01).start == policy.start
    assert shipped.evidence_of(policy)["model"] == policy.model


@pytest.mark.parametrize(("budget", "start"), [(0.01, 2), (0.008, 2), (0.005, 1), (0.001, 0)])
def test_a_job_begins_on_the_sparsest_level_that_is_surely_within_its_budget(budget, start):
    assert shipped.within(POLICY, budget).start == start


def test_the_evidence_of_a_job_is_that_of_the_level_it_begins_with():
    assert shipped.evidence_of(POLICY) == {"model": POLICY.model, **entry(0.003, 0.008)}
    assert shipped.evidence_of(replace(POLICY, start=0)) is None
    assert shipped.evidence_of(replace(POLICY, evidence={})) is None
    assert parse_policy(POLICY.as_json().encode()) == POLICY


def weights(folder, *, dtype=np.float32, changed=0.0):
    values = np.arange(600, dtype=np.float32).reshape(2, 300) / 1024
    tensors = {
        "model.encoder.conv1.weight": values.astype(dtype),
        "model.decoder.layers.0.fc1.weight": (values + changed).astype(dtype),
        "proj_out.weight": np.full(3, changed, dtype),
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return weights_digest(map_safetensors(folder / "model.safetensors"))


def test_weights_are_told_by_their_values_in_either_dtype_and_not_by_what_is_computed(tmp_path):
    plain = weights(tmp_path / "a")
    assert weights(tmp_path / "b", dtype=np.float16) == plain
    assert weights(tmp_path / "c", changed=0.25) != plain


def test_a_model_is_found_by_its_name_or_its_weights_and_any_other_is_not(tmp_path, monkeypatch):
    digest = weights(tmp_path / "weights")
    monkeypatch.setattr(shipped, "POLICIES", tmp_path)
    (tmp_path / "some.json").write_text(json.dumps(replace(POLICY, weights=digest).as_dict()))

    def found(name, tensors):
        here = {"path": tmp_path, "tokeniser": tmp_path, "config": {}, "generation": {}}
        return shipped.shipped_policy(Snapshot(name=name, revision="r", tensors=tensors, **here))

    tensors = map_safetensors(tmp_path / "weights" / "model.safetensors")
    assert found("/models/mine", tensors).weights == digest
    assert found("openai/whisper-some", {}).weights == digest
    assert shipped.shipped_policy(resolve("demo")) is None


@pytest.mark.parametrize("kept_as", ["", "-ct2"])
@pytest.mark.parametrize("name", ["whisper-base", "whisper-tiny.en"])
@needs_weights
def test_the_real_weights_are_found_in_any_folder_and_form(name, kept_as):
    found = shipped.shipped_policy(resolve(WEIGHTS / f"{name}{kept_as}"))
    assert (found.model, found.start) == (f"openai/{name}", {"whisper-base": 3, "whisper-tiny.en": 2}[name])
