"""Steps that are captured: what a graph takes for granted is held on a CPU, graphs themselves on a GPU."""

from __future__ import annotations

import pytest
import torch

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding import slots as slots_module
from pipeline.engine.decoding.graphs import KEY_STEP, StepGraphs, padded_keys
from pipeline.engine.scheduling.work import Pass, Work
from tests.engine.conftest import MINI, make_speechlike

LENGTHS_S = [30.0, 7.3, 21.0, 12.0, 3.0]


class Replays:
    """Runs the first step of a key for ever, and sees to it that the step's memory stays where it is."""

    def __init__(self) -> None:
        self.steps = {}

    def run(self, key, step):
        owner = step.__closure__
        (slots,) = [
            cell.cell_contents for cell in owner if isinstance(cell.cell_contents, slots_module.Slots)
        ]
        addresses = [tensor.data_ptr() for tensor in vars(slots).values() if isinstance(tensor, torch.Tensor)]
        first, known = self.steps.setdefault(key, (step, addresses))
        assert known == addresses
        return first().clone()


def decode(folder, *, device="cpu", temperature=0.0):
    """Tokens of windows of many lengths in two slots, so that they end and start at different times."""
    options = EngineOptions(max_new_tokens=70, batch_size=2)
    engine = Engine.load(folder, device=device, dtype="float32", options=options)
    works = [
        Work(samples=make_speechlike(seconds, number), seed=number, language="en")
        for number, seconds in enumerate(LENGTHS_S)
    ]
    with torch.inference_mode():
        return [found.tokens for found in engine._passes.run(works, Pass(temperature=temperature))]


class AsTheyAre:
    """Runs every step that it is given."""

    def run(self, _key, step):
        return step()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_step_that_is_replayed_decodes_the_same(model_folder, monkeypatch, temperature):
    folder, made = model_folder(MINI), []
    monkeypatch.setattr(slots_module, "step_graphs", lambda _device: AsTheyAre())
    afresh = decode(folder, temperature=temperature)
    monkeypatch.setattr(slots_module, "step_graphs", lambda _device: made.append(Replays()) or made[-1])
    assert decode(folder, temperature=temperature) == afresh
    assert {key[0] for one in made for key in one.steps} == {KEY_STEP, 2 * KEY_STEP}


def test_keys_past_the_longest_change_nothing(model_folder, monkeypatch):
    folder = model_folder(MINI)
    plain = decode(folder)
    monkeypatch.setattr(slots_module, "step_graphs", lambda _device: AsTheyAre())
    assert decode(folder) == plain


def test_padded_keys_hold_the_longest_and_end_with_the_cache():
    assert [padded_keys(longest, 448) for longest in (1, 64, 65, 448)] == [64, 64, 128, 448]


def test_where_nothing_can_be_captured_steps_run_as_they_are():
    if torch.cuda.is_available():
        pytest.skip("this machine can capture")
    graphs, total = StepGraphs(), torch.zeros(1)
    graphs.run("key", lambda: total.add_(1))
    with pytest.warns(RuntimeWarning, match="decoding without CUDA graphs"):
        graphs.run("key", lambda: total.add_(1))
    graphs.run("key", lambda: total.add_(1))
    assert total == 3
