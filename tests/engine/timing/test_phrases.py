"""Words to phrases: sentences, and the long ones in pieces of a length that one can read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from pipeline.engine.results import Word
from pipeline.engine.timing.phrases import MAX_S, phrases, timed_spans
from tests.engine.decoding.test_rules import VOCABULARY


def said(text, *, start_s=0.0, word_s=0.5, pauses=None):
    """Words one after the other, each `word_s` long; `pauses` are seconds before the words of some places."""
    words, now = [], start_s
    for place, word in enumerate(text.split()):
        now += (pauses or {}).get(place, 0.0)
        words.append(Word(start_s=now, end_s=now + word_s, word=f" {word}", probability=1.0))
        now += word_s
    return words


def texts(words):
    return ["".join(word.word for word in phrase).strip() for phrase in phrases(words)]


def test_a_phrase_is_a_sentence():
    words = said('I saw Dr. Smith of the U.S. taxpayers. "Did you?" No!')
    assert texts(words) == ["I saw Dr. Smith of the U.S. taxpayers.", '"Did you?"', "No!"]


def test_sentences_end_in_other_scripts_too():
    assert texts(said("今日は。 寒い？ はい")) == ["今日は。", "寒い？", "はい"]  # noqa: RUF001


def test_a_pause_ends_a_phrase():
    assert texts(said("one two three", pauses={2: 1.0})) == ["one two", "three"]


def test_a_long_sentence_ends_with_a_clause_and_an_endless_one_anywhere():
    words = said("a, " + "word " * 13 + "clause, " + "word " * 50)
    found = list(phrases(words))
    assert texts(words)[0].startswith("a, word")
    assert texts(words)[0].endswith("clause,")
    assert all(phrase[-1].end_s - phrase[0].start_s <= MAX_S for phrase in found)
    assert [word for phrase in found for word in phrase] == words


def test_without_times_a_window_is_one_segment():
    model = SimpleNamespace(vocabulary=VOCABULARY)
    ((span, words),) = timed_spans([1, 2], None, model, "en", np.zeros(16_000, np.float32), is_aligned=True)
    assert (span.start_s, span.end_s, span.tokens, words) == (0.0, 1.0, (1, 2), None)
