"""A data set for training cut from the recordings of a finished output: a file for each of its shards.

    FOLDER/dataset.json                     what it was made of, and by which rules
    FOLDER/data/shard-000012.parquet        audio and text (or .tar, as WebDataset has it)
    FOLDER/segments/shard-000012.parquet    every segment, taken or left, and why; written last

A shard whose list of segments is there is done: the same call resumes what was stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.errors import UserError
from pipeline.output import files
from pipeline.output.store import Store, open_store
from pipeline.reading.audio import DecodeLimits
from pipeline.reading.channels import take
from pipeline.reading.decoder import AudioDecoder
from pipeline.results.clips import Clip, ClipRules, clips_of
from pipeline.results.faults import Faults
from pipeline.schema import PLAN, TRANSCRIPTS, table_of
from pipeline.sources.opening import OpenRecording, open_row
from pipeline.sources.recording import RecordingError

DATASET = "dataset.json"
MANY_SHARDS = 8  # from here on Ray cuts several at a time
ROWS_A_GROUP = 100
CODECS = {"flac": {"format": "FLAC"}, "opus": {"format": "OGG", "subtype": "OPUS"}}
CONTAINERS = ("parquet", "tar")

CLIPS = pa.schema(
    [
        # nullable, or `datasets` takes it for a struct and not for audio
        pa.field("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("text", pa.string(), nullable=False),
        pa.field("language", pa.string()),  # that is spoken
        pa.field("text_language", pa.string()),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("channel", pa.int32(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("avg_logprob", pa.float64(), nullable=False),
        pa.field("compression_ratio", pa.float64(), nullable=False),
        pa.field("no_speech_prob", pa.float64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
    ]
)
SEGMENTS = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("channel", pa.int32(), nullable=False),
        pa.field("segment_id", pa.int32(), nullable=False),
        pa.field("clip", pa.string()),  # its file name; null: left out
        pa.field("reason", pa.string()),  # why it was left out
    ]
)
KINDS = {pa.string(): "string", pa.int32(): "int32", pa.float64(): "float64"}


class DatasetMismatch(UserError):
    """The folder holds a data set that was cut by other rules."""


@dataclass(frozen=True, kw_only=True)
class DatasetRequest:
    """A data set that is wanted: of which output, where, by which rules and in what form."""

    output: str
    folder: str
    rules: ClipRules
    codec: str = "flac"
    container: str = "parquet"


def write_dataset(request: DatasetRequest) -> Counter[str]:
    """Cut what is not cut yet. Returns counts: taken and left segments, clips, seconds of them, faults.

    Raises `OutputError`, and `DatasetMismatch` for a folder of another data set.
    """
    store, source = open_store(request.folder), files.existing_store(request.output)
    _check_same(store, source, request)
    done = set(map(_stem, store.names("segments")))
    left = [name for name in map(_stem, source.names(files.TRANSCRIPTS_FOLDER)) if name not in done]
    faults = sum(_each(request, left), Counter[str]())
    return _counted(store) + faults


def _stem(name: str) -> str:
    return name.partition("/")[2].removesuffix(".parquet")


def _check_same(store: Store, source: Store, request: DatasetRequest) -> None:
    made_of = {"output": str(source.root), "rules": request.rules.as_dict()}
    wanted = json.dumps(made_of | {"codec": request.codec, "container": request.container}, sort_keys=True)
    if not store.publish(DATASET, wanted.encode()) and store.read(DATASET) != wanted.encode():
        raise DatasetMismatch(f"{store.root}: is a data set cut by other rules; choose another --output")


def _each(request: DatasetRequest, names: Sequence[str]) -> Iterator[Counter[str]]:
    """Cut shards here, or several at a time where they are many."""
    if len(names) < MANY_SHARDS:
        yield from (cut_shard(request, name) for name in names)
        return
    from pipeline.dataflow.tasks import run_each

    yield from run_each(cut_shard, [(request, name) for name in names])


def _counted(store: Store) -> Counter[str]:
    """What all shards took and left so far, from the files alone."""
    counts = Counter[str]()
    for table in files.read_tables(store, store.names("segments"), SEGMENTS):
        clips = set()
        for row in table.to_pylist():
            counts["taken" if row["reason"] is None else f"left: {row['reason']}"] += 1
            clips.add(row["clip"])
        counts["clips"] += len(clips - {None})
    return counts


def cut_shard(request: DatasetRequest, name: str) -> Counter[str]:
    """Cut the recordings of one shard of an output into two files. Returns the number of faults."""
    source, faults = files.existing_store(request.output), Faults()
    job = json.loads(source.read(files.JOB) or b"{}")["options"]
    transcripts = files.read_table(source, f"{files.TRANSCRIPTS_FOLDER}/{name}.parquet", TRANSCRIPTS)
    places = _places(source)
    clips: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    with AudioDecoder(DecodeLimits(max_hours=job["max_hours"])) as decoder:
        for row in transcripts.to_pylist():
            chosen = clips_of(row, request.rules)
            taken: dict[Clip, dict[str, Any]] = {}
            with faults.named(row["recording_id"]):
                taken = _cut(row, chosen, places, decoder, job, request.codec)
            clips += taken.values()
            segments += _listed(row, chosen, taken)
    store = open_store(request.folder)
    data = f"data/{name}.{request.container}"
    if clips:
        store.replace(data, WRITERS[request.container](clips))
    else:
        store.delete(data)  # of an attempt before; loaders end where a file holds nothing
    store.publish(f"segments/{name}.parquet", files.parquet_bytes(table_of(SEGMENTS, segments)))
    return Counter(faults=faults.num)


def _places(source: Store) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows of PLAN by recording and part."""
    return {
        (row["recording_id"], row["part"]): row
        for name in source.names(files.PLAN_FOLDER)
        for row in files.read_table(source, name, PLAN).to_pylist()
    }


def _cut(
    row: Mapping[str, Any],
    chosen: Sequence[Clip],
    places: Mapping[tuple[str, int], Mapping[str, Any]],
    decoder: AudioDecoder,
    job: Mapping[str, Any],
    codec: str,
) -> dict[Clip, dict[str, Any]]:
    """The rows of CLIPS of what is taken of a transcript. Raises `RecordingError`."""
    taken = [clip for clip in chosen if clip.reason is None]
    if not taken:
        return {}
    start_s, end_s = taken[0].start_s, max(clip.end_s for clip in taken)
    place = places[row["recording_id"], row["part"]]
    with open_row(place, max_bytes=decoder.limits.max_bytes) as file:
        samples = _heard(decoder, file, row["channel"], (start_s, end_s), job)
        return {clip: _clip_row(row, clip, _between(samples, clip, start_s), codec) for clip in taken}


def _heard(
    decoder: AudioDecoder,
    file: OpenRecording,
    channel: int,
    span: tuple[float, float],
    job: Mapping[str, Any],
) -> np.ndarray:
    """What was transcribed as `channel`, int16 [time]; channels are counted over all streams taken."""
    splits, num = job["channels"] == "split", 0
    for one in take(decoder, file, streams=job.get("streams", "first"), channels=job["channels"]):
        audio = decoder.decode(
            one.source, offset_s=span[0], max_s=span[1] - span[0], channels="split" if splits else "mix"
        )
        num = max(num, one.first_channel)
        if num <= channel < num + len(audio.samples):
            return audio.samples[channel - num].copy()  # what follows may write over it
        num += len(audio.samples)
    raise RecordingError("changed", f"{file.name}: has fewer channels than when it was transcribed")


def _between(samples: np.ndarray, clip: Clip, from_s: float) -> np.ndarray:
    first, last = (round((time_s - from_s) * SAMPLE_RATE) for time_s in (clip.start_s, clip.end_s))
    return samples[first:last]


def _clip_row(row: Mapping[str, Any], clip: Clip, samples: np.ndarray, codec: str) -> dict[str, Any]:
    sound = io.BytesIO()
    soundfile.write(sound, samples, SAMPLE_RATE, **CODECS[codec])
    values = {
        **row,
        **{name: getattr(clip, name) for name in CLIPS.names if hasattr(clip, name)},
        "audio": {"bytes": sound.getvalue(), "path": f"{_key(row, clip)}.{codec}"},
        "text_language": row["text_language"] or clip.language,
    }
    return {name: values[name] for name in CLIPS.names}


def _key(row: Mapping[str, Any], clip: Clip) -> str:
    """A name for a clip that is its own, and a file name everywhere."""
    digest = hashlib.sha256(row["recording_id"].encode()).hexdigest()[:16]
    return f"{digest}-{row['channel']}-{round(clip.start_s * 1000):09d}"


def _listed(
    row: Mapping[str, Any], chosen: Sequence[Clip], taken: Mapping[Clip, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A row of SEGMENTS for each segment of a transcript."""
    for clip in chosen:
        cut = taken.get(clip)
        for segment_id in clip.segment_ids:
            yield {
                **{name: row[name] for name in ("recording_id", "part", "channel")},
                "segment_id": segment_id,
                "clip": cut["audio"]["path"] if cut else None,
                "reason": None if cut else clip.reason or "audio",
            }


def _parquet(clips: Sequence[Mapping[str, Any]]) -> bytes:
    """Parquet that `datasets` opens as audio: the schema's metadata says so."""
    features: dict[str, dict[str, Any]] = {"audio": {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}}
    for field in list(CLIPS)[1:]:
        features[field.name] = {"dtype": KINDS[field.type], "_type": "Value"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    sink = pa.BufferOutputStream()
    table = table_of(CLIPS, list(clips)).replace_schema_metadata(metadata)
    pq.write_table(table, sink, row_group_size=ROWS_A_GROUP, compression="zstd")
    return sink.getvalue().to_pybytes()


def _tar(clips: Sequence[Mapping[str, Any]]) -> bytes:
    """A tar file of three members a clip: its audio, its text, and what else is known of it."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for clip in clips:
            key = clip["audio"]["path"].rpartition(".")[0]
            rest = {name: value for name, value in clip.items() if name != "audio"}
            members = {
                clip["audio"]["path"]: clip["audio"]["bytes"],
                f"{key}.txt": clip["text"].encode(),
                f"{key}.json": json.dumps(rest, ensure_ascii=False).encode(),
            }
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return sink.getvalue()


WRITERS = {"parquet": _parquet, "tar": _tar}
