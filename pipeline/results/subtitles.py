"""Segments to subtitles: cues that a person can read, as SubRip and WebVTT write them. Pure functions.

A cue has at most two lines of 42 columns and lasts at most seven seconds, as the style guides of the
broadcasters have it. A segment that needs more is split at words; where the words have no times of their
own, the segment's time is shared out by the length of the words.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_COLUMNS = 42
MAX_LINES = 2
MAX_CUE_S = 7.0
MIN_CUE_S = 1.0  # what is shorter is shown this long, if the next segment leaves room
FLOOR_S = 0.1  # and never shorter than this: WebVTT wants an end after the start

# Marks that turn the direction of what follows, and the byte order mark.
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")  # noqa: RUF001
CLAUSE_ENDS = (",", ";", ":", "،", "、", "，")  # noqa: RUF001


@dataclass(frozen=True)
class TimedWord:
    """A word, or as much of one as fits on a line. Times in seconds; `gap` stands before it on its line."""

    start_s: float
    end_s: float
    text: str
    gap: str = " "


@dataclass(frozen=True)
class Cue:
    """What is shown at once. Times in seconds."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    channel: int = 0


def shown_text(text: str) -> str:
    """Text in one line, without control and bidirectional characters."""
    line = " ".join(text.split())
    if line.isascii() and line.isprintable():
        return line
    kept = (c for c in line if c not in BIDIRECTIONAL and _is_text(c))
    return " ".join("".join(kept).split())


def _is_text(character: str) -> bool:
    return unicodedata.category(character) not in {"Cc", "Cs"}


def width(text: str) -> int:
    """Columns of a text: wide characters (Chinese, Japanese, Korean) take two, combining marks none."""
    return len(text) if text.isascii() else sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cues(segments: Iterable[Mapping[str, Any]]) -> list[Cue]:
    """Cues of segments (`start_s`, `end_s`, `text`, perhaps `words` and `channel`), ordered by start.

    Every cue lies inside its segment; one shorter than `MIN_CUE_S` is first lengthened as far as the next
    leaves room.
    """
    ordered = sorted(segments, key=lambda segment: segment["start_s"])
    ends = shown_until(ordered)
    found = [
        cue for segment, end_s in zip(ordered, ends, strict=True) for cue in _segment_cues(segment, end_s)
    ]
    return sorted(found, key=lambda cue: (cue.start_s, cue.end_s))


def shown_until(segments: Sequence[Mapping[str, Any]]) -> list[float]:
    """The end of each of the ordered segments, put off where it would be gone before it is read."""
    nexts = [*(segment["start_s"] for segment in segments[1:]), math.inf]
    return [
        max(
            segment["end_s"],
            segment["start_s"] + min(MIN_CUE_S, max(FLOOR_S, following - segment["start_s"])),
        )
        for segment, following in zip(segments, nexts, strict=False)
    ]


def _segment_cues(segment: Mapping[str, Any], end_s: float) -> list[Cue]:
    start_s, channel = segment["start_s"], segment.get("channel", 0)
    timed = [word for word in segment.get("words") or [] if shown_text(word["word"])]
    found = _split(_timed(timed, start_s, end_s), channel) if timed else []
    if not found or any(cue.end_s <= cue.start_s for cue in found):
        words = _interpolated(segment["text"], start_s, end_s)
        found = _split(words, channel) if words else []
    return found


def _timed(words: Sequence[Mapping[str, Any]], start_s: float, end_s: float) -> list[TimedWord]:
    """Words with their own times, kept in order and inside the segment."""
    found: list[TimedWord] = []
    begin = start_s
    for word in words:
        begin = min(max(begin, word["start_s"]), end_s)
        end = min(max(begin, word["end_s"]), end_s)
        gap = " " if word["word"].startswith(" ") or not found else ""
        found += _pieces(shown_text(word["word"]), begin, end, gap)
        begin = end
    return found


def _interpolated(text: str, start_s: float, end_s: float) -> list[TimedWord]:
    """The words of a text, each with a share of the time by its length."""
    found = shown_text(text).split()
    total = sum(len(word) + 1 for word in found)
    per_character_s = (end_s - start_s) / total if total else 0.0
    words: list[TimedWord] = []
    seen = 0
    for word in found:
        begin = start_s + seen * per_character_s
        seen += len(word) + 1
        words += _pieces(word, begin, min(end_s, start_s + seen * per_character_s))
    return words


def _pieces(word: str, start_s: float, end_s: float, gap: str = " ") -> list[TimedWord]:
    """A word, cut where it is longer than a line, as a text without spaces is."""
    if width(word) <= MAX_COLUMNS:
        return [TimedWord(start_s, end_s, word, gap)]
    half = len(word) // 2
    middle_s = (start_s + end_s) / 2
    return _pieces(word[:half], start_s, middle_s, gap) + _pieces(word[half:], middle_s, end_s, "")


def _split(words: Sequence[TimedWord], channel: int) -> list[Cue]:
    """One cue if the words fit into one, else the cues of two parts of about equal length."""
    lines = break_lines(words)
    start_s, end_s = words[0].start_s, words[-1].end_s
    if lines is not None and (end_s - start_s <= MAX_CUE_S or len(words) == 1):
        return [Cue(start_s, min(end_s, start_s + MAX_CUE_S), lines, channel)]
    middle = _middle(words)
    return _split(words[:middle], channel) + _split(words[middle:], channel)


def _middle(words: Sequence[TimedWord]) -> int:
    """Where to split: near the middle of the text, sooner after a sentence or a clause."""
    total = sum(len(word.text) + 1 for word in words)
    costs, seen = [], 0
    for word in words[:-1]:
        seen += len(word.text) + 1
        bonus = 0.4 if word.text.endswith(SENTENCE_ENDS) else 0.2 if word.text.endswith(CLAUSE_ENDS) else 0.0
        costs.append(abs(2 * seen / total - 1) - bonus)
    return 1 + costs.index(min(costs))


def _line(words: Sequence[TimedWord]) -> str:
    return "".join(word.gap + word.text for word in words).strip()


def break_lines(words: Sequence[TimedWord]) -> tuple[str, ...] | None:
    """Words on one line, or on two of about equal length; None if they do not fit."""
    whole = _line(words)
    if width(whole) <= MAX_COLUMNS:
        return (whole,)
    if width(whole) > MAX_LINES * MAX_COLUMNS + 1:
        return None
    breaks = [(_line(words[:i]), _line(words[i:])) for i in range(1, len(words))]
    best = min(breaks, key=lambda pair: max(map(width, pair)), default=None)
    return best if best is not None and max(map(width, best)) <= MAX_COLUMNS else None


def srt(found: Iterable[Cue]) -> str:
    """Cues as SubRip, which has no escapes: what players take for mark-up is replaced."""
    blocks = (f"{number}\n{_times(cue, ',')}\n{_srt_text(cue)}\n" for number, cue in enumerate(found, 1))
    return "\n".join(blocks)


def _srt_text(cue: Cue) -> str:
    return "\n".join(cue.lines).replace("<", "‹").replace(">", "›").replace("{\\", "{")  # noqa: RUF001


def vtt(found: Iterable[Cue], *, voices: bool = False) -> str:
    """Cues as WebVTT; with `voices` each names its channel."""
    blocks = (f"\n{_times(cue, '.')}\n{_vtt_text(cue, voices)}\n" for cue in found)
    return "WEBVTT\n" + "".join(blocks)


def _vtt_text(cue: Cue, voices: bool) -> str:
    text = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<v channel {cue.channel}>{text}" if voices else text


def _times(cue: Cue, point: str) -> str:
    start_ms = max(0, round(cue.start_s * 1000))
    end_ms = max(start_ms + 1, round(cue.end_s * 1000))
    return f"{_clock(start_ms, point)} --> {_clock(end_ms, point)}"


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{point}{milliseconds:03d}"
