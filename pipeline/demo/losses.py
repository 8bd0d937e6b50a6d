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
from pipeline.demo.labels import NUM_PHONEME_CLASSES
from pipeline.demo.network import GUIDED_HEADS, decode, encode

_LABEL_SMOOTHING = 0.05
_WEIGHTS = {"frames": 1.0, "phonemes": 0.3, "guide": 1.5, "reach": 1.0}
_NUM_QUERIES = 48
_REACH_FRAMES = 100
_FRAME_STRIDE = 3  # frames: their neighbours say nearly the same


class Trainee(nn.Module):
    """The model and the phoneme head that only training uses."""

    def __init__(self, model: WhisperForConditionalGeneration, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.phoneme_head = nn.Linear(model.config.d_model, NUM_PHONEME_CLASSES)
        self.num_classes = num_classes  # text and special tokens: no timestamps

    def forward(self, batch: Batch, auxiliary: float) -> dict[str, Tensor]:
        """Loss terms by name, "loss" among them: tokens + `auxiliary` x the rest."""
        num_frames = batch.frame_positions.shape[1]
        queries = torch.arange(_NUM_QUERIES, device=batch.mel.device) * num_frames // _NUM_QUERIES
        memory, low, watched = encode(self.model, batch.mel, batch.frame_positions, queries)
        hidden, weights = decode(self.model, batch.tokens, batch.positions, memory)
        logits = self.model.proj_out(hidden).flatten(0, 1).float()
        targets = batch.targets.flatten()
        terms = {
            "tokens": F.cross_entropy(
                logits, targets, ignore_index=IGNORED, label_smoothing=_LABEL_SMOOTHING
            ),
            "frames": self._frame_loss(memory, batch.frame_tokens),
            "phonemes": F.cross_entropy(
                self.phoneme_head(low).flatten(0, 1).float(), batch.frame_phonemes.flatten()
            ),
            "guide": guide_loss(weights, batch.spans),
            "reach": reach_loss(watched, batch.frame_positions, queries),
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


def reach_loss(weights: list[Tensor], positions: Tensor, queries: Tensor) -> Tensor:
    """-log of the self-attention mass that upper encoder layers keep within two seconds.

    Learnt on short windows, attention finds its neighbourhood by what is said there, and loses it in long
    ones.

    Args:
        weights: [B, heads, Q, T] of each layer, for the frames `queries` [Q].
        positions: [B, T], where each frame stands in the 30 s.
    """
    near = (positions[:, queries, None] - positions[:, None, :]).abs() <= _REACH_FRAMES  # [B, Q, T]
    mass = torch.stack([(layer * near[:, None]).sum(-1) for layer in weights])
    return -torch.log(mass + 1e-4).mean()


def guide_loss(weights: list[Tensor], spans: Tensor) -> Tensor:
    """-log of the cross-attention mass that guided heads put where the target is heard.

    Args:
        weights: [B, heads, U, T] of each guided layer.
        spans: [B, U, 2], first frame and last frame + 1; an empty span does not count, and 0 if all are.
    """
    frames = torch.arange(weights[0].shape[-1], device=spans.device)
    inside = (frames >= spans[..., :1]) & (frames < spans[..., 1:])  # [B, U, T]
    counts = spans[..., 1] > spans[..., 0]
    total = torch.zeros((), device=spans.device)
    for layer in weights:
        for head in GUIDED_HEADS:
            mass = (layer[:, head] * inside).sum(-1)
            total = total - torch.log(mass[counts] + 1e-4).sum()
    return total / (len(weights) * len(GUIDED_HEADS) * counts.sum().clamp(min=1))
