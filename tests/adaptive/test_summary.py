"""What a report says of an adaptive job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.adaptive.calibration import decide, too_small
from pipeline.adaptive.files import DECISION, POLICY, sample_name
from pipeline.adaptive.policy_file import PolicyFile
from pipeline.adaptive.summary import summarise_policy
from pipeline.output import files
from pipeline.output.local_store import LocalStore
from pipeline.schema import SAMPLE, table_of
from tests.adaptive.made_rows import LADDER, marker, sample_rows


def summarised(folder, markers, rows=()):
    store = LocalStore.open(str(folder))
    decision = decide(rows, 5, 0.01) if rows else too_small("the job has less than 7 h of audio")
    ladder = tuple(level.as_dict() for level in LADDER)
    store.publish(DECISION, replace(decision, ladder=ladder).as_json())
    if rows:
        store.publish(sample_name(0), files.parquet_bytes(table_of(SAMPLE, rows)))
    return summarise_policy(store, markers, 0.01)


def timed(shard_id, **counts):
    times = {"num_shadow": 5, "shadow_dense_device_s": 4.0, "shadow_sparse_device_s": 3.0}
    return marker(shard_id, **counts) | times


def test_the_report_states_loss_bound_levels_and_what_was_saved(tmp_path):
    shards = [timed(0, level=2, errors=1), timed(1, level=2, errors=1), timed(2, level=0, words=0)]
    found = summarised(tmp_path, shards, sample_rows([0.0, 0.001, 0.05]))
    assert found["levels"] == {"0": 1, "2": 2}
    assert found["num_words"] == 2 * 600 + 6000
    assert found["excess"] == pytest.approx((20 + 6) / 7200)
    assert found["excess_low"] < found["excess"] < found["excess_bound"] < 0.01
    assert found["dense_differs"] == pytest.approx(120 / 7200)
    assert found["sparse_differs"] == pytest.approx(found["excess"] + found["dense_differs"])
    assert found["evidence"] is None
    assert (found["num_shadow"], found["shadow_saved"]) == (10, 0.25)
    assert found["calibration_device_s"] == pytest.approx(100 * 1.0 + 300 * 0.5)
    assert found["reason"] == "the cheapest level within the budget"


def test_the_report_of_a_job_that_ran_dense_says_why(tmp_path):
    found = summarised(tmp_path, [timed(0, level=0, words=0)])
    assert (found["excess"], found["excess_bound"], found["levels"]) == (None, None, {"0": 1})
    assert found["reason"] == "the job has less than 7 h of audio"
    assert summarise_policy(LocalStore.open(str(tmp_path)), [], None) is None


@pytest.mark.parametrize(
    ("weights", "reason"), [("", "a policy file"), ("abc", "the evidence that ships for openai/whisper-some")]
)
def test_the_report_says_on_whose_evidence_a_job_began(tmp_path, weights, reason):
    known = {"num_words": 3000, "wer_change": 0.001, "excess": 0.002, "excess_bound": 0.006}
    policy = PolicyFile(
        model="openai/whisper-some",
        model_revision="",
        levels=LADDER[:1],
        start=1,
        evidence={"levels": [known]},
        weights=weights,
    )
    store = LocalStore.open(str(tmp_path))
    store.publish(POLICY, policy.as_json().encode())
    found = summarise_policy(store, [timed(0, level=1, words=0)], 0.01)
    assert found["reason"] == reason
    assert found["evidence"] == {"model": "openai/whisper-some", **known}
    assert (found["excess"], found["excess_bound"]) == (None, None)
