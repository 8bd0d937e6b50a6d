"""Windows of any size in the slots of a CPU: each row attends to its own window, whatever lies beside it."""

from __future__ import annotations

import random

import pytest
import torch

from pipeline.benchmark.random_model import random_model
from pipeline.engine.decoding.slot_memory import EqualMemory, MixedMemory
from pipeline.engine.model.layers import attend
from tests.engine.conftest import MINI

SIZES = (40, 40, 25, 40, 25, 25)


@pytest.fixture
def model(tmp_path):
    return random_model(tmp_path, MINI, device=torch.device("cpu"), dtype="float32")


@pytest.fixture
def decoder(model):
    return model.decoder


def make_hidden(generator):
    return [torch.randn(size, MINI.dim, generator=generator) for size in SIZES]


def make_queries(shape, generator, rows, tokens=1):
    return torch.randn(rows, shape.decoder_heads, tokens, shape.decoder_head_dim, generator=generator)


def alone(decoder, layer, q, hidden):
    """What one row gets of its window: the definition."""
    return attend(q[None], *decoder.layers[layer].project_memory(hidden[None]))[0]


@torch.inference_mode()
@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_each_slot_attends_to_its_own_window(model, decoder, tokens):
    generator = torch.Generator().manual_seed(1)
    hidden, memory = make_hidden(generator), MixedMemory(model.shape, 8, kind="same", dtype=torch.float32)
    slots = torch.tensor([0, 1, 3, 4, 5, 7])
    memory.write(slots, decoder, hidden)
    assert [memory.num_positions(slot) for slot in range(8)] == [40, 40, 0, 25, 40, 25, 0, 25]
    q = make_queries(model.shape, generator, 8, tokens)
    for layer in range(MINI.decoder_layers):
        of_all, of_some = memory.attend(layer, q), memory.attend(layer, q[[7, 0]], torch.tensor([7, 0]))
        for slot, own in zip(slots.tolist(), hidden, strict=True):
            assert torch.equal(of_all[slot], alone(decoder, layer, q[slot], own))
        assert torch.equal(of_some, of_all[[7, 0]])
        assert of_all[[2, 6]].eq(0).all()


@torch.inference_mode()
def test_slots_that_come_and_go_and_move_keep_their_windows(model, decoder):
    generator, drawn = torch.Generator().manual_seed(2), random.Random(2)
    memory, inside = MixedMemory(model.shape, 6, kind="same", dtype=torch.float32), {}
    for _ in range(40):
        free = [slot for slot in range(6) if slot not in inside]
        if free and drawn.random() < 0.5:
            some = sorted(drawn.sample(free, drawn.randint(1, len(free))))
            windows = drawn.sample(make_hidden(generator), len(some))
            memory.write(torch.tensor(some), decoder, windows)
            inside |= dict(zip(some, windows, strict=True))
        elif inside and drawn.random() < 0.5:
            gone = drawn.choice(sorted(inside))
            memory.free(gone)
            del inside[gone]
        else:
            order = [*sorted(inside), *[0] * (6 - len(inside))]
            memory = memory.select(torch.tensor(order))
            inside = {place: inside[slot] for place, slot in enumerate(sorted(inside))}
        q = make_queries(model.shape, generator, 6)
        found = memory.attend(0, q)
        for slot in range(6):
            expected = alone(decoder, 0, q[slot], inside[slot]) if slot in inside else torch.zeros(())
            assert torch.equal(found[slot], expected.expand_as(found[slot]))


@torch.inference_mode()
def test_slots_of_one_size_say_the_same(model, decoder):
    generator = torch.Generator().manual_seed(3)
    hidden = [torch.randn(30, MINI.dim, generator=generator) for _ in range(3)]
    mixed = MixedMemory(model.shape, 3, kind="same", dtype=torch.float32)
    equal = EqualMemory.allocate(
        model.shape, 3, 30, kind="same", device=torch.device("cpu"), dtype=torch.float32
    )
    slots, q = torch.arange(3), make_queries(model.shape, generator, 3)
    for memory in (mixed, equal):
        memory.write(slots, decoder, hidden)
    for layer in range(MINI.decoder_layers):
        assert torch.allclose(mixed.attend(layer, q), equal.attend(layer, q), atol=1e-6)
    assert equal.num_positions(1) == mixed.num_positions(1) == 30


@torch.inference_mode()
def test_bfloat16_halves_the_bytes_and_stays_near(model, decoder):
    generator = torch.Generator().manual_seed(4)
    hidden, q = make_hidden(generator), make_queries(model.shape, generator, len(SIZES))
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        memory = MixedMemory(model.shape, len(SIZES), kind="same", dtype=dtype)
        memory.write(torch.arange(len(SIZES)), decoder, hidden)
        found[dtype] = memory.attend(0, q)
        assert found[dtype].dtype == torch.float32
    exact, rounded = found.values()
    assert 0 < (exact - rounded).abs().max() < 0.02 * exact.abs().max()
