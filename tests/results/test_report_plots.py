"""Loss and throughput as lines."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.results import report_plots
from tests.results.made_output import (
    DAY,
    make,
    make_output,
    marker,
    transcript,
)


def test_the_disagreement_is_drawn_over_all_shadows_so_far():
    def shadowed(number, errors, words):
        finished = DAY + timedelta(minutes=number)
        return {"finished_at": finished, "shadow_num_errors": errors, "shadow_num_words": words}

    assert report_plots.disagreement([shadowed(0, 0, 0)]) is None
    plot = report_plots.disagreement([shadowed(2, 0, 100), shadowed(0, 0, 100), shadowed(1, 4, 200)])
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


def test_the_throughput_of_a_slow_job_has_an_axis_that_can_be_read(tmp_path):
    slow = marker(0, "r0", DAY, audio_s=40.0 * 0.3)  # in 40 s
    plot = report_plots.throughput(make(make_output(tmp_path / "out", [slow], [], [])).markers)
    assert [label for _, label in plot.ticks] == ["0", "0.25", "0.5"]


def test_shards_without_a_window_leave_no_dip_in_the_sparsity(tmp_path):
    rows = [marker(number, "r0", DAY, sparsity_mean=share) for number, share in enumerate((0.5, None, 0.5))]
    plot = report_plots.sparsity(make(make_output(tmp_path / "out", rows, [], [])).markers)
    assert len({pair.split(",")[1] for pair in plot.points.split()}) == 1
    assert [label for _, label in plot.ticks] == ["0%", "25%", "50%"]
