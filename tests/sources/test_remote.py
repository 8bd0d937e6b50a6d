"""Inputs behind URLs: an S3 API and a web server on this machine, plain, slow to come and broken."""

from __future__ import annotations

import http.server
import os
import socketserver
import threading

import pytest

from pipeline import errors
from pipeline.planning import make_plan
from pipeline.sources import folders, listing
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import InputError
from tests.reading.made_audio import vowels, wav_bytes, write
from tests.reading.read_rows import content, open_reader
from tests.sources.inputs import archive, manifest


def plan_of(*inputs, **how):
    return make_plan(list_recordings([str(i) for i in inputs], **how).recordings, shard_hours=1.0).to_pylist()


def outcomes(rows):
    """Seconds decoded of every row, or its error."""
    with open_reader() as reader:
        row, _ = content(reader.read(0, 1, rows))
    return {r["recording_id"]: r["error_type"] or round(r["duration_s"], 3) for r in row["recordings"]}


@pytest.fixture(scope="module")
def server():
    """The address of an S3 server with nothing in it."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """A bucket with three recordings, as `s3://...`."""
    import s3fs

    for name, value in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"),
                        ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", server)):  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("speech")
    files.pipe("speech/in/a.wav", wav_bytes(vowels(0.5)))
    files.pipe("speech/in/deep/b.WAV", wav_bytes(vowels(1)))
    files.pipe("speech/in/notes.txt", b"not audio")
    yield "s3://speech"
    files.rm("speech", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def put(name, data):
    import s3fs

    s3fs.S3FileSystem().pipe(name, data)


def test_a_prefix_is_a_folder(bucket):
    rows = plan_of(f"{bucket}/in")
    assert [row["uri"] for row in rows] == [f"{bucket}/in/a.wav", f"{bucket}/in/deep/b.WAV"]
    assert outcomes(rows) == {"a.wav": 0.5, "deep/b.WAV": 1.0}


def test_a_pattern_a_file_and_a_manifest_there(bucket):
    put(
        "speech/m.jsonl",
        b'{"path": "in/a.wav", "text": "x"}\n{"path": "s3://speech/in/gone.wav", "id": "g"}\n',
    )
    assert outcomes(plan_of(f"{bucket}/in/**/*.WAV")) == {"deep/b.WAV": 1.0}
    assert outcomes(plan_of(f"{bucket}/in/a.wav")) == {"a.wav": 0.5}
    assert outcomes(plan_of(f"{bucket}/m.jsonl")) == {"in/a.wav": 0.5, "g": "missing"}


KEYS = ("keys/a#1.wav", "keys/b?2.wav", "keys/c[3].wav", "keys//d.wav", "keys/e%20f.wav", "keys/u@v.wav")


def test_keys_are_listed_read_and_stored_as_they_are(bucket, tmp_path):
    for number, key in enumerate((*KEYS, "keys/@eaDir/x.wav", "keys/out/y.wav", "keys/folder/"), 1):
        put(f"speech/{key}", b"" if key.endswith("/") else wav_bytes(vowels(number / 4)))
    lengths = {f"{bucket}/{key}": number / 4 for number, key in enumerate(KEYS, 1)}
    for folder in (f"{bucket}/keys", f"{bucket}/keys/"):
        rows = plan_of(folder, output=f"{bucket}/keys/out/")
        assert {row["uri"] for row in rows} == set(lengths)
        found = outcomes(rows)
        assert {row["uri"]: found[row["recording_id"]] for row in rows} == lengths
    for uri, length in lengths.items():
        assert outcomes(plan_of(uri)) == {uri.rpartition("/")[2]: length}
    lines = manifest(tmp_path, "m.jsonl", [{"path": uri, "id": uri} for uri in lengths])
    assert outcomes(plan_of(lines)) == lengths


def test_a_pattern_below_a_folder_whose_name_has_marks(bucket):
    put("speech/x[1]/a.wav", wav_bytes(vowels(0.5)))
    assert outcomes(plan_of(f"{bucket}/x[1]/*.wav")) == {"a.wav": 0.5}


def test_metadata_of_a_folder_there(bucket):
    put("speech/in/metadata.csv", b"file_name,text\na.wav,one\ndeep/b.WAV,two\n")
    assert [row["reference"] for row in plan_of(f"{bucket}/in")] == ["one", "two"]


def test_a_folder_there_that_cannot_be_read_is_one_recording_that_fails(monkeypatch):
    class Files:
        def isdir(self, url):
            return True

        def ls(self, url, detail):
            if url.endswith("closed/"):
                raise PermissionError("closed")
            return [
                {"name": "name:9000/in/a.wav", "type": "file", "size": 3, "mtime": 1},
                {"name": "name:9000/in/closed", "type": "directory", "size": 0},
            ]

    monkeypatch.setattr(folders, "filesystem", lambda url: Files())
    monkeypatch.setattr(listing, "filesystem", lambda url: Files())
    rows = plan_of("hdfs://name:9000/in")
    assert [(row["recording_id"], row["identity"]) for row in rows] == [
        ("a.wav", "3-1"),
        ("closed/", "unknown"),
    ]


def test_a_local_manifest_may_name_what_is_there(bucket, tmp_path):
    path = manifest(tmp_path, "m.jsonl", [{"path": f"{bucket}/in/a.wav"}])
    assert outcomes(plan_of(path)) == {"s3://speech/in/a.wav": 0.5}


def test_members_of_an_archive_there_are_read_where_they_are(bucket, tmp_path):
    path = archive(tmp_path / "x.tar", [("a.wav", wav_bytes(vowels(0.5))), ("b.wav", wav_bytes(vowels(1)))])
    put("speech/x.tar", path.read_bytes())
    assert outcomes(plan_of(f"{bucket}/x.tar")) == {"x.tar/a.wav": 0.5, "x.tar/b.wav": 1.0}


def test_an_object_that_changed_or_went_is_a_row_that_says_so(bucket):
    import s3fs

    rows = plan_of(f"{bucket}/in")
    put("speech/in/a.wav", wav_bytes(vowels(0.5, seed=9)))  # the same size, another etag
    s3fs.S3FileSystem().rm("speech/in/deep/b.WAV")
    s3fs.S3FileSystem.clear_instance_cache()
    assert outcomes(rows) == {"a.wav": "changed", "deep/b.WAV": "missing"}


def test_a_prefix_that_is_not_there_is_one_line(bucket, monkeypatch):
    monkeypatch.setenv("EARSHARD_PRIVATE_ADDRESSES", "127.0.0.1")
    with pytest.raises(InputError, match="no such file"):
        plan_of(f"{bucket}/nothing")
    with pytest.raises(InputError, match="no-such-bucket"):
        plan_of("s3://no-such-bucket/in")
    with pytest.raises(InputError, match="cannot be reached"):
        plan_of("http://127.0.0.1:9/a.wav")


def test_a_short_body_is_fetched_again(bucket, monkeypatch):
    import s3fs

    rows = plan_of(f"{bucket}/in/a.wav")
    real, calls = s3fs.core.S3File.read, []

    def short(self, length=-1):
        calls.append(length)
        return b"" if len(calls) <= 2 else real(self, length)

    monkeypatch.setattr(errors, "BACK_OFF_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(s3fs.core.S3File, "read", short)
    assert outcomes(rows) == {"a.wav": 0.5}
    assert len(calls) > 2


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def website(tmp_path, monkeypatch):
    """The address of a web server that serves a folder; this machine's own address is allowed."""
    monkeypatch.setenv("EARSHARD_PRIVATE_ADDRESSES", "127.0.0.1")
    write(tmp_path / "web" / "a.wav", vowels(0.5))
    (tmp_path / "web" / "page.wav").write_text("<!doctype html><p>sorry")

    def handler(*arguments):
        return Handler(*arguments, directory=str(tmp_path / "web"))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_files_behind_web_addresses_are_read(website, tmp_path):
    path = manifest(tmp_path, "m.jsonl", [
        {"id": "good", "path": f"{website}/a.wav"}, {"id": "page", "path": f"{website}/page.wav"},
        {"id": "gone", "path": f"{website}/gone.wav"},
    ])  # fmt: skip
    found = outcomes(plan_of(path))
    assert (found["good"], found["page"]) == (0.5, "unsupported")
    assert found["gone"] == "missing"
    assert outcomes(plan_of(f"{website}/a.wav")) == {"a.wav": 0.5}


def test_nothing_is_left_open(website):
    rows = plan_of(f"{website}/a.wav")
    outcomes(rows)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        outcomes(rows)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
