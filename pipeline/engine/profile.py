"""Where the time of a window goes, dense and at one level: every part run by itself and timed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.decoding.rules import Rules
from pipeline.engine.decoding.slots import Slots
from pipeline.engine.decoding.tasks import Task
from pipeline.engine.model.encoder import EncoderLayer
from pipeline.engine.model.whisper import Model
from pipeline.engine.sparsify.level import Level, num_kept
from pipeline.engine.sparsify.scoring_layer import finish_kept
from pipeline.engine.sparsify.selectors import SELECTORS, Evidence

OPERATIONS = (
    "log-mel features",
    "convolutions",
    "layers up to the queries and keys of the scoring one",
    "scores and choice",
    "rest of the scoring layer",
    "later layers",
    "cross-attention keys and values",
    "tokens",
)


class Clock:
    """Seconds of the device by part."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        started = self._now()
        yield
        self.seconds[name] += self._now() - started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@torch.inference_mode()
def profile(
    model: Model, windows: Sequence[np.ndarray], *, level: Level | None, language: str | None, layer: int
) -> dict[str, float]:
    """Seconds that each of `OPERATIONS` takes for some windows together; a part that is not run takes 0.

    windows: as for `Engine.transcribe`. level: with a sparsity; None is dense. layer: where dense is cut in
    parts, the scoring layer of the level that it is compared with.
    """
    clock = Clock(model.device)
    hidden = torch.cat([_encode(model, samples, level, layer, clock) for samples in windows])
    _decode(model, hidden, language, clock)
    return {name: clock.seconds[name] for name in OPERATIONS}


def _encode(model: Model, samples: np.ndarray, level: Level | None, layer: int, clock: Clock) -> Tensor:
    """One window's encoder output, [1, kept, dim]."""
    features, convolutions, early, scores, rest, late = OPERATIONS[:6]
    encoder = model.encoder
    scoring = encoder.layers[layer - 1]
    assert isinstance(scoring, EncoderLayer)
    with clock.operation(features):
        mel = model.features([samples])
    with clock.operation(convolutions):
        x = encoder.stem(mel)
    with clock.operation(early):
        x = encoder.run(x, 0, layer - 1)
        qkv = scoring.project(x)
    if level is None:
        with clock.operation(rest):
            x = scoring.finish(x, *qkv)
    else:
        with clock.operation(scores):
            positions = torch.arange(x.shape[1], device=x.device)[None]
            evidence = Evidence(q=qkv[0], k=qkv[1], mel=mel, seeds=[0], positions=positions)
            kept = SELECTORS[level.selector](evidence, num_kept(level.sparsity, x.shape[1]))
        with clock.operation(rest):
            x = finish_kept(scoring, x, qkv, kept)
    with clock.operation(late):
        return encoder.norm(encoder.run(x, layer, len(encoder.layers)))


def _decode(model: Model, hidden: Tensor, language: str | None, clock: Clock) -> None:
    """Greedy decoding of encoder outputs [windows, kept, dim], all side by side."""
    vocabulary = model.vocabulary
    slots = Slots(
        model,
        Rules(vocabulary, model.device, timestamps=True),
        size=len(hidden),
        num_positions=hidden.shape[1],
    )
    with clock.operation("cross-attention keys and values"):
        rows = slots.load(hidden.unbind(0))
    with clock.operation("tokens"):
        if language is None:
            languages = [code for code, _ in slots.detect_languages(rows)]
        else:
            languages = [language] * len(hidden)
        prompts = [vocabulary.start_sequence(code, "transcribe", timestamps=True) for code in languages]
        room = model.shape.target_positions - len(prompts[0])
        slots.start(
            rows,
            [
                Task(index=number, prompt=tuple(prompt), start=0, max_new_tokens=room)
                for number, prompt in enumerate(prompts)
            ],
        )
        while slots.live:
            slots.step()
