"""A policy file says what is wrong with it, and comes back as it was written."""

import json
from dataclasses import replace

import pytest

from jobs.options import sparsity_options
from pipeline.adaptive.policy_file import PolicyError, PolicyFile, read_policy, write_policy
from pipeline.config import JobRequest, OptionError, RunOptions
from pipeline.driver.model import resolve_options
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.sparsify.level import Level

POLICY = PolicyFile(
    model="demo",
    model_revision="abc",
    levels=(Level(thin_ends=True), Level(sparsity=0.5, layer=3, selector="stride")),
    start=2,
    evidence={"corpus": "dev"},
)


def test_a_policy_comes_back_as_it_was_written(tmp_path):
    write_policy(tmp_path / "policy.json", POLICY)
    assert read_policy(tmp_path / "policy.json") == POLICY


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r"nothing\.json: cannot be read: No such file"):
        read_policy(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, '"format": 1'),
        ({"model_revision": None}, '"model_revision" is missing or not of type str'),
        ({"levels": {}}, '"levels" is missing or not of type list'),
        ({"levels": [{"share": 1.0, "sparsity": 0.5}]}, "level 1: share is not known in this release"),
        ({"levels": [{"colour": "red"}], "start": 1}, "level 1: .*colour"),
        ({"levels": ["half"]}, "level 1: not an object"),
        ({"start": 3}, r"start is 3; it may be 0 \(dense\) to 2"),
        ({"start": True}, '"start" is missing or not of type int'),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path, change, message):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(POLICY.as_dict() | change))
    with pytest.raises(PolicyError, match=message) as caught:
        read_policy(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_not_json_is_named(tmp_path):
    path = tmp_path / "policy.json"
    path.write_bytes(b"\xff\xfe not json")
    with pytest.raises(PolicyError, match="is not a policy file"):
        read_policy(path)


def test_the_digest_holds_what_decides_and_not_the_evidence():
    same, other = replace(POLICY, evidence={}), replace(POLICY, start=1)
    assert same.digest() == POLICY.digest() != other.digest()


def request(policy):
    return JobRequest(
        inputs=("in",),
        output="out",
        model="demo",
        policy=policy,
        options={**sparsity_options(policy, None, None, None), "language": "en", "task": "transcribe"},
    )


def test_a_policy_for_these_weights_is_taken_with_its_digest_in_the_fingerprint():
    policy = replace(POLICY, model_revision=resolve("demo").revision)
    options = resolve_options(request(policy), RunOptions(gpus_per_actor=0))
    assert (options.sparsity, options.wer_budget) == (f"policy:{policy.digest()}", 0.01)


def test_a_policy_for_other_weights_is_refused_in_one_line():
    with pytest.raises(OptionError, match=r"measured on demo \(abc\), the model is demo \([0-9a-f]+\)"):
        resolve_options(request(POLICY), RunOptions(gpus_per_actor=0))


@pytest.mark.parametrize(
    "level",
    [Level(thin_ends=True, layer=99), Level(thin_ends=True, selector="best")],
)
def test_a_policy_with_a_level_that_the_model_does_not_have_is_refused(level):
    policy = replace(POLICY, model_revision=resolve("demo").revision, levels=(level,), start=1)
    with pytest.raises(OptionError, match="--sparsity: level 1 of the policy: "):
        resolve_options(request(policy), RunOptions(gpus_per_actor=0))
