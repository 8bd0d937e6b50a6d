"""Lines of Lhotse's manifests."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.planning import make_plan
from pipeline.sources.listing import list_recordings
from tests.reading.made_audio import RATE, vowels, write
from tests.reading.read_rows import content, open_reader
from tests.sources.inputs import error_of, heard, listed, manifest


def test_lhotse_recordings_and_cuts(tmp_path):
    write(tmp_path / "a.wav", np.stack([vowels(4, seed=1), np.full(4 * RATE, 1e-3)], 1))
    recording = {
        "id": "rec", "sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}],
        "sampling_rate": RATE, "num_samples": 4 * RATE, "duration": 4.0, "channel_ids": [0, 1],
    }  # fmt: skip
    cut = {
        "id": "cut", "start": 1.0, "duration": 1.5, "channel": 1, "type": "MonoCut", "recording": recording,
        "supervisions": [{"id": "s", "text": "hello"}, {"id": "t", "text": "there"}],
    }  # fmt: skip
    assert heard(manifest(tmp_path, "recordings.jsonl", [recording])) == {"rec": 4.0}
    path = manifest(tmp_path, "cuts.jsonl", [cut])
    assert listed(path)[0]["cut"].reference == "hello there"
    plan = make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0)
    with open_reader() as reader:
        row, samples = content(reader.read(0, 1, plan.to_pylist()))
    assert row["recordings"][0]["duration_s"] == 1.5
    assert np.ptp(samples[0]) == 0  # nothing sounds in the second channel


@pytest.mark.parametrize("change", [
    {"sources": [{"type": "command", "source": "rm -rf x", "channels": [0]}]}, {"sources": []},
    {"transforms": [{"name": "Speed"}]}, {"tracks": []},
])  # fmt: skip
def test_what_lhotse_would_run_or_mix_is_a_bad_line(tmp_path, change):
    source = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "duration": 1.0}
    assert "line 1: " in error_of(manifest(tmp_path, "m.jsonl", [source | change]))
