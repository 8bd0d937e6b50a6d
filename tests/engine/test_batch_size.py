"""How many windows a device takes at a time, and in how many lanes; no GPU needed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.benchmark.random_model import random_model
from pipeline.engine.capacity import CPU_BATCHES, MAX_AUTO_BATCH, MAX_AUTO_LANES, batch_size, lanes
from pipeline.engine.options import EngineOptions
from tests.engine.conftest import MINI


@pytest.fixture
def on_gpu(tmp_path, monkeypatch):
    """A function from bytes of free memory to the automatic batch of a model that claims to be on a GPU."""
    model = random_model(tmp_path, MINI, device=torch.device("cpu"), dtype="float32")
    claimed = replace(model, device=torch.device("cuda"))

    def batch(free: int) -> int:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 2 * free))
        return batch_size(EngineOptions(batch_size="auto"), claimed, 1)

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
    assert batch_size(EngineOptions(batch_size=3), replace(model, device=torch.device("cuda")), 1) == 3


def test_lanes_share_the_threads_and_the_memory_of_a_cpu(tmp_path, monkeypatch):
    options, cpu = EngineOptions(), torch.device("cpu")
    found = {}
    for threads in (1, 2, 3, 4, 16):
        monkeypatch.setattr(torch, "get_num_threads", lambda number=threads: number)
        found[threads] = lanes(options, cpu)
    assert found == {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (4, 1), 16: (MAX_AUTO_LANES, 4)}
    assert lanes(EngineOptions(lanes=2), cpu) == (2, 8)
    assert lanes(options, torch.device("cuda")) == (1, None)
    with pytest.raises(ValueError, match="lanes is 2; it may be 'auto' or 1 on a GPU"):
        lanes(EngineOptions(lanes=2), torch.device("cuda"))
    small = random_model(tmp_path, MINI, device=cpu, dtype="float32")
    large = replace(small, shape=replace(small.shape, dim=4 * 1024))
    sizes = [batch_size(options, large, number) for number in (1, 2, 4)]
    assert CPU_BATCHES[1] >= sizes[0] > sizes[1] > sizes[2] >= CPU_BATCHES[0]


@pytest.mark.parametrize("lanes", [0, -1, "many"])
def test_lanes_are_a_number(lanes):
    with pytest.raises(ValueError, match="lanes is"):
        EngineOptions(lanes=lanes)
