"""The ladder that `--sparsity adaptive` climbs, mildest level first."""

from __future__ import annotations

from pipeline.engine.policy import Level

# Kept positions per position that carries sound; what is above 1 is silence, which a decoder needs some of to
# know where it is. On early bundled models (about 15 % WER) 20 windows of the dev sets half and spread
# (780 words) lost nothing at 1.6 and 1.4, 3 % at 1.2 and 12 % at 1.0; 12 held-out ones (461 words) lost 1.5 %
# at 1.6 and 4 % at 1.4. The steps are finest where losses begin; which of them is used, calibration says.
SHARES = (1.6, 1.4, 1.2, 1.0, 0.85, 0.7)
# Finer than the engine's own sizes: rounded up to those, a spread-out window at 1.4 would be dense.
SIZES = (600, 750, 900, 1050, 1250, 1500)


def default_ladder(layer: int, selector: str) -> tuple[Level, ...]:
    """The levels of `SHARES` at a scoring layer (1-based) with a selector of `engine.sparsify`."""
    return tuple(Level(layer=layer, selector=selector, share=share, sizes=SIZES) for share in SHARES)
