"""A phrase over and over: the decoder is stopped in it, no sooner than speech could be done with it."""

from __future__ import annotations

import pytest

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding import slots
from pipeline.engine.decoding.loops import ends_in_loop, runaway_tokens
from pipeline.engine.decoding.tasks import LOOP_CHECK, Decoding, Task
from pipeline.engine.scheduling.work import Pass, Work
from pipeline.engine.sparsify.level import Level
from tests.engine.conftest import MINI, make_speechlike


def decoding(max_loop: int | None) -> Decoding:
    task = Task(index=0, prompt=(1,), start=0, max_new_tokens=440, max_loop=max_loop)
    return Decoding(task=task, no_speech_prob=0.0, num_positions=1500)


def test_it_ends_in_a_loop_only_if_all_of_the_end_is_one_phrase():
    phrase = [5, 6, 7]
    assert ends_in_loop([1, 2, *phrase * 12], 36)
    assert ends_in_loop([1, 2, *phrase * 12, 5], 36)
    assert not ends_in_loop([1, 2, *phrase * 12], 40)
    assert not ends_in_loop([*phrase * 12, 8], 36)
    assert not ends_in_loop([*range(9)] * 3 + [*range(9)][:5], 32)  # three times and a half is no loop
    assert not ends_in_loop(phrase, 32)


def test_the_longer_the_window_the_more_may_be_said_over_and_over():
    assert [runaway_tokens(seconds) for seconds in (0.1, 5.0, 10.0, 30.0)] == [32, 32, 60, 180]


@pytest.mark.parametrize("limit", [32, 180])
def test_a_loop_is_given_up_where_it_is_long_enough(limit):
    found = decoding(limit)
    for number in range(440):
        found.take(100 + number if number < 20 else number % 2, -0.1, end=9)
        if found.is_finished:
            break
    assert found.is_lost
    assert not found.ended
    assert limit + 20 <= len(found.tokens) < limit + 20 + LOOP_CHECK


def test_without_a_limit_a_loop_goes_on():
    found = decoding(None)
    for _ in range(440):
        found.take(3, -0.1, end=9)
    assert not found.is_lost
    assert len(found.tokens) == 440


def test_a_window_that_loops_leaves_its_slot_early(model_folder, monkeypatch):
    engine = Engine.load(model_folder(MINI), options=EngineOptions(batch_size=2))
    monkeypatch.setattr(slots.Rules, "choose", lambda _self, logits, *_, **__: one_token(logits))
    works = [Work(samples=make_speechlike(seconds, 0), seed=0, language="en") for seconds in (3.0, 10.0)]
    found = engine._passes.run(works, Pass(level=Level()))
    assert [one.is_lost for one in found] == [True, True]
    assert [len(one.tokens) for one in found] == [32, 64]


def one_token(logits):
    """The same likely token for every row."""
    return logits.new_full((len(logits),), 7).long(), logits.new_full((len(logits),), -0.1)
