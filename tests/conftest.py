"""Fixtures of the tests in this folder."""

import pytest

from tests.fakes import FakeEngine


@pytest.fixture
def fake_engine():
    """An engine that answers every window with the same words."""
    return FakeEngine()
