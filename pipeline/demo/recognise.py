"""Greedy recognition of windows of any length by the model in training, for the development WER."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from pipeline.demo.features import log_mel
from pipeline.demo.labels import FRAMES_PER_S, MAX_FRAMES, Labeller
from pipeline.demo.network import decode, encode
from pipeline.demo.scenes import Scene, Script, compose
from pipeline.demo.speech import SAMPLE_RATE
from pipeline.demo.text import LANGUAGES
from pipeline.scoring import count_errors, total

_NUM_WINDOWS = 12  # with timestamps, and as many without
_MAX_TOKENS_PER_S = 8


@torch.inference_mode()
def greedy(
    model: WhisperForConditionalGeneration, mel: Tensor, offsets: Tensor, prompts: Tensor, limit: int
) -> list[list[int]]:
    """Tokens after the prompts [B, P] for windows mel [B, 80, 2T] at encoder frames `offsets` [B]."""
    end = model.config.eos_token_id
    frames = torch.arange(mel.shape[-1] // 2, device=mel.device)
    memory = encode(model, mel, offsets[:, None] + frames).output
    tokens = prompts
    done = torch.zeros(len(prompts), dtype=torch.bool, device=mel.device)
    for _ in range(limit):
        positions = torch.arange(tokens.shape[1], device=mel.device).expand_as(tokens)
        hidden, _ = decode(model, tokens, positions, memory)
        following = model.proj_out(hidden[:, -1]).argmax(-1).masked_fill(done, end)
        tokens = torch.cat([tokens, following[:, None]], dim=1)
        done |= following == end
        if done.all():
            break
    return tokens[:, prompts.shape[1] :].tolist()


def development_wer(model: WhisperForConditionalGeneration, labeller: Labeller, window_s: float) -> float:
    """WER over a few packed development windows at random places of the 30 s, half without timestamps."""
    rng = random.Random(f"development {window_s}")
    counts = []
    for timestamps in (True, False):
        scenes = [
            compose(rng, Script(language=LANGUAGES[n % 2], layout="packed", duration_s=window_s, split="dev"))
            for n in range(_NUM_WINDOWS)
        ]
        spare = MAX_FRAMES - int(window_s * FRAMES_PER_S)
        offsets = [rng.randint(0, spare) for _ in scenes]
        heard = _recognise(model, labeller, scenes, offsets, timestamps)
        counts += [
            count_errors(scene.text, text, scene.language) for scene, text in zip(scenes, heard, strict=True)
        ]
    return total(counts).wer or 0.0


def _recognise(
    model: WhisperForConditionalGeneration,
    labeller: Labeller,
    scenes: list[Scene],
    offsets: list[int],
    timestamps: bool,
) -> list[str]:
    ids, device = labeller.ids, model.device
    mode = [] if timestamps else [ids.no_timestamps]
    prompts = [[ids.start, ids.languages[scene.language], ids.transcribe, *mode] for scene in scenes]
    mel = log_mel(torch.from_numpy(np.stack([scene.samples for scene in scenes])))
    limit = 20 + int(_MAX_TOKENS_PER_S * len(scenes[0].samples) / SAMPLE_RATE)
    rows = greedy(
        model,
        mel.to(device),
        torch.tensor(offsets, device=device),
        torch.tensor(prompts, device=device),
        limit,
    )
    return [labeller.tokenizer.decode([token for token in row if token < ids.end]) for row in rows]
