"""The benchmark: equal work, paired ratios, one JSON line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.benchmark import benchmark
from jobs.cli import WrongUse
from pipeline.benchmark.layer import DTYPES
from pipeline.benchmark.machine import peak_flops, peak_int8
from pipeline.benchmark.peers.contender import CaseSetup, new_tokens
from pipeline.benchmark.peers.contenders import Ours
from pipeline.benchmark.peers.engines import Generate
from pipeline.benchmark.peers.interleaved import Measurement, medians, ratios, run_rounds
from pipeline.benchmark.peers.seat import Seat, SeatError, Timed
from pipeline.benchmark.random_model import KINDS, special_tokens, write_random_model
from pipeline.benchmark.roofline import BatchWork
from pipeline.engine.decoding.memory import bytes_of_number
from pipeline.engine.model.shape import Shape
from tests.engine.conftest import MINI

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


def make_round(contender: str, number: int, cpu_s: float, tokens: int = 10) -> Measurement:
    return Measurement(
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
    setting = CaseSetup(tmp_path, num_tokens=12, batch_size=2, threads=1)
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    ours = Ours(setting, dtype="float32")(mel)
    assert [len(row) for row in ours] == [12, 12]
    assert Generate(setting)(mel) == ours


def test_rounds_are_interleaved_and_count_tokens():
    def says(*tokens):
        return lambda: Timed(cpu_s=1.0, wall_s=1.0, tokens=[list(tokens)])

    rounds = run_rounds("c", {"f32": says(1, 2), "b": says(1, 3)}, 2)
    assert [(one.contender, one.round, one.num_tokens, one.same_tokens) for one in rounds] == [
        ("f32", 0, 2, 1.0),
        ("b", 0, 2, 0.5),
        ("b", 1, 2, 0.5),
        ("f32", 1, 2, 1.0),
    ]


def test_new_tokens_are_those_between_the_prompt_and_the_end(tmp_path):
    write_random_model(tmp_path, MINI)
    setting = CaseSetup(tmp_path, num_tokens=9, batch_size=1, threads=1)
    assert new_tokens([*setting.prompt, 5, 6, setting.end, setting.end], setting) == [5, 6]
    assert new_tokens([5, 6], setting) == [5, 6]


@pytest.mark.slow
def test_an_error_in_a_contenders_process_is_one_line_that_names_it(tmp_path):
    with Seat("generate", threads=1) as seat:
        with pytest.raises(SeatError, match=r"^generate: .*nowhere"):
            seat.load(CaseSetup(tmp_path / "nowhere", num_tokens=2, batch_size=1, threads=1))
        assert seat.peak_bytes() > 1 << 20


def test_the_peaks_of_the_machine_are_those_of_its_products():
    assert peak_flops(torch.device("cpu"), torch.float32, 256) > 1e9
    assert peak_int8(256) > 1e8


@pytest.mark.parametrize(("sparsity", "speedup"), [(0.4, 1.60), (0.5, 1.88), (0.6, 2.27)])
def test_the_arithmetic_of_large_v3_is_that_of_the_paper_estimate(sparsity, speedup):
    # 790 TFLOP/s and 4.3 TB/s, 80 tokens, batch 64: docs/performance.md
    dense, sparse = (BatchWork.of(LARGE_V3, 64, s, 2, 80, 2).ideal_s(790e12, 4.3e12) for s in (0.0, sparsity))
    assert dense / 64 * 1000 == pytest.approx(8.4, rel=0.05)
    assert dense / sparse == pytest.approx(speedup, rel=0.05)


def test_int8_maps_and_slow_reads_both_bound_the_roofline():
    work = BatchWork.of(LARGE_V3, 1, 0.0, 2, 80, 4, weight_itemsize=1)
    assert work.ideal_s(1e12, 1e15, 2e12) < work.ideal_s(1e12, 1e15)
    assert work.ideal_s(1e12, 1e9) > work.bytes_read / 1e9
    assert work.bytes_read < BatchWork.of(LARGE_V3, 1, 0.0, 2, 80, 4).bytes_read


@pytest.mark.parametrize(("bandwidth", "gain"), [(3.0e12, 1.37), (4.3e12, 1.31)])
def test_memory_in_int8_is_worth_a_third_of_large_v3(bandwidth, gain):
    # 790 TFLOP/s, 64 tokens, batch 64: docs/measurements/less-to-read.md
    same, int8 = (
        BatchWork.of(LARGE_V3, 64, 0.0, 2, 64, bytes_of_number(dtype, 2, 64), weight_itemsize=2)
        for dtype in ("same", "int8")
    )
    assert same.ideal_s(790e12, bandwidth) / int8.ideal_s(790e12, bandwidth) == pytest.approx(gain, rel=0.02)


def test_kinds_have_the_vocabulary_sizes_of_the_released_models():
    sizes = {name: kind.num_text + len(special_tokens(kind)) for name, kind in KINDS.items()}
    assert (sizes["tiny"], sizes["tiny.en"], sizes["large-v3"]) == (51865, 51864, 51866)


@pytest.mark.slow
@pytest.mark.timing
def test_the_last_line_on_stdout_is_json_with_every_round():
    done = subprocess.run(
        [sys.executable, "-m", "jobs.benchmark", "--cases", "tiny-b4", "--contenders", "f32,f32_eas",
         "--rounds", "1", "--tokens", "2"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    totals = json.loads(done.stdout)
    assert [one["num_tokens"] for one in totals["rounds"]] == [8, 8]
    assert set(totals["ratios"]["tiny-b4"]) == {"f32_eas/f32"}
    assert all(row["peak_bytes"] > 1e8 for row in totals["medians"])
    assert [(row["model"], row["dtype"]) for row in totals["layers"]] == [("tiny", one) for one in DTYPES]
    assert all(0 < row["roofline"] < 1.5 for row in totals["medians"])
    assert all(0.2 < row["ratio"] < 3 for row in totals["layers"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "huge-b9"], "--cases: huge-b9 is none of tiny-b4"),
        (["--cases", ""], "--cases:  is none of tiny-b4"),
        (["--plane", "--threads", "3"], "--threads: does nothing with --plane"),
        (["--hours", "3"], "--hours: does nothing with --suite cpu"),
        (["--plane", "--loads", "normal,huge"], "--loads: huge is none of normal, ragged, clips"),
        (["--plane", "--check"], "--plane and --check exclude each other"),
    ],
)
def test_wrong_use_is_one_line(arguments, message):
    with pytest.raises(WrongUse, match=f"^{message}"):
        benchmark.main(arguments, standalone_mode=False)
