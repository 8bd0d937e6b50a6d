"""What the trials of a search say of each setting: errors, excess, device time, positions, retries."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.adaptive.bounds import ERROR_LEVEL, Draw, upper_bound
from pipeline.adaptive.comparison import compare_texts
from pipeline.engine.languages import join_texts
from pipeline.metrics import wer
from pipeline.metrics.intervals import ratio_interval
from pipeline.search.settings import Setting
from pipeline.search.trials import Key, Trials, dense_names, shifted_names

POSITIONS_PER_S = 50
ALL = "all"

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SettingFigures:
    """One setting on one group of windows. Ratios are None where there is nothing to divide by.

    Intervals are the central 95 % of a bootstrap: of excess and device ratio over windows, of WER and its
    change over recordings, whose windows have no reference of their own.
    num_edits: word edits between this text and the dense one. excess: how much more it differs from dense
        than dense from itself, per dense word. excess_bound: what that is below with 95 % of certainty, as
        `jobs.transcribe` bounds it; infinite with few windows (see `adaptive.bounds`).
    device_ratio: device time, retries included, over that of dense under the same condition.
    kept_mean, sparsity, speech_sparsity: positions kept by the first pass of a window, and the share of
    positions that it dropped, of all and of those inside speech.
    retry_share, retry_device_share: windows that the quality gates sent back, and their part of the time.
    num_loops: windows whose final text still says one phrase over and over.
    """

    setting: str
    group: str
    num_windows: int
    num_words: int
    wer: float | None
    wer_interval: Interval | None
    wer_change: float | None
    wer_change_interval: Interval | None
    num_dense_words: int
    num_edits: int
    excess: float | None
    excess_interval: Interval | None
    excess_bound: float
    device_s: float
    device_ratio: float | None
    device_ratio_interval: Interval | None
    kept_mean: float
    sparsity: float | None
    speech_sparsity: float | None
    retry_share: float
    retry_device_share: float | None
    max_num_tokens: int
    num_loops: int

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self) | {"excess_bound": finite(self.excess_bound)}


@dataclass(frozen=True, kw_only=True)
class ComparedWindow:
    """One window under one setting, beside what dense made of it."""

    group: str
    recording_id: str
    draw: Draw
    device_s: float
    dense_device_s: float
    retry_device_s: float
    is_retried: bool
    num_tokens: int
    has_loop: bool
    num_kept: int
    num_positions: int
    num_speech_kept: int
    num_speech: int


def figures_of(
    trials: Trials, settings: Sequence[Setting], group: Callable[[str], str] | None = None
) -> list[SettingFigures]:
    """The figures of each setting over all windows, and, if asked, over those of each group.

    group: names the group of a recording_id.
    """
    found = []
    names, shifted = dense_names(settings), shifted_names(settings)
    for setting in settings:
        dense = names[setting.condition]
        group_of = group or (lambda _recording_id: ALL)
        windows = _windows(trials, (setting.name, dense, shifted[setting.condition]), group_of)
        recordings = [
            (group(one[0]) if group else ALL, one) for one in _recordings(trials, setting.name, dense)
        ]
        found.append(_summarise(setting.name, ALL, windows, [one for _, one in recordings]))
        if group is None:
            continue
        for name in sorted({window.group for window in windows}):
            members = [window for window in windows if window.group == name]
            own = [one for place, one in recordings if place == name]
            found.append(_summarise(setting.name, name, members, own))
    return found


def _windows(
    trials: Trials, names: tuple[str, str, str], group: Callable[[str], str]
) -> list[ComparedWindow]:
    """The windows of a setting. names: of the setting, of dense, of dense begun earlier."""
    own, dense, shifted = (trials.by_setting[name] for name in names)
    return [
        _window(trials, trial, dense[key], shifted[key], group(key[0])) for key, trial in sorted(own.items())
    ]


def _window(
    trials: Trials,
    trial: Mapping[str, Any],
    dense: Mapping[str, Any],
    shifted: Mapping[str, Any],
    group: str,
) -> ComparedWindow:
    truth = trials.truths.get(trial["recording_id"])
    language = truth.language if truth and truth.language else dense["language"]
    kept, speech = kept_positions(trial), speech_positions(trial, trials.speech)
    return ComparedWindow(
        group=group,
        recording_id=trial["recording_id"],
        draw=compare_texts(dense["text"], shifted["text"], trial["text"], language, dense["text_logprob"]),
        device_s=trial["device_s"],
        dense_device_s=dense["device_s"],
        retry_device_s=trial["retry_device_s"],
        is_retried=trial["fallback"] is not None,
        num_tokens=trial["num_tokens"],
        has_loop=trial["has_loop"],
        num_kept=int(kept.sum()),
        num_positions=len(kept),
        num_speech_kept=int((kept & speech).sum()),
        num_speech=int(speech.sum()),
    )


def kept_positions(trial: Mapping[str, Any]) -> np.ndarray:
    """The positions that the first pass kept: bool [positions]."""
    bits = np.unpackbits(np.frombuffer(trial["kept"], np.uint8))
    return bits[: trial["num_positions"]].astype(bool)


def speech_positions(
    trial: Mapping[str, Any], speech: Mapping[str, Sequence[tuple[float, float]]]
) -> np.ndarray:
    """The positions of a window inside speech: bool [positions].

    speech: the true spans of recordings, in seconds; for others what voice activity found, which without it
    is the whole window.
    """
    flat = trial["speech"]
    spans = speech.get(trial["recording_id"], list(zip(flat[::2], flat[1::2], strict=True)))
    inside = np.zeros(trial["num_positions"], bool)
    for start_s, end_s in spans:
        first = round((start_s - trial["start_s"]) * POSITIONS_PER_S)
        last = round((min(end_s, trial["end_s"]) - trial["start_s"]) * POSITIONS_PER_S)
        inside[max(0, first) : max(0, last)] = True
    return inside


# recording_id, counts under the setting, counts of dense
Recording = tuple[str, wer.Counts, wer.Counts]


def _recordings(trials: Trials, name: str, dense: str) -> list[Recording]:
    """Recordings that have a truth, scored whole under a setting and dense."""
    texts, dense_texts = _texts(trials.by_setting[name]), _texts(trials.by_setting[dense])
    found = []
    for recording_id, (text, language) in sorted(texts.items()):
        truth = trials.truths.get(recording_id)
        if truth is None:
            continue
        code = truth.language or language
        counts = wer.count_errors(truth.text, text, code)
        found.append((recording_id, counts, wer.count_errors(truth.text, dense_texts[recording_id][0], code)))
    return found


def _texts(found: Mapping[Key, Mapping[str, Any]]) -> dict[str, tuple[str, str | None]]:
    """The text of each recording and its language."""
    pieces: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for key in sorted(found):
        pieces[key[0]].append(found[key])
    return {
        recording_id: (
            join_texts((trial["text"] or "", trial["language"]) for trial in own),
            next((trial["language"] for trial in own if trial["language"]), None),
        )
        for recording_id, own in pieces.items()
    }


def _summarise(
    setting: str, group: str, windows: Sequence[ComparedWindow], recordings: Sequence[Recording]
) -> SettingFigures:
    counts = wer.total(own for _, own, _ in recordings)
    words = [own.num_reference_words for _, own, _ in recordings]
    errors = [own.num_errors for _, own, _ in recordings]
    changes = [own.num_errors - dense.num_errors for _, own, dense in recordings]
    draws = [w.draw for w in windows]
    excess, dense_words = [draw.excess for draw in draws], [draw.num_words for draw in draws]
    times, dense_times = [w.device_s for w in windows], [w.dense_device_s for w in windows]
    return SettingFigures(
        setting=setting,
        group=group,
        num_windows=len(windows),
        num_words=counts.num_reference_words,
        wer=counts.wer,
        wer_interval=ratio_interval(errors, words),
        wer_change=ratio(sum(changes), sum(words)),
        wer_change_interval=ratio_interval(changes, words),
        num_dense_words=sum(dense_words),
        num_edits=sum(draw.sparse_errors for draw in draws),
        excess=ratio(sum(excess), sum(dense_words)),
        excess_interval=ratio_interval(excess, dense_words),
        excess_bound=upper_bound(draws, error_level=ERROR_LEVEL),
        device_s=sum(times),
        device_ratio=ratio(sum(times), sum(dense_times)),
        device_ratio_interval=ratio_interval(times, dense_times),
        kept_mean=sum(w.num_kept for w in windows) / max(1, len(windows)),
        sparsity=dropped(windows, lambda w: w.num_kept, lambda w: w.num_positions),
        speech_sparsity=dropped(windows, lambda w: w.num_speech_kept, lambda w: w.num_speech),
        retry_share=sum(w.is_retried for w in windows) / max(1, len(windows)),
        retry_device_share=ratio(sum(w.retry_device_s for w in windows), sum(times)),
        max_num_tokens=max((w.num_tokens for w in windows), default=0),
        num_loops=sum(w.has_loop for w in windows),
    )


def dropped(
    windows: Sequence[ComparedWindow],
    kept: Callable[[ComparedWindow], int],
    there: Callable[[ComparedWindow], int],
) -> float | None:
    """The share of positions dropped."""
    share = ratio(sum(map(kept, windows)), sum(map(there, windows)))
    return None if share is None else 1.0 - share


def finite(bound: float) -> float | None:
    """A bound as JSON knows it: None where nothing is known."""
    return bound if math.isfinite(bound) else None


def ratio(above: float, below: float) -> float | None:
    """None where there is nothing to divide by."""
    return above / below if below else None
