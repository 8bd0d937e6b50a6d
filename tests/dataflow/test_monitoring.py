"""What Prometheus sees: counters that add up by commit, and a dashboard that asks for nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from pipeline.dataflow import monitoring

DASHBOARD = json.loads((Path(__file__).parents[2] / "docs" / "deploy" / "grafana.json").read_text())
# As Ray's agent exports them; the last is its own (ray/dashboard/modules/reporter).
EXPORTED = {
    *(f"ray_{name}_total" for name, _ in monitoring.COUNTED.values()),
    *(f"ray_{name}_total" for name, _ in (monitoring.SHARDS, monitoring.RECORDINGS, monitoring.FAILURES)),
    *(f"ray_{name}" for name, _ in (monitoring.RTFX, monitoring.SPARSITY)),
    "ray_node_gpus_utilization",
}
MARKER = {
    "model": "demo", "device": "cpu", "audio_s": 60.0, "speech_s": 40.0, "device_s": 6.0, "num_windows": 3,
    "num_tokens": 90, "num_fallback": 0, "total_positions": 4500, "kept_positions": 2250,
    "num_recordings": 3, "num_failed": 1, "rtfx": 10.0, "sparsity_mean": 0.5,
}  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """What is counted, by name and labels."""
    found = Counter()

    class Fake:
        def __init__(self, name):
            self.name = name

        def inc(self, value, tags):
            assert value > 0, "Ray refuses to count nothing"
            found[self.name, *sorted(tags.items())] += value

        def set(self, value, tags):
            found[self.name, *sorted(tags.items())] = value

    monkeypatch.setattr(monitoring, "_counter", lambda described, labels: Fake(described[0]))
    monkeypatch.setattr(monitoring, "_gauge", lambda described: Fake(described[0]))
    return found


def test_a_committed_shard_counts_once_under_a_few_labels(counted):
    monitoring.count(MARKER, {"corrupt": 1})
    monitoring.count(MARKER, {"timeout": 1})
    labels = (("device", "cpu"), ("model", "demo"))
    assert counted["earshard_shards", *labels] == 2
    assert counted["earshard_audio_seconds", *labels] == 120.0
    assert counted["earshard_kept_positions", *labels] == 4500
    assert counted["earshard_recordings", *labels, ("status", "ok")] == 4
    assert counted["earshard_recordings", *labels, ("status", "failed")] == 2
    assert counted["earshard_failures", ("device", "cpu"), ("error_type", "timeout"), ("model", "demo")] == 1
    assert counted["earshard_shard_rtfx", *labels] == 10.0
    assert not any(name == "earshard_fallback_windows" for name, *_ in counted)


def test_a_shard_without_audio_has_no_speed(counted):
    empty = dict.fromkeys(MARKER, 0) | {"model": "demo", "device": "none", "num_recordings": 1}
    monitoring.count(empty | {"rtfx": None, "sparsity_mean": None}, {})
    assert {name for name, *_ in counted} == {"earshard_shards", "earshard_recordings"}


def queries():
    yield from (target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]


def filled(query):
    """A query with values for Grafana's variables."""
    return re.sub(r"\$__\w+", "5m", query).replace("$model", ".*")


@pytest.mark.parametrize("query", [*queries()])
def test_the_dashboard_asks_for_metrics_that_are_exported(query):
    names = set(re.findall(r"\bray_\w+", query))
    assert names
    assert names <= EXPORTED


@pytest.mark.parametrize("query", [*queries()])
def test_the_dashboards_queries_are_valid(query):
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    parser.parse(filled(query))


def test_every_metric_of_ours_but_the_sums_is_on_the_dashboard():
    shown = set(re.findall(r"\bray_earshard_\w+", " ".join(queries())))
    ours = {name for name in EXPORTED if name.startswith("ray_earshard")}
    left_out = {"ray_earshard_shards_total", "ray_earshard_speech_seconds_total", "ray_earshard_tokens_total"}
    assert ours - shown == left_out | {"ray_earshard_shard_rtfx"}


def test_panels_do_not_overlap():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
