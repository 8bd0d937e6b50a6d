"""The ladder that `--sparsity adaptive` climbs, mildest level first."""

from __future__ import annotations

from pipeline.engine.policy import Level

# Kept positions per position that carries sound; what is above 1 is silence, which a decoder needs some of to
# know where it is. Which of them is used, calibration says (docs/sparsity.md).
SHARES = (1.4, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7)
# Finer than the engine's own sizes: rounded up to those, a spread-out window would keep a tenth more. Finer
# still would leave too few windows of one size to fill a GPU's batch. A window that needs more than two
# thirds of its positions stays dense: two fifths of the loss of a share of 0.85 came from these, and a
# seventh of its saving.
SIZES = (400, 500, 600, 700, 800, 900, 1000, 1500)


def default_ladder(layer: int, selector: str) -> tuple[Level, ...]:
    """The levels of `SHARES` at a scoring layer (1-based) with a selector of `engine.sparsify`."""
    return tuple(Level(layer=layer, selector=selector, share=share, sizes=SIZES) for share in SHARES)
