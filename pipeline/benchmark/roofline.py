"""How much arithmetic and traffic a batch needs at least, and how long it should then take."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.benchmark.machine import Peaks
from pipeline.engine.model.shape import Shape
from pipeline.engine.sparsify.level import num_kept


@dataclass(frozen=True, kw_only=True)
class BatchWork:
    """Of one batch.

    linear_flops, other_flops: encoder and memory projection, in linear maps and in all else. step_flops: the
    decoder's linear maps, all steps. bytes_read: weights and caches by the decoder, all steps.
    """

    linear_flops: float
    other_flops: float
    step_flops: float
    bytes_read: float

    @classmethod
    def of(
        cls,
        shape: Shape,
        batch_size: int,
        sparsity: float,
        layer: int,
        num_tokens: int,
        itemsize: float,
        weight_itemsize: float | None = None,
        scores: bool = True,
    ) -> BatchWork:
        """Counts multiplications and additions of every product, and weights and memory once a step.

        layer: the scoring layer, 1-based; the layers after it see the kept positions only. itemsize: bytes of
        a number in the caches; weight_itemsize: of a weight, if it differs. scores: the selector reads the
        attention that every position receives.
        """
        total, kept, dim = shape.source_positions, num_kept(sparsity, shape.source_positions), shape.dim
        full = shape.encoder_layers if sparsity == 0.0 else layer - 1
        late = 0 if sparsity == 0.0 else shape.encoder_layers - layer
        # Projections and MLP are 12 dim² weights a position, both products of attention 4 dim a pair.
        linear = 24 * dim * dim * (full * total + late * kept)
        other = 4 * dim * (full * total * total + late * kept * kept)
        other += 2 * shape.num_frames * 3 * shape.num_mels * dim + 2 * total * 3 * dim * dim  # convolutions
        if sparsity > 0.0:
            # The scoring layer: all queries score, if anything does; the kept ones attend and go on.
            linear += 2 * dim * dim * (3 * total + 9 * kept)
            other += (2 * total * total * dim if scores else 0) + 4 * kept * total * dim
        linear += shape.decoder_layers * 2 * kept * 2 * dim * dim
        weights = shape.decoder_layers * 14 * dim * dim + shape.vocab_size * dim
        cache = batch_size * shape.decoder_layers * 2 * kept * dim
        weight_bytes = weights * (itemsize if weight_itemsize is None else weight_itemsize)
        return cls(
            linear_flops=float(batch_size * linear),
            other_flops=float(batch_size * other),
            step_flops=float(2 * num_tokens * batch_size * weights),
            bytes_read=float(num_tokens * (weight_bytes + cache * itemsize)),
        )

    def ideal_s(
        self, flops_per_s: float, bytes_per_s: float, linear_flops_per_s: float | None = None
    ) -> float:
        """Seconds at the machine's peaks; linear_flops_per_s: of linear maps, where they are in int8.

        A decoder's step takes what is longer, its products or reading its weights and caches.
        """
        linear = flops_per_s if linear_flops_per_s is None else linear_flops_per_s
        steps_s = max(self.step_flops / linear, self.bytes_read / bytes_per_s)
        return self.linear_flops / linear + self.other_flops / flops_per_s + steps_s


@dataclass(frozen=True, kw_only=True)
class LaunchCounts:
    """Kernels that the host starts: for one batch through the encoder, and for one step of the decoder.

    step_launch_s, encode_launch_s: what starting one costs at least, replayed from a graph or one by one.
    """

    encode: int
    step: int
    encode_launch_s: float
    step_launch_s: float


def predicted_s(work: BatchWork, peaks: Peaks, launches: LaunchCounts, num_tokens: int) -> float:
    """Seconds of a batch if every kernel ran at the machine's peak and nothing but launches held it up."""
    linear = peaks.linear_flops or peaks.flops
    encode_s = work.linear_flops / linear + work.other_flops / peaks.flops
    steps_s = max(work.step_flops / linear, work.bytes_read / peaks.copied)
    return max(encode_s, launches.encode * launches.encode_launch_s) + max(
        steps_s, num_tokens * launches.step * launches.step_launch_s
    )
