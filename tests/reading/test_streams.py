"""Of several audio streams the first that has speech is taken, or each is a row; the others are named."""

from __future__ import annotations

import av
import numpy as np
import pytest

from tests.reading.decoding import likeness
from tests.reading.made_audio import RATE, vowels
from tests.reading.read_rows import content, plan_of, read, read_all

VOICE = vowels(12)
SILENCE = np.zeros(12 * RATE, np.float32)
NOISE = (0.004 * np.random.default_rng(0).standard_normal(12 * RATE).cumsum() / 30).astype(np.float32)


def container(path, *voices, languages=(), codec="pcm_s16le"):
    """Audio streams side by side."""
    with av.open(str(path), "w") as file:
        streams = [file.add_stream(codec, rate=RATE, layout="mono") for _ in voices]
        for stream, language in zip(streams, languages, strict=False):
            stream.metadata["language"] = language
        for first in range(0, max(map(len, voices)), 1024):
            for stream, voice in zip(streams, voices, strict=True):
                piece = np.round(voice[None, first : first + 1024] * 32767).astype(np.int16)
                if not piece.size:
                    continue
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
                frame.sample_rate, frame.pts = RATE, first
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    return path


def rows_of(tmp_path, **changes):
    row, samples = content(read(plan_of(tmp_path), voice_activity=False, **changes))
    pieces = [
        [s for w, s in zip(row["windows"], samples, strict=True) if w["recording"] == i]
        for i in range(len(row["recordings"]))
    ]
    return row["recordings"], [np.concatenate(piece) if piece else np.zeros(0) for piece in pieces]


@pytest.mark.parametrize("first", [SILENCE, NOISE, SILENCE[: 2 * RATE]], ids=["silence", "noise", "short"])
def test_a_stream_without_speech_is_not_taken(tmp_path, first):
    container(tmp_path / "a.mkv", first, VOICE, languages=("eng", "fra"))
    (recording,), (samples,) = rows_of(tmp_path)
    assert likeness(samples, VOICE) > 0.99
    assert recording["streams"].startswith(
        "stream 1 (pcm_s16le, fra), the first that has speech; not taken: 0 ("
    )


def test_the_first_stream_that_speaks_is_taken_and_no_other(tmp_path):
    container(tmp_path / "a.mov", VOICE, vowels(12, seed=1))
    (recording,), (samples,) = rows_of(tmp_path)
    assert likeness(samples, VOICE) > 0.99
    assert recording["streams"].startswith("stream 0 ")
    assert recording["scorable"]


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "pcm_s16le"), ("a.ogg", "flac"), ("a.mp4", "alac")])
def test_streams_of_other_containers_are_found_too(tmp_path, name, codec):
    container(tmp_path / name, SILENCE, VOICE, codec=codec)
    (recording,), (samples,) = rows_of(tmp_path)
    assert recording["streams"].startswith("stream 1 ")
    assert likeness(samples, VOICE) > 0.99


def test_where_no_stream_speaks_the_row_is_that_of_the_first(tmp_path):
    container(tmp_path / "a.mkv", SILENCE, SILENCE)
    (recording,), _ = rows_of(tmp_path)
    assert recording["streams"].startswith("stream 0 (pcm_s16le), none has speech; not taken: 1 (")


def test_one_stream_needs_no_word(tmp_path):
    container(tmp_path / "a.mkv", VOICE)
    (recording,), _ = rows_of(tmp_path)
    assert (recording["streams"], recording["scorable"]) == (None, True)


def test_all_streams_are_rows_whose_channels_are_numbered_on(tmp_path):
    voices = [VOICE, SILENCE, vowels(6, seed=1)]
    container(tmp_path / "a.mkv", *voices)
    recordings, samples = rows_of(tmp_path, streams="all")
    assert [recording["channel"] for recording in recordings] == [0, 1, 2]
    assert [recording["duration_s"] for recording in recordings] == pytest.approx([12, 12, 6], abs=0.1)
    assert "stream 2 (pcm_s16le) of 3" in recordings[2]["streams"]
    assert not any(recording["scorable"] for recording in recordings)
    assert likeness(samples[2], voices[2]) > 0.99


def test_a_stream_that_ends_near_the_cut_of_another_is_told_once(tmp_path):
    """Its later part begins at its own cut, a few seconds before its end."""
    spoken = np.tile(np.concatenate([vowels(10, seed=seed) for seed in range(3)]), 8)
    container(tmp_path / "a.mkv", np.zeros(400 * RATE), spoken)
    found = read_all(plan_of(tmp_path), shard_hours=0.03, voice_activity=False, streams="all")
    lengths = {key[1:]: recording["duration_s"] for key, (recording, _) in found.items()}
    assert lengths[0, 1] + lengths[1, 1] == pytest.approx(240, abs=0.1)
    assert lengths[1, 1] > 5
    assert lengths[0, 0] + lengths[1, 0] == pytest.approx(400, abs=0.1)


@pytest.mark.parametrize("streams", ["first", "all"])
def test_parts_of_a_recording_are_of_the_same_streams(tmp_path, streams):
    spoken = np.tile(np.concatenate([vowels(10, seed=seed) for seed in range(3)]), 10)
    container(tmp_path / "a.mkv", np.zeros(460 * RATE), spoken)
    found = read_all(plan_of(tmp_path), shard_hours=0.03, voice_activity=False, streams=streams)
    speaking = {key[2]: 0.0 for key in found}
    for (_, part, channel), (recording, _) in found.items():
        speaking[channel] += recording["duration_s"]
        assert recording["streams"].startswith(f"stream {1 if streams == 'first' else channel} "), part
    assert len({key[1] for key in found}) > 1
    expected = {0: 300} if streams == "first" else {0: 460, 1: 300}
    assert speaking == pytest.approx(expected, abs=0.1)
