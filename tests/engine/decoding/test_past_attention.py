"""The Triton kernel of a step's self-attention, run on a CPU by Triton's own interpreter."""

from __future__ import annotations

import pytest

from tests.engine.interpreter import compare_interpreted

# Heads, head size, tokens that a cache holds, places of the new token: the first, a full block, the last.
SHAPES = [(2, 64, 448, [0, 1, 31, 32, 33, 447]), (3, 16, 70, [5, 69]), (1, 32, 64, [64 - 1])]

# Triton decides at its import whether it interprets, so this needs a process of its own.
COMPARE = """
import json, sys
import torch
from pipeline.engine.decoding.past_attention import attend_past, check
from pipeline.engine.model.layers import split_heads

found = [check(torch.device("cpu"))]
for heads, size, tokens, places in json.loads(sys.argv[1]):
    torch.manual_seed(tokens)
    rows = len(places)
    q, k, v = split_heads(torch.randn(rows, 1, 3 * heads * size), 3, heads)
    past_k, past_v = torch.randn(2, rows, heads, tokens, size)
    before = past_k.clone(), past_v.clone()
    out = attend_past(q / 4, k, v, past_k, past_v, torch.tensor(places))
    error = 0.0
    for row, place in enumerate(places):
        keys, values = ((torch.cat([old[row, :, :place], new[row]], 1)).double()
                        for old, new in zip(before, (k, v)))
        weights = (q[row].double() / 4 @ keys.transpose(1, 2)).softmax(-1)
        error = max(error, (out[row] - weights @ values).abs().max().item())
        for old, new, written in zip(before, (k, v), (past_k, past_v)):
            old[row, :, place] = new[row, :, 0]
            assert torch.equal(old[row], written[row])
    found.append({"error": error})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compared():
    """The largest error of every shape beside float64; what was written was held there."""
    return compare_interpreted(COMPARE, SHAPES)


def test_it_attends_as_float64_does_and_writes_one_place(compared):
    assert len(compared) == len(SHAPES)
    assert all(one["error"] < 1e-5 for one in compared)
