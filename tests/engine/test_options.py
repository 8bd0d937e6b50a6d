"""Options fail early with a line that names the field."""

from __future__ import annotations

import pytest

from pipeline.engine import Engine, EngineOptions
from tests.engine.conftest import MINI, MINI_EN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "summarise"),
        ("sparsity", 1.0),
        ("sparsity", -0.1),
        ("sparsity", float("nan")),
        ("sparsify_layer", 0),
        ("selector", "best"),
        ("max_new_tokens", 0),
        ("batch_size", 0),
        ("batch_size", "many"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field} is .*; it may be "):
        EngineOptions(**{field: value})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MINI, {"sparsify_layer": 3}, "sparsify_layer is 3; it may be 1 to 2"),
        (MINI_EN, {"task": "translate"}, "task is 'translate'; it may be transcribe"),
    ],
)
def test_what_the_model_cannot_do_is_refused_when_loading(model_folder, kind, options, message):
    with pytest.raises(ValueError, match=message):
        Engine.load(model_folder(kind), options=EngineOptions(**options))


@pytest.mark.parametrize(("field", "value"), [("device", "tpu"), ("dtype", "float64")])
def test_unknown_devices_and_types_are_refused(model_folder, field, value):
    with pytest.raises(ValueError, match=f"{field} is '{value}'; it may be"):
        Engine.load(model_folder(MINI), **{field: value})
