"""The Triton kernel of the EAS score, run on a CPU by Triton's own interpreter."""

from __future__ import annotations

import pytest

from tests.engine.interpreter import compare_interpreted

# Batch, heads, positions, head size: a full block, blocks with a remainder, less than one.
SHAPES = [(1, 1, 128, 64), (2, 3, 200, 32), (1, 2, 17, 16)]
WHOLE_WINDOW = (1, 1, 1500, 64)

# Triton decides at its import whether it interprets, so this needs a process of its own.
COMPARE = """
import json, sys
import torch
from pipeline.engine.sparsify.column_sums import check, column_sums

found = [check(torch.device("cpu"))]
for number, (shape, dtype) in enumerate(json.loads(sys.argv[1])):
    generator = torch.Generator().manual_seed(number)
    q, k = (torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for _ in range(2))
    q = q * 0.5
    exact = (q.double() @ k.double().transpose(2, 3)).softmax(-1).sum(2)
    sums = column_sums(q, k)
    half = max(1, shape[2] // 2)
    kept = [values.mean(1).topk(half).indices.sort().values for values in (sums, exact)]
    found.append({"error": ((sums - exact).abs() / exact).max().item(), "same": torch.equal(*kept),
                  "dtype": str(sums.dtype), "total": sums.sum(-1).sub(shape[2]).abs().max().item()})
print(json.dumps(found))
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SHAPES, id="blocks"),
        pytest.param([WHOLE_WINDOW], id="whole window", marks=pytest.mark.slow),
    ],
)
def compared(request):
    """What the kernel gave for every shape in float32, and in the end for one in float16, beside float64."""
    # Float16 stands for bfloat16, which the interpreter cannot multiply.
    cases = [*((shape, "float32") for shape in request.param), ((1, 2, 200, 64), "float16")]
    return compare_interpreted(COMPARE, cases)


@pytest.mark.slow
def test_the_sums_are_those_of_a_float64_softmax(compared):
    assert all(one["error"] < 1e-5 and one["dtype"] == "torch.float32" for one in compared[:-1])


def test_the_kept_half_is_the_same(compared):
    assert all(one["same"] for one in compared[:-1])


def test_every_query_gives_away_one(compared):
    assert all(one["total"] < 1e-2 for one in compared)


def test_half_precision_products_are_summed_in_float32(compared):
    assert compared[-1]["error"] < 1e-4
    assert compared[-1]["dtype"] == "torch.float32"
