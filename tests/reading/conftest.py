"""Fixtures of the tests in this folder."""

from __future__ import annotations

import pytest

from pipeline.reading.decoder import AudioDecoder


@pytest.fixture(scope="module")
def decoder():
    with AudioDecoder() as decoder:
        yield decoder
