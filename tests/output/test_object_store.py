"""An output in a bucket, against a real S3 interface on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.driver.lock import DriverLock, OutputBusy
from pipeline.output.files import existing_store
from pipeline.output.object_store import ObjectStore
from pipeline.output.retried import OutputError
from pipeline.output.store import open_store

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")

SPEECH = Path(__file__).parents[2] / "pipeline" / "demo" / "speech"


@pytest.fixture(scope="module")
def bucket():
    """The URL of an empty bucket; the environment says how to reach it."""
    from moto.server import ThreadedMotoServer  # a second and a half: not where tests are collected

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().makedirs("job-outputs", exist_ok=True)  # moto's buckets are the process's
        yield "s3://job-outputs"
    server.stop()


@pytest.fixture
def store(bucket, request):
    return open_store(f"{bucket}/{request.node.name}")


def test_a_published_object_is_never_overwritten(store):
    assert store.publish("a/b", b"first")
    assert not store.publish("a/b", b"second")
    assert store.read("a/b") == b"first"


def test_a_writer_whose_reply_was_lost_has_written(store, monkeypatch):
    file_system, _ = store._located
    put = file_system.pipe_file

    def loses_the_reply(*arguments, **options):
        put(*arguments, **options)
        return put(*arguments, **options)  # what a client does that never heard of its success

    monkeypatch.setattr(file_system, "pipe_file", loses_the_reply)
    assert store.publish("a", b"bytes")
    assert store.read("a") == b"bytes"


def test_names_are_those_of_the_moment(store):
    assert list(store.names("metrics")) == []
    store.replace("metrics/b", b"")
    ObjectStore(store.root).replace("metrics/a", b"")
    assert list(store.names("metrics")) == ["metrics/a", "metrics/b"]
    store.delete("metrics/b")
    store.delete("metrics/b")
    assert list(store.names("metrics")) == ["metrics/a"]


def test_one_driver_at_a_time_holds_a_bucket(store):
    with DriverLock(store, "first"):
        with pytest.raises(OutputBusy, match="run first works on it"), DriverLock(store, "second"):
            pass
        content = json.loads(store.read("_tmp/lock.json"))
    store.replace("_tmp/lock.json", json.dumps(content | {"host": "elsewhere", "expires": 0}).encode())
    with DriverLock(store, "third"):
        assert json.loads(store.read("_tmp/lock.json"))["run_id"] == "third"


def test_a_bucket_that_is_not_there_is_one_line_without_secrets(bucket):
    with pytest.raises(OutputError, match=r"^s3://nowhere/out: cannot write there: "):
        open_store("s3://nowhere/out")
    with pytest.raises(OutputError, match="must not hold a user, query or fragment") as raised:
        open_store("s3://user:password@nowhere/out")
    assert "password" not in str(raised.value)
    with pytest.raises(OutputError, match="is not the output of a job"):
        existing_store(f"{bucket}/nothing")


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_reads_from_a_bucket_commits_to_a_bucket_and_resumes(bucket):
    file_system = s3fs.S3FileSystem()
    for name in ("kitchen.wav", "castillo.ogg"):
        file_system.put_file(str(SPEECH / name), f"job-outputs/in/{name}")
    command = [sys.executable, "-m", "jobs.transcribe", f"{bucket}/in", "--output", f"{bucket}/out"]
    command += ["--model", "demo", "--shard-hours", "0.003"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["num_ok"] == 2
    before = {path: info["ETag"] for path, info in file_system.find("job-outputs/out", detail=True).items()}
    assert sum("/metrics/shard-" in path for path in before) == 2
    file_system.rm("job-outputs/out/_SUCCESS")
    marker = next(path for path in before if "/metrics/shard-000001" in path)
    file_system.rm(marker)
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert again.returncode == 0, again.stderr
    file_system.invalidate_cache()
    after = {path: info["ETag"] for path, info in file_system.find("job-outputs/out", detail=True).items()}
    transcripts = [path for path in before if "/transcripts/" in path]
    assert {path: after[path] for path in transcripts} == {path: before[path] for path in transcripts}
    assert marker in after
    for content in file_system.cat(list(after)).values():
        assert b"secret-of-the-test" not in content
