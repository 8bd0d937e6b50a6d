"""How much arithmetic and traffic a batch needs at least: the ideal time of a roofline."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.shape import Shape
from pipeline.engine.sparsify import num_kept


@dataclass(frozen=True, kw_only=True)
class Work:
    """Of one batch. flops: encoder and memory projection. bytes_read: by the decoder, all steps."""

    flops: float
    bytes_read: float

    @classmethod
    def of(
        cls, shape: Shape, batch_size: int, sparsity: float, layer: int, num_tokens: int, itemsize: int
    ) -> Work:
        """Counts multiplications and additions of every product, and weights and memory once a step.

        layer: the scoring layer, 1-based; the layers after it see the kept positions only.
        """
        total, kept = shape.source_positions, num_kept(sparsity, shape.source_positions)
        dim = shape.dim
        stem = 2 * shape.num_frames * 3 * shape.num_mels * dim + 2 * total * 3 * dim * dim
        full = shape.encoder_layers if sparsity == 0.0 else layer - 1
        layers = full * _layer_flops(total, total, dim)
        if sparsity > 0.0:
            # The scoring layer: all queries score, the kept ones attend and go on.
            scores = 2 * total * 3 * dim * dim + 2 * total * total * dim
            layers += scores + 4 * kept * total * dim + 2 * kept * 9 * dim * dim
            layers += (shape.encoder_layers - layer) * _layer_flops(kept, kept, dim)
        memory = shape.decoder_layers * 2 * kept * 2 * dim * dim
        weights = shape.decoder_layers * 14 * dim * dim + shape.vocab_size * dim
        cache = batch_size * shape.decoder_layers * 2 * kept * dim
        return cls(
            flops=float(batch_size * (stem + layers + memory)),
            bytes_read=float(num_tokens * itemsize * (weights + cache)),
        )

    def ideal_s(self, flops_per_s: float, bytes_per_s: float) -> float:
        """Seconds at the machine's peaks."""
        return self.flops / flops_per_s + self.bytes_read / bytes_per_s


def _layer_flops(queries: int, keys: int, dim: int) -> float:
    """One encoder layer: projections and MLP (12 dim² weights) and both attention products."""
    return 2 * queries * 12 * dim * dim + 4 * queries * keys * dim
