"""Which positions are kept, and that dropping early changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.profile import OPERATIONS
from pipeline.engine.scheduling.work import Pass, Work
from pipeline.engine.sparsify.attention import received_attention
from pipeline.engine.sparsify.level import Level, num_kept
from pipeline.engine.sparsify.scoring_layer import encode_sparse, finish_kept
from pipeline.engine.sparsify.selectors import SELECTORS, Evidence, top_positions
from tests.engine.conftest import MINI, TINY, make_speechlike


def make_evidence(batch: int, heads: int, time: int, seed: int) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    return Evidence(
        q=torch.randn(batch, heads, time, 8, generator=generator),
        k=torch.randn(batch, heads, time, 8, generator=generator),
        mel=torch.randn(batch, 4, 2 * time, generator=generator),
        positions=torch.arange(time).expand(batch, -1),
        seeds=list(range(seed, seed + batch)),
    )


def received_in_float64(q: torch.Tensor, k: torch.Tensor, over_queries: str = "sum") -> torch.Tensor:
    weights = (q.double() @ k.double().transpose(-1, -2)).softmax(-1)
    return weights.sum(-2) if over_queries == "sum" else weights.amax(-2)


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(), name=st.sampled_from(list(SELECTORS)), time=st.integers(1, 60), batch=st.integers(1, 3)
)
def test_kept_positions_are_sorted_unique_inside_exactly_k_and_always_the_same(data, name, time, batch):
    k = data.draw(st.integers(1, time))
    evidence = make_evidence(batch, 3, time, data.draw(st.integers(0, 1000)))
    kept = SELECTORS[name](evidence, k)
    assert torch.equal(SELECTORS[name](evidence, k), kept)
    assert kept.shape == (batch, k)
    assert kept.dtype == torch.int64
    for row in kept.tolist():
        assert all(earlier < later for earlier, later in pairwise(row))
        assert 0 <= row[0] <= row[-1] < time


@pytest.mark.parametrize("name", SELECTORS)
def test_what_a_window_keeps_does_not_depend_on_its_company(name):
    evidence = make_evidence(4, 3, 50, 3)
    kept = SELECTORS[name](evidence, 20)
    for row in range(4):
        alone = Evidence(
            q=evidence.q[row : row + 1],
            k=evidence.k[row : row + 1],
            mel=evidence.mel[row : row + 1],
            positions=evidence.positions[row : row + 1],
            seeds=[evidence.seeds[row]],
        )
        assert torch.equal(SELECTORS[name](alone, 20)[0], kept[row])


@pytest.mark.parametrize("name", SELECTORS)
def test_keeping_everything_keeps_everything(name):
    assert SELECTORS[name](make_evidence(1, 2, 33, 0), 33).tolist() == [list(range(33))]


@pytest.mark.parametrize("over_queries", ["sum", "max"])
@pytest.mark.parametrize(("heads", "time"), [(2, 1500), (3, 249), (1, 7)])
def test_tiled_scores_equal_a_float64_reference(heads, time, over_queries):
    evidence = make_evidence(2, heads, time, 1)
    ours = received_attention(evidence.q, evidence.k, over_queries=over_queries)
    theirs = received_in_float64(evidence.q, evidence.k, over_queries)
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=1e-7)


def test_the_summed_scores_of_a_head_add_up_to_the_number_of_queries():
    evidence = make_evidence(2, 3, 400, 2)
    totals = received_attention(evidence.q, evidence.k).sum(-1)
    torch.testing.assert_close(totals, torch.full_like(totals, 400.0))


AGGREGATIONS = {
    "attention": lambda q, k: received_in_float64(q, k).mean(1),
    "attention-max": lambda q, k: received_in_float64(q, k).amax(1),
    "attention-min": lambda q, k: received_in_float64(q, k).amin(1),
    "attention-median": lambda q, k: received_in_float64(q, k).quantile(0.5, dim=1),
    "attention-max-query": lambda q, k: received_in_float64(q, k, "max").mean(1),
}


def assert_same_choice(importance: torch.Tensor, kept: torch.Tensor, k: int) -> None:
    """`kept` are the k largest of float64 `importance` [time], but for those that lie at the cut itself."""
    ranked = importance.sort(descending=True).values
    cut = ranked[k - 1 : k + 1].mean()
    is_clear = (importance - cut).abs() > 1e-6
    assert is_clear.sum() > 0.9 * len(importance)
    is_kept = torch.zeros(len(importance), dtype=torch.bool)
    is_kept[kept] = True
    assert int(is_kept.sum()) == k
    assert torch.equal(is_kept[is_clear], (importance > cut)[is_clear])


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_float64_reference_keeps_the_same_positions(name):
    evidence = make_evidence(3, 4, 600, 4)
    importance = AGGREGATIONS[name](evidence.q, evidence.k)
    kept = SELECTORS[name](evidence, 300)
    for row in range(3):
        assert_same_choice(importance[row], kept[row], 300)


def test_every_attention_selector_has_a_reference():
    assert {name for name in SELECTORS if name.startswith("attention")} == set(AGGREGATIONS)


def test_ties_go_to_the_earlier_position():
    assert top_positions(torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0]]), 3).tolist() == [[0, 1, 3]]


def test_trim_keeps_the_earliest_energy_the_loudest_and_stride_every_nth():
    evidence = make_evidence(1, 1, 10, 0)
    evidence.mel[0] = 0.0
    evidence.mel[0, :, 8:14] = 1.0
    assert SELECTORS["trim"](evidence, 4).tolist() == [[0, 1, 2, 3]]
    assert SELECTORS["energy"](evidence, 3).tolist() == [[4, 5, 6]]
    assert SELECTORS["stride"](evidence, 5).tolist() == [[0, 2, 4, 6, 8]]


@pytest.mark.parametrize(("sparsity", "kept"), [(0.0, 1500), (0.3, 1050), (0.5, 750), (0.6, 600), (0.95, 75)])
def test_k_is_the_rounded_rest(sparsity, kept):
    assert num_kept(sparsity, 1500) == kept


@torch.inference_mode()
def test_the_lazy_layer_equals_dropping_after_the_whole_layer(model_folder):
    encoder = Engine.load(model_folder(MINI))._model.encoder
    layer = encoder.layers[1]
    x = torch.randn(2, 300, MINI.dim, generator=torch.Generator().manual_seed(0))
    qkv = layer.project(x)
    kept = torch.stack([torch.randperm(300)[:120].sort().values for _ in range(2)])
    whole = layer(x).gather(1, kept[:, :, None].expand(-1, -1, MINI.dim))
    torch.testing.assert_close(finish_kept(layer, x, qkv, kept), whole, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("layer", [1, 2])
def test_layers_after_the_scoring_one_see_the_kept_positions_only(model_folder, layer):
    model = Engine.load(model_folder(MINI))._model
    mel = model.features([make_speechlike(20.0, 1)])
    x = model.encoder.run(model.encoder.stem(mel), 0, layer)
    before = model.encoder.run(model.encoder.stem(mel), 0, layer - 1)
    q, k, _ = model.encoder.layers[layer - 1].project(before)
    kept = top_positions(received_in_float64(q, k).mean(1), 750)[0]
    expected = model.encoder.norm(model.encoder.run(x[:, kept], layer, 2))
    level = Level(layer=layer, sparsity=0.5)
    ours, ours_kept = encode_sparse(model.encoder, mel, level=level, seeds=[0])
    assert torch.equal(ours_kept[0], kept)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_layers_see_the_positions_that_they_are_given_only(model_folder):
    model = Engine.load(model_folder(MINI))._model
    mel = model.features([make_speechlike(20.0, 1)])
    positions = torch.arange(0, 1500, 3)
    level = Level(layer=1, sparsity=0.8, selector="stride", thin_ends=True)
    x = model.encoder.stem(mel)[:, positions]
    expected = model.encoder.norm(model.encoder.run(x, 0, 2))
    thinned = replace(level, sparsity=0.5)
    ours, ours_kept = encode_sparse(model.encoder, mel, level=thinned, seeds=[0], positions=positions[None])
    assert torch.equal(ours_kept[0], positions)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    ours, ours_kept = encode_sparse(model.encoder, mel, level=level, seeds=[0], positions=positions[None])
    assert len(ours_kept[0]) == 100
    expected = model.encoder.run(x, 0, 1)[:, ::5]
    expected = model.encoder.norm(model.encoder.run(expected, 1, 2))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_no_sparsity_is_the_dense_path_bit_for_bit(model_folder):
    windows = [make_speechlike(10.0, 1), make_speechlike(25.0, 2)]
    outputs = []
    for options in (EngineOptions(sparsity=0.0, sparsify_layer=1, selector="random"), EngineOptions()):
        engine = Engine.load(model_folder(MINI), options=options)
        works = [Work(samples=window, seed=0, language="en") for window in windows]
        with torch.inference_mode():
            outputs.append(
                engine._passes.run(
                    works,
                    Pass(
                        level=Level(sparsity=options.sparsity, layer=1, selector="random"), max_new_tokens=20
                    ),
                )
            )
    for one, other in zip(*outputs, strict=True):
        assert one.tokens == other.tokens
        assert one.sum_logprob == other.sum_logprob
        assert one.num_positions == 1500


def test_the_parts_of_a_window_are_timed_dense_and_sparse(model_folder):
    engine = Engine.load(model_folder(MINI))
    windows = [make_speechlike(5.0, 1), make_speechlike(9.0, 2)]
    dense, sparse = engine.profile(windows, level=Level(layer=1, sparsity=0.6), language="en")
    assert tuple(dense) == tuple(sparse) == OPERATIONS
    assert [name for name, seconds in dense.items() if seconds == 0] == ["scores and choice"]
    assert all(seconds > 0 for seconds in sparse.values())
    with pytest.raises(ValueError, match="layer is 3; with this model it may be 1 to 2"):
        engine.profile(windows, level=Level(layer=3, sparsity=0.6))


def test_scores_of_sixteen_windows_of_tiny_take_under_50_megabytes():
    q = torch.randn(16, TINY.heads, 1500, 64)
    with torch.profiler.profile(profile_memory=True) as profiler:
        received_attention(q, q)
    events = sorted(
        (event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    assert max_running_sum(event.nbytes() for event in events) < 50 * 2**20


def max_running_sum(values) -> int:
    total = largest = 0
    for value in values:
        total += value
        largest = max(largest, total)
    return largest
