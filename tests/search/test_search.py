"""The search: what it tries and makes of it, what it leaves behind, and that it goes on when killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.adaptive.policy_file import read_policy
from pipeline.config import JobOptions, OptionError
from pipeline.engine.sparsify.level import Level
from pipeline.output.local_store import LocalStore
from pipeline.results.evaluation import Truth
from pipeline.search import choice, plots, report
from pipeline.search.driver import SearchResult
from pipeline.search.figures import figures_of, kept_positions, speech_positions
from pipeline.search.settings import PRESETS, Condition, Setting, grid, settings_of
from pipeline.search.trial_schema import SHARD_TRIALS
from pipeline.search.trials import Trials
from pipeline.search.try_shard import SearchEngines, try_shard, with_noise
from tests.fakes import RATE, FakeEngine, audio_table, read_recording, result

ROOT = Path(__file__).parents[2]
HALF = Level(layer=2, sparsity=0.5)
DENSE_TEXT = "the heron slept beside a river under tall green trees"


class Levelled(FakeEngine):
    """Says less the sparser it is, at the price of the positions that it keeps."""

    def transcribe(self, windows, *, languages=None, seeds=None, levels=None):
        self.calls.append((list(windows), levels))
        words = DENSE_TEXT.split()
        if levels is None:
            return [result(DENSE_TEXT, device_s=1.0) for _ in windows]
        sparsity = levels.share or levels.sparsity
        kept = tuple(range(round(1500 * (1 - sparsity))))
        text = " ".join(words[: round(len(words) * (1.2 - sparsity))])
        return [result(text, device_s=1 - sparsity, kept=kept, kept_positions=len(kept)) for _ in windows]


def shard(num=3, *, seconds=4.0):
    recordings = [read_recording(f"{n}.wav", duration_s=seconds) for n in range(num)]
    return audio_table(recordings, [(n, 0.0, seconds, [(0.0, seconds / 2)]) for n in range(num)])


def tried(levels, *, num=3):
    """The rows of a search over levels, with its settings."""
    chosen = [Setting(level=None), *(Setting(level=level) for level in levels)]
    table = try_shard(shard(num), SearchEngines(engines={None: Levelled()}, settings=chosen), language="en")
    return chosen, table.cast(SHARD_TRIALS).to_pylist()


def found(levels, **changes):
    chosen, rows = tried(levels, **changes)
    options = JobOptions(model="demo", model_revision="r", dtype="float32", engine_version="1")
    truths = {f"{n}.wav": Truth(text=DENSE_TEXT, language="en") for n in range(changes.get("num", 3))}
    return SearchResult(options=options, settings=chosen, left_out=(), rows=rows, truths=truths, speech={})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_dense_once_under_each_condition_and_unique_names(name):
    chosen, left_out = settings_of(PRESETS[name], 32)
    assert not left_out
    names = [setting.name for setting in chosen]
    assert len(set(names)) == len(names)
    dense = [setting.condition for setting in chosen if setting.level is None]
    assert sorted(dense, key=repr) == sorted({setting.condition for setting in chosen}, key=repr)
    assert len(chosen) > len(dense)


def test_the_paper_preset_is_the_papers_grid_and_leaves_out_what_a_small_model_lacks():
    chosen, _ = settings_of(PRESETS["paper"], 4)
    pairs = {(setting.level.layer, setting.level.sparsity) for setting in chosen if setting.level}
    assert pairs == {(layer, s) for layer in (1, 2, 3, 4) for s in (0.3, 0.4, 0.5, 0.6)}
    fewer, left_out = settings_of(PRESETS["paper"], 3)
    assert len(fewer) == 13
    assert left_out == [f"i4 s0.{s}0 attention" for s in (3, 4, 5, 6)]


def test_a_grid_refuses_a_sparsity_out_of_range():
    with pytest.raises(OptionError, match=r"--sparsity 1\.5: must be a number from 0 to 0\.95"):
        grid((1,), (1.5,), (), ("attention",))


def test_every_window_is_tried_once_under_every_setting():
    chosen, (row,) = tried([HALF, Level(layer=1, sparsity=0.3)])
    keys = [(trial["setting"], trial["recording_id"]) for trial in row["trials"]]
    assert sorted(keys) == sorted((s.name, f"{n}.wav") for s in chosen for n in range(3))
    assert row["device_s"] == pytest.approx(3 * (1 + 0.5 + 0.7))


def test_another_setting_comes_first_in_the_next_shard():
    engine = Levelled()
    chosen = [Setting(level=None), Setting(level=HALF)]
    table = shard(1)
    for shard_id in (0, 1):
        moved = table.set_column(0, table.field(0), pa.array([shard_id], pa.int32()))
        try_shard(moved, SearchEngines(engines={None: engine}, settings=chosen), language="en")
    assert [levels for _, levels in engine.calls] == [None, HALF, HALF, None]


def test_recordings_that_failed_and_those_that_are_too_long_are_failures():
    recordings = [read_recording("a.wav"), read_recording("b.wav", error_type="broken", error_message="b")]
    overflow = {
        "recording_id": "a.wav", "uri": "/in/a.wav", "member": None, "part": 1, "offset_s": 9.0,
        "duration_s": None, "shard_id": 0, "bytes": 1, "identity": "1", "reference": None,
    }  # fmt: skip
    table = audio_table(recordings, [(0, 0.0, 1.0, [])], overflow=[overflow])
    bench = SearchEngines(engines={None: Levelled()}, settings=[Setting(level=None)])
    (row,) = try_shard(table, bench, language="en").to_pylist()
    assert {one["recording_id"]: one["error_type"] for one in row["failures"]} == {
        "b.wav": "broken",
        "a.wav": "too_long",
    }
    assert not Trials.collect([row], {}, {}).by_setting


@settings(deadline=None, max_examples=20)
@given(snr_db=st.floats(0, 40), seed=st.integers(0, 99))
def test_noise_lies_as_far_below_the_speech_as_asked(snr_db, seed):
    clean = (3000 * np.sin(np.arange(RATE) / 5)).astype(np.int16)
    noise = with_noise(clean, snr_db, seed=seed).astype(float) - clean
    measured = 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.3)
    assert np.array_equal(with_noise(clean, snr_db, seed=seed), with_noise(clean, snr_db, seed=seed))


def test_silence_stays_silence_under_noise():
    silence = np.zeros(100, np.int16)
    assert with_noise(silence, 10.0, seed=0) is silence


def test_figures_count_errors_loss_positions_and_time():
    chosen, rows = tried([HALF])
    truths = {f"{n}.wav": Truth(text=DENSE_TEXT, language="en") for n in range(3)}
    dense, half = figures_of(Trials.collect(rows, truths, {}), chosen)
    assert (dense.wer, dense.loss, dense.device_ratio, dense.sparsity) == (0.0, 0.0, 1.0, 0.0)
    assert half.wer == half.wer_change == half.loss == pytest.approx(0.3)
    assert half.loss_interval == (pytest.approx(0.3), pytest.approx(0.3))
    assert half.loss_bound > 0.3
    assert half.device_ratio == pytest.approx(0.5)
    assert (half.kept_mean, half.sparsity) == (750, 0.5)
    assert half.speech_sparsity == 0.0  # the first two seconds are speech, and the first fifteen are kept
    assert (half.num_words, half.num_dense_words, half.num_edits) == (30, 30, 9)
    assert (half.retry_share, half.num_loops) == (0.0, 0)


def test_true_segments_say_where_speech_is_and_groups_have_their_own_figures():
    chosen, rows = tried([HALF])
    truths = {f"{n}.wav": Truth(text=DENSE_TEXT, language="en") for n in range(3)}
    speech = {f"{n}.wav": [(14.0, 16.0)] for n in range(3)}
    trials = Trials.collect(rows, truths, speech)
    trial = trials.by_setting["dense"]["0.wav", 0, 0.0]
    assert not speech_positions(trial, speech).any()  # the window ends before
    longer = {**trial, "end_s": 30.0}
    assert np.flatnonzero(speech_positions(longer, speech)).tolist() == list(range(700, 800))
    assert kept_positions(trials.by_setting[chosen[1].name]["0.wav", 0, 0.0]).sum() == 750
    names = [(one.setting, one.group) for one in figures_of(trials, chosen, lambda name: name[0])]
    assert names[:4] == [("dense", group) for group in ("all", "0", "1", "2")]


def test_retries_and_loops_are_counted():
    looping = result("a a a", fallback="dense", device_s=3.0, retry_device_s=2.0)
    segment = replace(looping.segments[0], tokens=(7,) * 40)
    engine = FakeEngine(answer=lambda _samples, _language: replace(looping, segments=(segment,)))
    table = try_shard(
        shard(), SearchEngines(engines={None: engine}, settings=[Setting(level=None)]), language="en"
    )
    (figures,) = figures_of(Trials.collect(table.to_pylist(), {}, {}), [Setting(level=None)])
    assert (figures.retry_share, figures.num_loops) == (1.0, 3)
    assert figures.retry_device_share == pytest.approx(2 / 3)
    assert figures.wer is None


def candidate(loss, device_ratio, bound=None):
    level = Level(layer=1, sparsity=round(device_ratio % 0.95, 4))
    return choice.Candidate(level=level, loss=loss, bound=bound or loss, device_ratio=device_ratio)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 2)), max_size=12))
def test_nothing_beats_the_front_and_everything_else_is_beaten(pairs):
    candidates = [candidate(loss, ratio) for loss, ratio in pairs]
    front = choice.front(candidates)
    for one in candidates:
        beaten = any(
            other.loss <= one.loss
            and other.device_ratio <= one.device_ratio
            and (other.loss, other.device_ratio) != (one.loss, one.device_ratio)
            for other in candidates
        )
        assert (one in front) is not beaten
    assert [one.device_ratio for one in front] == sorted((one.device_ratio for one in front), reverse=True)


def test_the_best_is_the_fastest_within_the_budget_and_none_where_nothing_is_faster():
    mild, good, wild = candidate(0.0, 0.9, 0.002), candidate(0.004, 0.7, 0.008), candidate(0.03, 0.5, 0.04)
    assert choice.best([mild, good, wild], 0.01) == good
    assert choice.best([wild, candidate(0.0, 1.1, 0.001)], 0.01) is None
    policy = choice.policy([mild, good, wild], 0.01, model="m", model_revision="r", evidence={})
    assert policy.levels == (mild.level, good.level)
    assert policy.start == 2
    nothing = choice.policy([wild], 0.01, model="m", model_revision="r", evidence={})
    assert (nothing.levels, nothing.start) == ((), 0)


def test_a_level_is_judged_by_its_worst_condition():
    chosen = [
        Setting(level=level, condition=Condition(snr_db=snr_db))
        for snr_db in (None, 10.0)
        for level in (None, HALF)
    ]
    engine = Levelled()
    table = try_shard(shard(), SearchEngines(engines={None: engine}, settings=chosen), language="en")
    rows = table.to_pylist()
    for trial in rows[0]["trials"]:
        if trial["setting"] == "i2 s0.50 attention 10 dB":
            trial["text"] = ""
    figures = figures_of(Trials.collect(rows, {}, {}), chosen)
    (one,) = choice.candidates(chosen, figures)
    assert one.loss == 1.0


def test_levels_with_a_share_are_judged_with_the_floor_that_jobs_run_them_with():
    share, fixed = Level(layer=2, share=0.5), HALF
    outcome_of = found([share, fixed], num=40)
    for trial in outcome_of.rows[0]["trials"]:
        number = int(trial["recording_id"].removesuffix(".wav"))
        is_spoilt = trial["setting"] != "dense" and number < 4
        trial["logprob"] = -0.9 if is_spoilt else -0.1
        if trial["setting"] == "dense":
            trial["logprob"] -= number / 1000
        trial["text"] = "" if is_spoilt else DENSE_TEXT
    outcome = report.judge_search(outcome_of, question="?", wer_budget=1.0, group=None)
    dense, shared, halved = outcome.figures
    assert (shared.num_edits, shared.retry_share) == (0, 0.1)
    assert shared.device_s == pytest.approx(halved.device_s + 4 * dense.device_s / 40)
    assert (halved.num_edits, halved.retry_share) == (4 * 10, 0.0)
    floors = {one.level.share: one.level.min_logprob for one in outcome.candidates}
    assert floors == {0.5: pytest.approx(-0.1 - 38 / 1000), None: None}


def test_the_output_holds_figures_page_and_a_policy_that_can_be_read(tmp_path):
    outcome = report.judge_search(
        found([Level(layer=1, sparsity=0.1), HALF]), question="Which?", wer_budget=0.99, group=None
    )
    summary = report.write(LocalStore.open(str(tmp_path)), outcome)
    assert summary["best"]["level"]["sparsity"] == 0.5
    figures = json.loads((tmp_path / "search.json").read_text())
    assert [one["setting"] for one in figures["figures"]] == [
        "dense",
        "i1 s0.10 attention",
        "i2 s0.50 attention",
    ]
    page = (tmp_path / "search.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'<script|src="|href="', page)
    assert page.count("<circle") > 4
    policy = read_policy(tmp_path / "policy.json")
    assert policy.levels[-1] == HALF
    assert policy.start == len(policy.levels)
    assert policy.model_revision == "r"


def test_a_corpus_that_says_nothing_has_neither_a_bound_nor_a_best(tmp_path):
    nothing = found([HALF])
    for trial in nothing.rows[0]["trials"]:
        trial["text"] = ""
    outcome = report.judge_search(nothing, question="?", wer_budget=0.5, group=None)
    report.write(LocalStore.open(str(tmp_path)), outcome)
    text = (tmp_path / "search.json").read_text() + (tmp_path / "policy.json").read_text()
    assert "Infinity" not in text
    assert json.loads((tmp_path / "search.json").read_text())["best"] is None


def test_plots_place_every_setting_inside_the_axes():
    outcome = report.judge_search(
        found([HALF, Level(layer=1, sparsity=0.9)]), question="?", wer_budget=0.01, group=None
    )
    drawn = plots.search_plots(outcome.found.settings, outcome.figures, outcome.front, 0.01)
    assert len(drawn) == 2
    for one in drawn:
        dots = [dot for series in one.series for dot in series.dots]
        assert len(dots) == 2
        assert all(plots.LEFT <= dot.x <= plots.RIGHT for dot in dots)
        assert all(plots.TOP <= dot.span[0] <= dot.y <= dot.span[1] <= plots.BOTTOM for dot in dots)


@settings(deadline=None)
@given(low=st.floats(-5, 5), span=st.floats(1e-3, 100))
def test_ticks_are_a_few_round_values_inside_the_axis(low, span):
    found_ticks = plots.ticks(low, low + span)
    assert 1 <= len(found_ticks) <= plots.NUM_TICKS + 1
    assert all(low - 1e-6 <= tick <= low + span + 1e-6 for tick in found_ticks)


def command(*arguments):
    return [sys.executable, "-m", "jobs.search", *map(str, arguments)]


def search(*arguments, status=0):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "paper", "--layers", "1"], "--layers: must not be given with --preset"),
        (["--layers", "1"], "--layers: must come with --sparsities or --shares"),
        (["--layers", "a", "--shares", "1"], "--layers a: must be whole numbers"),
        (["--selectors", "best", "--shares", "1"], "--selectors best: must be attention"),
        (["--layers", "9", "--shares", "1"], "has no layer that it tries"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, arguments, message):
    (tmp_path / "r.tsv").write_text("audio_filepath\ttext\na.wav\tx\n")
    shared = (tmp_path, "--references", tmp_path / "r.tsv", "--output", tmp_path / "out", "--model", "demo")
    done = search(*shared, *arguments, status=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_ends_with_a_policy_that_the_job_takes(tmp_path):
    speech = ROOT / "pipeline" / "demo" / "speech"
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("kitchen.wav", "telephone.wav"):
        (folder / name).write_bytes((speech / name).read_bytes())
    arguments = (
        *(folder, "--references", speech / "references.tsv", "--model", "demo", "--output", out),
        *("--sparsities", "0.3", "--layers", "1,9", "--shard-hours", "0.0001", "--wer-budget", "9"),
        *("--gpus-per-actor", "0"),
    )
    started = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    first = out / "trials" / "shard-000000.parquet"
    deadline = time.monotonic() + 200
    while not first.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    assert first.exists()
    before = first.stat().st_mtime_ns
    done = search(*arguments)
    assert "Traceback" not in done.stderr
    assert first.stat().st_mtime_ns == before
    totals = json.loads(done.stdout.splitlines()[-1])
    assert (totals["num_windows"], totals["num_failed"]) == (2, 0)
    assert totals["left_out"] == ["i9 s0.30 attention"]
    assert "i1 s0.30 attention" in done.stderr
    policy = read_policy(totals["policy"])
    assert policy.model == "demo"
    again = search(*arguments, "--wer-budget", "0")
    assert json.loads(again.stdout.splitlines()[-1])["best"] is None  # judged anew, without Ray
    other = search(*arguments, "--language", "en", status=2)
    assert "is the output of another search, --language was auto and is now en" in other.stderr
