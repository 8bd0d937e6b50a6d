"""The comparison: every program over the corpus, scored by set, as figures and as a page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.benchmark.accuracy.onsets import onsets
from pipeline.benchmark.accuracy.programs import decoded
from pipeline.benchmark.accuracy.runs import Request, run_program
from pipeline.benchmark.accuracy.scores import Score, score, summary
from pipeline.results.page import Table, page

ALL = "all"
Figures = dict[str, dict[str, Any]]  # by set


def compare(request: Request, programs: Sequence[str]) -> dict[str, Any]:
    """Runs what is left to run, and writes `accuracy.json` and `accuracy.html` after every program."""
    request.output.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, Any] = {"manifest": request.manifest.name, "model": request.model.name, "programs": {}}
    onsets_s = {
        one.file: list(onsets(decoded(one), [start_s for start_s, _ in one.sentences]))
        for one in request.recordings
        if one.sentences
    }
    for name in programs:
        rows = run_program(name, request)
        outcome["programs"][name] = {
            "cpu_s": sum(row["cpu_s"] for row in rows),
            "audio_s": sum(one.duration_s for one in request.recordings),
            "sets": _by_set(request, rows, onsets_s),
        }
        (request.output / "accuracy.json").write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
        (request.output / "accuracy.html").write_text(render(outcome), encoding="utf-8")
    return outcome


def _by_set(
    request: Request, rows: Sequence[Mapping[str, Any]], onsets_s: Mapping[str, Sequence[float]]
) -> Figures:
    scores: defaultdict[str, list[Score]] = defaultdict(list)
    asked_language = request.asks_language
    for one, heard in zip(request.recordings, rows, strict=True):
        found = score(one, heard, asked_language=asked_language, onsets_s=onsets_s.get(one.file, ()))
        scores[one.group].append(found)
        scores[ALL].append(found)
        if asked_language and not one.is_silent:
            scores[f"language {one.language}"].append(found)
    return {name: summary(own) for name, own in scores.items()}


def tables(outcome: Mapping[str, Any]) -> Iterator[Table]:
    """What the page and the terminal show."""
    programs = outcome["programs"]
    names = list(next(iter(programs.values()))["sets"])
    yield Table(
        title="Word error rate by set, with the central 95 % of a bootstrap over recordings",
        header=("set", "words", *programs),
        rows=tuple(
            (name, _words(programs, name), *(_rate(one["sets"][name]) for one in programs.values()))
            for name in names
        ),
    )
    totals = {name: one["sets"][ALL] for name, one in programs.items()}
    yield Table(
        title="All recordings",
        header=("", *programs),
        rows=(
            *((title, *map(show, totals.values())) for title, show in ROWS.items()),
            ("CPU time", *(f"{one['cpu_s']:.0f} s" for one in programs.values())),
        ),
    )


def _words(programs: Mapping[str, Any], name: str) -> str:
    return str(next(iter(programs.values()))["sets"][name]["num_words"])


def _rate(found: Mapping[str, Any]) -> str:
    if found["wer"] is None:
        return f"{found['num_invented']} invented words"
    low, high = found["wer_interval"]
    return f"{found['wer']:.2%} ({low:.2%} to {high:.2%})"


def _start(name: str) -> Callable[[Mapping[str, Any]], str]:
    def shown(found: Mapping[str, Any]) -> str:
        median, p95 = found[f"{name}_median_s"], found[f"{name}_p95_s"]
        return "-" if median is None else f"{median:.3f} s, {p95:.3f} s ({found['num_starts']})"

    return shown


ROWS = {
    "word error rate": _rate,
    "substitutions": lambda found: str(found["num_substitutions"]),
    "deletions": lambda found: str(found["num_deletions"]),
    "insertions": lambda found: str(found["num_insertions"]),
    "first words right": lambda found: str(found["num_first_right"]),
    "last words right": lambda found: str(found["num_last_right"]),
    "edges between windows": lambda found: str(found["num_edges"] or "-"),
    "words lost there": lambda found: str(found["num_lost_at_edges"]) if found["num_edges"] else "-",
    "words doubled there": lambda found: str(found["num_doubled_at_edges"]) if found["num_edges"] else "-",
    "words invented where nobody speaks": lambda found: str(found["num_invented"]),
    "segments start off the sound of their sentences by: median, 95th percentile (sentences)": _start(
        "start_error"
    ),
    "and off the corpus's own times by": _start("start_error_as_stated"),
    "languages right": lambda found: (
        "-" if found["language_accuracy"] is None else f"{found['language_accuracy']:.1%}"
    ),
}


def render(outcome: Mapping[str, Any]) -> str:
    """The page."""
    return page(
        "accuracy.html.j2", model=outcome["model"], manifest=outcome["manifest"], tables=list(tables(outcome))
    )
