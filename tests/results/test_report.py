"""Reports over outputs made by hand: what adds up, and what is paid for."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import jobs.report
from pipeline.output.retried import OutputError
from pipeline.results import report_html
from tests.commands import run_here
from tests.results.made_output import (
    DAY,
    HOSTILE,
    failed,
    make,
    make_output,
    marker,
    run_record,
    transcript,
)


def test_totals_are_the_sums_of_the_shards(output):
    found = make(output)
    assert (found.total.num_shards, found.total.audio_s, found.total.device_s) == (2, 7200.0, 108.0)
    assert found.total.rtfx == pytest.approx(7200 / 108)
    assert (found.num_recordings, found.num_failed) == (4, 1)
    assert found.total.sparsity_mean == 0.5
    assert found.total.wer == pytest.approx(0.1)
    assert found.wer_interval == pytest.approx((0.1, 0.1))


def test_every_group_has_the_interval_of_its_own_recordings(tmp_path):
    markers = [marker(0, "r1", DAY), marker(1, "r2", DAY + timedelta(days=1))]
    rows = [transcript(f"{n}.wav", 0) for n in range(2)]
    rows += [transcript("3.wav", 1), transcript("4.wav", 1, num_hits=50, num_substitutions=0)]
    runs = [run_record("r1", DAY), run_record("r2", DAY + timedelta(days=1))]
    first, second = make(make_output(tmp_path / "out", markers, rows, runs)).by_day
    assert (first.wer, first.wer_low, first.wer_high) == pytest.approx((0.1, 0.1, 0.1))
    assert (second.wer, second.wer_low, second.wer_high) == pytest.approx((0.05, 0.0, 0.1))


def test_the_slowest_recordings_are_those_of_the_most_device_time_for_their_length(tmp_path):
    def slow(name, audio_s, device_s):
        return {"recording_id": name, "audio_s": audio_s, "device_s": device_s}

    markers = [
        marker(0, "r1", DAY, slowest=[slow("long.wav", 3600.0, 60.0), slow("short.wav", 0.1, 0.05)]),
        marker(1, "r1", DAY, slowest=[slow(f"{HOSTILE}.wav", 30.0, 3.0)]),
        marker(2, "r1", DAY, slowest=None),
    ]
    folder = make_output(tmp_path / "out", markers, [transcript("a.wav", 0)], [run_record("r1", DAY)])
    found = make(folder)
    assert [one.recording_id for one in found.slowest_recordings] == [
        f"{HOSTILE}.wav", "long.wav", "short.wav"
    ]  # fmt: skip
    assert found.slowest_recordings[0].rtfx == pytest.approx(10.0)
    assert "Slowest recordings" in report_html.render_report(found, DAY)
    assert "<script>alert" not in report_html.render_report(found, DAY)


def test_every_grouping_adds_up_to_the_total(output, tmp_path):
    other = make_output(
        tmp_path / "other",
        [marker(0, "r9", DAY + timedelta(days=1), model="small", audio_s=60.0)],
        [transcript("z.wav", 0)],
        [run_record("r9", DAY + timedelta(days=1))],
        model="small",
    )
    found = make(output, other)
    for groups in (found.by_run, found.by_day, found.by_model):
        assert sum(group.audio_s for group in groups) == found.total.audio_s == 7260.0
        assert sum(group.gpu_s_held or 0 for group in groups) == found.total.gpu_s_held == 560.0
        assert sum(group.num_shards for group in groups) == found.total.num_shards == 3
    assert [group.group for group in found.by_run] == ["out/r1", "out/r2", "other/r9"]
    assert [group.group for group in found.by_day] == ["2026-02-28", "2026-03-01", "2026-03-02"]
    assert [group.group for group in found.by_model] == ["large", "small"]
    assert found.by_shard[-1].group == "other/shard-000000"


def test_failures_come_first_and_sparsity_is_shown_with_what_it_rests_on(output):
    evidence = {"wer_change": 0.001, "wer_change_bound": 0.005}
    told = {"wer_budget": 0.01, "reason": "the evidence that ships for m", "levels": {"3": 2}}
    told |= {"output": "out", "evidence": evidence, "excess": 0.0, "excess_bound": None}  # of a few windows
    found = replace(make(output), adaptive=(told,))
    assert jobs.report.as_json(found)["adaptive"] == (told,)
    (table,) = report_html.evidence(found)
    assert table.rows == (
        ("out", "3 in 2 shards", "1.00%", "the evidence that ships for m", "+0.10%", "+0.50%", "-", "-"),
    )
    page = report_html.render_report(make(output), DAY)
    assert page.index("Failures to look at") < page.index("Throughput") < page.index("Runs")


def test_idle_time_and_killed_runs_are_paid_for(output):
    found = make(output, price=3.6)
    assert found.total.cost_usd == pytest.approx(0.108)
    assert found.total.cost_usd_held == pytest.approx(0.5)
    assert found.total.usd_per_audio_hour_held == pytest.approx(0.25)
    killed = found.by_run[0]
    assert (killed.group, killed.num_shards, killed.rtfx) == ("out/r1", 0, None)
    assert killed.cost_usd_held == pytest.approx(0.3)


def test_the_price_of_the_job_is_the_price_of_the_report(output):
    total = make(output).total
    assert total.cost_usd == pytest.approx(0.105)
    assert total.cost_usd_held == pytest.approx(3.5 * 500 / 3600)


def test_a_cpu_has_no_cost(tmp_path):
    row = marker(0, "r1", DAY, device="cpu", cost_usd=None)
    record = run_record("r1", DAY, gpu_seconds_held=0.0)
    found = make(make_output(tmp_path / "out", [row], [transcript("a", 0)], [record]))
    assert (found.total.cost_usd, found.total.cost_usd_held) == (None, None)
    assert "A CPU has no price" in report_html.render_report(found, DAY)


def test_savings_are_those_of_windows_decoded_both_ways(tmp_path):
    rows = [marker(0, "r1", DAY, shadow_dense_device_s=10.0, shadow_sparse_device_s=6.0)]
    found = make(make_output(tmp_path / "out", rows, [transcript("a", 0)], [run_record("r1", DAY)]))
    assert found.total.shadow_saved == pytest.approx(0.4)


def test_the_slowest_shards_come_first_and_failures_by_their_number(tmp_path):
    rows = [marker(number, "r1", DAY, device_s=1.0 + number) for number in range(12)]
    causes = ["corrupt", "missing", "corrupt"]
    failures = [failed(f"{number}.wav", 0, cause) for number, cause in enumerate(causes)]
    found = make(make_output(tmp_path / "out", rows, failures, [run_record("r1", DAY)]))
    names = [shard.group for shard in found.slowest_shards]
    assert (len(names), names[0]) == (10, "shard-000011")
    assert [(failure.error_type, failure.num_rows) for failure in found.failures] == [
        ("corrupt", 2),
        ("missing", 1),
    ]


def test_an_output_given_twice_is_refused(output):
    with pytest.raises(OutputError, match="is given twice"):
        make(output, output)


def test_an_output_without_a_shard_yet_is_a_report_too(tmp_path):
    found = make(make_output(tmp_path / "out", [], [], [run_record("r1", DAY)]))
    assert (found.total.rtfx, found.total.wer, found.wer_interval) == (None, None, None)
    assert "Transcription report" in report_html.render_report(found, DAY)


def test_the_command_prints_json_last_and_writes_its_files(output, tmp_path):
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "csv", "html")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    command = [sys.executable, "-m", "jobs.report", output, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["num_recordings"], found["errors"]) == (4, {"corrupt": 1})
    assert "Slowest shards" in done.stderr
    whole = json.loads(files["json"].read_text())
    assert len(whole.pop("by_shard")) == 2
    assert whole == found
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [row["by"] for row in rows] == ["total", "run", "run", "day", "day", "model", "shard", "shard"]
    assert files["html"].read_text().startswith("<!doctype html>")


def test_what_is_no_output_is_one_line_and_status_2(tmp_path):
    command = [sys.executable, "-m", "jobs.report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}: is not the output of a job\n")


def report_of(*arguments):
    return run_here(jobs.report.report, *arguments)


def test_a_torn_file_is_named_and_costs_no_other_output(output, tmp_path):
    other = make_output(tmp_path / "other", [marker(0, "r1", DAY)], [transcript("x.wav", 0)], [])
    torn = tmp_path / "other" / "metrics" / "shard-000000.parquet"
    torn.write_bytes(b"PAR1 torn")
    alone = report_of(other)
    assert alone.returncode == 1
    assert alone.stderr.startswith(f"error: {torn}: cannot be read")
    both = report_of(other, output)
    assert both.returncode == 1
    assert json.loads(both.stdout.splitlines()[-1])["outputs"] == [output]
    assert str(torn) in both.stderr


def test_a_torn_transcript_is_named_and_the_rest_is_reported(output):
    (Path(output) / "transcripts" / "shard-000001.parquet").write_bytes(b"PAR1 torn")
    done = report_of(output)
    assert done.returncode == 1
    assert "transcripts/shard-000001.parquet" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["num_recordings"] == 2
