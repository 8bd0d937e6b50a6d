"""Data sets cut from recordings: the right samples, every segment listed, resumed, in both forms."""

from __future__ import annotations

import io
import json
import tarfile
import wave

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.driver import dataset
from pipeline.driver.dataset import DatasetMismatch, DatasetRequest, write_dataset
from pipeline.results.clips import ClipRules
from pipeline.sources.locations import stat_identity
from tests.fakes import plan_row
from tests.reading.made_audio import vowels, write
from tests.reading.test_streams import container
from tests.results.test_exports import export, make_output, segment, transcript

SECONDS = 12
SAMPLES = (np.arange(16_000 * SECONDS) % 30_011 - 15_000).astype(np.int16)


@pytest.fixture
def output(tmp_path):
    """The output of a job over a recording with four segments, of which one was decoded again."""
    path = tmp_path / "in" / "a.wav"
    path.parent.mkdir()
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(SAMPLES.tobytes())
    segments = [
        segment("one", 1.0, 3.0, id=0), segment("two", 3.0, 5.0, id=1),
        segment("again", 6.0, 8.0, id=2, fallback="dense"), segment("four", 9.0, 11.0, id=3),
    ]  # fmt: skip
    plan = plan_row("a.wav", uri=str(path), identity=stat_identity(path.stat()))
    out = make_output(tmp_path / "out", [transcript("a.wav", segments)], [plan])
    job = {"options": {"max_hours": 24.0, "channels": "mix"}}
    (out / "_job.json").write_text(json.dumps(job))
    return out


def request(output, **changes):
    values = {"output": str(output), "folder": str(output / "dataset"), "rules": ClipRules(target_s=4.0)}
    return DatasetRequest(**(values | changes))


def clips(output):
    return pq.read_table(output / "dataset" / "data" / "shard-000000.parquet").to_pylist()


def test_clips_hold_the_samples_between_their_times(output):
    write_dataset(request(output))
    found = clips(output)
    assert [(clip["text"], clip["start_s"], clip["end_s"]) for clip in found] == [
        ("one two", 0.9, 5.1), ("four", 8.9, 11.1),
    ]  # fmt: skip
    for clip in found:
        samples, rate = soundfile.read(io.BytesIO(clip["audio"]["bytes"]), dtype="int16")
        first, last = round(clip["start_s"] * 16_000), round(clip["end_s"] * 16_000)
        assert rate == 16_000
        np.testing.assert_array_equal(samples, SAMPLES[first:last])


def test_every_segment_is_listed_with_its_clip_or_the_reason(output):
    counts = write_dataset(request(output))
    rows = pq.read_table(output / "dataset" / "segments" / "shard-000000.parquet").to_pylist()
    names = [clip["audio"]["path"] for clip in clips(output)]
    assert [(row["segment_id"], row["clip"], row["reason"]) for row in rows] == [
        (0, names[0], None), (1, names[0], None), (2, None, "fallback"), (3, names[1], None),
    ]  # fmt: skip
    assert (counts["taken"], counts["left: fallback"], counts["clips"], counts["faults"]) == (3, 1, 2, 0)


def test_what_was_cut_is_not_cut_again_and_what_was_stopped_goes_on(output, monkeypatch):
    write_dataset(request(output))
    before = (output / "dataset" / "data" / "shard-000000.parquet").stat().st_mtime_ns
    monkeypatch.setattr(dataset, "cut_shard", None)
    assert write_dataset(request(output))["clips"] == 2
    monkeypatch.undo()
    (output / "dataset" / "segments" / "shard-000000.parquet").unlink()
    assert write_dataset(request(output))["clips"] == 2
    assert (output / "dataset" / "data" / "shard-000000.parquet").stat().st_mtime_ns > before


def test_another_data_set_does_not_go_into_the_same_folder(output):
    write_dataset(request(output))
    for changes in ({"codec": "opus"}, {"rules": ClipRules()}, {"container": "tar"}):
        with pytest.raises(DatasetMismatch, match="other rules"):
            write_dataset(request(output, **changes))


def test_a_recording_that_is_gone_costs_its_own_segments_alone(output, tmp_path):
    (tmp_path / "in" / "a.wav").unlink()
    counts = write_dataset(request(output))
    assert (counts["clips"], counts["left: audio"], counts["left: fallback"], counts["faults"]) == (
        0,
        3,
        1,
        1,
    )
    assert list((output / "dataset" / "data").glob("*")) == []  # `datasets` reads no file without rows


def test_the_parquet_says_that_it_holds_audio(output):
    write_dataset(request(output))
    metadata = pq.read_schema(output / "dataset" / "data" / "shard-000000.parquet").metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["audio"] == {"sampling_rate": 16_000, "_type": "Audio"}
    assert list(features) == dataset.CLIPS.names
    assert dataset.CLIPS.field("audio").nullable


def test_a_tar_has_audio_text_and_the_rest_of_each_clip(output):
    write_dataset(request(output, container="tar", codec="opus"))
    with tarfile.open(output / "dataset" / "data" / "shard-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    keys = sorted({name.partition(".")[0] for name in members})
    assert sorted(members) == sorted(f"{key}.{kind}" for key in keys for kind in ("json", "opus", "txt"))
    assert members[f"{keys[0]}.txt"] == b"one two"
    assert json.loads(members[f"{keys[0]}.json"])["recording_id"] == "a.wav"
    assert members[f"{keys[0]}.opus"].startswith(b"OggS")


def test_the_command_writes_it_and_says_what_was_left(output):
    found = export(output, "dataset", "--target-s", 4)
    assert (found["num_clips"], found["num_segments_taken"], found["left"]) == (2, 3, {"fallback": 1})
    assert "--merge-channels does nothing" in export(output, "dataset", "--merge-channels", status=2)
    assert "--codec does nothing" in export(output, "srt", "--codec", "opus", status=2)


@pytest.mark.ray
@pytest.mark.slow
def test_many_shards_are_cut_by_ray_to_the_same_files(output, monkeypatch, tmp_path):
    write_dataset(request(output))
    monkeypatch.setattr(dataset, "MANY_SHARDS", 1)
    write_dataset(request(output, folder=str(tmp_path / "other")))
    names = ("data/shard-000000.parquet", "segments/shard-000000.parquet", "dataset.json")
    assert all((tmp_path / "other" / n).read_bytes() == (output / "dataset" / n).read_bytes() for n in names)


@pytest.mark.parametrize(("streams", "channel"), [("first", 0), ("all", 0), ("all", 1)])
def test_a_clip_is_cut_from_the_stream_that_was_transcribed(tmp_path, streams, channel):
    voices = vowels(12), vowels(12, seed=1)
    wanted = voices[1] if streams == "first" else voices[channel]
    first = np.zeros_like(voices[0]) if streams == "first" else voices[0]
    path = container(tmp_path / "a.mkv", first, voices[1])
    plan = plan_row("a.mkv", uri=str(path), identity=stat_identity(path.stat()))
    rows = [transcript("a.mkv", [segment("x", 2.0, 6.0)], channel=channel)]
    out = make_output(tmp_path / "out", rows, [plan])
    options = {"max_hours": 24.0, "channels": "mix", "streams": streams}
    (out / "_job.json").write_text(json.dumps({"options": options}))
    write_dataset(request(out))
    (clip,) = clips(out)
    samples, _ = soundfile.read(io.BytesIO(clip["audio"]["bytes"]))
    place = slice(round(clip["start_s"] * 16_000), round(clip["end_s"] * 16_000))
    assert np.corrcoef(samples, wanted[place])[0, 1] > 0.99


def test_a_clip_is_cut_from_the_channel_that_was_chosen_by_its_sound(tmp_path):
    voice = vowels(12)
    path = write(tmp_path / "a.wav", np.stack([0 * voice, voice], 1))
    plan = plan_row("a.wav", uri=str(path), identity=stat_identity(path.stat()))
    rows = [transcript("a.wav", [segment("x", 2.0, 6.0)], channel=1)]
    out = make_output(tmp_path / "out", rows, [plan])
    (out / "_job.json").write_text(json.dumps({"options": {"max_hours": 24.0, "channels": "auto"}}))
    write_dataset(request(out))
    samples, _ = soundfile.read(io.BytesIO(clips(out)[0]["audio"]["bytes"]), dtype="float32")
    np.testing.assert_allclose(samples, voice[round(1.9 * 16_000) : round(6.1 * 16_000)], atol=1e-4)
