"""Attention of few queries on a CPU: that of float64, and the same in any company."""

from __future__ import annotations

import pytest
import torch

from pipeline.engine.model.layers import FEW_QUERIES, attend

ROWS = 9


@pytest.fixture(params=[1, FEW_QUERIES, FEW_QUERIES + 1])
def inputs(request):
    """Queries, and keys and values as a cache has them: a part of what there is room for."""
    generator = torch.Generator().manual_seed(request.param)
    q = torch.randn(ROWS, 2, request.param, 16, generator=generator)
    keys, values = (torch.randn(ROWS, 2, 64, 16, generator=generator)[:, :, :50] for _ in range(2))
    mask = (torch.arange(50) <= torch.arange(40, 40 + ROWS)[:, None])[:, None, None]
    return q, keys, values, mask


@pytest.mark.parametrize("is_masked", [False, True])
def test_it_is_that_of_float64(inputs, is_masked):
    q, keys, values, mask = inputs
    scores = q.double() @ keys.double().transpose(2, 3)
    if is_masked:
        scores = scores.masked_fill(~mask, float("-inf"))
    exact = scores.softmax(-1) @ values.double()
    found = attend(q, keys, values, mask=mask if is_masked else None)
    assert (found - exact).abs().max() < 1e-5


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_row_is_the_same_alone_and_in_company(inputs, is_masked):
    q, keys, values, mask = inputs
    if q.shape[2] > FEW_QUERIES:
        pytest.skip("prompts are decoded by torch's kernel")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = attend(q, keys, values, mask=mask if is_masked else None)
        for number in range(1, ROWS):
            rows = slice(0, number)
            few = attend(q[rows], keys[rows], values[rows], mask=mask[rows] if is_masked else None)
            assert torch.equal(few, found[rows])
    finally:
        torch.set_num_threads(threads)
