"""Words: groups of tokens, and the path of tokens through positions against a plain dynamic programme."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.engine.results import Word
from pipeline.engine.timing.words import (
    alignment_heads,
    first_positions,
    group_words,
    match,
    median_filter,
    said_in,
)


def warp(cost: np.ndarray) -> float:
    """The cost of the cheapest path, cell by cell."""
    total = np.full(cost.shape, np.inf)
    for i, j in np.ndindex(cost.shape):
        before = [total[a, b] for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 and b >= 0]
        total[i, j] = cost[i, j] + (min(before) if before else 0.0)
    return total[-1, -1]


def path_cost(cost: np.ndarray, first: np.ndarray) -> float:
    """The cheapest path whose rows begin at `first`: a row ends where the next begins, or just before."""
    total = 0.0
    for row, start in enumerate(first):
        stop = cost.shape[1] if row == len(first) - 1 else first[row + 1]
        ends = cost[row, start : stop + 1].cumsum()[-2:] if row < len(first) - 1 else cost[row, start:].sum()
        total += np.min(ends)
    return total


COSTS = arrays.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(-4, 4))


@given(COSTS)
@settings(deadline=None)
def test_the_path_is_the_cheapest_and_goes_forward(cost):
    cost = cost.astype(float)
    first = first_positions(cost)
    assert first[0] == 0
    assert (np.diff(first) >= 0).all()
    assert path_cost(cost, first) == warp(cost)


def test_tokens_begin_where_they_start_to_be_attended_to():
    logits = torch.zeros(2, 3, 40)
    for token, (start, stop) in enumerate([(0, 12), (12, 20), (20, 40)]):
        logits[:, token, start:stop] = 8.0
    assert first_positions(-match(logits, median_width=7).double().numpy()).tolist() == [0, 12, 20]


def test_a_position_that_every_token_attends_to_says_nothing():
    logits = torch.zeros(1, 3, 40)
    for token, (start, stop) in enumerate([(0, 12), (12, 20), (20, 40)]):
        logits[:, token, start:stop] = 4.0
    logits[:, :, 33] = 9.0
    assert first_positions(-match(logits, median_width=1).double().numpy()).tolist() == [0, 12, 20]


@given(
    arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(-5, 5, width=32)),
    st.sampled_from([1, 3, 7]),
)
@settings(deadline=None)
def test_the_median_filter_mirrors_the_ends(x, width):
    half = width // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, half, mode="reflect"), width)
    expected = x if len(x) <= half else np.median(windows, axis=-1)
    assert median_filter(torch.from_numpy(x)[None], width)[0].tolist() == expected.tolist()


PIECES = {
    1: " he",
    2: "llo",
    3: ",",
    4: " «",
    5: "wor",
    6: "ld",
    7: "»",
    8: " ¿",
    9: "qué",
    10: " -",
    11: "東",
    12: "京",
    13: "。",
}


def spell(tokens):
    return "".join(PIECES[token] for token in tokens)


@pytest.mark.parametrize(
    ("tokens", "language", "words"),
    [
        ([1, 2, 1], "en", [" hello", " he"]),
        ([1, 2, 3, 4, 5, 6, 7], "en", [" hello,", " «world»"]),
        ([8, 9, 1], "es", [" ¿qué", " he"]),
        ([1, 10, 1], "en", [" he -", " he"]),
        ([11, 12, 13], "zh", ["東", "京。"]),
        ([11, 12, 13], "en", ["東京。"]),
        ([], "en", []),
    ],
)
def test_words_keep_their_marks_and_spell_the_text(tokens, language, words):
    groups = group_words(tokens, spell, language)
    assert [group.text for group in groups] == words
    assert [t for group in groups for t in tokens[group.start : group.stop]] == tokens


def test_a_character_in_two_tokens_is_not_cut():
    half = {1: b" \xe6", 2: b"\x9d\xb1", 3: b"\xe4\xba\xac"}
    groups = group_words(
        [1, 2, 3], lambda tokens: b"".join(half[t] for t in tokens).decode(errors="replace"), "zh"
    )
    assert [(group.start, group.stop, group.text) for group in groups] == [(0, 2, " 東"), (2, 3, "京")]


def test_heads_are_those_of_the_generation_config_or_of_the_upper_half():
    assert alignment_heads({"alignment_heads": [[2, 1], [1, 0]]}, 4, 2) == [(1, 0), (2, 1)]
    assert alignment_heads({}, 4, 2) == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert alignment_heads({"alignment_heads": [[9, 0], [1, 1]]}, 4, 2) == alignment_heads({}, 4, 2)


@pytest.mark.parametrize(
    ("word", "times"),
    [
        ("Printing,", [(1.0, 4.0)]),
        ("A", [(1.0, 4.0)]),
        ("B-R-E.", [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]),
        ("BRE", [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]),
        ("6x7", [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]),
        ("你", [(1.0, 4.0)]),
        ("...", [(1.0, 4.0)]),
    ],
)
def test_letters_and_digits_that_are_said_one_by_one_have_their_own_times(word, times):
    assert list(said_in(Word(start_s=1.0, end_s=4.0, word=word, probability=1.0))) == times
