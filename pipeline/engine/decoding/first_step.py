"""What the decoder's first step takes and tells: prompts, draws, the language, and whether anyone speaks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.engine.decoding.caches import Prefill, SlotCaches
from pipeline.engine.decoding.tasks import Task
from pipeline.engine.model.whisper import Model


def pad_prompts(tasks: Sequence[Task], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts side by side, int64 [windows, longest], and their lengths, int64 [windows].

    What pads the shorter ones comes after them, so they do not see it, and their next tokens overwrite it.
    """
    longest = max(len(task.prompt) for task in tasks)
    rows = [[*task.prompt, *[padding] * (longest - len(task.prompt))] for task in tasks]
    lengths = [len(task.prompt) for task in tasks]
    return torch.tensor(rows, device=device), torch.tensor(lengths, device=device)


def read_prompts(
    model: Model, caches: SlotCaches, rows: Tensor, tasks: Sequence[Task]
) -> tuple[Tensor, Tensor]:
    """Hidden states of loaded slots' prompts, [windows, longest, dim], and their lengths, int64 [windows].

    On a CPU those of one length together: sums over more tokens, zeros though they are, differ in their last
    bits, and a window's text must not depend on its company.
    """
    prompts, lengths = pad_prompts(tasks, model.vocabulary.end, rows.device)
    places = torch.arange(prompts.shape[1], device=rows.device).expand_as(prompts)
    if rows.is_cuda:
        return model.decoder(prompts, places, caches.prefill(rows)), lengths
    out = torch.zeros(*prompts.shape, model.shape.dim, dtype=model.torch_dtype)
    for length in set(lengths.tolist()):
        (same,) = (lengths == length).nonzero(as_tuple=True)
        cache = caches.prefill(rows[same])
        out[same, :length] = model.decoder(prompts[same, :length], places[same, :length], cache)
    return out, lengths


def uniform_draws(tasks: Sequence[Task], num_tokens: int) -> Tensor:
    """Numbers in 0..1 for each token that may be drawn, from the seed of each task: [windows, num_tokens]."""
    draws = torch.zeros(len(tasks), num_tokens)
    for row, task in zip(draws, tasks, strict=True):
        if task.temperature > 0:
            row.copy_(torch.rand(num_tokens, generator=torch.Generator().manual_seed(task.seed)))
    return draws


def likeliest_languages(model: Model, cache: Prefill, num_windows: int) -> list[tuple[str, float]]:
    """The likeliest language of each window, and its probability among all.

    One decoder step over `<|startoftranscript|>` alone, as in openai-whisper.
    """
    vocabulary, device = model.vocabulary, model.device
    tokens = torch.full((num_windows, 1), vocabulary.start, device=device)
    out = model.decoder(tokens, torch.zeros_like(tokens), cache)
    ids = torch.tensor(list(vocabulary.languages.values()), device=device)
    best = model.decoder.logits(out[:, 0])[:, ids].softmax(-1).max(-1)
    codes = vocabulary.language_codes
    return [(codes[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def no_speech_probs(model: Model, hidden: Tensor, starts: Sequence[int]) -> list[float]:
    """The probability of `<|nospeech|>` after `<|startoftranscript|>`, which stands at `starts`.

    hidden: the decoder's output, [windows, tokens, dim].
    """
    windows = torch.arange(len(starts), device=hidden.device)
    at_start = hidden[windows, torch.tensor(starts, device=hidden.device)]
    return model.decoder.logits(at_start).softmax(-1)[:, model.vocabulary.no_speech].tolist()
