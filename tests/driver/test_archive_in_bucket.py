"""An archive whose runs and ledger lie in a bucket, against a real S3 interface on loopback."""

import pytest

from pipeline.config import RunOptions
from pipeline.driver import archive
from pipeline.output.files import read_transcripts
from tests.driver.test_archive import request, without_ray, write  # noqa: F401
from tests.output.test_object_store import bucket  # noqa: F401


@pytest.mark.slow
def test_an_archive_grows_in_a_bucket_as_in_a_folder(bucket, tmp_path):  # noqa: F811
    where = f"{bucket}/grows"
    for number, day in enumerate(("2026-03-01", "2026-03-02", "2026-03-03")):
        write(tmp_path, f"{number}.wav")
        done = archive.update_archive(where, request(tmp_path), RunOptions(), day=day)
        assert list(done.runs) == [day]
        rows = list(read_transcripts(f"{where}/runs/{day}"))
        assert [(row["recording_id"], row["status"]) for row in rows] == [(f"{number}.wav", "ok")]
    assert archive.update_archive(where, request(tmp_path), RunOptions(), day="2026-03-04").runs == {}
    found = archive.read_survey(where, request(tmp_path), retry_failed=False)
    assert (found.num_listed, found.pending) == (3, ())
