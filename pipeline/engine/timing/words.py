"""When each word was said: the decoder's attention to the encoder, made into a path through time.

Every token is pulled to the positions that it attends to in a few heads known to follow the audio; dynamic
time warping finds the one path that goes forward in both (openai/whisper timing.py; transformers
`_extract_token_timestamps`). Pure functions: `alignment` runs the decoder and calls them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.engine.languages import UNSPACED_LANGUAGES
from pipeline.engine.results import Word

REPLACEMENT = "\ufffd"
OPENING = "¿¡"  # opening marks that Unicode does not call so


def alignment_heads(generation: dict[str, Any], num_layers: int, num_heads: int) -> list[tuple[int, int]]:
    """The decoder heads (layer, head) that follow the audio, both 0-based and ascending.

    generation: the model's generation config. Where it names none, or heads that the model does not have (a
    distilled model may still have its teacher's list), all heads of the upper half of the layers, as
    openai-whisper does.
    """
    upper = [(layer, head) for layer in range(num_layers // 2, num_layers) for head in range(num_heads)]
    named = sorted({(int(layer), int(head)) for layer, head in generation.get("alignment_heads") or upper})
    fits = all(0 <= layer < num_layers and 0 <= head < num_heads for layer, head in named)
    return named if fits else upper


def match(logits: Tensor, *, median_width: int) -> Tensor:
    """How well tokens and positions match, summed over heads: float32 [tokens, positions], more is better.

    logits: scores of alignment heads before softmax, float32 [heads, tokens, positions], the positions being
    those that carry the window's samples. Softmax over positions, then each head's weights are normalised
    over tokens (a position that every token attends to says nothing) and smoothed by a median over
    `median_width` positions.
    """
    weights = logits.softmax(-1)
    weights -= weights.mean(-2, keepdim=True)
    deviation = weights.square().mean(-2, keepdim=True).sqrt_()  # a quarter of the time of torch.std_mean
    return median_filter(weights / deviation.clamp_(min=1e-12), median_width).sum(0)


def median_filter(x: Tensor, width: int) -> Tensor:
    """The running median over the last axis, its ends mirrored; no longer than half of `width`: unchanged.

    Neighbours are sorted as whole rows, the largest first, as far as the middle: for a width of 7 it takes a
    CPU a sixth of the time of torch's `median`.
    """
    half = width // 2
    if half == 0 or x.shape[-1] <= half:
        return x
    padded = F.pad(x, (half, half), mode="reflect")
    rows = [padded[..., first : first + x.shape[-1]] for first in range(width)]
    for largest in range(width - 1, half - 1, -1):
        for place in range(largest):
            one, other = rows[place], rows[place + 1]
            rows[place], rows[place + 1] = torch.minimum(one, other), torch.maximum(one, other)
    return rows[half]


def first_positions(cost: np.ndarray) -> np.ndarray:
    """Where each token begins on the cheapest path through [tokens, positions]: int64 [tokens].

    The path goes from corner to corner; each step goes to the next position, the next token or both (dynamic
    time warping). A whole row is one pass over numpy arrays: the best way to enter row i at or before
    position j is a running minimum of what it cost to get there less the row's costs so far.
    """
    num_tokens, num_positions = cost.shape
    places = np.arange(num_positions)
    entered, left = (np.zeros((num_tokens, num_positions), np.int64) for _ in range(2))
    reached = np.cumsum(cost[0])
    for row in range(1, num_tokens):
        before = np.concatenate([[np.inf], reached[:-1]])
        sums = np.cumsum(cost[row])
        ways = np.minimum(before, reached) - (sums - cost[row])
        best = np.minimum.accumulate(ways)
        is_new = np.concatenate([[True], ways[1:] < best[:-1]])
        entered[row] = np.maximum.accumulate(np.where(is_new, places, 0))
        left[row] = (places - (before < reached))[entered[row]]  # where the row before was left
        reached = best + sums
    first = np.zeros(num_tokens, np.int64)
    position = num_positions - 1
    for row in range(num_tokens - 1, 0, -1):
        first[row], position = entered[row, position], left[row, position]
    return first


@dataclass(frozen=True, kw_only=True)
class Group:
    """The tokens of one word: a stretch of a list of text tokens, and what they spell, spaces included."""

    start: int
    stop: int
    text: str


def group_words(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str], language: str | None
) -> list[Group]:
    """Text tokens as words. Joined, their texts are the text of the tokens.

    decode: tokens to text. A word begins with a space; in languages written without spaces every character
    is one. Marks of punctuation belong to the word they lean on.
    """
    spaced = language not in UNSPACED_LANGUAGES
    words: list[Group] = []
    for unit in _characters(tokens, decode):
        last = words[-1] if words else None
        if last is not None and _belongs(unit.text, last.text, spaced=spaced):
            words[-1] = Group(start=last.start, stop=unit.stop, text=last.text + unit.text)
        else:
            words.append(unit)
    return words


def said_in(word: Word) -> Iterator[tuple[float, float]]:
    """When a word was said: letters and digits that are said one by one have a share of its time each."""
    signs = [sign for sign in word.word if sign.isalnum()]
    is_spelt = any(sign.isdigit() for sign in signs) or not any(sign.lower() == sign for sign in signs)
    edges = np.linspace(word.start_s, word.end_s, 1 + (len(signs) if is_spelt and signs else 1)).tolist()
    yield from pairwise(edges)


def _characters(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Iterator[Group]:
    """The shortest stretches of tokens that spell whole characters; a token may be a piece of one."""
    start = 0
    for stop in range(1, len(tokens) + 1):
        text = decode(tokens[start:stop])
        if stop == len(tokens) or not text.endswith(REPLACEMENT):
            yield Group(start=start, stop=stop, text=text)
            start = stop


def _belongs(text: str, word: str, *, spaced: bool) -> bool:
    """Whether a unit goes on with the word before it."""
    if _is_punctuation(text) and not _is_opening(text):
        return True
    if _is_opening(word):
        return True
    return spaced and not text.startswith(" ")


def _is_punctuation(text: str) -> bool:
    return bool(text.strip()) and all(unicodedata.category(c)[0] == "P" for c in text.strip())


def _is_opening(text: str) -> bool:
    marks = text.strip()
    return bool(marks) and all(c in OPENING or unicodedata.category(c) in {"Ps", "Pi"} for c in marks)
