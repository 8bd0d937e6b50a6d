"""The plots of a search: figures to places in a plot's coordinates. Pure functions; others draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.results.plot_axes import Axes, ticks
from pipeline.search.choice import Candidate
from pipeline.search.figures import ALL, SettingFigures
from pipeline.search.settings import Setting, level_name

WIDTH, HEIGHT = 640.0, 400.0
LEFT, TOP, RIGHT, BOTTOM = 62.0, 16.0, 624.0, 344.0  # of the axes
NUM_TICKS = 5
# Okabe and Ito's colours, which colour-blind readers tell apart; a series past the last starts over.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c6bb1", "#777777")


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A setting in a plot, with its interval (top, bottom).

    label: "" where it would crowd the plot. is_far: so far right that its label belongs on its left.
    """

    x: float
    y: float
    span: tuple[float, float]
    label: str
    is_far: bool
    name: str


@dataclass(frozen=True, kw_only=True)
class DotSeries:
    """Dots of one colour; `is_joined`: with a line through them."""

    key: str
    colour: str
    dots: tuple[Dot, ...]
    is_joined: bool


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Everything that is drawn, in a plot's coordinates. Ticks are (place, label)."""

    title: str
    note: str
    x_title: str
    y_title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    series: tuple[DotSeries, ...]
    front: tuple[tuple[float, float], ...] = ()
    budget_y: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Value:
    """A dot before it is placed."""

    key: str
    name: str
    x: float
    y: float
    low: float
    high: float
    is_labelled: bool = False


def search_plots(
    settings: Sequence[Setting],
    figures: Sequence[SettingFigures],
    best_levels: Sequence[Candidate],
    wer_budget: float,
) -> list[Plot]:
    """Loss against device time with the Pareto front, and excess against sparsity over speech."""
    by_name = {one.setting: one for one in figures if one.group == ALL}
    sparse = [(setting, by_name[setting.name]) for setting in settings if setting.level is not None]
    names = {candidate.name for candidate in best_levels}
    found = [
        _excess_by_time(sparse, names, wer_budget),
        _excess_by_sparsity(sparse, names, wer_budget),
    ]
    return [plot for plot in found if plot is not None]


Pairs = Sequence[tuple[Setting, SettingFigures]]


def _excess_by_time(pairs: Pairs, names: set[str], wer_budget: float) -> Plot | None:
    values = _values(pairs, names, lambda one: one.device_ratio)
    if not values:
        return None
    axes = _axes(values, (0.0, 1.0), wer_budget)
    front = sorted((axes.x(value.x), axes.y(value.y)) for value in values if value.is_labelled)
    return _plot(
        "Loss and device time",
        "Each setting beside dense in the same run. The line joins those that no other beats in both.",
        "device time over dense, retries included",
        values,
        axes,
        wer_budget,
        front=tuple(front) if len({pair[0].condition for pair in pairs}) == 1 else (),
    )


def _excess_by_sparsity(pairs: Pairs, names: set[str], wer_budget: float) -> Plot | None:
    values = _values(pairs, names, lambda one: one.speech_sparsity)
    if not values:
        return None
    axes = _axes(values, (0.0, 0.1), wer_budget)
    return _plot(
        "Loss and sparsity over speech",
        "Positions dropped of those inside speech; what was dropped of silence and padding does not count.",
        "share of speech positions dropped",
        values,
        axes,
        wer_budget,
        is_joined=True,
    )


def _values(pairs: Pairs, names: set[str], x_of: Callable[[SettingFigures], float | None]) -> list[_Value]:
    key_of = _key_of(pairs)
    found = []
    for setting, one in pairs:
        x = x_of(one)
        if one.excess is None or one.excess_interval is None or x is None:
            continue
        low, high = one.excess_interval
        is_labelled = level_name(setting.level) in names
        found.append(
            _Value(
                key=key_of(setting), name=setting.name, x=x, y=one.excess, low=low, high=high,
                is_labelled=is_labelled,
            )
        )  # fmt: skip
    return found


def _key_of(pairs: Pairs) -> Callable[[Setting], str]:
    """What tells the series apart: condition and selector, else selector and layer, else the layer."""
    levels = {setting: setting.level for setting, _ in pairs if setting.level is not None}
    if len({setting.condition for setting in levels}) > 1:
        return lambda setting: f"{setting.condition.name or 'as it is'} {levels[setting].selector}"
    if len({level.selector for level in levels.values()}) == 1:
        return lambda setting: f"i = {levels[setting].layer}"
    if len({level.layer for level in levels.values()}) == 1:
        return lambda setting: levels[setting].selector
    return lambda setting: f"{levels[setting].selector} i = {levels[setting].layer}"


def _axes(values: Sequence[_Value], at_least: tuple[float, float], wer_budget: float) -> Axes:
    """Axes that hold the values with their intervals, the budget and 0."""
    xs = [value.x for value in values]
    lowest = min(0.0, *(value.low for value in values))
    highest = max(1.4 * wer_budget, *(value.high for value in values), 1e-3)
    return Axes(
        left=LEFT, top=TOP, right=RIGHT, bottom=BOTTOM,
        x_range=(min(at_least[0], *xs, 0.0), 1.05 * max(at_least[1], *xs)), y_range=(lowest, highest),
    )  # fmt: skip


def _plot(
    title: str,
    note: str,
    x_title: str,
    values: Sequence[_Value],
    axes: Axes,
    wer_budget: float,
    *,
    is_joined: bool = False,
    front: tuple[tuple[float, float], ...] = (),
) -> Plot:
    keys = list(dict.fromkeys(value.key for value in values))
    return Plot(
        title=title,
        note=note,
        x_title=x_title,
        y_title="excess errors per dense word",
        x_ticks=tuple((axes.x(tick), f"{tick:g}") for tick in ticks(*axes.x_range, NUM_TICKS)),
        y_ticks=tuple((axes.y(tick), f"{100 * tick:g} %") for tick in ticks(*axes.y_range, NUM_TICKS)),
        series=tuple(
            DotSeries(
                key=key,
                colour=COLOURS[number % len(COLOURS)],
                dots=tuple(_dot(value, axes) for value in sorted(_of(values, key), key=lambda one: one.x)),
                is_joined=is_joined,
            )
            for number, key in enumerate(keys)
        ),
        front=front,
        budget_y=axes.y(wer_budget),
    )


def _of(values: Sequence[_Value], key: str) -> list[_Value]:
    return [value for value in values if value.key == key]


def _dot(value: _Value, axes: Axes) -> Dot:
    return Dot(
        x=axes.x(value.x),
        y=axes.y(value.y),
        span=(axes.y(value.high), axes.y(value.low)),
        label=value.name if value.is_labelled else "",
        is_far=axes.x(value.x) > (LEFT + 3 * RIGHT) / 4,
        name=f"{value.name}: excess {value.y:.2%} ({value.low:.2%} to {value.high:.2%}), at {value.x:.2f}",
    )
