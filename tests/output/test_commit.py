"""A shard is committed once, its marker last, and the marker vouches for what it describes."""

import hashlib

import pytest

from pipeline.dataflow.transcription import transcribe_shard
from pipeline.metrics import shard
from pipeline.output import commit, files
from pipeline.output.local_store import LocalStore
from pipeline.schema import METRICS, PLAN, SHARD_RESULT, TRANSCRIPTS, table_of
from tests.fakes import audio_table, plan_row, read_recording

STAMP = shard.RunStamp(run_id="run", fingerprint="f", plan_hash="p", gpu_hour_usd=3.6)
NO_OVERFLOW = PLAN.empty_table()


@pytest.fixture
def store(tmp_path):
    return LocalStore.open(str(tmp_path))


@pytest.fixture
def done(fake_engine):
    recordings = [read_recording(reference="hello there world"), read_recording("b.wav", reference="")]
    windows = [(0, 0.0, 5.0, [(0.0, 5.0)]), (1, 0.0, 5.0, [(0.0, 5.0)])]
    return transcribe_shard(audio_table(recordings, windows), fake_engine, language="en").to_pylist()[0]


def test_an_hour_of_several_channels_is_an_hour_of_audio(fake_engine):
    channels = [
        read_recording(channel=channel, duration_s=seconds) for channel, seconds in enumerate((40.0, 50.0))
    ]
    others = [
        read_recording(part=1, duration_s=20.0),
        read_recording("b.wav", duration_s=None, error_type="corrupt"),
    ]
    row = transcribe_shard(audio_table(channels + others, []), fake_engine, language="en").to_pylist()[0]
    found = shard.metrics_row(0, 1, table_of(TRANSCRIPTS, row["transcripts"]), row["measures"], STAMP)
    assert found["audio_s"] == 70.0


def put(store, done, stamp=STAMP, overflow=NO_OVERFLOW):
    result = done | {"shard_id": 7, "attempt": 1, "overflow": overflow.to_pylist()}
    return commit.commit_shard(store, result, stamp)


def test_the_marker_tells_rtf_wer_and_the_hash_of_the_rows(store, done):
    marker = put(store, done).to_pylist()[0]
    content = store.read(files.transcripts_name(7))
    assert marker["transcripts_sha256"] == hashlib.sha256(content).hexdigest()
    assert (marker["audio_s"], marker["device_s"]) == (60.0, 0.5)
    assert (marker["rtf"], marker["rtfx"]) == (pytest.approx(0.5 / 60), 120.0)
    # one deletion in three words, and two insertions where the reference is empty
    assert (marker["num_hits"], marker["num_deletions"], marker["num_insertions"]) == (2, 1, 2)
    assert marker["wer"] == 1.0
    assert marker["cost_usd"] is None


def test_the_normaliser_is_named_in_the_metrics(store, done):
    import pyarrow.parquet as pq

    put(store, done)
    metadata = pq.read_schema(store.path(files.metrics_name(7))).metadata
    assert b"whisper-normalizer" in metadata[b"normaliser"]


def test_gpu_time_costs_money(store, done):
    done["measures"]["device"] = "cuda:NVIDIA H200"
    assert put(store, done).to_pylist()[0]["cost_usd"] == pytest.approx(0.5 / 3600 * 3.6)


def test_a_second_writer_changes_nothing(store, done):
    first = put(store, done)
    before = {
        name: store.path(name).stat().st_ino for name in [files.transcripts_name(7), files.metrics_name(7)]
    }
    second = put(store, done, shard.RunStamp(run_id="late", fingerprint="f", plan_hash="p", gpu_hour_usd=1))
    assert second.equals(first)
    assert before == {name: store.path(name).stat().st_ino for name in before}


def test_transcripts_without_a_marker_are_adopted_with_their_own_counts(store, done):
    put(store, done)
    store.delete(files.metrics_name(7))
    done["transcripts"][0]["text"] = "something else"
    marker = put(store, done).to_pylist()[0]
    assert (marker["num_hits"], marker["num_deletions"]) == (2, 1)
    assert marker["transcripts_sha256"] == hashlib.sha256(store.read(files.transcripts_name(7))).hexdigest()


def test_a_marker_of_other_options_is_refused(store, done):
    put(store, done)
    with pytest.raises(commit.ForeignMarker, match="shard-000007"):
        commit.committed(store, "other", "p")


def test_known_markers_are_not_read_again_and_go_with_their_files(store, done, monkeypatch):
    def commit_as(shard_id):
        commit.commit_shard(store, done | {"shard_id": shard_id, "attempt": 1, "overflow": []}, STAMP)

    shards = (1_000_000, 7, 12, 300)
    for shard_id in shards:
        commit_as(shard_id)
    first = commit.committed(store, "f", "p")
    assert first.column("shard_id").to_pylist() == sorted(shards)
    store.delete(files.metrics_name(12))
    commit_as(13)
    read, names = LocalStore.read, []
    monkeypatch.setattr(LocalStore, "read", lambda self, name: names.append(name) or read(self, name))
    second = commit.committed(store, "f", "p", known=first)
    assert second.column("shard_id").to_pylist() == [7, 13, 300, 1_000_000]
    assert names == [files.metrics_name(13)]


def test_files_that_are_read_ahead_come_in_order_and_may_be_missing(store):
    names = [f"metrics/{number}" for number in range(100)]
    for number, name in enumerate(names):
        if number % 3:
            store.publish(name, b"%d" % number)
    found = list(files.read_ahead(store, names))
    assert found == [(name, b"%d" % n if n % 3 else None) for n, name in enumerate(names)]
    assert list(files.read_ahead(store, [])) == []


def test_the_same_rows_give_the_same_bytes(done):
    table = table_of(TRANSCRIPTS, done["transcripts"])
    assert files.parquet_bytes(table) == files.parquet_bytes(table_of(TRANSCRIPTS, done["transcripts"]))


def test_parts_and_channels_are_not_scored_alone(done):
    table = shard.with_counts(table_of(TRANSCRIPTS, done["transcripts"]), [False, False])
    assert table.column("num_hits").null_count == 2


def test_overflow_is_there_before_the_marker_and_read_back(store, done):
    overflow = table_of(PLAN, [plan_row(part=1, offset_s=60.0)])
    put(store, done, overflow=overflow)
    assert files.read_overflow(store, [7, 8])[7].equals(overflow)


def test_files_have_the_promised_schemas(store, done):
    marker = put(store, done)
    assert marker.schema.equals(METRICS)
    rows = files.parquet_table(store.read(files.transcripts_name(7)), TRANSCRIPTS)
    assert rows.schema.equals(TRANSCRIPTS)
    assert set(SHARD_RESULT.names) == {*done}
