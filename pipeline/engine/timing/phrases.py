"""Words and their times to phrases: what a segment is where no timestamp token says it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from pipeline.engine.audio import POSITION_S, SAMPLE_RATE
from pipeline.engine.decoding.segments import Span, split_spans
from pipeline.engine.model.whisper import Model
from pipeline.engine.results import Word
from pipeline.engine.sparsify.sound import sounding_samples
from pipeline.engine.timing.alignment import TokenTimes, place_words
from pipeline.engine.timing.words import group_words

SENTENCE_END = re.compile(r"[.?!…。？！][\"'”’»)\]]*$")  # noqa: RUF001
ABBREVIATION = re.compile(r"^\W*(?:[A-Z][a-z]{0,2}|[A-Za-z](?:\.[A-Za-z])+)\.$")  # Mr. Dr. St. J. U.S. p.m.
CLAUSE_END = re.compile(r"[,;:—、，；：][\"'”’»)\]]*$")  # noqa: RUF001
PAUSE_S = 1.0  # a pause so long ends a phrase wherever it is
LONG_S = 6.0  # a phrase longer than this ends with its clause
MAX_S = 12.0  # and one longer than this with any word


def timed_spans(
    tokens: Sequence[int],
    times: TokenTimes | None,
    model: Model,
    language: str | None,
    samples: np.ndarray,
    *,
    is_aligned: bool,
) -> Sequence[tuple[Span, tuple[Word, ...] | None]]:
    """The segments of a window's text, each with its words where the times of the tokens are known.

    is_aligned: they are phrases; False: what stands between timestamp tokens.
    """
    if times is not None and is_aligned:
        return _phrases_of(tokens, times, model, language, sounding_samples(samples))
    spans = split_spans(tokens, model.vocabulary, len(samples) / SAMPLE_RATE)
    if times is None:
        return [(span, None) for span in spans]
    return place_words(spans, tokens, times, model, language)


def _phrases_of(
    tokens: Sequence[int], times: TokenTimes, model: Model, language: str | None, sounding: Tensor
) -> list[tuple[Span, tuple[Word, ...]]]:
    """Words give up what does not sound at their ends. sounding: bool, one for each 20 ms of the window."""
    vocabulary = model.vocabulary
    text = tuple(filter(vocabulary.is_text, tokens))
    if not text:
        return []
    whole = Span(start_s=0.0, end_s=times.starts_s[-1], tokens=text)
    ((_, words),) = place_words([whole], tokens, times, model, language)
    groups = iter(group_words(text, vocabulary.decode, language))
    found = []
    for phrase in phrases([_where_it_sounds(word, sounding) for word in words]):
        own = [next(groups) for _ in phrase]
        spelt = text[own[0].start : own[-1].stop]
        found.append((Span(start_s=phrase[0].start_s, end_s=phrase[-1].end_s, tokens=spelt), phrase))
    return found


def phrases(words: Sequence[Word]) -> Iterator[tuple[Word, ...]]:
    """Words in the order of time as sentences, the long ones cut at their clauses and at pauses."""
    phrase: list[Word] = []
    for word in words:
        if phrase and _is_over(phrase, word.start_s):
            yield tuple(phrase)
            phrase = []
        phrase.append(word)
    if phrase:
        yield tuple(phrase)


def _is_over(phrase: Sequence[Word], next_s: float) -> bool:
    """Whether a phrase ends with its last word, when the next one starts at `next_s`."""
    last = phrase[-1]
    text, length_s = last.word.strip(), last.end_s - phrase[0].start_s
    if next_s - last.end_s >= PAUSE_S or length_s >= MAX_S:
        return True
    if SENTENCE_END.search(text) and not ABBREVIATION.match(text):
        return True
    return length_s >= LONG_S and CLAUSE_END.search(text) is not None


def _where_it_sounds(word: Word, sounding: Tensor) -> Word:
    """A word without the silence at its ends: the path through time puts every pause into some word."""
    first = round(word.start_s / POSITION_S)
    places = sounding[first : round(word.end_s / POSITION_S)].nonzero()
    if not len(places):
        return word
    start_s = round((first + int(places[0])) * POSITION_S, 2)
    return replace(word, start_s=start_s, end_s=round((first + int(places[-1]) + 1) * POSITION_S, 2))
