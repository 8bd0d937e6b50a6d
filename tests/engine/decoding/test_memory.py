"""Keys and values of encoder positions in 8 bits: their rounding, attention to them, and the whole engine."""

from __future__ import annotations

import wave

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.demo import SPEECH
from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding.memory import Int8Memory, PlainMemory, allocate, bytes_of_number, quantise
from pipeline.engine.model.shape import Shape
from tests.engine.conftest import MINI, make_speechlike
from tests.engine.decoding.made_memory import exact, made
from tests.engine.interpreter import compare_interpreted

# Slots, heads, tokens, positions, head size: a step, a prompt, more queries than a block has, a remainder.
SHAPES = [(3, 2, 1, 1500, 64), (2, 2, 4, 200, 32), (1, 1, 20, 64, 16), (2, 1, 1, 17, 64)]
LENGTHS_S = [30.0, 7.3, 12.0]

# Triton decides at its import whether it interprets, so this needs a process of its own.
COMPARE = """
import json, sys
import torch
from pipeline.engine.decoding.int8_attention import attend_int8, check
from tests.engine.decoding.made_memory import exact, made

found = [check(torch.device("cpu"))]
for shape, dtype in json.loads(sys.argv[1]):
    q, memory = made(shape, getattr(torch, dtype))
    slots = torch.arange(len(q)).flip(0)
    out = attend_int8(q, memory.keys, memory.key_scales, memory.values, memory.value_scales, slots)
    found.append({"error": (out - exact(q, memory, slots)).abs().max().item(), "dtype": str(out.dtype)})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compared():
    """What the kernel gave for every shape in float32, and for one in float16, beside float64."""
    cases = [*((shape, "float32") for shape in SHAPES), (SHAPES[1], "float16")]
    return compare_interpreted(COMPARE, cases)


def test_the_kernel_attends_as_float64_does(compared):
    assert [one["dtype"] for one in compared] == ["torch.float32"] * len(SHAPES) + ["torch.float16"]
    assert all(one["error"] < 1e-5 for one in compared[: len(SHAPES)])
    assert compared[-1]["error"] < 2e-2


@pytest.mark.parametrize("shape", SHAPES)
def test_without_the_kernel_attention_is_the_same(shape):
    q, memory = made(shape)
    slots = torch.arange(len(q)).flip(0)
    assert (memory.attend(q, slots) - exact(q, memory, slots)).abs().max() < 1e-5
    assert torch.equal(memory.attend(q), memory.attend(q, slots.flip(0)))
    assert torch.equal(memory.select(slots).attend(q), memory.attend(q, slots))


@given(st.integers(0, 1000), st.floats(1e-6, 1e4))
def test_a_number_is_off_by_half_a_step_of_its_head_and_position(seed, size):
    x = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(seed)) * size
    x[0, 0, 0] = 0.0
    ints, scales = quantise(x)
    assert (ints.float() * scales[..., None] - x).abs().le(scales[..., None] * 0.501).all()
    assert ints.dtype == torch.int8
    assert ints[0, 0, 0].eq(0).all()


def test_it_takes_half_of_the_bytes():
    shape = Shape(
        dim=128, vocab_size=10, num_mels=80, encoder_layers=1, encoder_heads=2, decoder_layers=1,
        decoder_heads=2, source_positions=1500, target_positions=448, tied_logits=True,
    )  # fmt: skip
    sizes = {}
    for dtype in ("same", "int8"):
        memory = allocate(shape, 2, 750, dtype=dtype, device=torch.device("cpu"), torch_dtype=torch.bfloat16)
        assert memory.num_positions == 750
        sizes[dtype] = sum(one.nbytes for one in vars(memory).values() if isinstance(one, torch.Tensor))
        assert sizes[dtype] == 2 * 2 * 750 * 128 * bytes_of_number(dtype, 2, 64)
    assert sizes["int8"] / sizes["same"] == pytest.approx(0.53, abs=0.005)
    assert isinstance(memory, Int8Memory)
    assert not isinstance(memory, PlainMemory)


def transcribed(folder, lengths_s, **options):
    chosen = {"word_timestamps": True, "max_new_tokens": 12, "batch_size": 2} | options
    engine = Engine.load(folder, device="cpu", dtype="float32", options=EngineOptions(**chosen))
    windows = [make_speechlike(seconds, number) for number, seconds in lengths_s.items()]
    return engine.transcribe(windows, languages=["en"] * len(windows))


@pytest.mark.parametrize("options", [{}, {"sparsity": 0.5, "selector": "stride"}, {"beam_size": 3}])
def test_a_window_says_the_same_alone_and_in_company(model_folder, options):
    folder = model_folder(MINI)
    together = transcribed(folder, dict(enumerate(LENGTHS_S)), memory_dtype="int8", **options)
    assert [one.text for one in together] != ["", "", ""]
    for number, (seconds, one) in enumerate(zip(LENGTHS_S, together, strict=True)):
        (alone,) = transcribed(folder, {number: seconds}, batch_size=1, memory_dtype="int8", **options)
        assert alone.text == one.text


def test_words_that_are_the_same_have_the_same_times():
    with wave.open(str(SPEECH / "kitchen.wav")) as file:
        kitchen = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    found = {}
    for dtype in ("same", "int8"):
        options = EngineOptions(word_timestamps=True, memory_dtype=dtype)
        engine = Engine.load("demo", device="cpu", dtype="float32", options=options)
        (found[dtype],) = engine.transcribe([kitchen], languages=["en"])
    assert found["int8"].text == found["same"].text != ""
    assert found["int8"].segments[0].words
    for one, other in zip(found["int8"].segments, found["same"].segments, strict=True):
        assert one.words == other.words


def test_another_type_is_refused():
    with pytest.raises(ValueError, match="memory_dtype is 'int4'; it may be same or int8"):
        EngineOptions(memory_dtype="int4")
