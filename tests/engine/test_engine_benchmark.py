"""The benchmark: equal work, paired ratios, one JSON line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import MINI

from pipeline.benchmark.contenders import Generate, Ours, Setting
from pipeline.benchmark.gpu import _run_once
from pipeline.benchmark.random_model import KINDS, random_model, special_tokens, write_random_model
from pipeline.benchmark.rounds import Round, medians, ratios, run_rounds
from pipeline.benchmark.work import Work
from pipeline.engine.shape import Shape

ROOT = Path(__file__).parents[2]
LARGE_V3 = Shape(
    dim=1280,
    vocab_size=51866,
    num_mels=128,
    encoder_layers=32,
    encoder_heads=20,
    decoder_layers=32,
    decoder_heads=20,
    source_positions=1500,
    target_positions=448,
    tied_logits=True,
)


def make_round(contender: str, number: int, cpu_s: float, tokens: int = 10) -> Round:
    return Round(
        case="c", contender=contender, round=number, num_windows=2, num_tokens=tokens, cpu_s=cpu_s, wall_s=1.0
    )


def test_ratios_pair_the_rounds_and_take_the_median():
    rounds = [make_round("f32", n, 1.0) for n in range(3)]
    rounds += [make_round("generate", n, cpu_s) for n, cpu_s in enumerate([1.5, 9.0, 2.0])]
    assert ratios(rounds) == {"c": {"f32/generate": 2.0}}


def test_ratios_are_per_token_and_medians_per_window():
    rounds = [make_round("f32", 0, 1.0, tokens=20), make_round("generate", 0, 1.0, tokens=10)]
    assert ratios(rounds)["c"]["f32/generate"] == 2.0
    assert [row["cpu_s_per_window"] for row in medians(rounds)] == [0.5, 0.5]


def test_all_contenders_decode_the_same_tokens_from_the_same_weights(tmp_path):
    write_random_model(tmp_path, MINI, never_ends=True)
    setting = Setting(folder=tmp_path, num_tokens=12, batch_size=2, threads=1)
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    ours = Ours(setting, dtype="float32")(mel)
    assert [len(row) for row in ours] == [12, 12]
    assert Generate(setting)(mel) == ours


def test_rounds_are_interleaved_and_count_tokens():
    rounds = run_rounds("c", {"a": lambda mel: [[1, 2]], "b": lambda mel: [[1]]}, torch.zeros(1), 2)
    assert [(one.contender, one.round, one.num_tokens) for one in rounds] == [
        ("a", 0, 2),
        ("b", 0, 1),
        ("b", 1, 1),
        ("a", 1, 2),
    ]


@pytest.mark.parametrize(("sparsity", "speedup"), [(0.4, 1.60), (0.5, 1.88), (0.6, 2.27)])
def test_the_arithmetic_of_large_v3_is_that_of_the_paper_estimate(sparsity, speedup):
    # 790 TFLOP/s and 4.3 TB/s, 80 tokens, batch 64: docs/performance.md
    dense, sparse = (Work.of(LARGE_V3, 64, s, 2, 80, 2).ideal_s(790e12, 4.3e12) for s in (0.0, sparsity))
    assert dense / 64 * 1000 == pytest.approx(8.4, rel=0.05)
    assert dense / sparse == pytest.approx(speedup, rel=0.05)


def test_kinds_have_the_vocabulary_sizes_of_the_released_models():
    sizes = {name: kind.num_text + len(special_tokens(kind)) for name, kind in KINDS.items()}
    assert (sizes["tiny"], sizes["tiny.en"], sizes["large-v3"]) == (51865, 51864, 51866)


@pytest.mark.slow
def test_the_last_line_on_stdout_is_json_with_every_round():
    done = subprocess.run(
        [sys.executable, "-m", "jobs.benchmark", "--cases", "tiny-b4", "--contenders", "f32,f32_eas",
         "--rounds", "1", "--tokens", "2"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    totals = json.loads(done.stdout)
    assert [one["num_tokens"] for one in totals["rounds"]] == [8, 8]
    assert set(totals["ratios"]["tiny-b4"]) == {"f32_eas/f32"}


def test_wrong_use_is_one_line_and_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "jobs.benchmark", "--cases", "huge-b9"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: --cases: huge-b9 is none of tiny-b4")


def test_the_gpu_suite_times_every_stage_of_a_model_made_on_the_device(tmp_path):
    model = random_model(tmp_path, MINI, device=torch.device("cpu"), dtype="float32")
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json"}
    with torch.inference_mode():
        mel = model.features([torch.randn(1000).numpy()])
        for sparsity in (0.0, 0.5):
            assert all(seconds > 0 for seconds in _run_once(model, mel, sparsity, num_tokens=3))
