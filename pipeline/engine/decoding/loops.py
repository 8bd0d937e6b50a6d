"""A phrase said over and over: found among tokens, and cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq

from pipeline.engine.model.vocabulary import Vocabulary

# A loop is a phrase said at least this often without a break, over at least this many tokens in all: ordinary
# speech repeats a word or a digit a few times, and longer repetition is left to the compression ratio.
MIN_ROUNDS = 4
MIN_LOOP_TOKENS = 16
MAX_PHRASE_TOKENS = 40
# Nobody says a phrase over and over for a whole window in more tokens a second than this.
LOOP_TOKENS_PER_S = 6.0
MIN_RUNAWAY_TOKENS = 32


@dataclass(frozen=True, kw_only=True)
class Loop:
    """tokens[start:stop] is one phrase of `period` tokens over and over."""

    start: int
    stop: int
    period: int


def find_loop(tokens: Sequence[int]) -> Loop | None:
    """The first loop among text tokens, the shortest phrase of it; None when there is none."""
    best: Loop | None = None
    for period in range(1, min(MAX_PHRASE_TOKENS, len(tokens) // MIN_ROUNDS) + 1):
        shortest = max(MIN_ROUNDS * period, MIN_LOOP_TOKENS)
        if sum(map(eq, tokens[period:], tokens)) < shortest - period:
            continue
        run = 0
        for place in range(period, len(tokens) + 1):
            if place < len(tokens) and tokens[place] == tokens[place - period]:
                run += 1
                continue
            length = run + period
            if run and length >= shortest:
                found = Loop(start=place - length, stop=place, period=period)
                best = found if best is None or found.start < best.start else best
                break
            run = 0
    return best


def runaway_tokens(seconds: float) -> int:
    """How many tokens a loop at the end of a window's text has where the decoder will not get out of it."""
    return max(MIN_RUNAWAY_TOKENS, round(LOOP_TOKENS_PER_S * seconds))


def ends_in_loop(tokens: Sequence[int], length: int) -> bool:
    """Whether the last `length` tokens are one phrase over and over."""
    tail = tokens[-length:]
    periods = range(1, min(MAX_PHRASE_TOKENS, length // MIN_ROUNDS) + 1)
    return len(tail) == length and any(tail[period:] == tail[:-period] for period in periods)


def cut_loops(tokens: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """The tokens without the second and later rounds of any loop; timestamps inside them go too."""
    kept = list(tokens)
    while loop := find_loop([t for t in kept if vocabulary.is_text(t)]):
        places = [place for place, token in enumerate(kept) if vocabulary.is_text(token)]
        first, last = places[loop.start + loop.period], places[loop.stop - 1]
        del kept[first : last + 1]
    return kept
