"""What it should bring on a GPU that cross-attention reads less, by the roofline alone; no GPU has shown it.

Run as `python -m tests.studies.predicted_gain`; prints the table of docs/measurements/less-to-read.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from pipeline.benchmark.random_model import KINDS, Kind, special_tokens
from pipeline.benchmark.roofline import BatchWork
from pipeline.benchmark.throughput import NUM_TOKENS, SPARSITY
from pipeline.engine.decoding.memory import bytes_of_number
from pipeline.engine.model.shape import Shape
from pipeline.engine.options import DEFAULT_LAYER, MemoryDtype

# Operations and bytes a second. The H200's were measured on such a card; the H100 has the same processors and
# 3.35 of the H200's 4.8 TB/s by their data sheets.
CARDS = {"H100": (790e12, 3.0e12), "H200": (790e12, 4.3e12)}
MODELS = ("large-v3", "large-v3-turbo")
BATCHES = (64, 256)
BF16_BYTES = 2


def shape_of(kind: Kind) -> Shape:
    """The numbers of a kind of model, without making one."""
    return Shape(
        dim=kind.dim,
        vocab_size=kind.num_text + len(special_tokens(kind)),
        num_mels=kind.num_mels,
        encoder_layers=kind.encoder_layers,
        encoder_heads=kind.heads,
        decoder_layers=kind.decoder_layers,
        decoder_heads=kind.heads,
        source_positions=1500,
        target_positions=448,
        tied_logits=True,
    )


@dataclass(frozen=True, kw_only=True)
class Way:
    """share: of the final positions that cross-attention sees. linear: of the products of linear maps."""

    memory: MemoryDtype = "same"
    share: float = 1.0
    linear: float = 1.0


WAYS = {
    "int8": Way(memory="int8"),
    "every second": Way(share=0.5),
    "low rank, 0.9 left": Way(linear=0.9),
    "low rank, 0.5 left": Way(linear=0.5),
}


def windows_per_s(kind: Kind, card: str, batch: int, sparsity: float, way: Way) -> float:
    """At the card's peaks, in bfloat16."""
    shape = shape_of(kind)
    itemsize = way.share * bytes_of_number(way.memory, BF16_BYTES, shape.decoder_head_dim)
    work = BatchWork.of(
        shape, batch, sparsity, DEFAULT_LAYER, NUM_TOKENS, itemsize, weight_itemsize=BF16_BYTES, scores=False
    )
    return batch / replace(work, linear_flops=way.linear * work.linear_flops).ideal_s(*CARDS[card])


def main() -> None:
    """Prints one row for each card, model and batch."""
    titles = [f"{sparse}{way}" for sparse in ("", "EAS, ") for way in ("as it is", *WAYS)]
    print(f"| | {' | '.join(titles)} |\n|---{'|--:' * len(titles)}|")
    for card, name, batch in product(CARDS, MODELS, BATCHES):
        cells = []
        for sparsity in (0.0, SPARSITY):
            before = windows_per_s(KINDS[name], card, batch, sparsity, Way())
            rates = [windows_per_s(KINDS[name], card, batch, sparsity, way) for way in WAYS.values()]
            cells += [f"{before:.0f}", *(f"{rate:.0f} ({rate / before:.2f})" for rate in rates)]
        print(f"| {name}, {card}, batch {batch} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
