"""Options say what they may be, and the fingerprint holds what can change a row."""

from dataclasses import fields, replace

import pytest

from pipeline import config
from pipeline.config import JobOptions, OptionError

OPTIONS = JobOptions(model="demo", model_revision="r", dtype="float32", engine_version="1")
OTHER = {
    **{"model": "x", "model_revision": "y", "dtype": "bfloat16", "engine_version": "2", "schema_version": 2},
    **{"sparsity": 0.5, "sparsify_layer": 3, "selector": "stride", "language": "de", "task": "translate"},
    **{
        "initial_prompt": "p",
        "voice_activity": False,
        "channels": "split",
        "shard_hours": 0.5,
        "max_hours": 2.0,
    },
}


def test_every_option_changes_the_fingerprint():
    assert OTHER.keys() == {field.name for field in fields(JobOptions)}
    prints = {replace(OPTIONS, **{name: value}).fingerprint() for name, value in OTHER.items()}
    assert len(prints) == len(OTHER)
    assert OPTIONS.fingerprint() not in prints


@pytest.mark.parametrize("name", OTHER)
def test_a_difference_names_the_option(name):
    message = replace(OPTIONS, **{name: OTHER[name]}).difference(OPTIONS.as_dict())
    assert message is not None
    assert message.startswith(f"--{name.replace('_', '-')}: ")


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
    assert config.parse_actors(text) == expected


@pytest.mark.parametrize("text", ["0", "4-2", "many", "-1"])
def test_other_actors_are_refused(text):
    with pytest.raises(OptionError, match="--actors"):
        config.parse_actors(text)


@pytest.mark.parametrize("text", ["0", "big", "-2", "1.5"])
def test_a_batch_size_is_a_number_from_one_on(text):
    with pytest.raises(OptionError, match="--batch-size"):
        config.parse_batch_size(text)


def test_sparsity_is_a_number_below_one():
    assert config.parse_sparsity("0.5") == 0.5
    with pytest.raises(OptionError, match="--sparsity adaptive"):
        config.parse_sparsity("adaptive")


def test_the_selectors_are_those_of_the_engine():
    from pipeline.engine import sparsify

    assert set(config.SELECTORS) == set(sparsify.SELECTORS)
