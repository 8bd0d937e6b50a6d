"""Options say what they may be, and the fingerprint holds what can change a row."""

from dataclasses import fields, replace

import pytest

from jobs import options
from pipeline.adaptive.policy_file import PolicyFile, write_policy
from pipeline.config import LATER, NO_OPTIONS, JobOptions, OptionError
from pipeline.engine.sparsify.level import Level

OPTIONS = JobOptions(
    model="demo", model_revision="r", dtype="float32", engine_version="1", sparsity=0.0, beam_size=2
)
ADAPTIVE = {"sparsity": "adaptive", "wer_budget": 0.01}
POLICY = PolicyFile(model="demo", model_revision="r", levels=(Level(thin_ends=True),), start=1)
OTHER = {
    **{"model": "x", "model_revision": "y", "dtype": "bfloat16", "engine_version": "2", "schema_version": 2},
    **{"sparsity": 0.5, "sparsify_layer": 3, "selector": "stride", "language": "de", "task": "translate"},
    **{
        "initial_prompt": "p",
        "hotwords": "h",
        "condition_on_previous_text": True,
        "beam_size": 5,
        "patience": 2.0,
        "length_penalty": 1.0,
        "word_timestamps": True,
        "voice_activity": False,
        "channels": "split",
        "streams": "all",
        "shard_hours": 0.5,
        "max_hours": 2.0,
    },
}


def test_every_option_changes_the_fingerprint():
    assert OTHER.keys() == {field.name for field in fields(JobOptions)} - {"wer_budget"}
    prints = {replace(OPTIONS, **{name: value}).fingerprint() for name, value in OTHER.items()}
    assert len(prints) == len(OTHER)
    assert OPTIONS.fingerprint() not in prints


def test_an_option_that_came_later_leaves_old_outputs_as_they_are():
    stored = OPTIONS.as_dict()
    assert "streams" not in stored
    assert OPTIONS.difference(stored) is None
    assert replace(OPTIONS, streams="all").difference(stored) == "--streams was first and is now all"
    stored |= {"streams": "all"}
    assert OPTIONS.difference(stored) == "--streams was all and is now first"


def test_the_kind_of_adaptive_sparsity_and_its_budget_change_the_fingerprint():
    kinds = [
        ADAPTIVE,
        ADAPTIVE | {"wer_budget": 0.02},
        options.sparsity_options(POLICY, 0.01, None, None),
        options.sparsity_options(replace(POLICY, start=0), 0.01, None, None),
    ]
    assert len({replace(OPTIONS, **kind).fingerprint() for kind in [{}, *kinds]}) == 5
    message = replace(OPTIONS, **kinds[1]).difference(replace(OPTIONS, **ADAPTIVE).as_dict())
    assert message == "--wer-budget was 0.01 and is now 0.02"


@pytest.mark.parametrize("name", OTHER)
def test_a_difference_names_the_option(name):
    message = replace(OPTIONS, **{name: OTHER[name]}).difference(OPTIONS.as_dict())
    assert message is not None
    assert f"--{name.replace('_', '-')} was " in message or name in NO_OPTIONS
    assert message.endswith(f" was {getattr(OPTIONS, name)} and is now {OTHER[name]}")


def test_no_message_names_an_option_that_there_is_not():
    message = replace(OPTIONS, model_revision="y").difference(OPTIONS.as_dict())
    assert message == "the revision of --model was r and is now y"


def test_options_that_came_later_leave_what_was_before_as_it_was():
    before = replace(OPTIONS, beam_size=1)
    stored = {name: value for name, value in before.as_dict().items() if name not in LATER}
    assert before.as_dict() == stored
    assert before.difference(stored) is None
    assert OPTIONS.difference(stored) == "--beam-size was 1 and is now 2"
    assert before.difference(OPTIONS.as_dict()) == "--beam-size was 2 and is now 1"


@pytest.mark.parametrize("language", ["auto", "each", "de", "yue"])
def test_a_language_is_a_code_or_a_way_to_find_it(language):
    assert replace(OPTIONS, language=language).language == language


def test_equal_options_do_not_differ():
    assert replace(OPTIONS).difference(OPTIONS.as_dict()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("sparsity", 1.0),
            ("sparsity", -0.1),
            ("sparsify_layer", 0),
            ("selector", "best"),
            ("task", "sing"),
        ],
        *[("language", "English"), ("channels", "left"), ("shard_hours", 0.0), ("shard_hours", 3.0)],
        *[("max_hours", float("nan"))],
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(name, value):
    with pytest.raises(OptionError, match=rf"--{name.replace('_', '-')} .*: must be "):
        replace(OPTIONS, **{name: value})


@pytest.mark.parametrize(("text", "expected"), [("auto", (None, None)), ("2", (2, 2)), ("1-4", (1, 4))])
def test_actors_are_auto_a_number_or_a_range(text, expected):
    assert options.parse_actors(text) == expected


@pytest.mark.parametrize("text", ["0", "4-2", "many", "-1"])
def test_other_actors_are_refused(text):
    with pytest.raises(OptionError, match="--actors"):
        options.parse_actors(text)


@pytest.mark.parametrize("text", ["0", "big", "-2", "1.5"])
def test_a_batch_size_is_a_number_from_one_on(text):
    with pytest.raises(OptionError, match="--batch-size"):
        options.parse_batch_size(text)


def test_sparsity_is_adaptive_a_number_or_a_policy_file(tmp_path):
    write_policy(tmp_path / "policy.json", POLICY)
    assert options.parse_sparsity("adaptive") == "adaptive"
    assert options.parse_sparsity("0.5") == 0.5
    assert options.parse_sparsity(str(tmp_path / "policy.json")) == POLICY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("most", "--sparsity most: must be adaptive, a number from 0 to 0.95, or a policy file"),
        ("none.json", r"--sparsity none\.json: cannot be read: No such file"),
        ("0.99", "--sparsity 0.99: must be a number from 0 to 0.95"),
        ("nan", "--sparsity nan: must be a number"),
    ],
)
def test_another_sparsity_is_refused_in_one_line(text, message):
    with pytest.raises(OptionError, match=message):
        options.parse_sparsity(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 0.01, None, None), r"--wer-budget 0\.01: must be left out at a fixed sparsity"),
        (("adaptive", 0.0, None, None), r"--wer-budget 0\.0: must be a number above 0"),
        (("adaptive", float("nan"), None, None), "--wer-budget nan"),
        ((POLICY, None, 2, None), "--sparsify-layer 2: must be left out unless --sparsity is a number"),
        ((0.0, None, 4, None), "--sparsify-layer 4: must be left out at --sparsity 0"),
        ((0.0, None, None, "random"), "--selector random: must be left out at --sparsity 0"),
        ((POLICY, None, None, "stride"), "--selector stride: must be left out unless --sparsity is a number"),
    ],
)
def test_options_of_sparsity_that_do_nothing_are_refused(arguments, message):
    with pytest.raises(OptionError, match=message):
        options.sparsity_options(*arguments)


def with_sparsity(*arguments):
    asked = options.sparsity_options(*arguments)
    return JobOptions(model="demo", model_revision="r", dtype="float32", engine_version="1", **asked)


def test_the_budget_is_one_in_a_hundred_unless_it_is_given():
    assert with_sparsity("adaptive", None, None, None).wer_budget == 0.01
    assert with_sparsity("adaptive", 0.02, None, None).wer_budget == 0.02
    assert with_sparsity(0.0, None, None, None).wer_budget is None


@pytest.mark.parametrize(
    ("sparsity", "asked", "selector"),
    [("adaptive", None, "attention"), (0.5, None, "attention"), (0.5, "energy", "energy")],
)
def test_the_rule_is_the_papers_unless_one_is_asked_for(sparsity, asked, selector):
    assert with_sparsity(sparsity, None, None, asked).selector == selector


def test_a_job_without_options_has_every_default():
    found = JobOptions(model="demo", model_revision="r", dtype="float32", engine_version="1")
    assert found == replace(with_sparsity("adaptive", None, None, None), beam_size=1)
