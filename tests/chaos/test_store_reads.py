"""What lies in a bucket is read whole, through a server that fails now and then, and by other clients."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from pipeline import errors
from pipeline.output.object_store import ObjectStore
from pipeline.planning import make_plan
from pipeline.reading.shard_reader import ReadOptions, ShardReader
from pipeline.sources.listing import list_recordings
from tests.chaos.faulty_s3 import FaultyS3
from tests.chaos.store_faults import BUCKET, SETTINGS, StartedServer, endpoint

RATE = 16_000


@pytest.fixture(scope="module")
def server():
    """An S3 server with six recordings of noise."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", "")  # put back in the end, as `endpoint` sets it
        started = StartedServer()
        try:
            started.make_bucket()
            with endpoint(started.url) as files:
                for i in range(6):
                    content = io.BytesIO()
                    noise = np.random.default_rng(i).integers(-9000, 9000, (i + 1) * RATE // 2)
                    soundfile.write(content, noise.astype(np.int16), RATE, format="WAV")
                    files.pipe(f"{BUCKET}/in/{i}.wav", content.getvalue())
            yield started
        finally:
            started.stop()


def read(rows):
    options = ReadOptions(voice_activity=False, channels="mix", max_hours=1.0, shard_hours=1.0)
    with ShardReader(options) as reader:
        return reader.read(0, 1, rows)


@pytest.mark.slow  # ten seconds of waiting before asking again
def test_recordings_are_read_whole_through_a_server_that_fails_now_and_then(server, monkeypatch):
    monkeypatch.setattr(errors, "BACK_OFF_S", (0.0, 0.0, 0.0))
    with endpoint(server.url):
        rows = make_plan(list_recordings([f"s3://{BUCKET}/in"]).recordings, shard_hours=1.0).to_pylist()
        expected = read(rows)
    assert [row["duration_s"] for row in expected.column("recordings")[0].as_py()] == [
        (i + 1) / 2 for i in range(6)
    ]
    injected, wanted = set(), {"503", "short body", "reset"}
    for seed in range(8):
        with FaultyS3(server.address, share=0.2, seed=seed) as proxy, endpoint(proxy.url):
            assert read(rows).equals(expected)
        injected |= proxy.injected.keys()
        if injected >= wanted:
            break
    assert injected >= wanted


@pytest.mark.slow
def test_pyarrow_reads_what_was_committed(server):
    code = (
        "import sys, pyarrow.dataset as ds; from pyarrow.fs import S3FileSystem\n"
        "s3 = S3FileSystem(endpoint_override=sys.argv[1], scheme='http', region='us-east-1',"
        " access_key='test', secret_key='test')\n"
        "print(ds.dataset(sys.argv[2], filesystem=s3).to_table().num_rows)"
    )
    import pyarrow as pa

    from pipeline.output.files import parquet_bytes

    with endpoint(server.url):
        store = ObjectStore.at(f"s3://{BUCKET}/out")
        for number in range(2):
            store.publish(f"transcripts/shard-{number}.parquet", parquet_bytes(pa.table({"a": [1, 2]})))
    done = subprocess.run(
        [sys.executable, "-c", code, server.url.removeprefix("http://"), f"{BUCKET}/out/transcripts"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["4"], done.stderr
