"""What only a GPU can show. It needs torch, transformers and triton alone, as a bare GPU machine has them."""

from __future__ import annotations

import difflib
import warnings
import wave
from dataclasses import fields

import numpy as np
import pytest
import torch

from pipeline.demo import SPEECH
from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding import slots as slots_module
from pipeline.engine.decoding.memory import Int8Memory
from pipeline.engine.model.kernels import has_kernel
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.whisper import load_model
from pipeline.engine.sparsify.attention import received_attention
from pipeline.engine.sparsify.selectors import top_positions
from tests.engine.conftest import MINI, TINY, make_speechlike
from tests.engine.decoding.made_memory import exact, made
from tests.engine.decoding.test_graphs import decode

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def kitchen() -> np.ndarray:
    """A bundled recording of 12 s, read without an audio library: int16 at 16 kHz."""
    with wave.open(str(SPEECH / "kitchen.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def transcribed(windows, *, device: str, dtype: str, **options):
    engine = Engine.load("demo", device=device, dtype=dtype, options=EngineOptions(**options))
    return engine.transcribe(windows, languages=["en"] * len(windows))


def words_changed(texts, others) -> float:
    """The share of words that differ."""
    mine, theirs = " ".join(texts).split(), " ".join(others).split()
    same = sum(block.size for block in difflib.SequenceMatcher(None, mine, theirs).get_matching_blocks())
    return 1 - same / max(len(mine), len(theirs))


def test_graphs_decode_the_same(model_folder, monkeypatch):
    folder = model_folder(MINI)
    captured = decode(folder, device="cuda")
    monkeypatch.setattr(slots_module, "step_graphs", lambda _device: None)
    assert captured == decode(folder, device="cuda")


def test_float32_says_what_a_cpu_says(kitchen):
    windows = [kitchen, kitchen[:80_000], kitchen[60_000:]]
    for options in ({}, {"sparsity": 0.5}, {"sparsity": 0.5, "selector": "stride"}):
        here, there = (
            transcribed(windows, device=device, dtype="float32", **options) for device in ("cuda", "cpu")
        )
        assert [one.text for one in here] == [one.text for one in there]
        assert all(one.text for one in here)


def test_what_a_graph_notes_times_a_text_as_a_pass_on_a_cpu_does(kitchen):
    """Where words are asked for a pass says it, else what the decoder asked in steps that are graphs."""
    windows = [kitchen, kitchen[:80_000], kitchen[60_000:]]
    noted = transcribed(windows, device="cuda", dtype="float32", timestamps="alignment")
    passed = transcribed(windows, device="cpu", dtype="float32", timestamps="alignment", word_timestamps=True)
    times = [np.array(one.spoken) for one in noted]
    assert all(len(one) > 3 for one in times)
    for here, one in zip(times, passed, strict=True):
        assert np.abs(here - np.array(one.spoken)).max() <= 0.1


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.02), ("float16", 0.002)])
def test_half_the_bits_change_few_words(kitchen, dtype, most):
    windows = [kitchen[start:] for start in range(0, 64_000, 8_000)]
    half, full = (
        [one.text for one in transcribed(windows, device=device, dtype=dtype)]
        for device, dtype in (("cuda", dtype), ("cpu", "float32"))
    )
    assert words_changed(half, full) < most


def test_a_window_decodes_alone_as_it_does_in_company(kitchen):
    windows = [kitchen, kitchen[:80_000], kitchen[60_000:], make_speechlike(20.0, 1)]
    for sparsity in (0.0, 0.5):
        together = transcribed(windows, device="cuda", dtype="float32", sparsity=sparsity, batch_size=4)
        alone = [
            transcribed([window], device="cuda", dtype="float32", sparsity=sparsity)[0] for window in windows
        ]
        assert [(one.text, one.kept) for one in together] == [(one.text, one.kept) for one in alone]


@pytest.mark.parametrize(("dtype", "least_same"), [(torch.float32, 0.995), (torch.bfloat16, 0.99)])
def test_the_kernel_of_the_score_chooses_as_float64_does(dtype, least_same):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 6, 1500, 64, generator=generator).to(dtype) for _ in range(2))
    q = q * 0.5
    exact = (q.double() @ k.double().transpose(2, 3)).softmax(-1).sum(2)
    sums = received_attention(q.cuda(), k.cuda()).cpu().double()
    assert ((sums - exact).abs() / exact).max() < 1e-2
    chosen, right = (top_positions(one.mean(1), 750) for one in (sums, exact))
    same = sum(len(set(a) & set(b)) for a, b in zip(chosen.tolist(), right.tolist(), strict=True))
    assert same / right.numel() >= least_same


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)]
)
def test_attention_to_keys_and_values_in_int8_is_that_of_float64(dtype, most):
    for tokens in (1, 4):
        q, memory = made((4, 20, tokens, 1500, 64), dtype)
        slots = torch.arange(4).flip(0)
        on_gpu = Int8Memory(**{field.name: getattr(memory, field.name).cuda() for field in fields(memory)})
        found, right = on_gpu.attend(q.cuda(), slots.cuda()).cpu(), exact(q, memory, slots)
        assert ((found - right).norm() / right.norm()) < most


def test_int8_memory_changes_few_words(kitchen):
    windows = [kitchen[start:] for start in range(0, 64_000, 8_000)]
    int8, same = (
        [one.text for one in transcribed(windows, device="cuda", dtype="bfloat16", memory_dtype=dtype)]
        for dtype in ("int8", "same")
    )
    assert words_changed(int8, same) < 0.02


@pytest.mark.parametrize(
    "name", ["decoding.int8_attention", "decoding.past_attention", "sparsify.column_sums"]
)
def test_every_kernel_is_used(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert has_kernel(f"pipeline.engine.{name}", torch.device("cuda"))


def test_the_encoder_is_that_of_a_cpu(model_folder):
    snapshot = resolve(model_folder(TINY))
    mel = torch.randn(1, TINY.num_mels, 3000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = load_model(snapshot, device=torch.device("cpu"), dtype="float32").encoder(mel)
        for dtype, bound in (("float32", 1e-3), ("float16", 4e-3), ("bfloat16", 3e-2)):
            model = load_model(snapshot, device=torch.device("cuda"), dtype=dtype)
            found = model.encoder(mel.cuda()).float().cpu()
            assert (found - exact).norm() / exact.norm() < bound
