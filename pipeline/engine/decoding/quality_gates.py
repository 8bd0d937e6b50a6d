"""Quality gates: what is wrong with a decoding, which retries it gets, and which of them is kept.

A window that fails is decoded again dense if it was sparse (its level may ask for surer text than the gates
do), without its prompt if its text is that prompt, in its own language if it was given one that is a guess,
then at rising temperatures until one passes; if none does, the best mean log-probability wins. A phrase said
over and over stays where the sound bears it out; else it is a loop, and cut at its second round. Text that
the sound does not bear out at all (see `unheard`) is none, however sure of it the decoder is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from pipeline.engine.audio import POSITION_S
from pipeline.engine.decoding.echoes import echoes_prompt, is_one_phrase, is_rushed
from pipeline.engine.decoding.loops import cut_loops, find_loop
from pipeline.engine.decoding.segments import split_spans
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.decoding.unheard import is_suspect
from pipeline.engine.model.vocabulary import Vocabulary
from pipeline.engine.results import UNHEARD

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
    repeats: nothing but that a phrase is said over and over. is_unheard: the sound does not bear it out.
    """

    is_silent: bool
    passed: bool
    repeats: bool = False
    is_unheard: bool = False


def judge(
    decoding: Decoding,
    vocabulary: Vocabulary,
    sounding: Tensor,
    min_logprob: float = MIN_AVG_LOGPROB,
    *,
    is_dense: bool = True,
) -> Verdict:
    """What the gates say of a decoding of a window that sounds where `sounding` says.

    min_logprob: the mean log-probability below which text does not pass.
    is_dense: whether it looked at all of the encoder's positions; where not, text that is one phrase several
    times does not pass either.
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
    is_new = is_dense or not is_one_phrase(text)
    is_sound = decoding.ended and not is_unsure and not is_repetitive and not is_rushed(text, sounding)
    is_heard = not speaks_in_silence(decoding.tokens, vocabulary, sounding)
    is_right = is_sound and is_new and is_heard and not echoes_prompt(decoding, vocabulary)
    return Verdict(is_silent=False, passed=is_right and not has_loop, repeats=is_right and has_loop)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The decoding that was kept for a window, its final tokens, and what it took (see WindowResult)."""

    decoding: Decoding
    tokens: tuple[int, ...]
    is_silent: bool
    fallback: str | None


class Sounds(Protocol):
    """What the sound of some windows, by index, says of their decodings."""

    def repeats(self, index: int, decoding: Decoding) -> bool:
        """Whether it says over and over what the text says over and over."""
        ...

    def bears_out(self, index: int, decoding: Decoding) -> bool:
        """Whether it makes the text likelier than silence does."""
        ...


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
    sounds: Sounds,
    asks_languages: bool = False,
) -> list[Settled]:
    """Retries what fails, all failing windows together, and picks one decoding for each window.

    num_positions: those of a dense window; one with fewer is decoded dense before its temperature rises.
    sounding: where each window sounds, as `judge` takes it.
    floors: the mean log-probability that a window's first decoding must reach where it is sparse; None for
        that of all decodings.
    asks_languages: what fails is decoded again at temperature 0, dense, before the temperature rises.
    """
    cases = []
    for index, decoding in enumerate(first):
        is_sparse, is_echo = decoding.num_positions < num_positions, echoes_prompt(decoding, vocabulary)
        opening = _opening(is_sparse, is_echo, asks_languages)
        floor = floors[index] if is_sparse else None
        cases.append(_Case(index=index, sounding=sounding[index], floor=floor, opening=opening))
        cases[-1].take(decoding, vocabulary, sounds, is_dense=not is_sparse)
    while failing := [case for case in cases if not case.is_over]:
        indices = [case.index for case in failing]
        again = retry(indices, [case.next_temperature for case in failing])
        for case, decoding in zip(failing, again, strict=True):
            case.take(decoding, vocabulary, sounds, is_dense=True)
    return [case.settled(vocabulary) for case in cases]


@dataclass(kw_only=True)
class _Case:
    """The decodings of one window so far, and what was said of each.

    opening: what is done again at temperature 0 before the temperature rises. floor: see `settle`.
    """

    index: int
    sounding: Tensor
    floor: float | None
    opening: str | None
    tried: list[tuple[Decoding, Verdict]] = field(default_factory=list)

    @property
    def next_temperature(self) -> float:
        return self._ladder[len(self.tried) - 1]

    @property
    def is_over(self) -> bool:
        return self.tried[-1][1].passed or len(self.tried) > len(self._ladder)

    @property
    def _ladder(self) -> tuple[float, ...]:
        return (0.0, *TEMPERATURES) if self.opening else TEMPERATURES

    def take(self, decoding: Decoding, vocabulary: Vocabulary, sounds: Sounds, *, is_dense: bool) -> None:
        """Note a decoding with what the gates and the sound say of it.

        Where the sound does not bear out what a dense pass takes for the likeliest, nothing else is tried.
        """
        floor = self.floor if self.floor is not None and not self.tried else MIN_AVG_LOGPROB
        lowest = max(floor, MIN_AVG_LOGPROB)
        verdict = judge(decoding, vocabulary, self.sounding, lowest, is_dense=is_dense)
        if verdict.repeats and sounds.repeats(self.index, decoding):
            verdict = replace(verdict, passed=True)
        elif self._is_doubted(decoding, verdict) and not sounds.bears_out(self.index, decoding):
            is_final = is_dense and decoding.task.temperature == 0
            verdict = Verdict(is_silent=is_final, passed=is_final, is_unheard=True)
        self.tried.append((decoding, verdict))

    def _is_doubted(self, decoding: Decoding, verdict: Verdict) -> bool:
        is_sound = verdict.passed and not is_suspect(decoding, self.sounding)
        return bool(decoding.tokens) and not verdict.is_silent and not is_sound

    def settled(self, vocabulary: Vocabulary) -> Settled:
        """The decoding that passed, else the likeliest of those that the sound bears out."""
        kept, verdict = self.tried[-1]
        if not verdict.passed:
            choices = self.tried[1:] if self.opening else self.tried
            kept, verdict = max(choices, key=lambda one: (not one[1].is_unheard, one[0].avg_logprob))
        marks = [self.opening] if self.opening and len(self.tried) > 1 else []
        if len(self.tried) > (2 if self.opening else 1):
            marks.append(f"temperature={kept.task.temperature:g}")
        if verdict.is_unheard:
            marks.append(UNHEARD)
        said_again = verdict.repeats and verdict.passed
        tokens = kept.tokens if said_again else cut_loops(kept.tokens, vocabulary)
        if len(tokens) < len(kept.tokens) and not verdict.is_unheard:
            marks.append("loop_cut")
        is_silent = verdict.is_silent or verdict.is_unheard
        return Settled(
            decoding=kept, tokens=tuple(tokens), is_silent=is_silent, fallback="+".join(marks) or None
        )


def _opening(is_sparse: bool, is_echo: bool, asks_languages: bool) -> str | None:
    """What is done again at temperature 0 before the temperature rises."""
    if is_sparse:
        return "dense"
    if is_echo:
        return "unprompted"
    return "language" if asks_languages else None
