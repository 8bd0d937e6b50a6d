"""Figures of a report by folder."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.results import report_html
from pipeline.results.breakdown import SliceFacts, by_folder
from tests.results.made_output import DAY, failed, make, make_output, marker, run_record
from tests.results.made_output import transcript as row_of
from tests.results.test_exports import segment


def sparse(seconds, share):
    return segment("x", 0.0, seconds) | {"sparsity": share}


@pytest.fixture
def output(tmp_path):
    """Two folders and a tar file below one folder."""
    rows = [
        row_of("in/calls/a.wav", 0, segments=[sparse(3.0, 0.5), sparse(1.0, 0.1)]),
        row_of("in/calls/2026/b.wav", 0, num_hits=5, num_substitutions=5),
        row_of("in/talks/c.wav", 0, speech_s=4000.0),
        failed("in/talks/d.wav", 0) | {"speech_s": None},
        row_of("in/old.tar/e.wav", 0, same_as="in/talks/c.wav", reference=None, num_hits=None),
    ]
    return make_output(tmp_path / "out", [marker(0, "r1", DAY)], rows, [run_record("r1", DAY)])


def test_a_report_has_figures_of_each_folder_below_the_one_that_all_are_in(output):
    talks, calls, old = make(output).by_folder
    assert [one.group for one in (talks, calls, old)] == ["in/talks", "in/calls", "in/old.tar"]
    assert (talks.num_recordings, talks.num_failed, talks.speech_s) == (2, 1, 4000.0)
    assert (calls.group, calls.num_recordings, calls.num_segments, calls.speech_s) == (
        "in/calls",
        2,
        2,
        3000.0,
    )
    assert calls.sparsity_mean == pytest.approx(0.4)  # (3 · 0.5 + 1 · 0.1) / 4
    assert calls.wer == pytest.approx(10 / 60)
    assert (old.speech_s, old.wer, old.sparsity_mean) == (0.0, None, None)


@pytest.mark.parametrize(
    ("folders", "groups"),
    [
        (["", "a", "a/b"], [".", "a"]),
        (["/in/a", "/in/b/c"], ["/in/a", "/in/b"]),
        (["s3://bucket/a", "s3://bucket/a/b"], ["s3://bucket/a", "s3://bucket/a/b"]),
        (["ab", "ac"], ["ab", "ac"]),
        ([], []),
    ],
)
def test_folders_are_told_apart_by_whole_names(folders, groups):
    assert [one.group for one in by_folder([(name, SliceFacts()) for name in folders], [])] == groups


def test_the_page_names_folders_where_there_are_several_and_no_more_than_can_be_read(output, tmp_path):
    page = report_html.render_report(make(output), datetime.now(UTC))
    assert "<td>in/calls</td>" in page
    many = [row_of(f"{n:03}/a.wav", 0) for n in range(report_html.MAX_FOLDERS + 1)]
    found = make(make_output(tmp_path / "many", [marker(0, "r1", DAY)], many, []))
    assert [table.title for table in report_html.slices(found)] == ["Folders, the 50 of 51 with most speech"]
    assert len(found.by_folder) == 51
    alone = make_output(tmp_path / "one", [marker(0, "r1", DAY)], [row_of("in/a.wav", 0)], [])
    assert report_html.slices(make(alone)) == []
