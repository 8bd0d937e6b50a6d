"""Calls of one engine beside each other."""

from __future__ import annotations

import threading

import pytest

from pipeline.longform.beside import beside
from tests.fakes import FakeEngine


class Stopped(BaseException):
    """As a signal raises it in the main thread."""


def test_calls_are_made_at_once_and_answered_in_order():
    together = threading.Barrier(3, timeout=30)

    def call(number):
        together.wait()
        return number

    assert beside([lambda n=n: call(n) for n in range(3)], FakeEngine()) == [0, 1, 2]
    assert beside([], FakeEngine()) == []


def test_what_one_raises_is_raised_when_the_others_have_ended():
    ended = threading.Event()

    def fails():
        raise ValueError("no")

    def goes_on():
        ended.wait(0.2)
        ended.set()

    with pytest.raises(ValueError, match="no"):
        beside([goes_on, fails], FakeEngine())
    assert ended.is_set()


def test_the_engine_gives_up_where_the_caller_is_stopped():
    given_up = threading.Event()

    class Engine(FakeEngine):
        def give_up(self):
            given_up.set()

    def stops():
        raise Stopped

    with pytest.raises(Stopped):
        beside([stops, lambda: given_up.wait(30)], Engine())
    assert given_up.is_set()
