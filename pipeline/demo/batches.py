"""Training batches: scenes turned into log-mel, token sequences and frame labels."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.demo.features import draw_warp, log_mel
from pipeline.demo.labels import FRAMES_PER_S, MAX_FRAMES, Labeller, Target
from pipeline.demo.network import Thinning
from pipeline.demo.noise import degrade, empty_room
from pipeline.demo.scenes import Layout, Scene, Script, compose
from pipeline.demo.speech import SAMPLE_RATE
from pipeline.demo.text import LANGUAGES, sample_sentence
from pipeline.demo.thinning import draw_thinning
from pipeline.demo.tokens import Vocabulary

IGNORED = -100
LAYOUTS: tuple[Layout, ...] = ("packed", "spread", "half", "empty")

_TIMESTAMP_SHARE = 0.7
_PREVIOUS_SHARE = 0.05  # windows that follow a <|startofprev|> text
_NO_TASK_SHARE = 0.05  # transformers leaves the task out where neither language nor task is given
_CORRUPTED_SHARE = 0.08  # of the history's tokens are replaced,
_OMITTED_SHARE = 0.02  # left out,
_INSERTED_SHARE = 0.02  # put in;
_SHAKEN_SHARE = 0.5  # of its timestamps are off,
_SHAKEN_FRAMES = 12  # by so much (standard deviation)
_SHIFTED_SHARE = 0.7  # short windows whose text stands where it would in a full one
_STRETCH_SHARE = 0.3  # short windows that are one stretch of the 30 s
_NUM_BYTE_TOKENS = 256
_TOKENS_PER_S = 3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a stage trains on: seconds a window, windows a batch, shares of LAYOUTS, the share of batches
    whose encoder drops positions, and of those whose encoder attends to what is near alone."""

    window_s: float
    batch_size: int
    shares: tuple[float, float, float, float] = (0.85, 0.1, 0.0, 0.05)
    thinned: float = 0.0
    near: float = 0.0

    @property
    def audio_s(self) -> float:
        return self.window_s * self.batch_size


@dataclass(frozen=True)
class Batch:
    """The tensors of one step, for B windows of T encoder frames and U decoder positions.

    mel [B, 80, 2T]; frame_positions [B, T], where in the 30 s a frame stands; tokens, positions and targets
    [B, U], targets that do not count being IGNORED; spans [B, U, 2], the frames [first, last) in which a
    target is heard; frame_tokens and frame_phonemes [B, T]; thinning, if the encoder drops positions; near,
    if it attends to what is near alone.
    """

    mel: Tensor
    frame_positions: Tensor
    tokens: Tensor
    positions: Tensor
    targets: Tensor
    spans: Tensor
    frame_tokens: Tensor
    frame_phonemes: Tensor
    thinning: Thinning | None = None
    near: bool = False

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        thinning = self.thinning
        if thinning is not None and thinning.priority is not None:
            thinning = thinning._replace(priority=thinning.priority.to(device))
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        return Batch(**moved, thinning=thinning, near=self.near)


class Batches(Dataset[Batch]):
    """Batch number n, from the seed and n alone (but for espeak's state); recipes take turns."""

    def __init__(self, labeller: Labeller, recipes: tuple[Recipe, ...], seed: int) -> None:
        self.labeller, self.recipes, self.seed = labeller, recipes, seed

    def __getitem__(self, index: int) -> Batch:
        rng = random.Random(f"{self.seed} {index}")
        noise_rng = np.random.default_rng([self.seed, index])
        recipe = self.recipes[index % len(self.recipes)]
        # One layout a batch, so that its windows have about as much silence to drop.
        layout = rng.choices(LAYOUTS, recipe.shares)[0]
        scenes = [compose(rng, _script(rng, recipe, layout)) for _ in range(recipe.batch_size)]
        samples = [
            degrade(noise_rng, scene.samples)
            if scene.sentences
            else empty_room(noise_rng, len(scene.samples))
            for scene in scenes
        ]
        batch = self._collate(rng, scenes, np.stack(samples))
        batch = replace(batch, near=rng.random() < recipe.near)
        if rng.random() >= recipe.thinned:
            return batch
        return replace(batch, thinning=draw_thinning(rng, batch.frame_phonemes > 0))

    def _collate(self, rng: random.Random, scenes: list[Scene], samples: np.ndarray) -> Batch:
        shifts = [scatter(rng, scene) for scene in scenes]
        rows = [make_row(rng, self.labeller, scene, own) for scene, own in zip(scenes, shifts, strict=True)]
        width = max(len(row.tokens) for row in rows)
        frames = [self.labeller.frames(scene) for scene in scenes]
        return Batch(
            mel=log_mel(torch.from_numpy(samples), torch.stack([draw_warp(rng) for _ in scenes])),
            frame_positions=torch.from_numpy(np.stack([*map(frame_positions, scenes, shifts)])),
            tokens=_padded([row.tokens for row in rows], width, self.labeller.ids.end),
            positions=_padded([row.positions for row in rows], width, 0),
            targets=_padded([[target.token for target in row.targets] for row in rows], width, IGNORED),
            spans=torch.stack(
                [
                    _padded([[target.first for target in row.targets] for row in rows], width, 0),
                    _padded([[target.last for target in row.targets] for row in rows], width, 0),
                ],
                dim=-1,
            ),
            frame_tokens=torch.from_numpy(np.stack([tokens for tokens, _ in frames])),
            frame_phonemes=torch.from_numpy(np.stack([phonemes for _, phonemes in frames])),
        )


def _script(rng: random.Random, recipe: Recipe, layout: Layout) -> Script:
    return Script(
        language=rng.choice(LANGUAGES),
        layout=layout,
        duration_s=recipe.window_s,
        split="train",
        speech_share=rng.uniform(0.1, 0.95),
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One window's decoder input and targets, equally long."""

    tokens: list[int]
    positions: list[int]
    targets: list[Target]


def scatter(rng: random.Random, scene: Scene) -> list[int]:
    """How many frames later than in its short window each sentence stands in the 30 s, in time order.

    A short window is some stretch of the 30 s, or the sentences of a long one with the silence between them
    left out: so distances of a full window are learnt at the price of a short one.
    """
    spare = MAX_FRAMES - _num_frames(scene)
    if rng.random() < _STRETCH_SHARE:
        return [rng.randint(0, spare)] * len(scene.sentences)
    return sorted(rng.randint(0, spare) for _ in scene.sentences)


def frame_positions(scene: Scene, shifts: list[int]) -> np.ndarray:
    """The encoder position of each frame, int64 [T]; a shift begins halfway between two sentences."""
    positions = np.arange(_num_frames(scene))
    edges = [
        int((before.end_s + after.start_s) / 2 * FRAMES_PER_S)
        for before, after in itertools.pairwise(scene.sentences)
    ]
    for first, last, shift in zip([0, *edges], [*edges, len(positions)], shifts or [0], strict=True):
        positions[first:last] += shift
    return positions


def _num_frames(scene: Scene) -> int:
    return len(scene.samples) * FRAMES_PER_S // SAMPLE_RATE


def make_row(rng: random.Random, labeller: Labeller, scene: Scene, shifts: list[int]) -> Row:
    """Prompt and transcript of a scene whose sentences stand `shifts` frames later.

    <|startoftranscript|> predicts the language, or <|nospeech|>; text before it predicts nothing.
    """
    ids = labeller.ids
    timestamps = rng.random() < _TIMESTAMP_SHARE
    previous = _previous(rng, labeller, scene.language) if rng.random() < _PREVIOUS_SHARE else []
    prompt = [ids.start, ids.languages[scene.language]]
    prompt += [] if rng.random() < _NO_TASK_SHARE else [ids.transcribe]
    prompt += [] if timestamps else [ids.no_timestamps]
    body = labeller.transcript(scene, shifts=shifts, timestamps=timestamps)
    heard_first = prompt[1] if scene.sentences else ids.no_speech
    targets = [
        *(Target(IGNORED) for _ in previous),
        *(Target(token) for token in (heard_first, *prompt[2:])),
    ]
    num_given = len(previous) + len(prompt)
    history, heard = spoil(rng, body, ids)
    targets += heard
    tokens = [*previous, *prompt, *history]
    most = _TOKENS_PER_S * min(shifts, default=0) // FRAMES_PER_S
    shift = rng.randint(0, most) if rng.random() < _SHIFTED_SHARE else 0
    positions = [at if at < num_given else at + shift for at in range(len(tokens))]
    return Row(tokens=tokens, positions=positions, targets=targets)


def _previous(rng: random.Random, labeller: Labeller, language: str) -> list[int]:
    words = sample_sentence(rng, language, "train").split(" ")
    return [labeller.ids.start_of_previous, *(token for word in words for token in labeller.pieces(word))]


def spoil(rng: random.Random, body: list[Target], ids: Vocabulary) -> tuple[list[int], list[Target]]:
    """(history, what each of its tokens and the prompt's last one predict), with a decoder's own mistakes.

    Tokens are replaced, left out or put in, and timestamps are off by some tenths of a second, so that the
    decoder trusts what it hears more than what it has said. What it is to predict is always the truth.
    """
    history: list[int] = []
    targets = [body[0]]
    for said, following in itertools.pairwise(body):
        if said.token < ids.end and rng.random() < _OMITTED_SHARE:
            continue
        history.append(_mistaken(rng, said.token, ids))
        targets.append(following)
        if rng.random() < _INSERTED_SHARE:
            history.append(rng.randrange(_NUM_BYTE_TOKENS, ids.end))
            targets.append(following)
    return history, targets


def _mistaken(rng: random.Random, token: int, ids: Vocabulary) -> int:
    if token >= ids.first_timestamp and rng.random() < _SHAKEN_SHARE:
        at = token - ids.first_timestamp + round(rng.gauss(0, _SHAKEN_FRAMES))
        return ids.first_timestamp + min(max(at, 0), MAX_FRAMES)
    if token < ids.end and rng.random() < _CORRUPTED_SHARE:
        return rng.randrange(_NUM_BYTE_TOKENS, ids.end)
    return token


def _padded(rows: list[list[int]], width: int, value: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
