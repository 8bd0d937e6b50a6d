"""How many windows a GPU takes at a time, by its free memory; no GPU needed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.benchmark.random_model import random_model
from pipeline.engine.engine import MAX_AUTO_BATCH, _batch_size
from pipeline.engine.options import EngineOptions
from tests.engine.conftest import MINI


@pytest.fixture
def on_gpu(tmp_path, monkeypatch):
    """A function from bytes of free memory to the automatic batch of a model that claims to be on a GPU."""
    model = random_model(tmp_path, MINI, device=torch.device("cpu"), dtype="float32")
    claimed = replace(model, device=torch.device("cuda"))

    def batch(free: int) -> int:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 2 * free))
        return _batch_size(EngineOptions(batch_size="auto"), claimed)

    return batch


def test_the_batch_grows_with_the_free_memory_and_fits_into_it(on_gpu):
    sizes = [on_gpu(megabytes << 20) for megabytes in (1, 32, 64, 128, 1 << 14)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[1] < sizes[2] < sizes[3]
    assert sizes[-1] == MAX_AUTO_BATCH
    # A window's caches alone: keys and values of every position in every layer, float32.
    assert sizes[3] * 2 * MINI.decoder_layers * (1500 + 448) * MINI.dim * 4 < 128 << 20


def test_a_given_batch_is_kept(tmp_path):
    model = random_model(tmp_path, MINI, device=torch.device("cpu"), dtype="float32")
    assert _batch_size(EngineOptions(batch_size=3), replace(model, device=torch.device("cuda"))) == 3
