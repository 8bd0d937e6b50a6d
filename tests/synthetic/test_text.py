"""The synthetic language: its size, its splits, its open names."""

from __future__ import annotations

import random

import pytest

from tests.synthetic.text import LANGUAGES, is_unseen_name, load_grammar, open_name, sample_sentence, split_of


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_a_thousand_words(language: str) -> None:
    vocabulary = load_grammar(language).vocabulary
    assert len(vocabulary) >= 1000
    assert len(set(vocabulary)) == len(vocabulary)
    assert all(word == word.lower() and word.isalpha() for word in vocabulary)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_belongs_to_the_split_it_was_drawn_for(language: str) -> None:
    rng = random.Random(0)
    drawn = {
        split: {sample_sentence(rng, language, split) for _ in range(200)}
        for split in ("train", "dev", "final")
    }
    assert all(split_of(text) == split for split, texts in drawn.items() for text in texts)
    assert not drawn["train"] & (drawn["dev"] | drawn["final"])


def test_sentences_hardly_ever_repeat() -> None:
    rng = random.Random(0)
    texts = [sample_sentence(rng, "en", "train") for _ in range(5000)]
    assert len(set(texts)) > 4900


def test_names_of_the_unseen_set_are_never_drawn_for_training() -> None:
    rng = random.Random(0)
    assert not any(is_unseen_name(open_name(rng)) for _ in range(2000))
    assert all(is_unseen_name(open_name(rng, unseen=True)) for _ in range(200))


def test_a_sentence_for_the_unseen_set_holds_an_unseen_name() -> None:
    rng = random.Random(0)
    known = set(load_grammar("en").vocabulary)
    for _ in range(100):
        words = sample_sentence(rng, "en", "final", unseen_names=True).split()
        strangers = [word for word in words if word not in known]
        assert strangers
        assert all(is_unseen_name(word) for word in strangers)
