"""Quality gates: what is wrong with a decoding, which retries it gets, and which of them is kept.

A window that fails is decoded again dense if it was sparse (its level may ask for surer text than the gates
do), without its prompt if its text is that prompt, in its own language if it was given one that is a guess,
then at rising temperatures until one passes; if none does, the best mean log-probability wins. A phrase said
over and over stays where the sound bears it out; else it is a loop, and cut at its second round.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.engine.audio import POSITION_S
from pipeline.engine.decoding.echoes import echoes_prompt, is_rushed
from pipeline.engine.decoding.loops import cut_loops, find_loop
from pipeline.engine.decoding.segments import split_spans
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.model.vocabulary import Vocabulary

# openai/whisper transcribe.py, the defaults of transcribe().
MAX_COMPRESSION_RATIO = 2.4
MIN_AVG_LOGPROB = -1.0
MAX_NO_SPEECH_PROB = 0.6
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
# Text that is said to stand in silence for at least so long was not heard: the decoder has lost its place and
# has skipped or repeated speech. Shorter stretches may be timestamps that are a little off.
MIN_SILENT_S = 1.0


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of it compressed; long repetition is above 2.4."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def speaks_in_silence(tokens: Sequence[int], vocabulary: Vocabulary, sounding: Tensor) -> bool:
    """Whether any text stands, by its timestamps, where nothing sounds.

    sounding: bool, one for each 20 ms of the window (`sound.sounding_samples`).
    """
    duration_s = len(sounding) * POSITION_S
    return any(
        span.end_s - span.start_s >= MIN_SILENT_S
        and not sounding[_position(span.start_s) : _position(span.end_s)].any()
        for span in split_spans(list(tokens), vocabulary, duration_s)
    )


def _position(time_s: float) -> int:
    return round(time_s / POSITION_S)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gates say of one decoding.

    is_silent: the window holds no speech and its text is "". passed: nothing is wrong with it.
    repeats: nothing but that a phrase is said over and over.
    """

    is_silent: bool
    passed: bool
    repeats: bool = False


def judge(
    decoding: Decoding,
    vocabulary: Vocabulary,
    sounding: Tensor,
    min_logprob: float = MIN_AVG_LOGPROB,
) -> Verdict:
    """What the gates say of a decoding of a window that sounds where `sounding` says.

    min_logprob: the mean log-probability below which text does not pass.
    """
    logprob = decoding.avg_logprob
    if logprob < MIN_AVG_LOGPROB and decoding.no_speech_prob > MAX_NO_SPEECH_PROB:
        return Verdict(is_silent=True, passed=True)
    tokens = [token for token in decoding.tokens if vocabulary.is_text(token)]
    text = vocabulary.decode(tokens)
    is_unsure = logprob < (min_logprob if text.strip() else MIN_AVG_LOGPROB)
    has_loop = find_loop(tokens) is not None
    once = vocabulary.decode(cut_loops(tokens, vocabulary)) if has_loop else text
    is_repetitive = compression_ratio(once) > MAX_COMPRESSION_RATIO
    is_sound = decoding.ended and not is_unsure and not is_repetitive and not is_rushed(text, sounding)
    is_heard = not speaks_in_silence(decoding.tokens, vocabulary, sounding)
    is_right = is_sound and is_heard and not echoes_prompt(decoding, vocabulary)
    return Verdict(is_silent=False, passed=is_right and not has_loop, repeats=is_right and has_loop)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The decoding that was kept for a window, its final tokens, and what it took (see WindowResult)."""

    decoding: Decoding
    tokens: tuple[int, ...]
    is_silent: bool
    fallback: str | None


# Whether the sound of a window (by index) bears out that its text says a phrase over and over.
BorneOut = Callable[[int, Decoding], bool]
# Decodes some windows (by index) again, dense, each at a temperature.
Retry = Callable[[Sequence[int], Sequence[float]], Sequence[Decoding]]


def settle(
    first: Sequence[Decoding],
    retry: Retry,
    vocabulary: Vocabulary,
    *,
    num_positions: int,
    sounding: Sequence[Tensor],
    floors: Sequence[float | None],
    asks_languages: bool = False,
    is_borne_out: BorneOut = lambda _index, _decoding: False,
) -> list[Settled]:
    """Retries what fails, all failing windows together, and picks one decoding for each window.

    num_positions: those of a dense window; one with fewer is decoded dense before its temperature rises.
    sounding: where each window sounds, as `judge` takes it.
    floors: the mean log-probability that a window's first decoding must reach where it is sparse; None for
        that of all decodings.
    asks_languages: what fails is decoded again at temperature 0, dense, before the temperature rises.
    is_borne_out: whether a phrase that is said over and over is so in the sound as well.
    """
    tried = [[decoding] for decoding in first]
    openings = [
        _opening(decoding.num_positions < num_positions, echoes_prompt(decoding, vocabulary), asks_languages)
        for decoding in first
    ]
    said_again: set[int] = set()
    ladders = [((0.0,) if opening else ()) + TEMPERATURES for opening in openings]
    failing = list(range(len(first)))

    def passes(index: int) -> bool:
        floor = _floor(tried[index], floors[index], num_positions)
        verdict = judge(tried[index][-1], vocabulary, sounding[index], floor)
        if verdict.repeats and is_borne_out(index, tried[index][-1]):
            said_again.add(index)
        return verdict.passed or index in said_again

    while failing := [
        index for index in failing if len(tried[index]) <= len(ladders[index]) and not passes(index)
    ]:
        temperatures = [ladders[index][len(tried[index]) - 1] for index in failing]
        for index, decoding in zip(failing, retry(failing, temperatures), strict=True):
            tried[index].append(decoding)
    return [
        _settle_one(decodings, vocabulary, where, opening, repeats=index in said_again)
        for index, (decodings, where, opening) in enumerate(zip(tried, sounding, openings, strict=True))
    ]


def _opening(is_sparse: bool, is_echo: bool, asks_languages: bool) -> str | None:
    """What is done again at temperature 0 before the temperature rises."""
    if is_sparse:
        return "dense"
    if is_echo:
        return "unprompted"
    return "language" if asks_languages else None


def _floor(tried: Sequence[Decoding], floor: float | None, num_positions: int) -> float:
    """The mean log-probability that the text of the last decoding must reach."""
    is_first_sparse = len(tried) == 1 and tried[0].num_positions < num_positions
    return max(floor, MIN_AVG_LOGPROB) if is_first_sparse and floor is not None else MIN_AVG_LOGPROB


def _settle_one(
    tried: list[Decoding], vocabulary: Vocabulary, sounding: Tensor, opening: str | None, *, repeats: bool
) -> Settled:
    """repeats: the last decoding says a phrase over and over, and so does the sound."""
    kept, verdict = tried[-1], judge(tried[-1], vocabulary, sounding)
    if not verdict.passed and not repeats:
        kept = max(tried[1:] if opening else tried, key=lambda decoding: decoding.avg_logprob)
    marks = [opening] if opening and len(tried) > 1 else []
    if len(tried) > (2 if opening else 1):
        marks.append(f"temperature={kept.task.temperature:g}")
    tokens = kept.tokens if repeats else cut_loops(kept.tokens, vocabulary)
    if len(tokens) < len(kept.tokens):
        marks.append("loop_cut")
    return Settled(
        decoding=kept, tokens=tuple(tokens), is_silent=verdict.is_silent, fallback="+".join(marks) or None
    )
