"""Word errors are counted after Whisper's normaliser, and ratios never divide by zero."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.wer import Counts, count_errors, total

words = st.lists(st.sampled_from(["one", "two", "tree", "sea"]), max_size=8).map(" ".join)


@given(words, words)
def test_counts_add_up_to_the_lengths_of_both_texts(reference, hypothesis):
    counts = count_errors(reference, hypothesis, None)
    assert counts.num_reference_words == len(reference.split())
    assert counts.num_hits + counts.num_substitutions + counts.num_insertions == len(hypothesis.split())


@given(st.lists(st.tuples(words.filter(bool), words), min_size=1, max_size=5))
def test_the_wer_of_a_total_is_that_of_the_whole_corpus(pairs):
    ours = total(count_errors(reference, hypothesis, None) for reference, hypothesis in pairs)
    assert ours.wer == pytest.approx(jiwer.wer([r for r, _ in pairs], [h for _, h in pairs]))


def test_an_empty_reference_counts_insertions_and_has_no_wer():
    counts = count_errors("", "hello world", "en")
    assert counts == Counts(num_insertions=2)
    assert counts.wer is None


def test_english_is_normalised_as_whisper_does():
    assert count_errors("Mr. Colour's, um, here!", "mister color is here", "en").num_errors == 0


def test_other_languages_keep_their_spelling():
    assert count_errors("die colour", "die color", "de").num_substitutions == 1


def test_chinese_is_counted_in_characters():
    counts = count_errors("今天天气", "今天 天汽", "zh")
    assert (counts.num_hits, counts.num_substitutions) == (3, 1)
