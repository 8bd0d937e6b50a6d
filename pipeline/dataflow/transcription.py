"""A decoded shard through the engine: windows in, transcript rows and what they cost out."""

from __future__ import annotations

import math
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.adaptive.comparison import heard_languages
from pipeline.adaptive.shadow import Sample, Shadow, ShardLevel
from pipeline.engine.options import LANGUAGE_MODES
from pipeline.longform.beside import beside
from pipeline.longform.coverage import doubt_of
from pipeline.longform.languages import SURE, speech_by_language
from pipeline.longform.placed import PlacedResult, PlacedWindow, placed_windows, text_of
from pipeline.longform.transcribe import Transcriber, transcribe_windows
from pipeline.metrics import cost
from pipeline.metrics.shard import sparsity as sparsity_of
from pipeline.schema import SHARD_RESULT, TRANSCRIPTS, table_of

if TYPE_CHECKING:
    from pipeline.engine.results import Segment, Word


def transcribe_shard(
    shard: pa.Table, engine: Transcriber, *, language: str, sparsity: ShardLevel | None = None
) -> pa.Table:
    """Transcribe one decoded shard.

    Args:
        shard: one row of `SHARD_AUDIO`.
        engine: the model.
        language: a code, `auto` (each recording has one) or `each` (each window has one).
        sparsity: the level that adaptive sparsity has chosen for the shard; None: as the engine was made.

    Returns:
        One row of `SHARD_RESULT`.
    """
    started_at, started = datetime.now(UTC), time.perf_counter()
    row = {name: shard.column(name)[0] for name in shard.column_names}
    recordings = row["recordings"].as_py()
    windows = placed_windows(row)
    results, shadow, shadow_s = _with_shadow(windows, recordings, engine, language, sparsity)
    by_recording: defaultdict[int, list[PlacedResult]] = defaultdict(list)
    for done in results:
        by_recording[done.window.recording].append(done)
    transcripts = [
        _transcript(recording, by_recording[index], row, engine.model_name)
        for index, recording in enumerate(recordings)
    ]
    measures = {
        **_measures(results, engine, shadow_s),
        "slowest": cost.slowest_recordings(_times(results, recordings)),
        **shadow.as_dict(),
        "level": None if sparsity is None else sparsity.rung,
        "wall_s": time.perf_counter() - started,
        "started_at": started_at,
    }
    return table_of(
        SHARD_RESULT,
        [
            {
                "shard_id": row["shard_id"].as_py(),
                "attempt": row["attempt"].as_py(),
                "transcripts": transcripts,
                "scorable": [recording["scorable"] for recording in recordings],
                "measures": measures,
                "overflow": _with_guesses(row["overflow"].as_py(), transcripts),
            }
        ],
    )


def _with_shadow(
    windows: list[PlacedWindow],
    recordings: list[dict[str, Any]],
    engine: Transcriber,
    language: str,
    sparsity: ShardLevel | None,
) -> tuple[list[PlacedResult], Shadow, float]:
    """The windows' results, the shadow of their level, and the seconds that the device worked for that.

    The sample is decoded beside the rest, but where its languages are known only from the rest.
    """
    if sparsity is None:
        return transcribe_windows(windows, recordings, engine, language), Shadow(), 0.0
    sample = Sample(windows=windows, recordings=recordings, engine=engine, chosen=sparsity)
    codes = {one.root: recordings[one.recording]["language"] or language for one in sample.drawn}
    are_known = not set(codes.values()) & set(LANGUAGE_MODES)
    ask = partial(transcribe_windows, windows, recordings, engine, language, sparsity.level)
    if are_known and sample.drawn:
        results, dense = beside([ask, partial(sample.decode, codes)], engine)
    else:
        results = ask()
        dense = sample.decode(heard_languages(results))
    return results, *sample.shadow(results, dense)


def _with_guesses(overflow: list[dict[str, Any]], transcripts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the plan for what follows, told the language of the part before where that was sure of it."""
    sure = {
        one["recording_id"]: one["language"]
        for one in transcripts
        if (one["language_probability"] or 0.0) >= SURE
    }
    return [
        row | {"language_guess": sure.get(row["recording_id"], row["language_guess"])} for row in overflow
    ]


def _transcript(
    recording: dict[str, Any], results: list[PlacedResult], row: dict[str, Any], model: str
) -> dict[str, Any]:
    """One row of `TRANSCRIPTS`, its counts still null."""
    failed = recording["error_type"] is not None
    speech_s = speech_by_language(results)
    main = [done.result for done in results if done.result.language == next(iter(speech_s), None)]
    probabilities = [result.language_probability for result in main]
    values = {
        **recording,
        "shard_id": row["shard_id"].as_py(),
        "status": "failed" if failed else "ok",
        "language": main[0].language if main else None,
        "text_language": main[0].text_language if main else None,
        "language_probability": max((p for p in probabilities if p is not None), default=None),
        "text": None if failed else text_of(results),
        "segments": None if failed else _segments(results),
        "model": model,
        "languages": None
        if failed
        else [
            {"language": language, "speech_s": seconds} for language, seconds in speech_s.items() if seconds
        ],
    }
    return {name: values.get(name) for name in TRANSCRIPTS.names}


def _segments(results: list[PlacedResult]) -> list[dict[str, Any]]:
    """The segments of a recording in the order of time, their times those of the recording."""
    placed = [(done.window, done.result, segment) for done in results for segment in done.result.segments]
    return [
        {
            "id": index,
            **_times_of(window, segment),
            "text": segment.text,
            "avg_logprob": segment.avg_logprob,
            "no_speech_prob": segment.no_speech_prob,
            "compression_ratio": segment.compression_ratio,
            "sparsity": result.sparsity,
            "fallback": result.fallback,
            "words": _words(window, segment),
            "language": result.language,
            "doubt": doubt_of(window, segment.start_s, segment.end_s),
        }
        for index, (window, result, segment) in enumerate(placed)
    ]


def _words(window: PlacedWindow, segment: Segment) -> list[dict[str, Any]] | None:
    """The words of a segment at their times in the recording."""
    if segment.words is None:
        return None
    return [
        {
            **_times_of(window, word),
            "word": word.word,
            "probability": word.probability,
        }
        for word in segment.words
    ]


def _times_of(window: PlacedWindow, said: Segment | Word) -> dict[str, float]:
    start_s, end_s = window.times(said.start_s, said.end_s)
    return {"start_s": start_s, "end_s": end_s}


def _times(results: list[PlacedResult], recordings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What each recording took of the device (`SLOW_RECORDING`)."""
    seconds: defaultdict[int, float] = defaultdict(float)
    for done in results:
        seconds[done.window.recording] += done.result.device_s
    for index, device_s in seconds.items():
        recording = recordings[index]
        yield {
            "recording_id": recording["recording_id"],
            "audio_s": recording["duration_s"],
            "device_s": device_s,
        }


def _measures(results: list[PlacedResult], engine: Transcriber, shadow_s: float) -> dict[str, Any]:
    """What the device did for this shard: `MEASURES` but the times of the call and the shadow's counts."""
    found = [done.result for done in results]
    kept, positions = sum(r.kept_positions for r in found), sum(r.total_positions for r in found)
    return {
        "num_windows": len(found),
        "num_tokens": sum(r.num_tokens for r in found),
        "device_s": math.fsum(r.device_s for r in found) + shadow_s,
        "kept_positions": kept,
        "total_positions": positions,
        "sparsity_mean": sparsity_of(kept, positions),
        "sparsity_min": min((r.sparsity for r in found), default=None),
        "sparsity_max": max((r.sparsity for r in found), default=None),
        "num_fallback": sum(r.fallback is not None for r in found),
        "fallback_device_s": math.fsum(r.retry_device_s for r in found),
        "batch_size": engine.batch_size,
        "peak_memory_bytes": engine.peak_memory_bytes,
        "device": engine.device,
        "host": socket.gethostname(),
        "model": engine.model_name,
    }
