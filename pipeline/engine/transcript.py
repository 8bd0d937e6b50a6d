"""What became of a window: its settled decoding as text, segments and words."""

from __future__ import annotations

from typing import Any

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.decoding.quality_gates import Settled, compression_ratio
from pipeline.engine.decoding.segments import resume_time, split_spans
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import EngineOptions
from pipeline.engine.results import Segment, WindowResult
from pipeline.engine.scheduling.work import Work
from pipeline.engine.timing.alignment import TokenTimes, place_words


def window_result(
    work: Work, settled: Settled, times: TokenTimes | None, model: Model, options: EngineOptions
) -> WindowResult:
    """The result of one window. times: of its tokens; None where no words were asked for."""
    decoding, vocabulary = settled.decoding, model.vocabulary
    tokens = [] if settled.is_silent else list(settled.tokens)
    duration_s = len(work.samples) / SAMPLE_RATE
    has_times = options.timestamps and not settled.is_silent
    text = vocabulary.decode(tokens)
    text_language = "en" if options.task == "translate" else None
    shared = {
        "avg_logprob": decoding.avg_logprob,
        "no_speech_prob": decoding.no_speech_prob,
        "compression_ratio": compression_ratio(text),
    }
    return WindowResult(
        text=text.strip(),
        segments=_segments(tokens, times, model, duration_s, text_language or work.language, shared),
        language=work.language,
        text_language=text_language,
        language_probability=work.language_probability,
        num_tokens=len(tokens),
        kept_positions=decoding.num_positions,
        total_positions=model.shape.source_positions,
        fallback=settled.fallback,
        resume_s=resume_time(decoding.tokens, vocabulary, duration_s) if has_times else None,
        device_s=work.device_s,
        retry_device_s=work.retry_device_s,
        kept=work.kept,
        **shared,
    )


def _segments(
    tokens: list[int], times: TokenTimes | None, model: Model, duration_s: float, language: str | None,
    shared: dict[str, Any],
) -> tuple[Segment, ...]:  # fmt: skip
    spans = split_spans(tokens, model.vocabulary, duration_s)
    placed = (
        [(span, None) for span in spans] if times is None
        else place_words(spans, tokens, times, model, language)
    )  # fmt: skip
    return tuple(
        Segment(
            start_s=span.start_s,
            end_s=span.end_s,
            text=model.vocabulary.decode(span.tokens).strip(),
            tokens=span.tokens,
            words=words,
            **shared,
        )
        for span, words in placed
    )
