"""Committed recordings in the forms that other programs read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.results import subtitles
from pipeline.results.faults import Faults
from pipeline.results.recordings import WholeRecording
from pipeline.results.text_files import open_folder, spreadsheet_safe, writing
from pipeline.sources.manifests import parse_clip

MAX_NAME_BYTES = 200  # file systems take 255; an ending and a temporary name must fit too


def _srt(recording: WholeRecording) -> str:
    return subtitles.srt(subtitles.cues(recording.segments, recording.speakers))


def _vtt(recording: WholeRecording) -> str:
    return subtitles.vtt(subtitles.cues(recording.segments, recording.speakers))


def _txt(recording: WholeRecording) -> str:
    """A line for each segment, with its speaker where there are several channels."""
    lines = []
    for segment in recording.segments:
        speaker = recording.speakers.get(segment["channel"])
        lines.append(f"{subtitles.label(speaker)}{subtitles.shown_text(segment['text'])}\n")
    return "".join(lines)


def _tsv(recording: WholeRecording) -> str:
    lines = ["start_s\tend_s\tchannel\ttext\n"]
    for segment in recording.segments:
        text = spreadsheet_safe(subtitles.shown_text(segment["text"]))
        channel = segment["channel"]
        if recording.channel_names:
            channel = spreadsheet_safe(subtitles.shown_text(recording.speakers.get(channel, str(channel))))
        lines.append(f"{segment['start_s']:.3f}\t{segment['end_s']:.3f}\t{channel}\t{text}\n")
    return "".join(lines)


FILES: dict[str, Callable[[WholeRecording], str]] = {"srt": _srt, "vtt": _vtt, "txt": _txt, "tsv": _tsv}
LINES = {"jsonl": "transcripts.jsonl", "nemo": "manifest.jsonl"}
FORMATS = (*FILES, *LINES)


def json_line(recording: WholeRecording) -> dict[str, Any]:
    """A recording with all that is known of it; raw text, as it is stored."""
    return {
        **{name: getattr(recording, name) for name in JSON_FIELDS},
        "segments": [
            {name: value for name, value in segment.items() if name != "part"}
            | {"speaker": recording.speakers.get(segment["channel"])}
            for segment in recording.segments
        ],
    }


JSON_FIELDS = (
    *("recording_id", "uri", "status", "error_type", "error_message", "duration_s"),
    *("language", "language_probability", "text", "model", "text_language"),
)


def nemo_line(recording: WholeRecording, member: str | None) -> dict[str, Any] | None:
    """A line of a NeMo manifest; None for what failed, and for what lies inside a container.

    `member` is the recording's place in its file, of which NeMo knows only spans of time.
    """
    if recording.status != "ok" or (member is not None and not member.startswith("t=")):
        return None
    line = {"audio_filepath": recording.uri, "duration": recording.duration_s, "text": recording.text}
    if member is not None:
        start_s, end_s, _channel = parse_clip(member)
        line["offset"] = start_s
        if math.isfinite(end_s):
            line["duration"] = round(end_s - start_s, 4)
    return line if recording.text_language is None else {**line, "lang": recording.text_language}


def safe_name(recording_id: str) -> str:
    """A relative path for a recording: its id, where that is one.

    Names that would leave the folder, or that no file can have, are replaced, and get a hash of the id so
    that no two recordings share a file.
    """
    parts = [_safe_part(part) for part in recording_id.split("/")]
    name = "/".join(parts)
    if name == recording_id:
        return name
    digest = hashlib.sha256(recording_id.encode()).hexdigest()[:8]
    return f"{name}-{digest}"


def _safe_part(part: str) -> str:
    text = "".join(c if c.isprintable() and c not in subtitles.BIDIRECTIONAL else "_" for c in part)
    text = text.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return "_" if text in {"", ".", ".."} else text


def write_files(folder: str, kind: str, recordings: Iterable[WholeRecording], faults: Faults) -> int:
    """Write a file of `kind` for every recording that did not fail. Returns their number.

    A file that cannot be made is one of the `faults`. Raises `OutputError` for the folder.
    """
    root, num = open_folder(folder), 0
    for recording in recordings:
        if recording.status != "ok":
            continue
        with faults.named(recording.recording_id):
            text = FILES[kind](recording)
            with writing(root / f"{safe_name(recording.recording_id)}.{kind}", root) as file:
                file.write(text)
            num += 1
    return num


def write_lines(
    folder: str, kind: str, recordings: Iterable[WholeRecording], members: Mapping[str, str], faults: Faults
) -> int:
    """Write one file of JSON lines. Returns their number.

    A recording that makes no line is one of the `faults`. Raises `OutputError` for the file.
    """
    root, num = open_folder(folder), 0
    with writing(root / LINES[kind], root) as file:
        for recording in recordings:
            with faults.named(recording.recording_id):
                line = _line(kind, recording, members)
                if line is not None:
                    file.write(line)
                    num += 1
    return num


def _line(kind: str, recording: WholeRecording, members: Mapping[str, str]) -> str | None:
    member = members.get(recording.recording_id)
    line = json_line(recording) if kind == "jsonl" else nemo_line(recording, member)
    return None if line is None else json.dumps(line, ensure_ascii=False) + "\n"
