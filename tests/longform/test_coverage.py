"""Text that stands where nobody was heard."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.longform.coverage import doubt_of
from pipeline.longform.placed import PlacedWindow


@pytest.mark.parametrize(
    ("start_s", "end_s", "doubt"),
    [
        (0.0, 4.0, None),
        (1.0, 1.2, None),  # a word
        (0.0, 12.0, None),  # a sentence with a long pause
        (9.8, 12.0, "no_speech"),
        (5.0, 6.0, "no_speech"),
        (4.9, 5.1, None),
        (7.0, 7.0, None),
    ],
)
def test_text_in_which_nobody_was_heard_is_doubted(start_s, end_s, doubt):
    speech = ((100.0, 105.0), (108.0, 110.0))
    window = PlacedWindow(
        recording=0,
        start_s=100.0,
        end_s=115.0,
        samples=np.zeros(0, np.int16),
        speech=speech,
        root_s=0.0,
    )
    assert doubt_of(window, start_s, end_s) == doubt
