"""A sample of the running job, decoded dense as well."""

from __future__ import annotations

from pipeline.adaptive.shadow import ShardLevel
from pipeline.dataflow.transcription import transcribe_shard
from pipeline.engine.sparsify.level import Level
from tests.adaptive.made_rows import audio
from tests.lossy import LossyEngine


def shadow_of(share, engine=None, rung=2):
    sparsity = ShardLevel(rung=rung, level=Level(sparsity=0.5) if rung else None, share=share, salt="plan")
    row = transcribe_shard(audio(), engine or LossyEngine(loss=2.0), language="en", sparsity=sparsity)
    return row.to_pylist()[0]


def test_the_rows_hold_the_sparse_text_of_the_shadow_too():
    with_shadow, without = shadow_of(1.0), shadow_of(0.0)
    assert with_shadow["transcripts"] == without["transcripts"]
    measures = with_shadow["measures"]
    assert (measures["num_shadow"], measures["shadow_num_words"], measures["shadow_num_errors"]) == (4, 80, 4)
    assert [window["num_words"] for window in measures["shadow_windows"]] == [20] * 4
    assert sum(window["sparse_errors"] for window in measures["shadow_windows"]) == 4
    assert [window["dense_errors"] for window in measures["shadow_windows"]] == [0] * 4
    assert all(one["shifted_errors"] == one["sparse_errors"] for one in measures["shadow_windows"])
    assert (measures["shadow_dense_device_s"], measures["shadow_sparse_device_s"]) == (4.0, 2.0)
    assert measures["device_s"] == without["measures"]["device_s"] + 8.0  # dense, and dense begun earlier
    assert (measures["level"], without["measures"]["num_shadow"]) == (2, 0)


def test_a_dense_shard_casts_no_shadow():
    measures = shadow_of(1.0, rung=0)["measures"]
    assert (measures["level"], measures["num_shadow"], measures["shadow_num_words"]) == (0, 0, 0)
