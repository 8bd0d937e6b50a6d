"""Word error counts: the raw text is stored, normalisation happens here, counts come before ratios.

English goes through Whisper's English normaliser, every other language through its basic one, but that marks
on letters are kept: without them words of many scripts are no longer told apart (Devanagari, Bengali, Tamil,
Thai, Arabic and others). Languages written without spaces between words are counted in characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import jiwer
import regex

from pipeline.engine.languages import UNSPACED_LANGUAGES

NORMALISER = "whisper-normalizer (Whisper's English normaliser for en, else its basic one with marks kept)"
# Marks on no letter (of emoji), and characters that are not seen: joiners, directions, soft hyphens.
NO_TEXT = regex.compile(r"\p{Cf}|[\p{Variation_Selector}\p{Me}]|(?<![\p{L}\p{N}\p{M}])\p{M}+")
DOTTED_I = "i\u0307"  # what Python's lower case makes of the Turkish capital


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
    unit = " ".join if language in UNSPACED_LANGUAGES else str
    output = jiwer.process_words(
        [unit(normalised(reference, language))], [unit(normalised(hypothesis, language))]
    )
    return Counts(
        num_hits=output.hits,
        num_substitutions=output.substitutions,
        num_deletions=output.deletions,
        num_insertions=output.insertions,
    )


def normalised(text: str, language: str | None) -> str:
    """A text as it is compared: single spaces between words, none at all where characters are counted."""
    seen = NO_TEXT.sub("", text)
    words = _normaliser("en" if language == "en" else "basic")(seen).replace(DOTTED_I, "i").split()
    return ("" if language in UNSPACED_LANGUAGES else " ").join(words)


@cache
def _normaliser(kind: str) -> Callable[[str], str]:
    if kind == "en":
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer(preserve_marks=True)
