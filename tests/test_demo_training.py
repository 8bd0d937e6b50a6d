"""Training: the forward pass against transformers', a step that learns, a checkpoint that resumes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pipeline.demo.batches import Batch, spoil
from pipeline.demo.export import export_model
from pipeline.demo.labels import Target
from pipeline.demo.losses import guide_loss, reach_loss
from pipeline.demo.muon import orthogonalise
from pipeline.demo.network import Thinning, Watched, decode, encode
from pipeline.demo.schedule import default_schedule, further_schedule
from pipeline.demo.thinning import draw_thinning
from pipeline.demo.training import Trainer
from pipeline.engine.sparsify import top_positions

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices: a second thread only waits, for long where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path / "run", default_schedule(100, 10.0), CPU)


def _batch(trainer: Trainer) -> Batch:
    """Two windows of 1 s of noise with made-up labels: learnable by heart."""
    torch.manual_seed(1)
    ids = trainer.labeller.ids
    tokens = torch.randint(256, ids.end, (2, 9))
    starts = torch.arange(8).expand(2, 8) * 6
    return Batch(
        mel=torch.randn(2, 80, 100),
        frame_positions=torch.arange(50) + torch.tensor([[0], [700]]),
        tokens=tokens[:, :-1],
        positions=torch.arange(8).expand(2, 8),
        targets=tokens[:, 1:],
        spans=torch.stack([starts, starts + 5], dim=-1),
        frame_tokens=torch.randint(256, ids.end, (2, 50)),
        frame_phonemes=torch.randint(0, 90, (2, 50)),
    )


def test_our_forward_pass_equals_that_of_transformers(trainer: Trainer) -> None:
    model = trainer.average
    torch.manual_seed(0)
    mel = torch.randn(1, 80, 3000)
    tokens = torch.tensor([[trainer.labeller.ids.start, 300, 400, 500]])
    with torch.no_grad():
        theirs = model(input_features=mel, decoder_input_ids=tokens).logits
        memory = encode(model, mel, torch.arange(1500)[None]).output
        hidden, weights = decode(model, tokens, torch.arange(4)[None], memory)
    assert (model.proj_out(hidden) - theirs).abs().max() < 1e-4
    assert torch.allclose(weights[0].sum(-1), torch.ones(1, 4, 4), atol=1e-5)


def test_thinned_layers_see_the_kept_positions_alone(trainer: Trainer) -> None:
    model, encoder = trainer.average, trainer.average.model.encoder
    torch.manual_seed(0)
    mel, positions = torch.randn(2, 80, 120), torch.arange(60).expand(2, -1)
    priority = torch.rand(2, 60)
    with torch.no_grad():
        whole = encode(model, mel, positions).low  # after layer 3
        thin = encode(model, mel, positions, thinning=Thinning(3, 21, priority))
        for window in range(2):
            kept = priority[window].topk(21).indices.sort().values
            assert torch.equal(thin.kept[window], kept)
            x = whole[window : window + 1, kept]
            for layer in encoder.layers[3:]:
                x = layer(x, None)
            assert torch.allclose(encoder.layer_norm(x)[0], thin.output[window], atol=1e-4)
    assert torch.equal(thin.low, whole)
    assert torch.equal(thin.low_kept, positions)


def test_thinning_by_attention_keeps_what_the_engine_keeps_most_of(trainer: Trainer) -> None:
    """Training counts every fourth query, the engine all of them."""
    model, num_kept = trainer.average, 30
    torch.manual_seed(0)
    mel, positions = torch.randn(1, 80, 240), torch.arange(120)[None]
    with torch.no_grad():
        kept = encode(model, mel, positions, thinning=Thinning(1, num_kept, None)).kept[0]
        everything = encode(model, mel, positions, num_watched=120).watched[0].weights
    exact = top_positions(everything.sum((1, 2)), num_kept)[0]
    assert len(set(kept.tolist()) & set(exact.tolist())) > 0.8 * num_kept


def test_drawn_thinnings_keep_30_to_80_percent_in_every_way() -> None:
    rng = random.Random(0)
    drawn = [draw_thinning(rng, torch.ones(2, 100, dtype=torch.bool)) for _ in range(60)]
    assert {thinning.after_layer for thinning in drawn} == {1, 2, 3}
    assert all(30 <= thinning.num_kept <= 80 for thinning in drawn)
    ways = {
        None if thinning.priority is None else len(thinning.priority[0].unique()) == 2 for thinning in drawn
    }
    assert ways == {None, True, False}


def test_windows_with_silence_to_spare_mostly_drop_that() -> None:
    rng = random.Random(0)
    speech = torch.zeros(2, 1500, dtype=torch.bool)
    speech[0, 200:600] = speech[1, 900:1350] = True
    num_dropping_silence = 0
    for thinning in (draw_thinning(rng, speech) for _ in range(100)):
        if thinning.priority is not None:
            kept = thinning.priority.topk(thinning.num_kept).indices
            heard = speech.gather(1, kept).sum(1)  # evenly or by lot it would be 27 and 30 % of what is kept
            num_dropping_silence += bool((heard > 0.4 * thinning.num_kept).all())
    assert 45 <= num_dropping_silence <= 75


def test_a_thinned_batch_teaches_with_the_labels_of_the_kept_frames(trainer: Trainer) -> None:
    batch = replace(_batch(trainer), thinning=Thinning(1, 20, torch.rand(2, 50)))
    first = trainer.learn(batch)
    for _ in range(9):
        last = trainer.learn(batch)
    assert last["frames"] < first["frames"] - 0.3
    assert last["guide"] < first["guide"]


def test_near_attention_is_attention_to_the_chunks_beside_ones_own(trainer: Trainer) -> None:
    model, encoder = trainer.average, trainer.average.model.encoder
    torch.manual_seed(0)
    mel, positions = torch.randn(2, 80, 1000), torch.arange(500).expand(2, -1)
    chunk = torch.arange(500) // 100
    middle = chunk.clamp(1, 3)  # the first and the last chunk have two on one side
    mask = torch.zeros(500, 500).masked_fill((middle[:, None] - chunk[None]).abs() > 1, float("-inf"))
    with torch.no_grad():
        near = encode(model, mel, positions, near=True).output
        whole = encode(model, mel, positions).output
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
        x = x + encoder.embed_positions(positions)
        for layer in encoder.layers:
            x = layer(x, mask[None, None])
    assert torch.allclose(near, encoder.layer_norm(x), atol=1e-4)
    assert not torch.allclose(near, whole, atol=1e-2)


def test_what_near_attention_cannot_cut_into_chunks_is_attended_to_as_a_whole(trainer: Trainer) -> None:
    mel, positions = torch.randn(1, 80, 500), torch.arange(250)[None]
    with torch.no_grad():
        near, whole = (encode(trainer.average, mel, positions, near=n).output for n in (True, False))
    assert torch.equal(near, whole)


def test_reach_counts_only_speech() -> None:
    weights = torch.zeros(1, 1, 2, 300)
    weights[0, 0, 0, 40], weights[0, 0, 1, 299] = 1.0, 1.0  # frame 0 looks near, frame 10 far away
    frames = torch.arange(300)[None]
    watched = [Watched(weights, torch.tensor([[0, 10]]), frames)]
    speech = torch.zeros(1, 300, dtype=torch.bool)
    assert reach_loss(watched, frames, speech).item() == 0
    speech[0, 0] = True
    assert reach_loss(watched, frames, speech).item() == pytest.approx(0.0, abs=1e-3)
    speech[0, 10] = True
    assert reach_loss(watched, frames, speech).item() > 4


def test_steps_on_one_batch_lower_every_loss(trainer: Trainer) -> None:
    batch = _batch(trainer)
    first = trainer.learn(batch)
    for _ in range(9):
        last = trainer.learn(batch)
    assert last["tokens"] < first["tokens"] - 0.3
    assert last["frames"] < first["frames"] - 0.3
    assert last["phonemes"] < first["phonemes"]
    assert last["guide"] < first["guide"]
    assert last["places"] < first["places"]


def test_a_resumed_run_goes_on_exactly_like_an_undisturbed_one(trainer: Trainer) -> None:
    batch = _batch(trainer)
    for _ in range(2):
        trainer.learn(batch)
    trainer.save()
    resumed = Trainer(trainer.output, trainer.schedule, CPU, seed=7)
    assert resumed.restore()
    assert (resumed.step, resumed.audio_s) == (trainer.step, trainer.audio_s)
    assert resumed.learn(batch) == trainer.learn(batch)
    for ours, theirs in zip(resumed.average.parameters(), trainer.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_fresh_folder_has_nothing_to_resume(trainer: Trainer) -> None:
    assert not trainer.restore()


def test_a_run_can_start_from_an_exported_model(trainer: Trainer, tmp_path: Path) -> None:
    export_model(trainer.average, trainer.labeller.tokenizer, tmp_path / "model")
    other = Trainer(tmp_path / "other", trainer.schedule, CPU, seed=7)
    other.start_from(tmp_path / "model")
    for ours, theirs in zip(other.trainee.model.parameters(), trainer.average.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-2)


def test_guided_attention_on_the_span_costs_nothing_and_elsewhere_much() -> None:
    spans = torch.tensor([[[2, 4], [0, 0]]])
    on, off = torch.zeros(1, 2, 2, 10), torch.zeros(1, 2, 2, 10)
    on[..., 3], off[..., 7] = 1.0, 1.0
    frames = torch.arange(10)[None]
    assert guide_loss([on], spans, frames).item() == pytest.approx(0.0, abs=1e-3)
    assert guide_loss([off], spans, frames).item() > 5
    assert guide_loss([on], torch.zeros_like(spans), frames).item() == 0


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_the_schedule_warms_up_holds_and_ends_near_zero() -> None:
    schedule = default_schedule(1000, 80.0)
    assert schedule.rate(0) == pytest.approx(0.01)
    assert schedule.rate(400) == 1.0
    assert schedule.rate(999) == pytest.approx(0.02)
    windows_s = [
        [recipe.window_s for recipe in schedule.stage(step).recipes] for step in (0, 499, 500, 800, 999)
    ]
    assert windows_s == [[5], [5], [5, 30], [30], [30]]


def test_a_further_schedule_is_full_windows_at_last_with_whole_attention() -> None:
    schedule = further_schedule(1000, 80.0)
    (first,), (last,) = (schedule.stage(step).recipes for step in (0, 999))
    for recipe in (first, last):
        assert (recipe.window_s, recipe.batch_size) == (30.0, 3)
        assert 0 < recipe.thinned < 1
    assert first.near > 0.5 > last.near
    assert (schedule.rate(200), schedule.rate(600)) == (1.0, 0.5)


def test_mistakes_in_the_history_change_nothing_that_is_to_be_predicted(trainer: Trainer) -> None:
    ids = trainer.labeller.ids
    truth = [ids.first_timestamp + 50, *range(300, 340), ids.first_timestamp + 120, ids.end]
    body = [Target(token) for token in truth]
    rng = random.Random(0)
    spoilt = [spoil(rng, body, ids) for _ in range(100)]
    for history, targets in spoilt:
        assert len(targets) == len(history) + 1
        assert [target.token for target in targets] == sorted(
            (target.token for target in targets), key=truth.index
        )
        assert targets[-1].token == ids.end
        marks = [token for token in history if token >= ids.first_timestamp]
        assert len(marks) == 2
    lengths = {len(history) for history, _ in spoilt}
    assert min(lengths) < len(truth) - 1 < max(lengths)
    assert len({history[0] for history, _ in spoilt}) > 10
