"""The programs that are compared: recordings in, texts with times out. Each runs in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adaptive.job_policy import LADDER
from pipeline.adaptive.shadow import ShardLevel
from pipeline.adaptive.shipped import shipped_policy
from pipeline.benchmark.accuracy.corpus import Spoken
from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.languages import join_texts
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.sparsify.level import Level
from pipeline.schema import PLAN
from pipeline.sources.locations import stat_identity
from pipeline.sources.opening import open_row

CONVERTED = "EARSHARD_CTRANSLATE2"  # names the folder that a converted model is kept in
BATCH_SIZE = 8
SHARD_S = 900.0  # audio that ours reads and transcribes together


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a program made of a recording.

    segments: start and end in seconds, and text, in the order of time. edges_s: where one window ended and
    the next began; empty where the program does not say. language: what it was given or found.
    """

    file: str
    text: str
    language: str | None
    segments: list[tuple[float, float, str]]
    edges_s: list[float] = field(default_factory=list)


# Recordings, all in the language (None: each program finds it), and a model's folder.
Program = Callable[[Sequence[Spoken], str | None, Path], Iterator[Heard]]


def ours(
    recordings: Sequence[Spoken],
    language: str | None,
    model: Path,
    *,
    beam_size: int = 1,
    rung: int = 0,
    voice_activity: bool = True,
) -> Iterator[Heard]:
    """The stages of a job without Ray: read a shard, transcribe it. Float32.

    rung: a level of the policy that ships for the model, from 1 on; 0 is dense.
    """
    from pipeline.dataflow.transcription import transcribe_shard
    from pipeline.engine import Engine, EngineOptions
    from pipeline.reading.shard_reader import ReadOptions, ShardReader

    options = EngineOptions(batch_size=BATCH_SIZE, beam_size=beam_size)
    engine = Engine.load(model, dtype="float32", options=options)
    level = levels(model)[rung - 1] if rung else None
    sparsity = ShardLevel(rung=rung, level=level, share=0.0, salt="") if rung else None
    reading = ReadOptions(voice_activity=voice_activity, channels="mix", max_hours=24.0, shard_hours=1.0)
    code = language if engine.is_multilingual else "en"
    for number, some in enumerate(_shards(recordings)):
        with ShardReader(reading) as reader:
            shard = reader.read(number, 1, [_plan_row(one, number) for one in some])
        windows = shard.column("windows")[0].as_py()
        done = transcribe_shard(shard, engine, language=code or "auto", sparsity=sparsity)
        result = done.to_pylist()[0]
        for place, row in enumerate(result["transcripts"]):
            assert row["status"] == "ok", row["error_message"]
            own = [window for window in windows if window["recording"] == place]
            yield Heard(
                file=row["recording_id"],
                text=row["text"],
                language=row["language"],
                segments=[(s["start_s"], s["end_s"], s["text"]) for s in row["segments"]],
                edges_s=[window["start_s"] for window in own[1:]],
            )


def levels(model: Path) -> tuple[Level, ...]:
    """The levels of the policy that ships for a model, mildest first; none for weights not measured."""
    policy = shipped_policy(resolve(model))
    return () if policy is None else policy.levels


def _shards(recordings: Sequence[Spoken]) -> Iterator[list[Spoken]]:
    some: list[Spoken] = []
    for one in recordings:
        if some and sum(other.duration_s for other in some) + one.duration_s > SHARD_S:
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def _plan_row(one: Spoken, shard_id: int) -> dict[str, Any]:
    stat = os.stat(one.path)
    return {
        **dict.fromkeys(PLAN.names),
        "recording_id": one.file,
        "uri": str(one.path.resolve()),
        "part": 0,
        "offset_s": 0.0,
        "shard_id": shard_id,
        "bytes": stat.st_size,
        "identity": stat_identity(stat),
    }


def faster_whisper(
    recordings: Sequence[Spoken], language: str | None, model: Path, *, is_batched: bool, beam_size: int
) -> Iterator[Heard]:
    """faster-whisper: its defaults, but without the text before a window in its prompt."""
    package = import_module("faster_whisper")
    engine = package.WhisperModel(str(_converted(model)), device="cpu", compute_type="float32", cpu_threads=1)
    options: dict[str, Any] = {"language": language, "beam_size": beam_size}
    if is_batched:
        engine = package.BatchedInferencePipeline(engine)
        options["batch_size"] = BATCH_SIZE
    else:
        options["condition_on_previous_text"] = False
    for one in recordings:
        segments, info = engine.transcribe(str(one.path), **options)
        found = [(s.start, s.end, s.text.strip()) for s in segments]
        yield _heard(one, info.language, found)


def transformers(recordings: Sequence[Spoken], language: str | None, model: Path) -> Iterator[Heard]:
    """Long-form `generate`, one recording at a time, with the fallbacks of openai/whisper."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    processor = WhisperProcessor.from_pretrained(model)
    whisper = WhisperForConditionalGeneration.from_pretrained(model).eval()
    for one in recordings:
        features = processor(
            decoded(one), sampling_rate=SAMPLE_RATE, return_tensors="pt", truncation=False,
            padding="longest", return_attention_mask=True,
        )  # fmt: skip
        given = (
            {"language": language, "task": "transcribe"} if whisper.generation_config.is_multilingual else {}
        )
        out = whisper.generate(
            **features, **given, return_timestamps=True, return_segments=True, num_beams=1,
            condition_on_prev_tokens=False, temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
            logprob_threshold=-1.0, compression_ratio_threshold=1.35, no_speech_threshold=0.6,
        )  # fmt: skip
        found = [
            (
                float(s["start"]),
                float(s["end"]),
                processor.decode(s["tokens"], skip_special_tokens=True).strip(),
            )
            for s in out["segments"][0]
        ]
        yield _heard(one, language, found)


def decoded(one: Spoken) -> np.ndarray:
    """Its samples as ours has them, float32: the package reads no files."""
    from pipeline.reading.decoder import AudioDecoder

    row = _plan_row(one, 0)
    with AudioDecoder() as decoder, open_row(row, max_bytes=decoder.limits.max_bytes) as source:
        samples = decoder.decode(source).samples[0]
        return samples.astype(np.float32) / 32768


def _heard(one: Spoken, language: str | None, segments: list[tuple[float, float, str]]) -> Heard:
    text = join_texts((text, language) for _, _, text in segments)
    return Heard(file=one.file, text=text, language=language, segments=segments)


def _converted(model: Path) -> Path:
    """The model as CTranslate2 has it, made once beside the results."""
    folder = Path(os.environ[CONVERTED])
    if not (folder / "model.bin").is_file():
        ctranslate2 = import_module("ctranslate2")
        names = [name for name in ("tokenizer.json", "preprocessor_config.json") if (model / name).is_file()]
        ctranslate2.converters.TransformersConverter(str(model), copy_files=names).convert(
            str(folder), force=True
        )
    return folder


OURS = "earshard"


def our_setting(rung: int, *, voice_activity: bool) -> str:
    """The name of a setting of ours."""
    return OURS + (f" level {rung}" if rung else "") + ("" if voice_activity else " voice activity off")


COMPARED: dict[str, Program] = {
    OURS: ours,
    f"{OURS} beam 5": partial(ours, beam_size=5),
    "faster-whisper": partial(faster_whisper, is_batched=False, beam_size=1),
    "faster-whisper batched": partial(faster_whisper, is_batched=True, beam_size=1),
    "faster-whisper beam 5": partial(faster_whisper, is_batched=False, beam_size=5),
    "transformers": transformers,
}
PROGRAMS: dict[str, Program] = COMPARED | {
    our_setting(rung, voice_activity=heeds): partial(ours, rung=rung, voice_activity=heeds)
    for rung in range(len(LADDER) + 1)
    for heeds in (True, False)
}
