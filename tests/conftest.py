"""Fixtures of all tests, and what becomes of a measured time on a busy machine."""

import gc
import os
from contextlib import suppress

import pytest

from tests.fakes import FakeEngine

# For torch, before it is imported: two threads on a busy machine wait for each other more than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

with suppress(ImportError):  # a machine with a GPU need not have it
    from hypothesis import HealthCheck, settings

    # No example is too slow where others keep the machine busy; a test that hangs has pytest's own limit.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported stays to the end: looking through it for garbage was a twentieth of a run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    """Before the interpreter ends: what is still frozen then, nanobind of torch calls a leak."""
    gc.unfreeze()


@pytest.fixture
def fake_engine():
    """An engine that answers every window with the same words."""
    return FakeEngine()


def is_busy() -> bool:
    """Whether more processes than processors have wanted to run in the last minute."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) + 0.5


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test of times that fails beside the work of others says nothing about this project."""
    report = yield
    if report.when == "call" and report.failed and item.get_closest_marker("timing") and is_busy():
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, "Skipped: this machine is too busy to measure times")
    return report
