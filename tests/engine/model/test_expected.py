"""A model whose tensors are not those of its config is told in one line, before anything is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from pipeline.engine import ModelNotFound
from pipeline.engine.model.expected import expected_tensors
from pipeline.engine.model.shape import Shape
from pipeline.engine.model.snapshot import DEMO_FOLDER, resolve
from tests.engine.conftest import LARGE_V3, MINI


@pytest.fixture
def copied(model_folder, tmp_path):
    return shutil.copytree(model_folder(MINI), tmp_path / "copy")


@pytest.mark.parametrize("kind", [MINI, LARGE_V3, None], ids=["mini", "large-v3", "demo"])
def test_every_tensor_of_a_whisper_model_is_expected_and_no_other(model_folder, kind):
    folder = DEMO_FOLDER if kind is None else model_folder(kind)
    found = {name: tuple(one.shape) for name, one in load_file(folder / "model.safetensors").items()}
    found.pop("proj_out.weight", None)
    assert expected_tensors(Shape.from_config(resolve(folder).config), found) == found


def rename(weights):
    weights["wrong.decoder.layer_norm.weight"] = weights.pop("model.decoder.layer_norm.weight")


def lose_a_bias(weights):
    del weights["model.encoder.layers.1.self_attn.v_proj.bias"]


def lose_a_layer(weights):
    for name in [name for name in weights if name.startswith("model.decoder.layers.1.")]:
        del weights[name]


def cut_a_row(weights):
    weights["model.decoder.embed_tokens.weight"] = weights["model.decoder.embed_tokens.weight"][1:].clone()


def narrow_the_mlp(weights):
    weights["model.encoder.layers.0.fc1.weight"] = weights["model.encoder.layers.0.fc1.weight"][:8].clone()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename, r"copy lacks the tensor model\.decoder\.layer_norm\.weight of a Whisper model"),
        (lose_a_bias, r"lacks the tensor model\.encoder\.layers\.1\.self_attn\.v_proj\.bias of"),
        (lose_a_layer, r"lacks the tensor model\.decoder\.layers\.1\.final_layer_norm\.weight and 23 others"),
        (cut_a_row, r"has the tensor model\.decoder\.embed_tokens\.weight of 3607 x 64, and .* 3608 x 64"),
        (narrow_the_mlp, r"has the tensor model\.encoder\.layers\.0\.fc1\.bias of 256, and .* makes it 8"),
    ],
)
def test_tensors_that_are_missing_or_of_another_size_are_named(copied, damage, message):
    weights = load_file(copied / "model.safetensors")
    damage(weights)
    save_file(weights, copied / "model.safetensors")
    with pytest.raises(ModelNotFound, match=message) as failure:
        resolve(copied)
    assert "\n" not in str(failure.value)


def test_weights_of_another_model_beside_a_config_are_named(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"d_model": 128}))
    with pytest.raises(ModelNotFound, match=r"of 64 x 80 x 3, and config\.json makes it 128 x 80 x 3"):
        resolve(copied)
