"""Transcripts as pages to read and to listen to: one for each recording, or one for all. They load nothing.

Everything reaches a page through autoescaping. A page forbids itself requests and all scripts but its own.
"""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.results.exports import safe_name
from pipeline.results.faults import Faults
from pipeline.results.page import page
from pipeline.results.recordings import WholeRecording
from pipeline.results.subtitles import shown_text
from pipeline.results.text_files import open_folder, writing
from pipeline.sources.locations import local_path, printable
from pipeline.sources.manifests import parse_clip
from pipeline.sources.opening import open_row
from pipeline.sources.recording import RecordingError

TINTS = ((0.3, " p0"), (0.5, " p1"), (0.7, " p2"))  # words less sure than this
UNSURE_LOGPROB = -0.7  # Whisper itself gives up at -1
MAX_COLUMNS = 4
ALL = "transcripts.html"


@dataclass(frozen=True, kw_only=True)
class Audio:
    """How a page comes to its audio: `link`, `embed` (at most `max_bytes` of a recording) or `none`."""

    how: str
    max_bytes: int
    rows: Mapping[str, Mapping[str, Any]]  # of PLAN, by recording_id: where the bytes are


@dataclass(frozen=True, kw_only=True)
class ShownWord:
    """A word; `gap` stands before it, `tint` is a class of the style, `remark` is said on pointing at it."""

    gap: str
    text: str
    start_s: float
    tint: str
    remark: str


@dataclass(frozen=True, kw_only=True)
class ShownSegment:
    """A segment; `marks` are (mark, remark) of what makes it doubtful."""

    start_s: float
    end_s: float
    clock: str
    column: int
    speaker: str | None
    text: str
    words: tuple[ShownWord, ...]
    marks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ShownRecording:
    """A recording; `audio` is what its element plays, with the transcript's start at `offset_s` in it."""

    name: str
    facts: tuple[str, ...]
    error: str | None
    audio: str | None
    offset_s: float
    note: str | None
    language: str | None
    layout: str
    speakers: tuple[str, ...]
    segments: tuple[ShownSegment, ...]


def write_pages(folder: str, recordings: Iterable[WholeRecording], audio: Audio, faults: Faults) -> int:
    """Write a page for every recording that did not fail. Returns their number.

    A page that cannot be made is one of the `faults`. Raises `OutputError` for the folder.
    """
    root, num = open_folder(folder), 0
    for recording in recordings:
        if recording.status == "ok":
            with faults.named(recording.recording_id):
                path = root / f"{safe_name(recording.recording_id)}.html"
                text = render_player([shown_recording(recording, audio, path)], recording.recording_id)
                with writing(path, root) as file:
                    file.write(text)
                num += 1
    return num


def write_one_page(
    folder: str, recordings: Iterable[WholeRecording], audio: Audio, faults: Faults, title: str
) -> int:
    """Write one page of all recordings, those that failed named. Returns the number of the others."""
    root = open_folder(folder)
    shown = []
    for recording in sorted(recordings, key=lambda one: one.recording_id):
        with faults.named(recording.recording_id):
            shown.append(shown_recording(recording, audio, root / ALL))
    with writing(root / ALL, root) as file:
        file.write(render_player(shown, title))
    return sum(one.error is None for one in shown)


def render_player(recordings: Sequence[ShownRecording], title: str) -> str:
    """The page of some recordings."""
    return page(
        "transcript.html.j2",
        css="transcript.css",
        script="transcript.js",
        title=shown_text(title),
        recordings=recordings,
        has_words=any(segment.words for one in recordings for segment in one.segments),
    )


def shown_recording(recording: WholeRecording, audio: Audio, page_path: Path) -> ShownRecording:
    """A recording as a page at `page_path` shows it."""
    source, note = _audio_source(recording, audio, page_path)
    speakers = recording.speakers
    has_columns = 1 < len(speakers) <= MAX_COLUMNS
    columns = {channel: place if has_columns else 0 for place, channel in enumerate(recording.channels)}
    return ShownRecording(
        name=shown_text(recording.recording_id),
        facts=tuple(_facts(recording)),
        error=shown_text(recording.error_message or "failed") if recording.status != "ok" else None,
        audio=source,
        offset_s=clip_offset_s(audio.rows.get(recording.recording_id)),
        note=note,
        language=recording.text_language,
        layout=("two" if len(speakers) == 2 else "more") if has_columns else "one",
        speakers=tuple(map(shown_text, speakers.values())) if has_columns else (),
        segments=tuple(
            _segment(segment, columns[segment["channel"]], speakers.get(segment["channel"]))
            for segment in recording.segments
        ),
    )


def _facts(recording: WholeRecording) -> Iterable[str]:
    if recording.duration_s is not None:
        yield clock(recording.duration_s)
    if recording.language is not None:
        translated = f", in {recording.text_language}" if recording.is_translated else ""
        yield f"language {recording.language}{translated}"
    yield f"model {shown_text(recording.model)}"


def _segment(segment: Mapping[str, Any], column: int, speaker: str | None) -> ShownSegment:
    return ShownSegment(
        start_s=segment["start_s"],
        end_s=segment["end_s"],
        clock=clock(segment["start_s"]),
        column=column,
        speaker=None if speaker is None else shown_text(speaker),
        text=shown_text(segment["text"]),
        words=tuple(map(_word, segment["words"] or ())),
        marks=tuple(_marks(segment)),
    )


def _word(word: Mapping[str, Any]) -> ShownWord:
    tint = next((tint for limit, tint in TINTS if word["probability"] < limit), "")
    return ShownWord(
        gap=" " if word["word"].startswith(" ") else "",
        text=shown_text(word["word"]),
        start_s=word["start_s"],
        tint=tint,
        remark=f"{word['probability']:.0%} sure" if tint else "",
    )


def _marks(segment: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What makes a segment doubtful, as a mark and a remark each."""
    if segment["fallback"] is not None:
        yield "decoded again", f"Its window failed a check and was decoded again: {segment['fallback']}."
    if segment["avg_logprob"] < UNSURE_LOGPROB:
        yield "unsure", f"The mean log-probability of its window is {segment['avg_logprob']:.2f}."


def clock(seconds: float) -> str:
    """A time as a player shows it: 1:02, 1:00:02."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def clip_offset_s(row: Mapping[str, Any] | None) -> float:
    """Where the recording of a row of PLAN begins in its file: 0, unless it is a clip of it."""
    return parse_clip(row["member"])[0] if row is not None and _is_clip(row) else 0.0


def _is_clip(row: Mapping[str, Any]) -> bool:
    return row["member"] is not None and row["member"].startswith("t=")


def _audio_source(recording: WholeRecording, audio: Audio, page_path: Path) -> tuple[str | None, str | None]:
    """The address of the audio as its element takes it, or None and why there is none."""
    row = audio.rows.get(recording.recording_id)
    if audio.how == "none" or row is None or recording.status != "ok":
        return None, None
    if audio.how == "embed":
        try:
            if (data := _embedded(row, audio.max_bytes)) is not None:
                return data, None
        except RecordingError as error:  # the transcript can be read without
            return None, shown_text(str(error))
    if (address := linked(row, page_path.parent)) is None:
        where = printable(row["uri"])
        return None, f"The audio is in {where}; a page can play it only if it is embedded."
    return address, None


def linked(row: Mapping[str, Any], folder: Path) -> str | None:
    """The address of a recording's file for a page in `folder`; None where it is no file of its own."""
    path = local_path(row["uri"])
    if path is None or (row["member"] is not None and not _is_clip(row)):
        return None
    return quote(os.fsencode(os.path.relpath(path, folder)))


def _embedded(row: Mapping[str, Any], max_bytes: int) -> str | None:
    """The bytes of a recording as a `data:` address; None if they are more than `max_bytes`."""
    with open_row(row, max_bytes=max_bytes) as file:
        if file.length > max_bytes:
            return None
        content = os.pread(file.fd, file.length, file.start)
    name = row["uri"] if row["member"] is None or _is_clip(row) else row["member"]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
