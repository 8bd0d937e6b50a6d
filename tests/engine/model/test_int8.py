"""int8 linear maps: close to float32, and a row's output is its own."""

from __future__ import annotations

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.demo import SPEECH
from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding.rules import Rules
from pipeline.engine.decoding.slots import Slots
from pipeline.engine.decoding.tasks import Task
from pipeline.engine.model import int8
from pipeline.engine.model.int8 import (
    BLOCK,
    QUERIES,
    STEPS_WITHOUT_VNNI,
    FewRowsInt8Linear,
    Int8Conv,
    Int8Linear,
    attend_in_bfloat16,
    has_fbgemm,
    is_supported,
    quantise_rows,
)
from pipeline.engine.model.layers import Linear
from pipeline.engine.model.packed import PackedLinear
from pipeline.engine.scheduling.work import Pass, Work
from pipeline.engine.sparsify.level import Level
from tests.engine.conftest import MINI, make_speechlike

pytestmark = pytest.mark.skipif(not is_supported(), reason="int8 needs an x86 processor and oneDNN")

KINDS = [Int8Linear, *([FewRowsInt8Linear] if has_fbgemm() else [])]


def make_linear(rows_in: int, rows_out: int, seed: int = 0) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows_out, rows_in, generator=generator) * 0.05
    return Linear(weight, torch.randn(rows_out, generator=generator))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), num_rows=st.integers(1, 9), loudness=st.sampled_from([1e-3, 1.0, 1e4]))
def test_a_rows_output_is_bit_for_bit_its_own_in_any_company(kind, seed, num_rows, loudness):
    linear = kind(make_linear(48, 40, seed))
    x = torch.randn(num_rows, 48, generator=torch.Generator().manual_seed(seed))
    company = torch.cat([x, loudness * torch.ones(1, 48), torch.zeros(1, 48)])
    assert torch.equal(linear(company)[:num_rows], linear(x))
    assert torch.equal(linear(x)[:1], linear(x[:1]))


def test_a_row_among_many_is_quantised_as_it_is_alone():
    rows = torch.randn(3 * BLOCK + 5, 48, generator=torch.Generator().manual_seed(0))
    rows[7], rows[8] = 0.0, 1e4
    quantised, peaks = quantise_rows(rows)
    for number in (0, 7, 8, BLOCK, 3 * BLOCK + 4):
        alone, peak = quantise_rows(rows[number : number + 1])
        assert torch.equal(quantised[number], alone[0])
        assert peaks[number] == peak
    exact = rows / peaks * 127 + 128
    assert (quantised - exact).abs().max() <= 0.501
    linear = Int8Linear(make_linear(48, 40))
    assert torch.equal(linear(rows)[BLOCK : BLOCK + 1], linear(rows[BLOCK : BLOCK + 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_processor_without_vnni_gets_weights_of_seven_bits(kind, monkeypatch):
    linear = make_linear(48, 40)
    x = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    found = {}
    for has_vnni in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda has_vnni=has_vnni: has_vnni)
        found[has_vnni] = kind(linear)(x)
    assert 0 < (found[False] - linear(x)).abs().max() < 0.1
    assert not torch.equal(found[False], found[True])


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_exact_even_where_weights_and_activations_are_largest(kind):
    # All products at their largest: 16-bit sums would overflow with one more bit of weights.
    weight = torch.ones(4, 512) * 0.7
    x = torch.ones(2, 512) * 3.0
    exact = x @ weight.T
    torch.testing.assert_close(kind(Linear(weight))(x), exact, rtol=0.01, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_within_the_steps_of_the_two_scales(kind):
    linear = make_linear(256, 300)
    x = torch.randn(7, 256, generator=torch.Generator().manual_seed(1))
    error = (kind(linear)(x) - linear(x)).abs().amax()
    weight_step = linear.weight.abs().amax(1) / STEPS_WITHOUT_VNNI
    bound = 256 * (x.abs().amax() * weight_step.max() / 2 + linear.weight.abs().max() * x.abs().amax() / 255)
    assert 0 < error < bound / 8  # errors of both signs mostly cancel


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_a_missing_bias_are_kept(kind):
    linear = make_linear(16, 24)
    assert kind(linear)(torch.randn(2, 3, 16)).shape == (2, 3, 24)
    zeros = kind(Linear(linear.weight))(torch.zeros(1, 16))
    assert torch.equal(zeros, torch.zeros(1, 24))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_that_of_float32_but_for_its_steps(stride):
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(24, 40, 3, stride=stride, padding=1)
    x = torch.randn(2, 24, 50)
    with torch.inference_mode():
        found, exact = Int8Conv(conv)(x), conv(x)
        assert found.shape == exact.shape
        assert 0 < (found - exact).norm() / exact.norm() < 0.02
        assert torch.equal(Int8Conv(conv)(x[1:]), found[1:])


def test_attention_in_bfloat16_is_that_of_float64_but_for_rounding():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, QUERIES + 70, 64, generator=generator) for _ in range(3))
    queries = q[:, :, ::2] / 8  # fewer than keys, as after sparsification
    exact = (queries.double() @ k.double().transpose(2, 3)).softmax(-1) @ v.double()
    found = attend_in_bfloat16(queries, k, v)
    assert found.dtype == torch.float32
    assert (found - exact).norm() / exact.norm() < 0.01
    assert torch.equal(attend_in_bfloat16(queries[1:], k[1:], v[1:]), found[1:])


def test_quantising_one_instance_leaves_others_alone_and_changes_little(model_folder):
    exact, rounded = (Engine.load(model_folder(MINI), dtype=dtype) for dtype in ("float32", "int8"))
    assert (exact.dtype, rounded.dtype) == ("float32", "int8")
    mel = exact._model.features([make_speechlike(4.0, 0)])
    with torch.inference_mode():
        theirs, ours = exact._model.encoder(mel), rounded._model.encoder(mel)
    assert isinstance(exact._model.decoder.unembed, (Linear, PackedLinear))
    assert isinstance(rounded._model.decoder.unembed, KINDS[-1])
    assert isinstance(rounded._model.decoder.layers[0].memory_kv, Int8Linear)
    assert torch.nn.functional.cosine_similarity(theirs, ours, dim=-1).min() > 0.99


def test_a_build_without_fbgemm_has_the_kernels_of_onednn(model_folder, monkeypatch):
    monkeypatch.setattr(int8, "has_fbgemm", lambda: False)
    model = Engine.load(model_folder(MINI), dtype="int8")._model
    kinds = {type(module) for module in model.decoder.modules()}
    assert Int8Linear in kinds
    assert FewRowsInt8Linear not in kinds


@pytest.mark.skipif(not has_fbgemm(), reason="this build of torch has no FBGEMM")
def test_both_kernels_give_the_same_but_for_the_rounding_of_rows():
    linear = make_linear(256, 300)
    x = torch.randn(7, 256, generator=torch.Generator().manual_seed(1))
    theirs, ours = Int8Linear(linear)(x), FewRowsInt8Linear(linear)(x)
    assert (theirs - ours).norm() < 0.005 * theirs.norm()


def test_int8_tokens_do_not_depend_on_the_batch(model_folder):
    windows = [make_speechlike(3.0 + n, n) for n in range(5)]
    tokens = []
    for batch_size in (1, 5):
        options = EngineOptions(max_new_tokens=30, batch_size=batch_size, sparsity=0.5)
        engine = Engine.load(model_folder(MINI, 1), dtype="int8", options=options)
        works = [Work(samples=window, seed=0, language="en") for window in windows]
        with torch.inference_mode():
            tokens.append([d.tokens for d in engine._passes.run(works, Pass(level=Level(sparsity=0.5)))])
    assert tokens[0] == tokens[1]


@torch.inference_mode()
def test_what_a_slot_computes_does_not_depend_on_how_long_its_neighbours_are():
    """To the bit, else a rounded number that falls on the other side makes another text of it."""
    speech, _ = soundfile.read(SPEECH / "kitchen.wav", dtype="float32")
    model = Engine.load("demo", dtype="int8")._model
    rules, heads = Rules(model.vocabulary, model.device, timestamps=False), {0: [0], 1: [0, 1]}
    windows = [speech[first * 16000 : (first + 14) * 16000] for first in (4, 2, 0)]
    hidden = torch.cat([model.encoder(model.features([window])) for window in windows])
    prompt = tuple(model.vocabulary.start_sequence("en", "transcribe", timestamps=False))

    def asked_with(*previous):
        """The last window, beside others with so many tokens before them, all started together."""
        slots = Slots(model, rules, size=3, num_positions=hidden.shape[1], heads=heads)
        tasks = [
            Task(index=n, prompt=(*range(300, 300 + num), *prompt), start=num, max_new_tokens=60)
            for n, num in enumerate((*previous, 0))
        ]
        done = slots.start(slots.load(hidden[-len(tasks) :]), tasks)
        while slots.live:
            done += slots.step()
        return next(one for one in done if one.task.start == 0)

    def first_window(size, steps_before):
        """Decoded when as many others have had so many steps."""
        slots = Slots(model, rules, size=size, num_positions=hidden.shape[1], heads=heads)
        done = []
        for row, steps in zip(range(len(steps_before), -1, -1), [*steps_before, 0], strict=True):
            done += slots.start(
                slots.load(hidden[[row]]), [Task(index=row, prompt=prompt, start=0, max_new_tokens=60)]
            )
            done += [one for _ in range(steps) for one in slots.step()]
        while slots.live:
            done += slots.step()
        return next(one for one in done if one.task.index == 0)

    alone, beside = first_window(1, []), first_window(4, [5, 9])
    assert len(alone.tokens) > 10
    assert alone.tokens == beside.tokens
    assert all(torch.equal(asked, beside.queries[layer]) for layer, asked in alone.queries.items())
    alone, beside = asked_with(), asked_with(21, 9)
    assert len(alone.tokens) > 10
    assert all(torch.equal(asked, beside.queries[layer]) for layer, asked in alone.queries.items())
