"""The Arrow schemas of a search: what its stages pass on, and what is on disk of each shard."""

from __future__ import annotations

import pyarrow as pa


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


# One window under one setting, with the tails that were cut out of it.
TRIAL = pa.struct(
    [
        _required("setting", pa.string()),
        _required("recording_id", pa.string()),
        _required("part", pa.int32()),
        _required("start_s", pa.float64()),  # time in the recording
        _required("end_s", pa.float64()),
        _required("speech", pa.list_(pa.float64())),  # start, end, start, end, … in the recording
        _required("text", pa.string()),
        pa.field("language", pa.string()),
        _required("num_tokens", pa.int64()),
        _required("kept_positions", pa.int64()),
        _required("total_positions", pa.int64()),
        _required("num_positions", pa.int64()),  # of the window's first pass
        _required("kept", pa.binary()),  # a bit for each of these, see `numpy.packbits`
        _required("has_loop", pa.bool_()),  # the final text says one phrase over and over
        _required("device_s", pa.float64()),  # retries included
        _required("retry_device_s", pa.float64()),
        pa.field("fallback", pa.string()),
        pa.field("logprob", pa.float64()),  # mean per token; null without text, or where it was decoded again
        pa.field("text_logprob", pa.float64()),  # the same of the final text; null in the first outputs
    ]
)
FAILURE = pa.struct(
    [
        _required("recording_id", pa.string()),
        _required("error_type", pa.string()),
        _required("error_message", pa.string()),
    ]
)
# Seconds that all timed windows spent in one part of the engine.
PART = pa.struct(
    [
        _required("name", pa.string()),
        _required("dense_s", pa.float64()),
        _required("sparse_s", pa.float64()),
    ]
)
# A shard that is done; one row, also on disk.
SHARD_TRIALS = pa.schema(
    [
        _required("shard_id", pa.int32()),
        _required("audio_s", pa.float64()),
        _required("device_s", pa.float64()),
        _required("trials", pa.list_(TRIAL)),
        _required("failures", pa.list_(FAILURE)),
        _required("parts", pa.list_(PART)),  # empty where none are timed
        _required("num_timed", pa.int64()),  # windows that the parts are of
        _required("device", pa.string()),
        _required("host", pa.string()),
    ]
)
# What the driver is told of it.
DONE = pa.schema(
    [
        _required("shard_id", pa.int32()),
        _required("audio_s", pa.float64()),
        _required("device_s", pa.float64()),
        _required("num_failed", pa.int64()),
    ]
)
