"""What a search leaves in its output: figures as JSON, a page and a policy; and its table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.adaptive import policy_file
from pipeline.adaptive.certainty import floor_of
from pipeline.output.store import Store
from pipeline.results.page import Table, page
from pipeline.search import choice
from pipeline.search import plots as places
from pipeline.search.choice import Candidate
from pipeline.search.driver import SearchResult
from pipeline.search.figures import ALL, Interval, SettingFigures, figures_of
from pipeline.search.profile import OperationTime
from pipeline.search.settings import level_name, with_floor
from pipeline.search.trials import Trials
from pipeline.wording import counted

FIGURES, PAGE, POLICY = "search.json", "search.html", "policy.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A search that is judged: figures of every setting, the levels worth using, where the time goes."""

    question: str
    found: SearchResult
    figures: Sequence[SettingFigures]
    candidates: Sequence[Candidate]
    front: Sequence[Candidate]
    best: Candidate | None
    wer_budget: float
    parts: Sequence[OperationTime]

    @property
    def num_failed(self) -> int:
        return len({failure["recording_id"] for row in self.found.rows for failure in row["failures"]})


def judge_search(
    found: SearchResult,
    *,
    question: str,
    wer_budget: float,
    group: Callable[[str], str] | None,
    parts: Sequence[OperationTime] = (),
) -> Outcome:
    """The figures of a search, and which of its levels are worth using within the budget."""
    trials = Trials.collect(found.rows, found.truths, found.speech)
    dense = trials.by_setting[found.settings[0].name]
    settings = with_floor(found.settings, floor_of(trial["logprob"] for trial in dense.values()))
    figures = figures_of(trials.guarded(settings), settings, group)
    candidates = choice.candidates(settings, figures)
    return Outcome(
        question=question,
        found=found,
        figures=figures,
        candidates=candidates,
        front=choice.front(candidates),
        best=choice.best(candidates, wer_budget),
        wer_budget=wer_budget,
        parts=parts,
    )


def write(store: Store, outcome: Outcome) -> dict[str, Any]:
    """Write figures, page and policy; returns what the command prints as its last line."""
    plots = places.search_plots(outcome.found.settings, outcome.figures, outcome.front, outcome.wer_budget)
    summary = search_totals(str(store.root), outcome)
    details = {
        "figures": [one.as_dict() for one in outcome.figures],
        "failures": [failure for row in outcome.found.rows for failure in row["failures"]],
    }
    store.replace(FIGURES, json.dumps(summary | details, indent=2, ensure_ascii=False).encode())
    store.replace(PAGE, render_search(outcome, plots, datetime.now(UTC)).encode())
    store.replace(POLICY, make_policy(outcome).as_json().encode())
    return summary


def search_totals(output: str, outcome: Outcome) -> dict[str, Any]:
    """The figures that matter most."""
    dense = next(one for one in outcome.figures if one.group == ALL)
    options = outcome.found.options
    return {
        "output": output,
        "model": options.model,
        "model_revision": options.model_revision,
        "device": outcome.found.rows[0]["device"],
        "num_settings": len(outcome.found.settings),
        "num_windows": dense.num_windows,
        "num_words": dense.num_words,
        "num_failed": outcome.num_failed,
        "left_out": list(outcome.found.left_out),
        "dense_wer": dense.wer,
        "wer_budget": outcome.wer_budget,
        "best": None if outcome.best is None else outcome.best.as_dict(),
        "front": [one.as_dict() for one in outcome.front],
        "parts": [one.as_dict() for one in outcome.parts],
        "policy": f"{output}/{POLICY}",
    }


def make_policy(outcome: Outcome) -> policy_file.PolicyFile:
    """The levels within the budget, with what was measured of them."""
    options = outcome.found.options
    return choice.policy(
        outcome.candidates,
        outcome.wer_budget,
        model=options.model,
        model_revision=options.model_revision,
        evidence={
            "question": outcome.question,
            "wer_budget": outcome.wer_budget,
            "measured": [one.as_dict() for one in outcome.candidates],
        },
    )


def render_search(outcome: Outcome, plots: Sequence[places.Plot], made_at: datetime) -> str:
    """The page of a search; it loads nothing."""
    return page(
        "search.html.j2",
        title=f"Search with {outcome.found.options.model}",
        question=outcome.question,
        made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
        lines=remarks(outcome),
        plots=plots,
        tables=search_tables(outcome),
        **{
            name: getattr(places, name.upper())
            for name in ("width", "height", "left", "top", "right", "bottom")
        },
    )


def remarks(outcome: Outcome) -> list[str]:
    """What a reader must know beside the table."""
    budget = f"{outcome.wer_budget:.1%}"
    lines = [
        f"The best level within an excess of {budget}: {outcome.best.name}, at "
        f"{outcome.best.device_ratio:.2f} of dense's device time, its excess below {outcome.best.bound:.2%}."
        if outcome.best
        else f"No level is both faster than dense and surely within an excess of {budget}."
    ]
    floors = (one.level.min_logprob for one in outcome.candidates)
    floor = next((floor for floor in floors if floor is not None), None)  # they all have the same
    if floor is not None:
        lines.append(
            f"Levels that thin the ends: text with a mean log-probability below {floor} counts as dense "
            "made it, with the time of both."
        )
    if outcome.found.left_out:
        lines.append(f"Left out, their layer is above the model's: {', '.join(outcome.found.left_out)}.")
    if outcome.num_failed:
        lines.append(f"Left out, could not be read: {counted(outcome.num_failed, 'recording')}.")
    if outcome.found.rows[0]["device"] == "cpu":
        lines.append("Device times on a CPU are wall-clock: what else the machine did is in them.")
    return lines


HEADER = (
    *("", "windows", "words", "WER", "95 %", "change", "excess", "95 %", "time", "95 %"),
    *("kept", "dropped", "of speech", "retried", "of time", "tokens", "loops"),
)


def search_tables(outcome: Outcome) -> list[Table]:
    """A table of all windows, one for each group, and one of the parts of a window's time."""
    groups = sorted({one.group for one in outcome.figures} - {ALL})
    marks = _marks(outcome)
    found = []
    for group in (ALL, *groups):
        rows = [_row(one, marks) for one in outcome.figures if one.group == group]
        found.append(Table(title="All windows" if group == ALL else group, header=HEADER, rows=tuple(rows)))
    if outcome.parts:
        found.append(_parts_table(outcome.parts))
    return found


def _marks(outcome: Outcome) -> dict[str, str]:
    """A star for settings on the Pareto front, two for the best within the budget."""
    front = {one.name for one in outcome.front}
    best = outcome.best.name if outcome.best else None
    return {
        setting.name: " **" if level_name(setting.level) == best else " *"
        for setting in outcome.found.settings
        if level_name(setting.level) in front | {best}
    }


def _row(one: SettingFigures, marks: dict[str, str]) -> tuple[str, ...]:
    return (
        one.setting + marks.get(one.setting, ""),
        f"{one.num_windows:,}",
        f"{one.num_words:,}",
        _percent(one.wer),
        _interval(one.wer_interval),
        "-" if one.wer_change is None else f"{one.wer_change:+.2%}",
        _percent(one.excess),
        _interval(one.excess_interval),
        _number(one.device_ratio),
        "-" if one.device_ratio_interval is None else "{:.2f}-{:.2f}".format(*one.device_ratio_interval),
        f"{one.kept_mean:.0f}",
        _percent(one.sparsity, 1),
        _percent(one.speech_sparsity, 1),
        f"{one.retry_share:.1%}",
        _percent(one.retry_device_share, 1),
        f"{one.max_num_tokens}",
        f"{one.num_loops}",
    )


def _parts_table(parts: Sequence[OperationTime]) -> Table:
    rows = tuple(
        (one.name, f"{1000 * one.dense_s:.1f}", f"{1000 * one.sparse_s:.1f}", _share(one, parts))
        for one in parts
    )
    return Table(title="Milliseconds a window", header=("", "dense", "sparse", "of sparse"), rows=rows)


def _share(one: OperationTime, parts: Sequence[OperationTime]) -> str:
    return _percent(one.sparse_s / sum(other.sparse_s for other in parts), 1)


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"
