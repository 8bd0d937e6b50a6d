"""Doubtful passages: ranked by what listening finds, written as page, table and Parquet."""

from __future__ import annotations

import csv
import json
import random

import pyarrow.parquet as pq
import pytest

import jobs.review
from pipeline.results import review_curve, review_files
from pipeline.results.recordings import join_rows
from pipeline.results.review import WEIGHTS, passages, ranked, signs_of
from tests.commands import run_here
from tests.results.test_exports import make_output, segment, transcript

FINE, BAD = "plain words that are right", "other words that are wrong"


def recording(name="a", segments=(), **changes):
    return join_rows([transcript(name, segments, **changes)])


def review(out, *more, status=0):
    done = run_here(jobs.review.review, out, *more)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if status != 2 else done.stderr


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"avg_logprob": -1.5}, "the model was unsure"),
        ({"fallback": "temperature=0.4"}, "it was decoded again"),
        ({"compression_ratio": 3.0}, "it repeats itself"),
        ({"no_speech_prob": 0.9}, "perhaps nobody speaks"),
        ({"doubt": "no_speech"}, "nobody was heard there"),
    ],
)
def test_each_sign_of_error_comes_before_what_has_none_and_is_named(changes, reason):
    segments = [segment(FINE, 0.0, 3.0), segment(FINE, 3.0, 6.0, **changes)]
    fine, doubtful = passages(recording(segments=segments))
    assert ranked([fine, doubtful])[0] is doubtful
    assert doubtful.error_rate > fine.error_rate
    assert reason in doubtful.reasons
    assert reason not in fine.reasons


def test_an_unsure_language_raises_doubt():
    sure, unsure = (recording(segments=[segment(FINE)], language_probability=p) for p in (0.99, 0.3))
    assert passages(unsure)[0].error_rate > passages(sure)[0].error_rate


def test_text_too_fast_or_too_slow_for_its_time_is_a_sign():
    found = [signs_of(recording(), segment("x" * 100, 0.0, end_s)) for end_s in (1.0, 10.0, 100.0)]
    assert [one["fast"] > 0 for one in found] == [True, False, False]
    assert [one["slow"] > 0 for one in found] == [False, False, True]


def test_words_that_are_known_say_more_of_a_segment_than_its_window():
    words = [{"start_s": 0.0, "end_s": 1.0, "word": " x", "probability": 0.1}]
    assert signs_of(recording(), segment("x", words=words))["logprob"] > 2.0 - 1e-9
    assert signs_of(recording(), segment("x", words=words))["window"] == pytest.approx(0.2)
    assert signs_of(recording(), segment("x"))["logprob"] == pytest.approx(0.2)


def test_what_takes_long_to_hear_for_the_same_errors_comes_later():
    segments = [segment(FINE, 0.0, 30.0, avg_logprob=-1.0), segment(FINE, 30.0, 34.0, avg_logprob=-1.0)]
    assert [one.start_s for one in ranked(passages(recording(segments=segments)))] == [30.0, 0.0]


def test_errors_are_counted_in_the_segment_that_has_them():
    segments = [segment("red green", 0.0, 1.0), segment("blew white", 1.0, 2.0), segment("black", 2.0, 3.0)]
    assert review_curve.known(recording(segments=segments), "red green blue white black grey").errors == (
        0,
        1,
        1,
    )
    assert review_curve.known(recording(), "red green").num_missed == 2
    assert review_curve.known(recording(segments=segments), "").errors == (2, 2, 1)


def test_characters_count_in_a_language_without_spaces():
    one = recording(segments=[segment("今日", 0.0, 1.0), segment("東京です", 1.0, 2.0)], language="ja")
    assert review_curve.known(one, "今日京です").errors == (0, 1)


def corpus(number=60):
    """Recordings whose unsure segments are wrong, and others."""
    draw = random.Random(1)
    found = []
    for name in range(number):
        is_bad = [draw.random() < 0.2 for _ in range(5)]
        segments = [
            segment(BAD if bad else FINE, 3.0 * i, 3.0 * i + 3.0, avg_logprob=-1.2 if bad else -0.2)
            for i, bad in enumerate(is_bad)
        ]
        found.append(review_curve.known(recording(f"r{name}", segments), " ".join([FINE] * 5)))
    return found


def test_a_ranking_that_knows_where_the_errors_are_finds_half_in_a_fraction_of_the_audio():
    known = corpus()
    found = review_curve.curve(known)
    bad = sum(any(error for error in [one]) for each in known for one in each.errors) / (5 * len(known))
    assert found.half_share == pytest.approx(bad / 2, abs=0.02)
    assert found.half_listening_share == pytest.approx(found.half_share * 4 / 3)  # a second for each of 3
    assert found.found[0.3] == pytest.approx(1.0)
    assert found.num_errors == sum(sum(one.errors) for one in known)


def test_weights_are_fitted_to_the_sign_that_tells_and_to_no_other():
    first, second = review_curve.halves(corpus())
    assert first
    assert second
    weights = review_curve.fit(first)
    assert weights.keys() == WEIGHTS.keys()
    assert weights["logprob"] == max(weights[name] for name in weights if name != "bias")
    assert all(weights[name] >= 0 for name in weights if name != "bias")
    assert review_curve.curve(second, weights).half_share < 0.2


@pytest.fixture
def output(tmp_path):
    doubtful = segment("=cmd <b>unsure</b>", 3.0, 6.0, avg_logprob=-1.4)
    rows = [transcript("a.wav", [segment(FINE), doubtful]), transcript("silent.wav")]
    return make_output(tmp_path / "out", rows)


def test_the_list_is_a_page_a_table_or_parquet(output):
    found = review(output)
    assert (found["num_segments"], found["num_listed"], found["num_faults"]) == (2, 2, 0)
    page = (output / "review.html").read_text()
    assert page.index("unsure") < page.index(FINE)
    assert "<b>" not in page
    review(output, "--format", "csv", "--limit", 1)
    (line,) = csv.DictReader((output / "review.csv").open())
    assert (line["recording_id"], line["start_s"]) == ("a.wav", "3.0")
    assert line["text"].startswith("'=cmd")
    review(output, "--format", "parquet", "--output", output / "x.parquet")
    table = pq.read_table(output / "x.parquet")
    assert table.schema == review_files.REVIEW
    assert table.column("start_s").to_pylist() == [3.0, 0.0]
    assert "the model was unsure" in table.column("reasons")[0].as_py()


def test_references_tell_what_the_ranking_finds(output, tmp_path):
    references = tmp_path / "refs.jsonl"
    references.write_text(json.dumps({"id": "a.wav", "text": FINE}) + "\n")
    found = review(output, "--references", references)
    assert found["num_errors"] == 2  # as many words as the doubtful segment has, its mark-up left out
    assert found["audio_share_of_half_the_errors"] == 0.5
    assert "too few recordings" in review(output, "--references", references, "--fit", status=2)
    assert "--fit needs --references" in review(output, "--fit", status=2)


def test_a_file_that_cannot_be_written_is_one_line(output, tmp_path):
    for kind in ("html", "csv", "parquet"):
        path = tmp_path / "none" / "x"
        assert f"error: {path}" in review(output, "--format", kind, "--output", path, status=2)
