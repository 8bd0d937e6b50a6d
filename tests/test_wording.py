"""Numbers as a person writes them."""

import pytest

from pipeline.wording import counted, duration


@pytest.mark.parametrize(("num", "text"), [(0, "0 files"), (1, "1 file"), (2000, "2,000 files")])
def test_one_of_a_thing_is_no_plural(num, text):
    assert counted(num, "file") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0, "0.0 s"), (59.9, "59.9 s"), (90, "1.5 min"), (3600, "1.0 h"), (3.6e6, "1,000.0 h")],
)
def test_a_time_has_the_unit_that_it_is_said_in(seconds, text):
    assert duration(seconds) == text
