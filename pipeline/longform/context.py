"""What was said before a window: its recording's text so far, put before it as if it had just been said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from pipeline.longform.beside import Engine, beside
from pipeline.longform.placed import PlacedResult, PlacedWindow, text_of

RESET_TEMPERATURE = 0.5  # openai/whisper transcribe.py: text drawn above it misleads what follows

# Decodes some windows, each in a language.
Decode = Callable[[Sequence[PlacedWindow], Sequence[str | None]], list[PlacedResult]]


class Context:
    """The texts of the recordings of one shard, as far as they are known."""

    def __init__(self) -> None:
        self._said: defaultdict[int, dict[float, PlacedResult]] = defaultdict(dict)

    def prompt(self, window: PlacedWindow, prompt: str | None) -> str | None:
        """What is put before a window. prompt: of its recording; it counts as said first."""
        said = sorted(self._said[window.recording].items())
        before = [done for start_s, done in said if start_s < window.start_s]
        resets = [n for n, done in enumerate(before, 1) if done.result.temperature > RESET_TEMPERATURE]
        text = text_of(before[resets[-1] if resets else 0 :])
        return " ".join(filter(None, (None if resets else prompt, text))) or None

    def in_order(
        self,
        windows: Sequence[PlacedWindow],
        languages: Sequence[str | None],
        decode: Decode,
        engine: Engine,
    ) -> list[PlacedResult]:
        """The windows of each recording one after the other, and the recordings side by side.

        Results in the order of the windows.
        """
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place in sorted(range(len(windows)), key=lambda place: windows[place].start_s):
            places[windows[place].recording].append(place)

        def follow(recording: int) -> dict[int, PlacedResult]:
            found = {}
            for place in places[recording]:
                (found[place],) = decode([windows[place]], [languages[place]])
                self._said[recording][windows[place].start_s] = found[place]
            return found

        found = beside([partial(follow, recording) for recording in places], engine)
        done = {place: one for own in found for place, one in own.items()}
        return [done[place] for place in range(len(windows))]
