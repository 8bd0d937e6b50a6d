"""Where a line of a subtitle may break, and how wide a text is. Pure functions.

Never inside what a reader sees as one character (a grapheme cluster, UAX 29). Words in Latin letters or
katakana stay whole. Chinese and Japanese break where UAX 14 allows it. Thai, Lao, Burmese and Khmer, for
which it wants a dictionary, break between graphemes, and only where they are longer than a line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from itertools import pairwise

import regex
from uniseg.linebreak import line_break_boundaries

GRAPHEME = regex.compile(r"\X")
WORD_EDGE = regex.compile(r"(?w)\b")  # as UAX 29 has it

EMOJI_MODIFIERS = range(0x1F3FB, 0x1F400)  # skin tones
HANGUL = range(0xAC00, 0xD7A4)
JOINER = "\u200d"


def width(text: str) -> int:
    """Columns of a text: Chinese, Japanese, Korean and emoji take two each, marks and joined ones none."""
    if text.isascii():
        return len(text)
    return sum(_columns(c) for before, c in pairwise(f" {text}") if before != JOINER)


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"} or ord(character) in EMOJI_MODIFIERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def breakable(word: str, max_columns: int) -> list[str]:
    """A text without spaces as the pieces between which a line may break, none wider than `max_columns`.

    One grapheme may be wider, where `max_columns` is 1.
    """
    is_whole = word.isascii() or not any(map(_is_written_without_spaces, word))
    if is_whole and width(word) <= max_columns:
        return [word]
    graphemes = set(_grapheme_ends(word))
    pieces = _cut([word], line_break_boundaries, 0, graphemes & {*_word_edges(word)})
    pieces = _cut(pieces, _word_edges, max_columns, graphemes)
    return _cut(pieces, _grapheme_ends, max_columns, graphemes)


def _grapheme_ends(text: str) -> list[int]:
    return [match.end() for match in GRAPHEME.finditer(text)]


def _word_edges(text: str) -> list[int]:
    return [match.start() for match in WORD_EDGE.finditer(text)]


def _is_written_without_spaces(character: str) -> bool:
    """Whether it is a wide letter, but for those of Korean, which has spaces."""
    return _columns(character) == 2 and ord(character) not in HANGUL


def _cut(
    pieces: Iterable[str], boundaries: Callable[[str], Iterable[int]], max_columns: int, allowed: set[int]
) -> list[str]:
    """Pieces wider than `max_columns` cut at their boundaries, where these are `allowed` in the whole."""
    found, place = [], 0
    for piece in pieces:
        if width(piece) <= max_columns:
            found.append(piece)
        else:
            edges = [edge for edge in boundaries(piece) if place + edge in allowed]
            found += [piece[start:stop] for start, stop in pairwise(sorted({0, *edges, len(piece)}))]
        place += len(piece)
    return found
