"""Many calls on one device: its lanes serve all, one bill, and nobody falls with a neighbour."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding import quality_gates
from pipeline.engine.decoding.slots import Slots
from pipeline.engine.decoding.tasks import Task
from pipeline.engine.model.log_mel import LogMel
from pipeline.engine.scheduling.scheduler import GivenUp
from pipeline.engine.sparsify.level import Level
from tests.engine.conftest import MINI, make_speechlike

THINNED = Level(layer=1, sparsity=0.5, selector="stride", thin_ends=True)
LEVELS = (None, Level(sparsity=0.5), THINNED)
WINDOWS = [make_speechlike(2.0 + 3 * number, number) for number in range(6)]


@pytest.fixture
def engine(model_folder, monkeypatch):
    monkeypatch.setattr(
        quality_gates, "judge", lambda *_, **__: quality_gates.Verdict(is_silent=False, passed=True)
    )
    return load(model_folder)


def load(model_folder, lanes=1):
    return Engine.load(
        model_folder(MINI, 1), options=EngineOptions(max_new_tokens=12, batch_size=4, lanes=lanes)
    )


def texts(results):
    return [(result.text, result.kept_positions) for result in results]


def call(engine, level, windows=WINDOWS):
    return engine.transcribe(windows, languages=["en"] * len(windows), levels=level)


def call_together(engine, calls):
    """The outcome of each call, made by a thread of its own: its results, or what it raised."""
    barrier = threading.Barrier(len(calls))

    def run(one):
        barrier.wait()
        try:
            return call(engine, *one)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls, timeout=300))


def test_calls_of_many_threads_give_what_they_give_alone(engine):
    alone = [texts(call(engine, level)) for level in LEVELS]
    together = call_together(engine, [(level,) for level in LEVELS * 2])
    assert [texts(results) for results in together] == alone * 2


def test_the_shares_of_all_windows_add_up_to_the_devices_busy_time(engine):
    before = engine._passes._scheduler.busy_s
    together = call_together(engine, [(level,) for level in LEVELS])
    shares = [result.device_s for results in together for result in results]
    assert all(share > 0 for share in shares)
    assert sum(shares) == pytest.approx(engine._passes._scheduler.busy_s - before, rel=1e-6)


def test_windows_of_several_calls_decode_side_by_side(engine, monkeypatch):
    sizes = []
    step = Slots.step

    def counted(slots):
        sizes.append(len(slots.live))
        return step(slots)

    monkeypatch.setattr(Slots, "step", counted)
    call_together(engine, [(None, WINDOWS[n : n + 2]) for n in range(0, 6, 2)])
    assert max(sizes) == 4


def test_features_made_ahead_and_windows_encoded_together_give_the_same_text(engine, monkeypatch):
    alone = [texts(call(engine, level)) for level in LEVELS]
    encoding = engine._passes._encoding
    monkeypatch.setattr(encoding, "_is_batched", True)  # as on a GPU
    prepare, prepared = encoding._ahead.prepare, []
    monkeypatch.setattr(encoding._ahead, "prepare", lambda one: prepared.append(len(one)) or prepare(one))
    together = call_together(engine, [(level,) for level in LEVELS])
    assert [texts(results) for results in together] == alone
    assert prepared


@pytest.mark.parametrize("lanes", [2, 3])
def test_lanes_change_no_text_and_share_the_bill(engine, model_folder, lanes):
    alone = [texts(call(engine, level)) for level in LEVELS]
    several = load(model_folder, lanes)
    together = call_together(several, [(level,) for level in LEVELS * 2])
    assert [texts(results) for results in together] == alone * 2
    shares = [result.device_s for results in together for result in results]
    assert sum(shares) == pytest.approx(several._passes._scheduler.busy_s, rel=1e-6)
    busy = [lane.busy_s for lane in several._passes._scheduler._lanes]
    assert len(busy) == lanes
    assert all(busy)


def test_one_call_is_served_by_all_lanes_at_once_and_leaves_no_thread(model_folder, monkeypatch):
    engine, step, barrier = load(model_folder, 2), Slots.step, threading.Barrier(2)
    threads, before = set(), torch.get_num_threads()

    def met(slots):
        if len(threads) < 2 and threading.current_thread() not in threads:
            threads.add(threading.current_thread())
            barrier.wait(60)  # passes only where both lanes step at the same time
        return step(slots)

    monkeypatch.setattr(Slots, "step", met)
    assert len(call(engine, None)) == len(WINDOWS)
    assert len(threads) == 2
    assert threads & set(threading.enumerate()) == {threading.current_thread()}
    assert torch.get_num_threads() == before


def test_a_call_that_is_stopped_takes_its_helpers_with_it(model_folder, monkeypatch):
    engine, step = load(model_folder, 2), Slots.step
    alone = texts(call(engine, THINNED))

    def interrupted(slots):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return step(slots)

    monkeypatch.setattr(Slots, "step", interrupted)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        call(engine, THINNED)
    assert set(threading.enumerate()) == before
    monkeypatch.setattr(Slots, "step", step)
    assert texts(call(engine, THINNED)) == alone


def test_an_engine_that_gives_up_ends_all_calls_and_takes_no_more(engine, monkeypatch):
    steps = 0
    step = Slots.step

    def counting(self):
        nonlocal steps
        steps += 1
        if steps == 3:
            engine.give_up()
        return step(self)

    monkeypatch.setattr(Slots, "step", counting)
    outcomes = call_together(engine, [(None,), (THINNED,), (None, WINDOWS[:1])])
    assert [type(outcome) for outcome in outcomes] == [GivenUp] * 3
    assert steps < 6
    with pytest.raises(GivenUp):
        call(engine, None)


def test_windows_of_all_sizes_decode_side_by_side(engine, monkeypatch):
    sizes, step = [], Slots.step

    def noted(slots):
        sizes.append({slot.num_positions for slot in slots.live})
        return step(slots)

    monkeypatch.setattr(Slots, "step", noted)
    engine.transcribe(WINDOWS[:4], languages=["en"] * 4, levels=[None, THINNED, None, THINNED])
    assert max(map(len, sizes)) > 1


def break_features(monkeypatch, is_bad, error):
    """The log-mel of windows for which `is_bad(num_samples)` raises an error."""
    whole = LogMel.__call__

    def broken(features, windows):
        if any(is_bad(len(window)) for window in windows):
            raise error
        return whole(features, windows)

    monkeypatch.setattr(LogMel, "__call__", broken)


@pytest.mark.parametrize("level", LEVELS)
def test_a_window_that_breaks_the_device_fails_its_own_call_only(engine, monkeypatch, level):
    alone = texts(call(engine, level))
    bad = make_speechlike(1.0, 9)
    break_features(monkeypatch, lambda num: num == len(bad), RuntimeError("out of memory"))
    outcomes = call_together(engine, [(level,), (level, [*WINDOWS[:2], bad, *WINDOWS[2:]]), (level,)])
    assert str(outcomes[1]) == "out of memory"
    assert [texts(outcomes[0]), texts(outcomes[2])] == [alone, alone]
    assert texts(call(engine, level)) == alone


def test_a_step_that_breaks_once_is_done_again_window_by_window(engine, monkeypatch):
    alone = texts(call(engine, None))
    step, failures = Slots.step, [RuntimeError("once")]

    def broken(slots):
        if slots.live and failures:
            raise failures.pop()
        return step(slots)

    monkeypatch.setattr(Slots, "step", broken)
    outcomes = call_together(engine, [(None,), (None,)])
    assert [texts(outcome) for outcome in outcomes] == [alone, alone]
    assert not failures


@pytest.mark.parametrize("block", [(Slots, "step"), (Slots, "load"), (LogMel, "__call__")])
def test_a_thread_that_is_stopped_while_it_drives_leaves_the_others_their_windows(engine, monkeypatch, block):
    alone = texts(call(engine, THINNED))
    owner, name = block
    whole, stopped = getattr(owner, name), threading.Event()

    def interrupted(*args):
        if not stopped.is_set() and threading.active_count() > 3:
            stopped.set()
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(owner, name, interrupted)
    outcomes: dict[int, object] = {}

    def run(number):
        try:
            outcomes[number] = texts(call(engine, THINNED))
        except KeyboardInterrupt:
            outcomes[number] = "stopped"

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    left = [outcome for outcome in outcomes.values() if outcome != "stopped"]
    assert left == [alone, alone]


def test_slots_that_grow_and_shrink_while_they_decode_change_no_token(model_folder):
    engine = Engine.load(model_folder(MINI, 1), options=EngineOptions(max_new_tokens=30, batch_size=8))
    model, passes = engine._model, engine._passes
    with torch.inference_mode():
        hidden = model.encoder(model.features(WINDOWS[:3]))
        prompt = tuple(model.vocabulary.start_sequence("en", "transcribe", timestamps=True))
        tasks = [Task(index=n, prompt=prompt, start=0, max_new_tokens=10 + 9 * n) for n in range(3)]

        def decode(sizes):
            slots, done = passes._new_slots(3, 1500), {}
            finished = slots.start(slots.load(hidden), tasks)
            while True:
                done.update({decoding.task.index: decoding.tokens for decoding in finished})
                if not slots.live:
                    return done
                slots.resize(max(next(sizes), len(slots.live)))
                finished = slots.step()

        steady = decode(iter(lambda: 3, None))
        generator = random.Random(0)
        assert decode(iter(lambda: generator.randrange(1, 9), None)) == steady
