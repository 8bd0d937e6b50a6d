"""The Arrow schemas: the contract between the stages and on disk.

Every table that crosses a Ray border or reaches a file has one of these schemas, given explicitly.
A unit is a suffix (`_s` seconds of audio or time, `_usd` dollars); a count starts with `num_`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


# One row per recording, or per part of a recording that is longer than a shard.
PLAN = pa.schema(
    [
        _required("recording_id", pa.string()),  # unique and stable within the plan
        _required("uri", pa.string()),  # absolute; no credentials, query or fragment
        pa.field("member", pa.string()),  # name inside a container (tar member, Parquet row), else null
        _required("part", pa.int32()),
        _required("offset_s", pa.float64()),  # nominal start; the true cut lies within 30 s of it
        pa.field("duration_s", pa.float64()),  # nominal length; null: to the end of the recording
        _required("shard_id", pa.int32()),
        _required("bytes", pa.int64()),
        _required("identity", pa.string()),  # size and mtime, or size and etag
        pa.field("reference", pa.string()),
        pa.field("language", pa.string()),  # what a manifest says; null: the job's --language
        pa.field("prompt", pa.string()),  # what a manifest says; null: the job's --initial-prompt
        pa.field("language_guess", pa.string()),  # what the parts before it were sure to be in
    ]
)

# One row per recording whose content is that of another of the same job, which alone is in the plan.
COPIES = pa.schema(
    [
        *(PLAN.field(name) for name in ("recording_id", "uri", "member", "bytes", "identity", "reference")),
        _required("same_as", pa.string()),  # the recording_id of the other
    ]
)

SPAN = pa.struct([_required("start_s", pa.float64()), _required("end_s", pa.float64())])

# One row of the plan after decoding, or one of its channels.
READ_RECORDING = pa.struct(
    [
        _required("recording_id", pa.string()),
        _required("uri", pa.string()),
        _required("part", pa.int32()),
        _required("channel", pa.int32()),  # 0 where the channels were mixed
        pa.field("error_type", pa.string()),  # null: decoded
        pa.field("error_message", pa.string()),
        pa.field("duration_s", pa.float64()),  # decoded seconds of this part; null where decoding failed
        pa.field("speech_s", pa.float64()),
        pa.field("reference", pa.string()),
        _required("scorable", pa.bool_()),  # false: one part or channel of several, scored after joining
        pa.field("decoded_by", pa.string()),  # soundfile | pyav
        _required("partial", pa.bool_()),  # shorter than declared, damaged, or over the hours taken
        *(pa.field(name, pa.string()) for name in ("language", "prompt", "language_guess")),  # as in the plan
        pa.field("streams", pa.string()),  # which of several audio streams was taken, and why
        pa.field("channel_choice", pa.string()),  # which of several channels was taken, and why
        pa.field("gain_db", pa.float64()),  # by which it was made louder or softer; null: left as it is
        pa.field("clock_start_s", pa.float64()),  # the container's clock at 0 s, where it is not 0
    ]
)

# A contiguous span of one recording, at most 30 s; its samples lie in the shard's `samples`.
READ_WINDOW = pa.struct(
    [
        _required("recording", pa.int32()),  # index into `recordings`
        _required("start_s", pa.float64()),  # time in the recording, not in the part
        _required("end_s", pa.float64()),
        _required("first_sample", pa.int64()),
        _required("num_samples", pa.int32()),
        _required("speech", pa.list_(SPAN)),  # time in the recording
    ]
)

# What the driver feeds the graph: one shard of the plan, one row.
SHARD_PLAN = pa.schema(
    [
        _required("shard_id", pa.int32()),
        _required("attempt", pa.int32()),
        _required("rows", pa.list_(pa.struct(list(PLAN)))),
    ]
)

# A decoded shard. 115 MB an hour of audio.
SHARD_AUDIO = pa.schema(
    [
        _required("shard_id", pa.int32()),
        _required("attempt", pa.int32()),
        _required("recordings", pa.list_(READ_RECORDING)),
        _required("windows", pa.list_(READ_WINDOW)),
        _required("samples", pa.large_list(pa.int16())),  # 16 kHz mono
        _required("overflow", pa.list_(pa.struct(list(PLAN)))),  # what did not fit; run in the next round
    ]
)

WORD = pa.struct(
    [
        _required("start_s", pa.float64()),
        _required("end_s", pa.float64()),
        _required("word", pa.string()),
        _required("probability", pa.float64()),
    ]
)

SEGMENT = pa.struct(
    [
        _required("id", pa.int32()),
        _required("start_s", pa.float64()),
        _required("end_s", pa.float64()),
        _required("text", pa.string()),
        _required("avg_logprob", pa.float64()),
        _required("no_speech_prob", pa.float64()),
        _required("compression_ratio", pa.float64()),
        _required("sparsity", pa.float64()),  # share of encoder positions dropped for its window
        pa.field("fallback", pa.string()),  # null: the first decoding stood
        pa.field("words", pa.list_(WORD)),  # null: not asked for
        pa.field("language", pa.string()),  # spoken in its window; null in the first outputs
        pa.field("doubt", pa.string()),  # `no_speech`: nobody was heard there
    ]
)

# How much of a recording is in one language.
SPOKEN_LANGUAGE = pa.struct([_required("language", pa.string()), _required("speech_s", pa.float64())])

COUNTS = ("num_hits", "num_substitutions", "num_deletions", "num_insertions")

# One row per (recording_id, part, channel).
TRANSCRIPTS = pa.schema(
    [
        _required("recording_id", pa.string()),
        _required("uri", pa.string()),
        _required("part", pa.int32()),
        _required("channel", pa.int32()),
        _required("shard_id", pa.int32()),
        _required("status", pa.string()),  # ok | failed
        pa.field("error_type", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("duration_s", pa.float64()),
        pa.field("speech_s", pa.float64()),
        pa.field("language", pa.string()),
        pa.field("language_probability", pa.float64()),
        pa.field("text", pa.string()),  # null: failed; "": no speech
        pa.field("segments", pa.list_(SEGMENT)),
        pa.field("reference", pa.string()),
        *(pa.field(name, pa.int64()) for name in COUNTS),  # null where a reference cannot apply
        pa.field("decoded_by", pa.string()),
        _required("partial", pa.bool_()),
        _required("model", pa.string()),
        pa.field("text_language", pa.string()),  # `en` where it was translated, else null
        pa.field("streams", pa.string()),  # which of several audio streams was taken, and why
        pa.field("channel_choice", pa.string()),  # which of several channels was taken, and why
        pa.field("gain_db", pa.float64()),  # by which it was made louder or softer; null: left as it is
        pa.field("clock_start_s", pa.float64()),  # the container's clock at 0 s, where it is not 0
        pa.field("languages", pa.list_(SPOKEN_LANGUAGE)),  # most speech first; null where it failed
        pa.field("same_as", pa.string()),  # recording_id of the same content, which was transcribed
    ]
)

# One row per recording that a run of an archive has done, in its ledger.
ARCHIVE_LEDGER = pa.schema(
    [
        _required("recording_id", pa.string()),
        pa.field("member", pa.string()),  # as in the plan
        _required("identity", pa.string()),  # as it was when the run was planned
        _required("status", pa.string()),  # ok | failed
        pa.field("error_type", pa.string()),
        _required("run", pa.string()),  # the folder of the run that transcribed it
        pa.field("bytes", pa.int64()),
        pa.field("content", pa.string()),  # see `sources.content`; null where it cannot be told
        pa.field("same_as", pa.string()),  # its id in that run, where it is another
    ]
)

# A recording, or channel of one, that took the device long for its length.
SLOW_RECORDING = pa.struct(
    [
        _required("recording_id", pa.string()),
        _required("audio_s", pa.float64()),
        _required("device_s", pa.float64()),
    ]
)

# A window of the shadow: word edits between its texts, see `adaptive.bounds.Draw`.
SHADOW_WINDOW = pa.struct(
    [
        _required("num_words", pa.int32()),
        _required("sparse_errors", pa.int32()),
        _required("shifted_errors", pa.int32()),
        _required("dense_errors", pa.int32()),
        pa.field("certainty", pa.float64()),  # null in the first outputs
    ]
)

# One row per shard; on disk it is also the marker that the shard is done.
METRICS = pa.schema(
    [
        _required("shard_id", pa.int32()),
        _required("run_id", pa.string()),
        *(
            _required(name, pa.int64())
            for name in ("num_recordings", "num_failed", "num_windows", "num_tokens")
        ),
        *(_required(name, pa.float64()) for name in ("audio_s", "speech_s", "wall_s", "device_s")),
        pa.field("rtf", pa.float64()),  # device_s / audio_s; null without audio
        pa.field("rtfx", pa.float64()),
        *(_required(name, pa.int64()) for name in ("kept_positions", "total_positions")),
        *(pa.field(name, pa.float64()) for name in ("sparsity_mean", "sparsity_min", "sparsity_max")),
        pa.field("level", pa.int32()),  # of the adaptive policy; null at a fixed sparsity
        _required("num_fallback", pa.int64()),
        pa.field("fallback_device_s", pa.float64()),  # of decoding again; null in the first outputs
        pa.field("slowest", pa.list_(SLOW_RECORDING)),  # a few, slowest first; null in the first outputs
        _required("num_shadow", pa.int64()),
        _required("shadow_num_errors", pa.int64()),
        _required("shadow_num_words", pa.int64()),
        pa.field("shadow_windows", pa.list_(SHADOW_WINDOW)),  # null in outputs of 0.1
        _required("shadow_dense_device_s", pa.float64()),
        _required("shadow_sparse_device_s", pa.float64()),
        *(pa.field(name, pa.int64()) for name in COUNTS),  # null without references
        pa.field("wer", pa.float64()),
        pa.field("cost_usd", pa.float64()),  # null on a CPU
        *(pa.field(name, pa.int64()) for name in ("batch_size", "peak_memory_bytes")),  # null without device
        *(_required(name, pa.string()) for name in ("device", "host", "model", "fingerprint", "plan_hash")),
        _required("transcripts_rows", pa.int64()),
        _required("transcripts_sha256", pa.string()),
        _required("attempts", pa.int32()),
        _required("started_at", pa.timestamp("ms", tz="UTC")),
        _required("finished_at", pa.timestamp("ms", tz="UTC")),
    ]
)

# One window of the calibration sample at one level of adaptive sparsity, beside its dense decodings.
SAMPLE = pa.schema(
    [
        _required("unit", pa.int32()),
        _required("recording_id", pa.string()),
        _required("start_s", pa.float64()),  # time in the recording
        _required("level", pa.int32()),
        _required("num_words", pa.int64()),
        _required("sparse_errors", pa.int64()),  # see `adaptive.bounds.Draw`
        _required("shifted_errors", pa.int64()),
        _required("dense_errors", pa.int64()),
        _required("kept_positions", pa.int64()),
        _required("total_positions", pa.int64()),
        _required("retried_positions", pa.int64()),  # of the windows that were decoded again
        _required("dense_positions", pa.int64()),  # all of them, and those decoded again, when dense
        _required("dense_device_s", pa.float64()),
        _required("sparse_device_s", pa.float64()),  # retries included
        pa.field("logprob", pa.float64()),  # mean per token; null without text, or where it was decoded again
        pa.field("dense_logprob", pa.float64()),
        pa.field("certainty", pa.float64()),  # see `adaptive.bounds.Draw`; null in the first outputs
    ]
)

# A calibrated unit on its way to its file.
SAMPLE_RESULT = pa.schema(
    [_required("unit", pa.int32()), _required("windows", pa.list_(pa.struct(list(SAMPLE))))]
)

# What the actor measured of a shard; the commit derives the rest of METRICS from the transcripts.
MEASURES = (
    *("num_windows", "num_tokens", "wall_s", "device_s", "kept_positions", "total_positions"),
    *("sparsity_mean", "sparsity_min", "sparsity_max", "level", "num_fallback", "fallback_device_s"),
    "slowest",
    *("num_shadow", "shadow_num_errors", "shadow_num_words", "shadow_windows"),
    *("shadow_dense_device_s", "shadow_sparse_device_s"),
    *("batch_size", "peak_memory_bytes", "device", "host", "model", "started_at"),
)

# A transcribed shard on its way to the commit.
SHARD_RESULT = pa.schema(
    [
        _required("shard_id", pa.int32()),
        _required("attempt", pa.int32()),
        _required("transcripts", pa.list_(pa.struct(list(TRANSCRIPTS)))),
        _required("scorable", pa.list_(pa.bool_())),  # of each transcript, see READ_RECORDING
        _required("measures", pa.struct([METRICS.field(name) for name in MEASURES])),
        _required("overflow", pa.list_(pa.struct(list(PLAN)))),
    ]
)


def table_of(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make a table of `schema` from dicts; a missing or an unknown name is a `ValueError`."""
    names = set(schema.names)
    for row in rows:
        if row.keys() != names:
            raise ValueError(f"row does not fit the schema: {sorted(row.keys() ^ names)}")
    return pa.Table.from_pylist(list(rows), schema=schema)
