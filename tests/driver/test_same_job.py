"""A finished output and another question to it: refused, never ignored. Nothing here starts Ray."""

from __future__ import annotations

import dataclasses
import json
import wave
from datetime import UTC, datetime

import pytest

from pipeline.config import JobRequest, RunOptions
from pipeline.driver import job
from pipeline.driver.model import resolve_options
from pipeline.output.local_store import LocalStore
from pipeline.results.report import make_report
from pipeline.results.report_html import render_report
from pipeline.results.report_source import read_output
from pipeline.results.totals import job_totals, write_totals
from pipeline.sources.recording import InputError

OPTIONS = {
    **{"language": "auto", "task": "transcribe", "initial_prompt": None, "word_timestamps": False},
    **{"sparsity": 0.0, "wer_budget": None, "sparsify_layer": 2, "selector": "attention"},
    **{"voice_activity": True, "channels": "mix", "shard_hours": 1.0, "max_hours": 24.0},
}


@pytest.fixture
def finished(tmp_path):
    """The request of a job whose output is complete."""
    folder = tmp_path / "in"
    folder.mkdir()
    with wave.open(str(folder / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 16_000)
    references = tmp_path / "refs.jsonl"
    references.write_text('{"id": "a.wav", "text": "red"}\n')
    request = JobRequest(
        inputs=(str(folder),), output=str(tmp_path / "out"), model="demo", options=OPTIONS,
        references=str(references),
    )  # fmt: skip
    store = LocalStore.open(request.output)
    job._make_plan(store, request, resolve_options(request, RunOptions(), None))
    write_totals(store, {"wer": 0.5, "num_failed": 0})
    return request


def test_languages_of_a_manifest_that_the_model_does_not_know_are_refused(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "a.wav", "lang": "en"}\n{"path": "b.wav", "lang": "xx"}\n')
    request = JobRequest(
        inputs=(str(tmp_path / "m.jsonl"),), output=str(tmp_path / "out"), model="demo", options=OPTIONS
    )
    with pytest.raises(InputError, match="demo does not know the languages of some lines: xx"):
        job.run_job(request, RunOptions())


def test_another_spelling_of_the_same_input_is_the_same_job(finished):
    (folder,) = finished.inputs
    for spelling in (f"{folder}/", f"file://{folder}", f"file://{folder}/", f"{folder}/../in"):
        assert again(finished, inputs=(spelling,))["wer"] == 0.5
    with pytest.raises(job.JobMismatch, match="INPUT"):
        again(finished, inputs=(f"{folder}/a.wav",))


def test_what_was_not_taken_is_counted_in_the_totals_and_the_report(tmp_path):
    folder = tmp_path / "in"
    for name in ("a.wav", "notes.txt", "more.docx", "@eaDir/a.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    request = JobRequest(inputs=(str(folder),), output=str(folder / "out"), model="demo", options=OPTIONS)
    store = LocalStore.open(request.output)
    job._make_plan(store, request, resolve_options(request, RunOptions(), None))
    facts = read_output(request.output)
    totals = job_totals(facts, wall_s=0.0)
    assert (totals["num_skipped"], totals["num_passed_over"]) == (2, 2)  # the output is one of them
    report = make_report([facts, dataclasses.replace(facts, path="other")])
    assert (report.num_skipped, report.num_passed_over) == (4, 4)
    assert "0 failed, 8 other files left out" in render_report(report, datetime.now(UTC))


def again(request, **changes):
    return job.run_job(dataclasses.replace(request, **changes), RunOptions())


def test_the_same_again_and_no_references_are_answered_with_the_totals(finished, tmp_path):
    assert again(finished)["wer"] == 0.5
    assert again(finished, references=None)["wer"] == 0.5
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "refs.jsonl").rename(tmp_path / "moved" / "refs.jsonl")
    assert again(finished, references=str(moved))["wer"] == 0.5


def test_other_references_are_refused_with_the_command_that_scores_them(finished, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "a.wav", "text": "blue"}\n')
    with pytest.raises(job.JobMismatch, match=f"earshard evaluate .*/out --references {other}"):
        again(finished, references=str(other))
    (tmp_path / "refs.jsonl").write_text('{"id": "a.wav", "text": "green"}\n')
    with pytest.raises(job.JobMismatch, match="other --references"):
        again(finished)


def test_references_that_are_not_there_are_refused(finished, tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        again(finished, references=str(tmp_path / "none.jsonl"))


def test_references_for_a_job_that_had_none_are_refused(finished, tmp_path):
    stored = json.loads((tmp_path / "out" / "_job.json").read_text())
    (tmp_path / "out" / "_job.json").write_text(
        json.dumps(stored | {"references": None, "references_digest": None})
    )
    with pytest.raises(job.JobMismatch, match="--references"):
        again(finished)


def test_all_files_or_not_is_refused_when_it_differs(finished):
    with pytest.raises(job.JobMismatch, match="without --all-files"):
        again(finished, all_files=True)


def test_an_output_of_before_is_compared_by_the_path_of_its_references(finished, tmp_path):
    stored = json.loads((tmp_path / "out" / "_job.json").read_text())
    for name in ("references_digest", "all_files"):
        del stored[name]
    (tmp_path / "out" / "_job.json").write_text(json.dumps(stored))
    assert again(finished, all_files=True)["wer"] == 0.5
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "a.wav", "text": "red"}\n')
    with pytest.raises(job.JobMismatch, match="--references"):
        again(finished, references=str(other))
