"""A decoded shard under every setting of a search: windows in, what became of each under each setting out.

The settings take turns on every shard, and which of them is first changes from shard to shard, so that a
machine that is busy for a while slows all of them and none in particular.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from pipeline.adaptive.comparison import begun_earlier, by_root
from pipeline.dataflow.stages import RoundContext
from pipeline.engine.options import LANGUAGE_MODES
from pipeline.longform.placed import (
    PlacedResult,
    PlacedWindow,
    first_pass_logprob,
    placed_windows,
    text_logprob,
    text_of,
    window_seed,
)
from pipeline.longform.transcribe import Transcriber, transcribe_windows
from pipeline.output import attempts, files
from pipeline.schema import table_of
from pipeline.search.settings import Condition, Setting
from pipeline.search.trial_schema import DONE, SHARD_TRIALS

if TYPE_CHECKING:
    from pipeline.engine.results import WindowResult
    from pipeline.engine.sparsify.level import Level

FOLDER = "trials"
FULL_SCALE = 32_768
MAX_TIMED = 8  # windows of a shard whose parts are timed
AUDIBLE = 1e-4  # of full scale: quieter samples do not count for the level of the speech


@runtime_checkable
class TimedEngine(Protocol):
    """An engine that can time its parts."""

    def profile(
        self, windows: Sequence[np.ndarray], *, level: Level, language: str | None
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds by part, dense and at a level."""
        ...


@dataclass(frozen=True, kw_only=True)
class SearchEngines:
    """The engines of a search, one for each batch size that it tries, and the settings.

    timed_level: the level whose parts are timed beside those of dense; None: none are.
    """

    engines: Mapping[int | None, Transcriber]
    settings: Sequence[Setting]
    timed_level: Level | None = None

    @property
    def device(self) -> str:
        return next(iter(self.engines.values())).device


class TryShard:
    """Try every setting on one decoded shard: a row of `SHARD_AUDIO` in, a row of `SHARD_TRIALS` out."""

    def __init__(self, this_round: RoundContext) -> None:
        self._round = this_round
        self._bench: SearchEngines = this_round.make_worker()
        self._one_at_a_time = threading.Lock()  # settings that share the device cannot be compared

    def __call__(self, audio: pa.Table) -> pa.Table:
        unit = attempts.shard_unit(audio.column("shard_id")[0].as_py())
        with self._one_at_a_time, self._round.marked(unit):
            return try_shard(audio, self._bench, language=self._round.language)


def try_shard(shard: pa.Table, bench: SearchEngines, *, language: str) -> pa.Table:
    """Decode the windows of a shard (a row of `SHARD_AUDIO`) under every setting.

    language: a code, or `auto`, as for `jobs.transcribe`. Returns a row of `SHARD_TRIALS`.
    """
    row = {name: shard.column(name)[0] for name in shard.column_names}
    shard_id, recordings = row["shard_id"].as_py(), row["recordings"].as_py()
    windows = placed_windows(row)
    conditions = {
        condition: _under(condition, windows, recordings)
        for condition in {setting.condition for setting in bench.settings}
    }
    trials: list[dict[str, Any]] = []
    for setting in _rotated(bench.settings, shard_id):
        heard = conditions[setting.condition]
        if setting.is_shifted:
            heard = [begun_earlier(window) for window in heard]
        engine = bench.engines[setting.condition.batch_size]
        results = by_root(transcribe_windows(heard, recordings, engine, language, setting.level))
        trials += [
            _trial(setting, window, results[own.root], recordings[window.recording])
            for window, own in zip(windows, heard, strict=True)
        ]
    timed = _timed(bench, windows)
    row_of_shard = {
        "shard_id": shard_id,
        "audio_s": sum(recording["duration_s"] or 0.0 for recording in recordings),
        "device_s": sum(trial["device_s"] for trial in trials),
        "trials": trials,
        "failures": _failures(recordings, row["overflow"].as_py()),
        "parts": _profiles(bench, timed, language),
        "num_timed": len(timed),
        "device": bench.device,
        "host": socket.gethostname(),
    }
    return table_of(SHARD_TRIALS, [row_of_shard])


def _timed(bench: SearchEngines, windows: Sequence[PlacedWindow]) -> list[PlacedWindow]:
    """The windows of a shard whose parts are timed: as many as decode side by side."""
    return [] if bench.timed_level is None else [w for w in windows if len(w.samples)][:MAX_TIMED]


def _profiles(bench: SearchEngines, windows: Sequence[PlacedWindow], language: str) -> list[dict[str, Any]]:
    """A `PART` for each part of the engine, dense and sparse in turn."""
    if bench.timed_level is None or not windows:
        return []
    engine = next(iter(bench.engines.values()))
    assert isinstance(engine, TimedEngine)
    samples, code = [window.samples for window in windows], None if language in LANGUAGE_MODES else language
    dense, sparse = engine.profile(samples, level=bench.timed_level, language=code)
    return [{"name": name, "dense_s": dense[name], "sparse_s": sparse[name]} for name in dense]


def _rotated(settings: Sequence[Setting], shard_id: int) -> deque[Setting]:
    turned = deque(settings)
    turned.rotate(shard_id)
    return turned


def _under(
    condition: Condition, windows: Sequence[PlacedWindow], recordings: Sequence[Mapping[str, Any]]
) -> list[PlacedWindow]:
    if condition.snr_db is None:
        return list(windows)
    return [
        replace(
            window,
            samples=with_noise(
                window.samples,
                condition.snr_db,
                seed=window_seed(recordings[window.recording], window.start_s),
            ),
        )
        for window in windows
    ]


def with_noise(samples: np.ndarray, snr_db: float, *, seed: int) -> np.ndarray:
    """Pink noise under a window, `snr_db` below the mean power of its audible samples: int16 [time]."""
    signal = samples.astype(np.float32) / FULL_SCALE
    audible = signal[np.abs(signal) > AUDIBLE]
    if not len(audible):
        return samples
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(signal)))
    spectrum[0] = 0.0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, len(signal))
    level = np.sqrt(np.mean(audible**2)) * 10 ** (-snr_db / 20) / noise.std()
    mixed = (signal + level * noise) * FULL_SCALE
    return np.rint(mixed).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _trial(
    setting: Setting, window: PlacedWindow, own: list[PlacedResult], recording: Mapping[str, Any]
) -> dict[str, Any]:
    """A `TRIAL`: a window of the shard, with the results of all that it was heard as."""
    found = [done.result for done in own]
    fallbacks = [result.fallback for result in found if result.fallback is not None]
    return {
        "setting": setting.name,
        "recording_id": recording["recording_id"],
        "part": recording["part"],
        "start_s": window.start_s,
        "end_s": window.end_s,
        "speech": [edge for span in window.speech for edge in span],
        "text": text_of(own),
        "language": found[0].language,
        "num_tokens": sum(result.num_tokens for result in found),
        "kept_positions": sum(result.kept_positions for result in found),
        "total_positions": sum(result.total_positions for result in found),
        "num_positions": found[0].total_positions,
        "kept": kept_bits(found[0]),
        "has_loop": any(map(has_loop, found)),
        "device_s": sum(result.device_s for result in found),
        "retry_device_s": sum(result.retry_device_s for result in found),
        "fallback": "; ".join(fallbacks) or None,
        "logprob": first_pass_logprob(own),
        "text_logprob": text_logprob(own),
    }


def kept_bits(result: WindowResult) -> bytes:
    """The positions that a window's first pass kept, a bit each."""
    bits = np.zeros(result.total_positions, bool)
    bits[list(range(result.total_positions)) if result.kept is None else list(result.kept)] = True
    return np.packbits(bits).tobytes()


def has_loop(result: WindowResult) -> bool:
    """Whether a final text says one phrase over and over."""
    from pipeline.engine.decoding.loops import find_loop

    return find_loop([token for segment in result.segments for token in segment.tokens]) is not None


def _failures(
    recordings: Sequence[Mapping[str, Any]], overflow: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What could not be decoded, and what is longer than a search takes."""
    unread = [
        {name: recording[name] for name in ("recording_id", "error_type", "error_message")}
        for recording in recordings
        if recording["error_type"] is not None
    ]
    return unread + [
        {
            "recording_id": row["recording_id"],
            "error_type": "too_long",
            "error_message": f"{row['uri']}: a search takes recordings of up to 4 hours",
        }
        for row in overflow
    ]


def trials_name(shard_id: int) -> str:
    """The name of a shard's trials in the output."""
    return f"{FOLDER}/{files.shard_name(shard_id)}.parquet"


def commit_trials(result: pa.Table, this_round: RoundContext) -> pa.Table:
    """Commit one shard, once: a row of `SHARD_TRIALS` in, a row of `DONE` out."""
    table = result.select(SHARD_TRIALS.names).cast(SHARD_TRIALS)
    row = table.to_pylist()[0]
    this_round.store.publish(trials_name(row["shard_id"]), files.parquet_bytes(table))
    done = {name: row[name] for name in ("shard_id", "audio_s", "device_s")}
    return table_of(DONE, [done | {"num_failed": len(row["failures"])}])
