"""Packed linear maps give what plain ones give."""

from __future__ import annotations

import pytest
import torch

from pipeline.engine import Engine
from pipeline.engine.model import packed
from pipeline.engine.model.layers import Linear
from pipeline.engine.model.packed import PackedLinear, is_supported
from tests.engine.conftest import MINI

pytestmark = pytest.mark.skipif(not is_supported(), reason="packed maps need torch with oneDNN")


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (8, 1), (2, 30), (64, 1)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_any_number_of_rows_gives_the_plain_result(shape, has_bias):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(129, 64, generator=generator), torch.randn(129, generator=generator)
    linear = Linear(weight, bias if has_bias else None)
    x = torch.randn(*shape, 64, generator=generator)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("packs_all", [False, True])
def test_the_maps_of_many_rows_are_packed_only_where_that_pays(model_folder, monkeypatch, packs_all):
    monkeypatch.setattr(packed, "is_best_for_many_rows", lambda: packs_all)
    model = Engine.load(model_folder(MINI))._model
    many, few = (PackedLinear, PackedLinear) if packs_all else (Linear, PackedLinear)
    assert isinstance(model.decoder.unembed, few)
    assert isinstance(model.decoder.layers[0].past_qkv, few)
    assert isinstance(model.decoder.layers[0].memory_kv, many)
    assert isinstance(model.encoder.layers[0].qkv, many)
