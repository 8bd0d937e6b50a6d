"""The language of a recording, and of those of its windows that are in another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.longform.placed import PlacedResult, PlacedWindow

NUM_ASKED = 3  # windows that a recording's language is read from
SURE = 0.5  # the probability from which a window's language is believed
UNSURE = 1e-6  # what a second of speech counts that is not
GUESS = 1e-3  # what the parts before count: more than all that is unsure


def most_spoken(windows: Iterable[PlacedWindow]) -> list[PlacedWindow]:
    """The windows of each recording that its language is read from: those with the most speech."""
    own: defaultdict[int, list[PlacedWindow]] = defaultdict(list)
    for window in windows:
        own[window.recording].append(window)
    return [w for all_ in own.values() for w in sorted(all_, key=lambda w: -w.speech_s)[:NUM_ASKED]]


def languages_of(
    results: Iterable[PlacedResult], recordings: Sequence[Mapping[str, Any]]
) -> dict[int, str | None]:
    """The language of each recording: that of most speech, in windows that are sure of theirs.

    A window that is unsure decides nothing, unless all are and nothing is known of the parts before.
    """
    votes: defaultdict[int, defaultdict[str | None, float]] = defaultdict(lambda: defaultdict(float))
    for done in results:
        votes[done.window.recording][done.result.language] += _weight(done)
    for recording, own in votes.items():
        if guess := recordings[recording].get("language_guess"):
            own[guess] += GUESS
    return {recording: max(own, key=own.__getitem__) for recording, own in votes.items()}


def _weight(done: PlacedResult) -> float:
    probability = done.result.language_probability
    if probability is None:  # the model knows one language
        return 1.0
    return (1.0 if probability >= SURE else UNSURE) * probability * done.window.speech_s


def speech_by_language(results: Iterable[PlacedResult]) -> dict[str, float]:
    """Seconds of speech in each language, most first; windows without text count for none."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for done in results:
        if not done.is_aside and done.result.language is not None:
            seconds[done.result.language] += done.window.speech_s if done.result.text else 0.0
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def surer(one: PlacedResult, other: PlacedResult) -> tuple[PlacedResult, PlacedResult]:
    """Two texts of one window, the better one first: it passed the gates at once, or is the likelier."""
    first, second = sorted((one, other), key=lambda d: (d.result.fallback is not None, -d.result.avg_logprob))
    return first, second


def following(
    results: Sequence[PlacedResult], known: Mapping[int, str | None]
) -> Iterator[tuple[PlacedResult, str]]:
    """Results of windows after one that is sure of another language than its recording's, with that language.

    results: in the order of time, recording by recording.
    """
    recording, changed_to = -1, None
    for done in results:
        if done.is_aside:
            continue
        own = done.window.recording
        if own != recording:
            recording, changed_to = own, None
        probability = done.result.language_probability
        if probability is None and changed_to is not None:  # nobody asked this window
            yield done, changed_to
        if probability is not None and probability >= SURE:
            changed_to = done.result.language if done.result.language != known[own] else None
