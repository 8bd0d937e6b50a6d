"""What a driver asks of its store: by the shard, and no more than it needs."""

from __future__ import annotations

import json

from click.testing import CliRunner

from tests.studies.scale import main


def test_a_shard_is_published_by_two_calls_and_read_by_one(tmp_path):
    done = CliRunner().invoke(main, [str(tmp_path / "out"), "--recordings", "2000", "--per-shard", "100"])
    assert done.exit_code == 0, done.output
    calls = {one["phase"]: one["calls"] for one in map(json.loads, done.stdout.splitlines())}
    assert calls["plan"] == {"replace": 1}
    assert calls["start"]["read"] == 2  # the plan, and whether there is a next one
    assert calls["resume at half"]["read"] == 2 + 10
    assert calls["commit 10 shards"]["publish"] == 2 * 10
    assert calls["read what is done"]["read"] == 2 + 10  # the half that was not there before
    assert calls["check every row"] == {"names": 1, "read": 20}
    assert calls["report"]["read"] <= 20 + 3
