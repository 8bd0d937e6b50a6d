"""Segments to subtitles: cues that a person can read, as SubRip and WebVTT write them. Pure functions.

A cue has at most two lines of 42 columns and lasts at most seven seconds, as the style guides of the
broadcasters have it. A segment that needs more is split between words, sooner after a sentence or a clause;
where the words have no times of their own, the segment's time is shared out by length.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from pipeline.results.line_breaks import breakable, width

MAX_COLUMNS = 42
MAX_LINES = 2
MAX_CUE_S = 7.0
MIN_CUE_S = 1.0  # what is shorter is shown this long, if the next segment leaves room
FLOOR_S = 0.1  # and never shorter than this: WebVTT wants an end after the start
NOBODY: Mapping[int, str] = {}
MAX_LABEL = 16  # columns of a speaker's name

# Marks that turn the direction of what follows, and the byte order mark.
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
SENTENCE_ENDS = tuple(".?!…。？！｡؟۔।॥။។")  # noqa: RUF001
CLAUSE_ENDS = tuple(",;:،、，；：؛၊")  # noqa: RUF001
CLOSING = "\"')]}»”’」』）】》〉"  # noqa: RUF001
# What a break costs, as a share of a line: less after a sentence or a clause, more where no space is.
SENTENCE_COST, CLAUSE_COST, NO_SPACE_COST = -0.4, -0.2, 0.3


@dataclass(frozen=True)
class TimedWord:
    """A word, or a piece of one between breaks. Times in seconds; `gap` stands before it on its line."""

    start_s: float
    end_s: float
    text: str
    gap: str = " "


@dataclass(frozen=True)
class Cue:
    """What is shown at once. Times in seconds; `speaker` is None where there is one channel."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str | None = None


def shown_text(text: str) -> str:
    """Text in one line, without control and bidirectional characters."""
    line = " ".join(text.split())
    if line.isascii() and line.isprintable():
        return line
    kept = (c for c in line if c not in BIDIRECTIONAL and _is_text(c))
    return " ".join("".join(kept).split())


def _is_text(character: str) -> bool:
    return unicodedata.category(character) not in {"Cc", "Cs"}


def cues(segments: Iterable[Mapping[str, Any]], speakers: Mapping[int, str] = NOBODY) -> list[Cue]:
    """Cues of segments (`start_s`, `end_s`, `text`, perhaps `words` and `channel`), ordered by start.

    speakers: the names of channels; SubRip shows them in the text. Every cue lies inside its segment; one
    shorter than `MIN_CUE_S` is first lengthened as far as the next leaves room.
    """
    ordered = sorted(segments, key=lambda segment: segment["start_s"])
    found = [
        cue
        for segment, end_s in zip(ordered, shown_until(ordered), strict=True)
        for cue in _segment_cues(segment, end_s, speakers.get(segment.get("channel", 0)))
    ]
    return sorted(found, key=lambda cue: (cue.start_s, cue.end_s))


def shown_until(segments: Sequence[Mapping[str, Any]]) -> list[float]:
    """The end of each of the ordered segments, put off where it would be gone before it is read."""
    starts = [segment["start_s"] for segment in segments]
    room = [after - before for before, after in pairwise([*starts, math.inf])]
    return [
        max(segment["end_s"], segment["start_s"] + min(MIN_CUE_S, max(FLOOR_S, gap)))
        for segment, gap in zip(segments, room, strict=True)
    ]


def _segment_cues(segment: Mapping[str, Any], end_s: float, speaker: str | None) -> list[Cue]:
    start_s = segment["start_s"]
    timed = [word for word in segment.get("words") or [] if shown_text(word["word"])]
    found = _split(_pieces(_timed(timed, start_s, end_s), speaker), speaker) if timed else []
    if not found or any(cue.end_s <= cue.start_s for cue in found):
        whole = TimedWord(start_s, end_s, shown_text(segment["text"]))
        found = _split(_pieces([whole], speaker), speaker) if whole.text else []
    return found


def _timed(words: Sequence[Mapping[str, Any]], start_s: float, end_s: float) -> list[TimedWord]:
    """Words with their own times, kept in order and inside the segment."""
    found: list[TimedWord] = []
    begin = start_s
    for word in words:
        begin = min(max(begin, word["start_s"]), end_s)
        end = min(max(begin, word["end_s"]), end_s)
        gap = " " if word["word"].startswith(" ") and found else ""
        found.append(TimedWord(begin, end, shown_text(word["word"]), gap))
        begin = end
    return found


def _pieces(timed: Sequence[TimedWord], speaker: str | None) -> list[TimedWord]:
    """The text of timed words as the pieces between which it may break.

    What is timed may be less than a character, as tokens are, or a whole segment: a piece gets its times from
    the places in the text where it begins and ends.
    """
    text = "".join(word.gap + word.text for word in timed).lstrip()
    clock = _Clock(timed)
    found = []
    for match in re.finditer(r"\S+", text):
        parts = breakable(match[0], MAX_COLUMNS - width(label(speaker)))
        edges = list(accumulate(map(len, parts), initial=match.start()))
        for (begin, end), part in zip(pairwise(edges), parts, strict=True):
            gap = " " if begin == match.start() else ""
            found.append(TimedWord(clock.time(begin), clock.time(end, is_end=True), part, gap))
    return found


class _Clock:
    """Places in a text to seconds."""

    def __init__(self, timed: Sequence[TimedWord]) -> None:
        self._timed = timed
        self._starts: list[int] = []
        place = -len(timed[0].gap)
        for word in timed:
            self._starts.append(place + len(word.gap))
            place = self._starts[-1] + len(word.text)

    def time(self, place: int, *, is_end: bool = False) -> float:
        """When the character at a place begins, or the one before it ends."""
        index = bisect_right(self._starts, place - is_end) - 1
        word = self._timed[index]
        share = (place - self._starts[index]) / len(word.text)
        return min(word.end_s, word.start_s + share * (word.end_s - word.start_s))


def _split(words: Sequence[TimedWord], speaker: str | None) -> list[Cue]:
    """One cue if the words fit into one, else the cues of two parts of about equal length."""
    lines = break_lines(words, label(speaker))
    start_s, end_s = words[0].start_s, words[-1].end_s
    if len(words) == 1 or (lines is not None and end_s - start_s <= MAX_CUE_S):
        shown = lines or (_line(words),)
        return [Cue(start_s, min(end_s, start_s + MAX_CUE_S), shown, speaker)]
    middle = _middle(words)
    return _split(words[:middle], speaker) + _split(words[middle:], speaker)


def label(speaker: str | None) -> str:
    """What stands before the text of a speaker, of at most `MAX_LABEL` columns and four."""
    if speaker is None:
        return ""
    name = shown_text(speaker)
    while width(name) > MAX_LABEL:
        name = name[:-1]
    return f"[{name}] "


def _middle(words: Sequence[TimedWord]) -> int:
    """Where to split: near the middle of the text, sooner after a sentence or a clause."""
    places = list(accumulate(width(word.gap + word.text) for word in words))
    costs = [
        abs(2 * place / places[-1] - 1) + _break_cost(*pair)
        for place, pair in zip(places, pairwise(words), strict=False)
    ]
    return 1 + costs.index(min(costs))


def _break_cost(before: TimedWord, after: TimedWord) -> float:
    text = before.text.rstrip(CLOSING)
    if text.endswith(SENTENCE_ENDS):
        return SENTENCE_COST
    if text.endswith(CLAUSE_ENDS):
        return CLAUSE_COST
    return 0.0 if after.gap else NO_SPACE_COST


def _line(words: Sequence[TimedWord]) -> str:
    return "".join(word.gap + word.text for word in words).strip()


def break_lines(words: Sequence[TimedWord], first: str = "") -> tuple[str, ...] | None:
    """Words on one line, or on two of about equal length; None if they do not fit.

    first: what the first line begins with, which is not returned.
    """
    whole = _line(words)
    if width(first + whole) <= MAX_COLUMNS:
        return (whole,)
    if width(first + whole) > MAX_LINES * MAX_COLUMNS + 1:
        return None
    found = []
    for i in range(1, len(words)):
        lines = _line(words[:i]), _line(words[i:])
        columns = max(width(first + lines[0]), width(lines[1]))
        if columns <= MAX_COLUMNS:
            found.append((columns / MAX_COLUMNS + _break_cost(words[i - 1], words[i]), lines))
    return min(found, default=(0.0, None))[1]


def srt(found: Iterable[Cue]) -> str:
    """Cues as SubRip, which has no escapes: what players take for mark-up is replaced."""
    blocks = (f"{number}\n{_times(cue, ',')}\n{_srt_text(cue)}\n" for number, cue in enumerate(found, 1))
    return "\n".join(blocks)


def _srt_text(cue: Cue) -> str:
    text = label(cue.speaker) + "\n".join(cue.lines)
    return text.replace("<", "‹").replace(">", "›").replace("{\\", "{")  # noqa: RUF001


def vtt(found: Iterable[Cue]) -> str:
    """Cues as WebVTT; each names its speaker where there are several."""
    return "WEBVTT\n" + "".join(f"\n{_times(cue, '.')}\n{_vtt_text(cue)}\n" for cue in found)


def _vtt_text(cue: Cue) -> str:
    text = _escaped("\n".join(cue.lines))
    return text if cue.speaker is None else f"<v {_escaped(shown_text(cue.speaker))}>{text}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _times(cue: Cue, point: str) -> str:
    start_ms = max(0, round(cue.start_s * 1000))
    end_ms = max(start_ms + 1, round(cue.end_s * 1000))
    return f"{_clock(start_ms, point)} --> {_clock(end_ms, point)}"


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{point}{milliseconds:03d}"
