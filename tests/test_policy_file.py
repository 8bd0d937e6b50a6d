"""A policy file says what is wrong with it, and comes back as it was written."""

import json

import pytest

from pipeline.adaptive.policy_file import Policy, PolicyError, read_policy, write_policy
from pipeline.engine.policy import Level

POLICY = Policy(
    model="demo",
    model_revision="abc",
    levels=(Level(share=1.0), Level(sparsity=0.5, layer=3, selector="stride")),
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
        ({"levels": [{"share": 1.0, "sparsity": 0.5}]}, "level 1: a level has either"),
        ({"levels": [{"share": 1.0, "colour": "red"}], "start": 1}, "level 1: .*colour"),
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
    same = Policy(**{**POLICY.__dict__, "evidence": {}})
    other = Policy(**{**POLICY.__dict__, "start": 1})
    assert same.digest() == POLICY.digest() != other.digest()
