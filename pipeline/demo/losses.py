"""The loss of a step: the tokens, and four auxiliary terms that teach a small model to listen.

Without them the decoder learns to recite fluent sentences that have nothing to do with the audio. They
use what the synthesiser knows: the token and the phoneme heard in each frame, and where each token is heard.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from pipeline.demo.batches import IGNORED, Batch
from pipeline.demo.labels import MAX_FRAMES, NUM_PHONEME_CLASSES
from pipeline.demo.network import GUIDED_HEADS, NEAR_FRAMES, Watched, decode, encode

_LABEL_SMOOTHING = 0.05
_WEIGHTS = {"frames": 1.0, "phonemes": 0.3, "places": 0.4, "guide": 1.5, "reach": 1.0}
_NUM_QUERIES = 48
_FRAME_STRIDE = 3  # frames: their neighbours say nearly the same
_PLACE_STRIDE = 15


class Trainee(nn.Module):
    """The model and the phoneme head that only training uses."""

    def __init__(self, model: WhisperForConditionalGeneration, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.phoneme_head = nn.Linear(model.config.d_model, NUM_PHONEME_CLASSES)
        self.num_classes = num_classes  # text and special tokens: no timestamps

    def forward(self, batch: Batch, auxiliary: float) -> dict[str, Tensor]:
        """Loss terms by name, "loss" among them: tokens + `auxiliary` x the rest."""
        encoded = encode(
            self.model,
            batch.mel,
            batch.frame_positions,
            num_watched=_NUM_QUERIES,
            thinning=batch.thinning,
            near=batch.near,
        )
        hidden, weights = decode(self.model, batch.tokens, batch.positions, encoded.output)
        logits = self.model.proj_out(hidden).flatten(0, 1).float()
        targets = batch.targets.flatten()
        phonemes = batch.frame_phonemes.gather(1, encoded.low_kept)
        terms = {
            "tokens": F.cross_entropy(
                logits, targets, ignore_index=IGNORED, label_smoothing=_LABEL_SMOOTHING
            ),
            "frames": self._frame_loss(encoded.output, batch.frame_tokens.gather(1, encoded.kept)),
            "phonemes": F.cross_entropy(
                self.phoneme_head(encoded.low[:, ::_FRAME_STRIDE]).flatten(0, 1).float(),
                phonemes[:, ::_FRAME_STRIDE].flatten(),
            ),
            "places": self._place_loss(encoded.output, batch.frame_positions.gather(1, encoded.kept)),
            "guide": guide_loss(weights, batch.spans, encoded.kept),
            "reach": reach_loss(encoded.watched, batch.frame_positions, batch.frame_phonemes > 0),
        }
        terms["loss"] = terms["tokens"] + auxiliary * sum(
            weight * terms[name] for name, weight in _WEIGHTS.items()
        )
        known = targets != IGNORED
        terms["accuracy"] = (logits.argmax(-1) == targets)[known].float().mean()
        return terms

    def _frame_loss(self, memory: Tensor, frame_tokens: Tensor) -> Tensor:
        """Cross-entropy of every third frame's token, through the tied embedding."""
        embedding = self.model.proj_out.weight[: self.num_classes]
        logits = memory[:, ::_FRAME_STRIDE] @ embedding.T
        return F.cross_entropy(logits.flatten(0, 1).float(), frame_tokens[:, ::_FRAME_STRIDE].flatten())

    def _place_loss(self, memory: Tensor, positions: Tensor) -> Tensor:
        """Cross-entropy of the timestamp at which a frame begins, through the tied embedding, for some."""
        embedding = self.model.proj_out.weight[self.num_classes : self.num_classes + MAX_FRAMES + 1]
        logits = memory[:, ::_PLACE_STRIDE] @ embedding.T
        return F.cross_entropy(logits.flatten(0, 1).float(), positions[:, ::_PLACE_STRIDE].flatten())


def reach_loss(watched: list[Watched], positions: Tensor, speech: Tensor) -> Tensor:
    """-log of the self-attention mass that frames in speech keep within two seconds, in all encoder layers.

    Without it attention finds its neighbourhood by what is said there, and there are more places like that
    in a long window. Silence has nothing to find; 0 if there is nothing else.

    Args:
        watched: weights of each layer.
        positions: [B, T], where each frame stands in the 30 s.
        speech: [B, T], true in frames in which a phoneme is heard.
    """
    masses = []
    for weights, queries, keys in watched:
        apart = positions.gather(1, queries)[:, :, None] - positions.gather(1, keys)[:, None, :]
        mass = (weights * (apart.abs() <= NEAR_FRAMES)[:, None]).sum(-1)  # [B, heads, Q]
        masses.append(mass.transpose(1, 2)[speech.gather(1, queries)].flatten())
    mass = torch.cat(masses)
    return -torch.log(mass + 1e-4).sum() / max(1, len(mass))


def guide_loss(weights: list[Tensor], spans: Tensor, frames: Tensor) -> Tensor:
    """-log of the cross-attention mass that guided heads put where the target is heard.

    Args:
        weights: [B, heads, U, K] of each guided layer.
        spans: [B, U, 2], first frame and last frame + 1; 0 if none counts.
        frames: [B, K], the frames that are left; a span without any does not count.
    """
    inside = (frames[:, None] >= spans[..., :1]) & (frames[:, None] < spans[..., 1:])  # [B, U, K]
    counts = inside.any(-1)
    total = torch.zeros((), device=spans.device)
    for layer in weights:
        for head in GUIDED_HEADS:
            mass = (layer[:, head] * inside).sum(-1)
            total = total - torch.log(mass[counts] + 1e-4).sum()
    return total / (len(weights) * len(GUIDED_HEADS) * counts.sum().clamp(min=1))
