"""Word error counts: the raw text is stored, normalisation happens here, counts come before ratios.

English goes through Whisper's English normaliser, every other language through its basic one. Languages
written without spaces between words are counted in characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import jiwer

from pipeline.engine.languages import UNSPACED_LANGUAGES

NORMALISER = "whisper-normalizer (Whisper's English normaliser for en, its basic one otherwise)"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How a hypothesis differs from its reference, in words (in characters for `UNSPACED_LANGUAGES`)."""

    num_hits: int = 0
    num_substitutions: int = 0
    num_deletions: int = 0
    num_insertions: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            num_hits=self.num_hits + other.num_hits,
            num_substitutions=self.num_substitutions + other.num_substitutions,
            num_deletions=self.num_deletions + other.num_deletions,
            num_insertions=self.num_insertions + other.num_insertions,
        )

    @property
    def num_errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.num_substitutions + self.num_deletions + self.num_insertions

    @property
    def num_reference_words(self) -> int:
        """The length of the reference."""
        return self.num_hits + self.num_substitutions + self.num_deletions

    @property
    def wer(self) -> float | None:
        """Errors per reference word; None where the reference has no words."""
        return self.num_errors / self.num_reference_words if self.num_reference_words else None


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of the counts."""
    return sum(counts, Counts())


def count_errors(reference: str, hypothesis: str, language: str | None) -> Counts:
    """Compare two raw texts in a language (a code such as `en`; None is any).

    An empty reference counts every word of the hypothesis as an insertion.
    """
    normalise = _normaliser("en" if language == "en" else "basic")
    unit = " ".join if language in UNSPACED_LANGUAGES else str
    output = jiwer.process_words(
        [unit(_squeeze(normalise(reference), language))], [unit(_squeeze(normalise(hypothesis), language))]
    )
    return Counts(
        num_hits=output.hits,
        num_substitutions=output.substitutions,
        num_deletions=output.deletions,
        num_insertions=output.insertions,
    )


def _squeeze(text: str, language: str | None) -> str:
    """Single spaces between words; none at all where characters are counted."""
    return ("" if language in UNSPACED_LANGUAGES else " ").join(text.split())


@cache
def _normaliser(kind: str) -> Callable[[str], str]:
    if kind == "en":
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer()
