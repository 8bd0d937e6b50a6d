"""Blocks of samples: many small ones joined, those of another kind kept apart."""

from __future__ import annotations

import numpy as np

from pipeline.reading.blocks import JOINED_FRAMES, Block, joined


def block(num: int, *, rate: int = 8000, channels: int = 1, dtype: type = np.int16) -> Block:
    return Block(samples=np.full((num, channels), num, dtype), rate=rate)


def test_small_blocks_are_joined_in_order_and_none_is_lost():
    parts = [block(1000 + n) for n in range(50)]
    found = list(joined(iter(parts)))
    assert all(len(one.samples) >= JOINED_FRAMES for one in found[:-1])
    assert len(found) == 4
    whole = np.concatenate([part.samples for part in parts])
    assert np.array_equal(np.concatenate([one.samples for one in found]), whole)


def test_what_has_another_rate_other_channels_or_another_type_is_not_joined():
    kinds = [block(10), block(10, rate=16_000), block(10, rate=16_000, channels=2),
             block(10, rate=16_000, channels=2, dtype=np.float32)]  # fmt: skip
    found = list(joined(iter(kinds * 2)))
    assert [(one.rate, one.samples.shape, one.samples.dtype) for one in found] == [
        (one.rate, one.samples.shape, one.samples.dtype) for one in kinds * 2
    ]


def test_a_large_block_stays_as_it_is():
    large = block(JOINED_FRAMES)
    (found,) = joined(iter([large]))
    assert found is large
