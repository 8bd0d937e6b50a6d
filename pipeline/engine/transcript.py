"""What became of a window: its settled decoding as text, segments and words."""

from __future__ import annotations

from pipeline.engine.decoding.quality_gates import Settled, compression_ratio
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import EngineOptions
from pipeline.engine.results import Segment, WindowResult
from pipeline.engine.scheduling.work import Work
from pipeline.engine.timing.alignment import TokenTimes
from pipeline.engine.timing.phrases import timed_spans
from pipeline.engine.timing.words import said_in


def window_result(
    work: Work, settled: Settled, times: TokenTimes | None, model: Model, options: EngineOptions
) -> WindowResult:
    """The result of one window. times: of its tokens; None where no words were asked for."""
    decoding, vocabulary = settled.decoding, model.vocabulary
    tokens = [] if settled.is_silent else list(settled.tokens)
    text = vocabulary.decode(tokens)
    text_language = "en" if options.task == "translate" else None
    shared = {
        "avg_logprob": decoding.avg_logprob,
        "no_speech_prob": decoding.no_speech_prob,
        "compression_ratio": compression_ratio(text),
    }
    is_aligned = options.timestamps == "alignment"
    language = text_language or work.language
    found = timed_spans(tokens, times, model, language, work.samples, is_aligned=is_aligned)
    return WindowResult(
        text=text.strip(),
        segments=tuple(
            Segment(
                start_s=span.start_s,
                end_s=span.end_s,
                text=vocabulary.decode(span.tokens).strip(),
                tokens=span.tokens,
                words=words if options.word_timestamps else None,
                **shared,
            )
            for span, words in found
        ),
        language=work.language,
        text_language=text_language,
        language_probability=work.language_probability,
        num_tokens=len(tokens),
        kept_positions=decoding.num_positions,
        total_positions=model.shape.source_positions,
        fallback=settled.fallback,
        temperature=decoding.task.temperature,
        device_s=work.device_s,
        retry_device_s=work.retry_device_s,
        kept=work.kept,
        spoken=tuple(span for _, words in found for word in words or () for span in said_in(word)),
        **shared,
    )
