"""What tests share: a fake engine, and shards made of nothing but numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline import schema
from pipeline.engine.results import Segment, WindowResult

RATE = 16_000


def result(text="hello world", *, end_s=2.0, language="en", **changes) -> WindowResult:
    """A window's result with one segment, or none for an empty text."""
    segment = Segment(
        start_s=0.5, end_s=end_s, text=f" {text}", avg_logprob=-0.2, no_speech_prob=0.01,
        compression_ratio=1.0, tokens=(1, 2),
    )  # fmt: skip
    values = {
        "text": text, "segments": (segment,) if text else (),
        "language": language, "text_language": None,
        "language_probability": 0.9, "avg_logprob": -0.2, "no_speech_prob": 0.01, "compression_ratio": 1.0,
        "num_tokens": 2, "kept_positions": 1500, "total_positions": 1500, "fallback": None,
        "device_s": 0.25, "spoken": tuple((s, s + 1.0) for s in range(60)) if text else (),
    }  # fmt: skip
    return WindowResult(**(values | changes))


@dataclass
class FakeEngine:
    """Answers every window with `answer(samples, language)` and remembers what it was asked."""

    answer: object = lambda samples, language: result(language=language or "en")
    model_name: str = "fake"
    device: str = "cpu"
    batch_size: int = 8
    num_calls: int = 1
    peak_memory_bytes: int = 1 << 30
    conditions_on_text: bool = False
    calls: list = field(default_factory=list)
    prompts: list = field(default_factory=list)

    def transcribe(
        self, windows: Sequence[np.ndarray], *, languages=None, are_guesses=False, seeds=None, levels=None,
        prompts=None,
    ) -> list[WindowResult]:  # fmt: skip
        self.prompts += prompts or [None] * len(windows)
        self.calls.append((list(windows), list(languages), list(seeds)))
        return [self.answer(samples, language) for samples, language in zip(windows, languages, strict=True)]

    def give_up(self) -> None:
        self.has_given_up = True


def plan_row(recording_id="a.wav", shard_id=0, **changes):
    values = {
        "recording_id": recording_id, "uri": f"/in/{recording_id}", "member": None, "part": 0,
        "offset_s": 0.0, "duration_s": None, "shard_id": shard_id, "bytes": 1, "identity": "1",
        "reference": None, "language": None, "prompt": None, "language_guess": None,
    }  # fmt: skip
    return values | changes


def read_recording(recording_id="a.wav", **changes):
    values = {
        "recording_id": recording_id, "uri": f"/in/{recording_id}", "part": 0, "channel": 0,
        "error_type": None, "error_message": None, "duration_s": 30.0, "speech_s": 20.0, "reference": None,
        "scorable": True, "decoded_by": "soundfile", "partial": False,
        "streams": None, "channel_choice": None, "gain_db": None, "clock_start_s": None,
    }  # fmt: skip
    return values | changes


def audio_table(recordings, windows, *, overflow=(), samples=None):
    """A `SHARD_AUDIO` row; `windows` are (recording, start_s, end_s, speech spans)."""
    rows, first = [], 0
    for recording, start_s, end_s, speech in windows:
        num = round((end_s - start_s) * RATE)
        rows.append({
            "recording": recording, "start_s": start_s, "end_s": end_s, "first_sample": first,
            "num_samples": num, "speech": [{"start_s": s, "end_s": e} for s, e in speech],
        })  # fmt: skip
        first += num
    row = {
        "shard_id": 7, "attempt": 1, "recordings": list(recordings), "windows": rows,
        "samples": (np.arange(first) % 100).astype(np.int16) if samples is None else samples,
        "overflow": list(overflow),
    }  # fmt: skip
    return schema.table_of(schema.SHARD_AUDIO, [row])


def round_context(store, **changes):
    """A round of one actor with a fake engine, for stages that are called as they are."""
    from pipeline.dataflow.stages import RoundContext, TranscribeShard, commit_result
    from pipeline.dataflow.workers import Workers
    from pipeline.metrics.shard import RunStamp
    from pipeline.reading.shard_reader import ReadOptions

    values = {
        "store": store, "round_id": "run-1", "load": FakeEngine, "language": "en", "work": TranscribeShard,
        "commit": commit_result,
        "stamp": RunStamp(run_id="run", fingerprint="f", plan_hash="p", gpu_hour_usd=1.0),
        "reading": ReadOptions(voice_activity=False, channels="mix", max_hours=24.0, shard_hours=1.0),
        "workers": Workers(
            min_actors=1, max_actors=1, gpus_per_actor=0.0, actor_cpus=0.5, threads_per_actor=1
        ),
    }  # fmt: skip
    return RoundContext(**(values | changes))
