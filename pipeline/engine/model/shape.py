"""The numbers that fix a Whisper model's tensors, read from its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of one model. source_positions: encoder positions of a full window; target_positions: tokens."""

    dim: int
    vocab_size: int
    num_mels: int
    encoder_layers: int
    encoder_heads: int
    decoder_layers: int
    decoder_heads: int
    source_positions: int
    target_positions: int
    tied_logits: bool

    @property
    def encoder_head_dim(self) -> int:
        return self.dim // self.encoder_heads

    @property
    def decoder_head_dim(self) -> int:
        return self.dim // self.decoder_heads

    @property
    def num_frames(self) -> int:
        """Mel frames of a full window: two per encoder position."""
        return 2 * self.source_positions

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Shape:
        """Raises ValueError for variants that no released Whisper model uses."""
        if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding", False):
            raise ValueError("only Whisper models with gelu and without scale_embedding are supported")
        return cls(
            dim=config["d_model"],
            vocab_size=config["vocab_size"],
            num_mels=config.get("num_mel_bins", 80),
            encoder_layers=config["encoder_layers"],
            encoder_heads=config["encoder_attention_heads"],
            decoder_layers=config["decoder_layers"],
            decoder_heads=config["decoder_attention_heads"],
            source_positions=config.get("max_source_positions", 1500),
            target_positions=config.get("max_target_positions", 448),
            tied_logits=config.get("tie_word_embeddings", True),
        )
