"""The ladder that `--sparsity adaptive` climbs, mildest level first."""

from __future__ import annotations

from pipeline.engine.policy import Level

# Kept positions per position that carries sound. Above 1 only padding and long silence go, which nothing was
# said in; each further level is about a sixth sparser, so that a step changes the loss by little more than
# the sample can tell apart. Below one half the retries cost more than the positions save (docs/sparsity.md).
SHARES = (1.2, 1.0, 0.85, 0.7, 0.55)


def default_ladder(layer: int, selector: str) -> tuple[Level, ...]:
    """The levels of `SHARES` at a scoring layer (1-based) with a selector of `engine.sparsify`."""
    return tuple(Level(layer=layer, selector=selector, share=share) for share in SHARES)
