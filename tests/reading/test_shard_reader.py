"""A shard of the plan comes out whole: every row once, every word once, bad files apart."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from pipeline import errors
from pipeline.reading import decoder, shard_reader
from pipeline.reading.shard_reader import ShardReader
from pipeline.reading.voice_activity import VoiceActivity
from pipeline.sources import opening
from pipeline.sources.recording import RecordingError
from tests.reading.made_audio import RATE, vowels, write
from tests.reading.read_rows import content, options, plan_of, read, read_all

LONG = 700.0  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three good files around bad ones."""
    folder = tmp_path_factory.mktemp("in")
    write(folder / "a.wav", vowels(3, seed=1))
    (folder / "b.wav").write_bytes(b"")
    write(folder / "c.flac", vowels(4, seed=2, rate=44_100), 44_100)
    (folder / "d.mp3").write_text("<html>404</html>")
    write(folder / "e" / "e.ogg", vowels(2, seed=3))
    return folder


def test_every_row_of_the_plan_comes_out_once_and_in_order(folder):
    row, _ = content(read(plan_of(folder)))
    found = [(r["recording_id"], r["error_type"]) for r in row["recordings"]]
    assert found == [
        ("a.wav", None), ("b.wav", "corrupt"), ("c.flac", None), ("d.mp3", "unsupported"), ("e/e.ogg", None),
    ]  # fmt: skip
    assert row["overflow"] == []
    assert (row["shard_id"], row["attempt"]) == (7, 1)


def test_a_bad_file_leaves_its_neighbours_as_they_are(folder):
    rows = plan_of(folder)
    _, together = content(read(rows))
    alone = [samples for row in rows for samples in content(read([row]))[1]]
    assert len(together) == len(alone) == 3
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.fixture(scope="module")
def short_and_long(tmp_path_factory):
    """Many short recordings around some that are none, the longest of two parts."""
    folder = tmp_path_factory.mktemp("short")
    lengths_s = [2, 3, 1, 5, 2, 45, 4, 4, 70, 3, 2, 190, 1] + [1] * 50
    for number, seconds in enumerate(lengths_s):
        voice = np.resize(vowels(min(seconds, 5), seed=number), seconds * RATE)
        write(folder / f"{number:02}.{'flac' if seconds < 60 else 'ogg'}", voice)
    (folder / "05b.wav").write_bytes(b"")
    return folder


@pytest.mark.parametrize("shard_hours", [1.0, 20 / 3600, 120 / 3600])
def test_short_recordings_that_are_decoded_together_come_out_as_alone(
    short_and_long, monkeypatch, shard_hours
):
    gone = write(short_and_long / "07b.wav", vowels(1))
    rows = plan_of(short_and_long, shard_hours=shard_hours)
    gone.unlink()
    together = read_all(rows, shard_hours=shard_hours)
    monkeypatch.setattr(shard_reader, "SHORT_S", 0.0)
    alone = read_all(rows, shard_hours=shard_hours)
    assert together.keys() == alone.keys()
    for key, (recording, windows) in together.items():
        assert recording == alone[key][0]
        assert [window["start_s"] for window, _ in windows] == [w["start_s"] for w, _ in alone[key][1]]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(windows, alone[key][1], strict=True))
    failed = {key[0]: recording["error_type"] for key, (recording, _) in together.items()}
    assert (failed["05b.wav"], failed["07b.wav"], failed["00.flac"]) == ("corrupt", "missing", None)


def test_short_recordings_take_few_requests(tmp_path, monkeypatch):
    for number in range(100):
        write(tmp_path / f"{number:02}.flac", vowels(1, seed=number))
    asked = []
    real = decoder.AudioDecoder._ask
    monkeypatch.setattr(decoder.AudioDecoder, "_ask", lambda *given: asked.append(1) or real(*given))
    row, _ = content(read(plan_of(tmp_path)))
    assert [recording["duration_s"] for recording in row["recordings"]] == [1.0] * 100
    assert len(asked) == 4


def test_a_shard_that_somebody_has_stays_as_it_is_and_its_room_is_used_again_after_it(tmp_path):
    rows = [plan_of(write(tmp_path / f"{n}.wav", vowels(2, seed=n))) for n in range(4)]

    def where(table):
        return table.column("samples").chunk(0).values.buffers()[1].address

    with ShardReader(options()) as reader:
        first = reader.read(0, 1, rows[0])
        _, kept = content(first)
        kept, place = [samples.copy() for samples in kept], where(first)
        second = reader.read(1, 1, rows[1])
        assert where(second) != place
        assert all(np.array_equal(a, b) for a, b in zip(content(first)[1], kept, strict=True))
        view = second.select(["samples"]).cast(second.select(["samples"]).schema)
        place = where(second)
        del second
        assert where(reader.read(2, 1, rows[2])) != place
        del view
        place = where(reader.read(2, 1, rows[2]))
        assert where(reader.read(3, 1, rows[3])) == place


def test_speech_is_looked_for_in_every_file_and_channel(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_reader, "SHORT_S", 0.0)  # each recording has a file of its own
    for number in range(34):  # two more than are looked at together
        silent = np.full(2 * RATE, 1e-3, np.float32)  # not digital silence, which is no window
        write(tmp_path / f"{number:02}.wav", np.stack([vowels(2, seed=number), silent], 1))
    row, _ = content(read(plan_of(tmp_path), voice_activity=True, channels="split"))
    _, sounds = content(read(plan_of(tmp_path), voice_activity=False, channels="split"))
    spans = VoiceActivity().speech_spans(sounds)
    assert sum(map(len, spans)) > 20
    assert [r["speech_s"] for r in row["recordings"]] == [
        pytest.approx(sum(end - start for start, end in found)) for found in spans
    ]


def test_windows_hold_the_samples_of_their_recording(folder):
    row, samples = content(read(plan_of(folder)))
    assert [len(s) / RATE for s in samples] == pytest.approx([3, 4, 2], abs=0.05)
    assert row["windows"][0]["speech"] == [{"start_s": 0.0, "end_s": 3.0}]
    wanted = np.round(vowels(3, seed=1) * 32767)
    assert np.abs(samples[0] - wanted).max() <= 1


def test_reading_twice_gives_the_same_table(folder):
    rows = plan_of(folder)
    assert read(rows, voice_activity=True).equals(read(rows, voice_activity=True))


def test_a_silent_recording_is_ok_and_has_no_windows(tmp_path):
    write(tmp_path / "a.wav", np.zeros(5 * RATE))
    write(tmp_path / "b.wav", np.zeros(0))
    row, samples = content(read(plan_of(tmp_path), voice_activity=True))
    assert [(r["error_type"], r["duration_s"], r["speech_s"]) for r in row["recordings"]] == [
        (None, 5.0, 0.0),
        (None, 0.0, 0.0),
    ]
    assert samples == []


def test_split_channels_are_rows_of_their_own(tmp_path):
    write(tmp_path / "a.wav", np.stack([vowels(2, seed=1), np.full(2 * RATE, 1e-3)], 1))
    row, samples = content(read(plan_of(tmp_path), channels="split"))
    assert [(r["channel"], r["scorable"]) for r in row["recordings"]] == [(0, False), (1, False)]
    assert samples[0].any()
    assert np.ptp(samples[1]) == 0


def test_more_channels_than_can_be_split_are_a_stated_error(tmp_path):
    write(tmp_path / "a.wav", np.zeros((RATE, 9)))
    row, _ = content(read(plan_of(tmp_path), channels="split"))
    assert row["recordings"][0]["error_type"] == "too_many_channels"


def test_a_file_that_changed_or_went_is_a_row_that_says_so(tmp_path):
    write(tmp_path / "a.wav", vowels(1))
    write(tmp_path / "b.wav", vowels(1))
    rows = plan_of(tmp_path)
    write(tmp_path / "a.wav", vowels(2))
    (tmp_path / "b.wav").unlink()
    recordings = content(read(rows))[0]["recordings"]
    assert [r["error_type"] for r in recordings] == ["changed", "missing"]
    assert all(r["uri"] in r["error_message"] for r in recordings)


def test_a_folder_in_the_place_of_a_file_is_unreadable(tmp_path):
    write(tmp_path / "a.wav", vowels(1))
    rows = plan_of(tmp_path)
    (tmp_path / "a.wav").unlink()
    (tmp_path / "a.wav").mkdir()
    assert content(read(rows))[0]["recordings"][0]["error_type"] == "unreadable"


def failing(times, error):
    """`os.open` that fails at first."""
    calls = []
    real = os.open

    def fail(path, *arguments, **how):
        if str(path).endswith("a.wav") and len(calls) < times:
            calls.append(path)
            raise error
        return real(path, *arguments, **how)

    return fail


@pytest.mark.parametrize("code", [errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET])
def test_a_transient_error_is_tried_again(tmp_path, monkeypatch, code):
    write(tmp_path / "a.wav", vowels(1))
    rows = plan_of(tmp_path)
    monkeypatch.setattr(errors, "BACK_OFF_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(opening.os, "open", failing(3, OSError(code, os.strerror(code))))
    assert content(read(rows))[0]["recordings"][0]["error_type"] is None


@pytest.mark.parametrize(("code", "times"), [(errno.EIO, 4), (errno.EACCES, 1)])
def test_an_error_that_stays_is_a_row_that_says_so(tmp_path, monkeypatch, code, times):
    write(tmp_path / "a.wav", vowels(1))
    rows = plan_of(tmp_path)
    monkeypatch.setattr(errors, "BACK_OFF_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(opening.os, "open", failing(times, OSError(code, os.strerror(code))))
    recording = content(read(rows))[0]["recordings"][0]
    assert recording["error_type"] == "unreadable"
    assert os.strerror(code) in recording["error_message"]


def test_a_few_bad_samples_are_stated_without_failing_the_recording(tmp_path):
    voice = vowels(2).copy()
    voice[100] = np.inf
    write(tmp_path / "a.wav", voice, subtype="FLOAT")
    recording = content(read(plan_of(tmp_path)))[0]["recordings"][0]
    assert (recording["error_type"], recording["partial"]) == (None, False)
    assert "1 samples are not finite" in recording["error_message"]


def test_speech_that_cannot_be_looked_for_costs_its_own_row_only(folder, monkeypatch):
    real = decoder.AudioDecoder.speech_spans

    def fail(self, stretches):
        if any(stretch.duration_s > 3.5 for stretch in stretches):
            raise RecordingError("crashed", "voice activity: the decoder died")
        return real(self, stretches)

    monkeypatch.setattr(decoder.AudioDecoder, "speech_spans", fail)
    row, _ = content(read(plan_of(folder), voice_activity=True))
    assert [r["error_type"] for r in row["recordings"]] == [None, "corrupt", "crashed", "unsupported", None]
