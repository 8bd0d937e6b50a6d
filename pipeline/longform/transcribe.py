"""The windows of a shard through the engine: each recording in its language, and no speech left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from pipeline.engine.options import LANGUAGE_MODES
from pipeline.longform.beside import beside
from pipeline.longform.context import Context
from pipeline.longform.coverage import left_out, pieces
from pipeline.longform.languages import following, languages_of, most_spoken, surer
from pipeline.longform.placed import PlacedResult, PlacedWindow, Root, window_seed

if TYPE_CHECKING:
    from pipeline.engine.results import WindowResult
    from pipeline.engine.sparsify.level import Level

T = TypeVar("T")
MAX_CUTS = 3  # of a window and what comes of it


class Transcriber(Protocol):
    """What this module needs of an engine."""

    model_name: str
    device: str
    batch_size: int  # windows that it decodes side by side
    num_calls: int  # that it is to be given at once, where there are windows for so many
    conditions_on_text: bool  # each window is given what was said before it in its recording

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory that it has held on its device."""
        ...

    def transcribe(
        self,
        windows: Sequence[np.ndarray],
        *,
        languages: Sequence[str | None] | None = None,
        are_guesses: bool = False,
        seeds: Sequence[int] | None = None,
        levels: Level | Sequence[Level | None] | None = None,
        prompts: Sequence[str | None] | None = None,
    ) -> list[WindowResult]:
        """One result per window, in order; `levels` and `prompts` None are what the engine was made for."""
        ...

    def give_up(self) -> None:
        """Ends the calls of all threads with an error, and every later one."""
        ...


def transcribe_windows(
    windows: Sequence[PlacedWindow],
    recordings: Sequence[Mapping[str, Any]],
    engine: Transcriber,
    language: str | Mapping[Root, str | None],
    level: Level | None = None,
) -> list[PlacedResult]:
    """The texts of all windows in the order of time.

    Results without text are among them: of windows that were decoded again, for what that took.

    recordings: rows of `READ_RECORDING`; the language and the prompt of one come before what is asked of all.
    language: a code, `auto` (each recording has one), `each` (each window has one), or the code of each
    window by its root. level: how sparse they are; None: as the engine was made.
    """
    context = Context()
    ask = _EngineAtLevel(recordings, engine, level, context)
    ask_pieces = _EngineAtLevel(recordings, engine, None if level is None else level.of_pieces, context)
    known: dict[int, str | None] = {}

    def given(window: PlacedWindow) -> str | None:
        own = recordings[window.recording].get("language")
        if own is not None or language in LANGUAGE_MODES:
            return own
        return language if isinstance(language, str) else language[window.root]

    def decode_pieces(windows: Sequence[PlacedWindow]) -> list[PlacedResult]:
        free = [window for window in windows if window.recording in known]
        fixed = [window for window in windows if window.recording not in known]
        return ask_pieces.own_language(free, known) + ask_pieces(fixed, list(map(given, fixed)))

    def decode_all(windows: Sequence[PlacedWindow]) -> list[PlacedResult]:
        return _complete(ask(windows, list(map(given, windows))), decode_pieces)

    free = [window for window in windows if language == "auto" and given(window) is None]
    results, found = _in_their_languages(free, ask)
    known |= found
    fixed = [window for window in windows if window.recording not in known]
    num_calls = 1 if engine.conditions_on_text else engine.num_calls
    calls = [partial(_complete, own, decode_pieces) for own in _shared_out(results, num_calls)]
    calls += [partial(decode_all, own) for own in _shared_out(fixed, num_calls)]
    return _ordered([done for own in beside(calls, engine) for done in own])


def _shared_out(all_: Sequence[T], number: int) -> list[Sequence[T]]:
    """At most `number` parts of about equally many."""
    return [all_[first::number] for first in range(min(number, len(all_)))]


def _ordered(results: Sequence[PlacedResult]) -> list[PlacedResult]:
    """In the order of time; of those that start together, in the order they were made."""
    return sorted(results, key=lambda done: (done.window.recording, done.window.start_s))


def _in_their_languages(
    windows: Sequence[PlacedWindow], ask: _EngineAtLevel
) -> tuple[list[PlacedResult], dict[int, str | None]]:
    """Each recording in the language of its windows with the most speech, but where another is surer.

    A window that fails the gates is asked for its own language, and those after it are tried in that.
    Returns the languages of the recordings too.
    """
    asked = most_spoken(windows)
    heard = ask(asked, [None] * len(asked))
    known = languages_of(heard, ask.recordings)
    results = ask.agreed(heard, known)
    chosen = {id(window) for window in asked}
    rest = [window for window in windows if id(window) not in chosen]
    results += ask(rest, [known[window.recording] for window in rest], are_guesses=True)
    changed = list(following(_ordered(results), known))
    kept = {id(done) for done, _ in changed}
    return [done for done in results if id(done) not in kept] + ask.again(changed), known


def _complete(
    results: Sequence[PlacedResult], decode: Callable[[Sequence[PlacedWindow]], list[PlacedResult]]
) -> list[PlacedResult]:
    """All results, and where one leaves speech out, those of the pieces of its window in its place."""
    complete, pending = [], list(results)
    for _ in range(MAX_CUTS):
        holes = [(done, left_out(done)) for done in pending]
        parts = [(done, [] if hole is None else pieces(done.window, hole)) for done, hole in holes]
        complete += [done.set_aside("cut") if own else done for done, own in parts]
        pending = decode([piece for _, own in parts for piece in own])
    return complete + pending


@dataclass(frozen=True)
class _EngineAtLevel:
    """The engine, asked about windows of some recordings at one level."""

    recordings: Sequence[Mapping[str, Any]]
    engine: Transcriber
    level: Level | None
    context: Context

    def __call__(
        self,
        windows: Sequence[PlacedWindow],
        languages: Sequence[str | None],
        *,
        are_guesses: bool = False,
    ) -> list[PlacedResult]:
        if not windows:
            return []
        if self.engine.conditions_on_text:
            decode = partial(self._decode, are_guesses=are_guesses)
            return self.context.in_order(windows, languages, decode, self.engine)
        return self._decode(windows, languages, are_guesses=are_guesses)

    def _decode(
        self,
        windows: Sequence[PlacedWindow],
        languages: Sequence[str | None],
        *,
        are_guesses: bool,
    ) -> list[PlacedResult]:
        results = self.engine.transcribe(
            [window.samples for window in windows],
            languages=languages,
            are_guesses=are_guesses,
            seeds=[window_seed(self.recordings[window.recording], window.start_s) for window in windows],
            levels=self.level,
            **self._prompts(windows),
        )
        return [PlacedResult(window=w, result=r) for w, r in zip(windows, results, strict=True)]

    def _prompts(self, windows: Sequence[PlacedWindow]) -> dict[str, Any]:
        """The prompts of manifests and what was said before, where there are any."""
        own = [self.recordings[window.recording].get("prompt") for window in windows]
        prompts = [self.context.prompt(window, prompt) for window, prompt in zip(windows, own, strict=True)]
        return {"prompts": prompts} if any(prompts) else {}

    def own_language(
        self, windows: Sequence[PlacedWindow], known: Mapping[int, str | None]
    ) -> list[PlacedResult]:
        """Windows in their own language, or in their recording's where that is surer."""
        return self.agreed(self(windows, [None] * len(windows)), known)

    def agreed(self, heard: Sequence[PlacedResult], known: Mapping[int, str | None]) -> list[PlacedResult]:
        """What was heard in the language of its recording, and the rest tried in that."""
        same = [done for done in heard if done.result.language == known[done.window.recording]]
        others = [done for done in heard if done.result.language != known[done.window.recording]]
        return same + self.again([(done, known[done.window.recording]) for done in others])

    def again(self, results: Sequence[tuple[PlacedResult, str | None]]) -> list[PlacedResult]:
        """Windows decoded again in another language; of both texts the surer one stays."""
        tried = self([done.window for done, _ in results], [language for _, language in results])
        found = []
        for (before, _), after in zip(results, tried, strict=True):
            better, worse = surer(before, after)
            found += [worse.set_aside("language"), better]
        return found
