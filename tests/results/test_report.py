"""Reports over outputs made by hand: what adds up, what is paid for, and a page that nothing can break."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from pipeline.output import files
from pipeline.output.local_store import LocalStore
from pipeline.output.retried import OutputError
from pipeline.results import report, report_html, report_plots
from pipeline.results.report_source import read_output
from pipeline.schema import METRICS, PLAN, TRANSCRIPTS, table_of
from tests.fakes import plan_row

DAY = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
HOSTILE = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>{{ 7*7 }}\u202e'
STAMP = {"fingerprint": "f" * 16, "plan_hash": "p" * 16}


def marker(shard_id, run_id, started_at, **changes):
    values = {
        **dict.fromkeys(METRICS.names, 0),
        "shard_id": shard_id, "run_id": run_id, "num_recordings": 2, "audio_s": 3600.0, "speech_s": 3000.0,
        "wall_s": 40.0, "device_s": 36.0, "rtf": 0.01, "rtfx": 100.0, "kept_positions": 750,
        "total_positions": 1500, "sparsity_mean": 0.5, "level": None, "slowest": None, "num_hits": 90,
        "num_substitutions": 10, "wer": 0.1,
        "cost_usd": 0.035, "device": "cuda:0", "host": "h", "model": "large", "transcripts_sha256": "",
        "attempts": 1, "started_at": started_at, "finished_at": started_at + timedelta(seconds=40), **STAMP,
    }  # fmt: skip
    return values | changes


def transcript(recording_id, shard_id, **changes):
    values = {
        **dict.fromkeys(TRANSCRIPTS.names),
        "recording_id": recording_id, "uri": f"/in/{recording_id}", "part": 0, "channel": 0,
        "shard_id": shard_id, "status": "ok", "duration_s": 1800.0, "speech_s": 1500.0, "text": "x",
        "segments": [], "reference": "x", "num_hits": 45, "num_substitutions": 5, "num_deletions": 0,
        "num_insertions": 0, "partial": False, "model": "large",
    }  # fmt: skip
    return values | changes


def failed(recording_id, shard_id, error_type="corrupt", message="cannot be decoded"):
    counts = dict.fromkeys(("num_hits", "num_substitutions", "num_deletions", "num_insertions"))
    error = {"error_type": error_type, "error_message": message}
    return transcript(recording_id, shard_id, status="failed", text=None, segments=None, **counts, **error)


def run_record(run_id, started_at, *, wall_s=60.0, gpu_seconds_held=60.0, state="ended"):
    return {
        "run_id": run_id, "state": state, "started_at": started_at.isoformat(),
        "last_seen_at": (started_at + timedelta(seconds=wall_s)).isoformat(), "wall_s": wall_s,
        "gpu_seconds_held": gpu_seconds_held,
    }  # fmt: skip


def make_output(folder, markers, transcripts, runs, model="large"):
    store = LocalStore.open(str(folder))
    store.replace("_job.json", json.dumps({**STAMP, "options": {"model": model}}).encode())
    rows = [plan_row(row["recording_id"], shard_id=row["shard_id"]) for row in transcripts]
    store.replace("plan/plan-00000.parquet", files.parquet_bytes(table_of(PLAN, rows)))
    for row in markers:
        own = [one for one in transcripts if one["shard_id"] == row["shard_id"]]
        table = table_of(TRANSCRIPTS, own)
        store.replace(files.transcripts_name(row["shard_id"]), files.parquet_bytes(table))
        store.replace(files.metrics_name(row["shard_id"]), files.parquet_bytes(table_of(METRICS, [row])))
    for record in runs:
        store.replace(f"runs/{record['run_id']}.json", json.dumps(record).encode())
    return str(folder)


@pytest.fixture
def output(tmp_path):
    """Two shards of one run, and a run that was killed without a shard."""
    markers = [
        marker(0, "r2", DAY),
        marker(1, "r2", DAY + timedelta(seconds=60), device_s=72.0, cost_usd=0.07),
    ]
    rows = [transcript(f"{number}.wav", number // 2) for number in range(3)]
    killed = run_record("r1", DAY - timedelta(days=1), gpu_seconds_held=300.0, state="running")
    return make_output(
        tmp_path / "out",
        markers,
        [*rows, failed(f"{HOSTILE}.wav", 1, message=HOSTILE)],
        [killed, run_record("r2", DAY, gpu_seconds_held=200.0)],
    )


def make(*paths, price=None):
    return report.make_report([read_output(path, price) for path in paths])


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


def test_the_loss_is_drawn_over_all_shadows_so_far():
    def shadowed(number, errors, words):
        finished = DAY + timedelta(minutes=number)
        return {"finished_at": finished, "shadow_num_errors": errors, "shadow_num_words": words}

    assert report_plots.loss([shadowed(0, 0, 0)]) is None
    plot = report_plots.loss([shadowed(2, 0, 100), shadowed(0, 0, 100), shadowed(1, 4, 200)])
    _, top, _, bottom = report_plots.PLOT
    heights = [(bottom - float(point.split(",")[1])) / (bottom - top) for point in plot.points.split()]
    assert heights == pytest.approx([0.0, 4 / 300 / 0.02, 4 / 400 / 0.02], abs=1e-3)
    assert "400 words" in plot.note


def test_throughput_is_the_audio_whatever_the_bins(output):
    plot = report_plots.throughput(make(output).markers)
    left, _, right, bottom = report_plots.PLOT
    points = [tuple(map(float, pair.split(","))) for pair in plot.points.split()]
    assert left <= min(x for x, _ in points) <= max(x for x, _ in points) <= right
    heights = [bottom - y for _, y in points[::2]]
    # A hundred seconds, of which 40 and 40 are busy with an hour of audio each.
    busy = sum(height > 1 for height in heights) / len(heights)
    assert busy == pytest.approx(0.8, abs=0.04)


def test_nights_between_runs_do_not_flatten_the_throughput(tmp_path):
    days = [DAY + timedelta(days=number) for number in range(3)]
    rows = [marker(number, f"r{number}", day) for number, day in enumerate(days)]
    found = make(make_output(tmp_path / "out", rows, [transcript(f"{n}.wav", n) for n in range(3)], []))
    plot = report_plots.throughput(found.markers)
    assert len({pair.split(",")[1] for pair in plot.points.split()}) == 1
    assert plot.ticks[-1][1] == "100"  # an hour of audio in 40 s is 90 hours an hour


class Tags(HTMLParser):
    """The tags of a page, and its attributes that could load or run something."""

    def __init__(self):
        super().__init__()
        self.tags, self.dangerous = set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        names = {name for name, _ in attributes}
        self.dangerous += [n for n in names if n.startswith("on") or n in {"src", "href", "style", "srcset"}]


def test_no_name_and_no_message_becomes_html(output):
    page = report_html.render_report(make(output), DAY)
    parser = Tags()
    parser.feed(page)
    assert not parser.tags & {"script", "img", "iframe", "link", "object", "a", "form"}
    assert parser.dangerous == []
    assert "&lt;script&gt;alert(" in page
    assert "{{ 7*7 }}" in page
    assert "\u202e" not in page


def test_the_page_forbids_itself_scripts_and_requests(output):
    page = report_html.render_report(make(output), DAY)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "http" not in page.replace("http-equiv", "")


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


PROBE = """<script>
addEventListener("load", () => {
  const main = document.documentElement;
  const cards = [...document.querySelectorAll(".card")].map((card) => card.getBoundingClientRect());
  const within = (a, b) => a.left < b.right - 1 && a.top < b.bottom - 1;
  const meets = (a, b) => within(a, b) && within(b, a);
  const overlaps = cards.filter((a, i) => cards.some((b, j) => i < j && meets(a, b))).length;
  const outside = [...document.querySelectorAll("svg text")].filter((text) => {
    const box = text.getBoundingClientRect(), frame = text.closest("svg").getBoundingClientRect();
    return box.right > frame.right + 1 || box.left < frame.left - 1;
  }).length;
  document.title = JSON.stringify({wide: main.scrollWidth - main.clientWidth, overlaps, outside});
});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_overflows_or_overlaps_in_a_browser(output, tmp_path, width):
    page = report_html.render_report(make(output), DAY)
    without_policy = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page)
    (tmp_path / "page.html").write_text(without_policy.replace("</body>", f"{PROBE}</body>"))
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200"),
        *("--dump-dom", f"file://{tmp_path / 'page.html'}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert found is not None, done.stdout[:500]
    assert json.loads(found[1]) == {"wide": 0, "overlaps": 0, "outside": 0}
