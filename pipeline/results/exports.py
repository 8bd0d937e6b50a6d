"""Committed recordings in the forms that other programs read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import one_line
from pipeline.output.retried import OutputError
from pipeline.results import subtitles
from pipeline.results.recordings import WholeRecording
from pipeline.sources.manifests import parse_clip

MAX_NAME_BYTES = 200  # file systems take 255; an ending and a temporary name must fit too
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def _srt(recording: WholeRecording) -> str:
    return subtitles.srt(subtitles.cues(recording.segments))


def _vtt(recording: WholeRecording) -> str:
    return subtitles.vtt(subtitles.cues(recording.segments), voices=len(recording.channels) > 1)


def _txt(recording: WholeRecording) -> str:
    """A line for each segment, with its channel where there are several."""
    lines = []
    for segment in recording.segments:
        voice = f"[{segment['channel']}] " if len(recording.channels) > 1 else ""
        lines.append(f"{voice}{subtitles.shown_text(segment['text'])}\n")
    return "".join(lines)


def _tsv(recording: WholeRecording) -> str:
    lines = ["start_s\tend_s\tchannel\ttext\n"]
    for segment in recording.segments:
        text = spreadsheet_safe(subtitles.shown_text(segment["text"]))
        lines.append(f"{segment['start_s']:.3f}\t{segment['end_s']:.3f}\t{segment['channel']}\t{text}\n")
    return "".join(lines)


FILES: dict[str, Callable[[WholeRecording], str]] = {"srt": _srt, "vtt": _vtt, "txt": _txt, "tsv": _tsv}
LINES = {"jsonl": "transcripts.jsonl", "nemo": "manifest.jsonl"}
FORMATS = (*FILES, *LINES)


def spreadsheet_safe(text: str) -> str:
    """A text as a cell of a table, quoted where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def json_line(recording: WholeRecording) -> dict[str, Any]:
    """A recording with all that is known of it; raw text, as it is stored."""
    return {
        **{name: getattr(recording, name) for name in JSON_FIELDS},
        "segments": [
            {name: segment[name] for name in segment if name != "part"} for segment in recording.segments
        ],
    }


JSON_FIELDS = (
    *("recording_id", "uri", "status", "error_type", "error_message", "duration_s"),
    *("language", "language_probability", "text", "model"),
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
        line |= {"offset": start_s, "duration": round(end_s - start_s, 4)}
    return line if recording.language is None else {**line, "lang": recording.language}


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


def write_files(folder: str, kind: str, recordings: Iterable[WholeRecording]) -> int:
    """Write a file of `kind` for every recording that did not fail. Returns their number.

    Raises `OutputError` naming a file that cannot be written.
    """
    root, num = Path(os.path.realpath(folder)), 0
    for recording in recordings:
        if recording.status == "ok":
            path = root / f"{safe_name(recording.recording_id)}.{kind}"
            with _writing(path, root) as file:
                file.write(FILES[kind](recording))
            num += 1
    return num


def write_lines(folder: str, kind: str, recordings: Iterable[WholeRecording], members: dict[str, str]) -> int:
    """Write one file of JSON lines. Returns their number. Raises `OutputError`."""
    root, num = Path(os.path.realpath(folder)), 0
    with _writing(root / LINES[kind], root) as file:
        for recording in recordings:
            member = members.get(recording.recording_id)
            line = json_line(recording) if kind == "jsonl" else nemo_line(recording, member)
            if line is not None:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                num += 1
    return num


@contextmanager
def _writing(path: Path, root: Path) -> Iterator[TextIO]:
    """A file that appears whole, below `root`, links included. Raises `OutputError`."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not Path(os.path.realpath(path.parent)).is_relative_to(root):
            raise OutputError(f"{path}: a link leads out of {root}")
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {one_line(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
