"""Decoded timestamp tokens to segments with times and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.audio import POSITION_S
from pipeline.engine.model.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Span:
    """Text tokens between two times, seconds from the window's start."""

    start_s: float
    end_s: float
    tokens: tuple[int, ...]


def split_spans(tokens: Sequence[int], vocabulary: Vocabulary, duration_s: float) -> list[Span]:
    """Cuts at timestamp tokens; text that no timestamp closes ends with the window. Empty spans are left out.

    tokens: without prompt and end token. duration_s: times past the window's samples are cut back to it.
    """
    spans = []
    start_s = 0.0
    text: list[int] = []
    for token in tokens:
        if not vocabulary.is_time(token):
            text += [token] if vocabulary.is_text(token) else []
            continue
        time_s = min(_seconds(token, vocabulary), duration_s)
        if text:
            spans.append(Span(start_s=start_s, end_s=max(time_s, start_s), tokens=tuple(text)))
        start_s, text = time_s, []
    if text:
        spans.append(Span(start_s=start_s, end_s=duration_s, tokens=tuple(text)))
    return spans


def _seconds(token: int, vocabulary: Vocabulary) -> float:
    return round((token - vocabulary.first_timestamp) * POSITION_S, 2)
