"""The training loop: one step, checkpoints that resume, averaged weights, and a log of what happened."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import WhisperForConditionalGeneration

from pipeline.demo.batches import Batch, Batches
from pipeline.demo.labels import Labeller
from pipeline.demo.losses import Trainee
from pipeline.demo.muon import Muon, split_parameters
from pipeline.demo.network import build_model
from pipeline.demo.processes import has_bfloat16, in_any, num_processes, rank, share_gradients
from pipeline.demo.recognise import development_wer
from pipeline.demo.schedule import Schedule
from pipeline.demo.tokens import train_tokenizer

_LOG_EVERY = 20  # steps
_SAVE_EVERY = 50
_CHECK_EVERY = 400
_AVERAGE_KEEP = 0.995  # of the running mean of the weights, a step; less at the start

log = logging.getLogger("earshard")


class Trainer:
    """Everything that a step changes; `save` and `restore` keep it in `output/checkpoint.pt`."""

    def __init__(self, output: Path, schedule: Schedule, device: torch.device, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.output, self.schedule, self.device, self.seed = output, schedule, device, seed
        self.labeller = Labeller(train_tokenizer())
        ids = self.labeller.ids
        self.trainee = Trainee(build_model(ids), num_classes=ids.first_timestamp).to(device)
        self.average = copy.deepcopy(self.trainee.model).eval()
        matrices, others = split_parameters(self.trainee)
        dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
        self.optimizers = (
            Muon(matrices, lr=schedule.matrix_rate, dtype=dtype),
            torch.optim.AdamW(others, lr=schedule.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self.step = 0
        self.audio_s = 0.0

    @property
    def checkpoint(self) -> Path:
        return self.output / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint: to another name first, so that a kill leaves the last one whole."""
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "trainee": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "audio_s": self.audio_s,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def restore(self) -> bool:
        """Go on from the checkpoint; false if there is none."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.trainee.load_state_dict(state["trainee"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.audio_s = state["step"], state["audio_s"]
        return True

    def start_from(self, folder: Path) -> None:
        """Take the weights of an exported model, such as the bundled one; the optimisers start afresh."""
        weights = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
        self.trainee.model.load_state_dict(weights)
        self.average.load_state_dict(weights)

    def learn(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the loss terms."""
        stage = self.schedule.stage(self.step)
        self._set_rates(self.schedule.rate(self.step))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bfloat16(self.device)):
            terms = self.trainee(batch.to(self.device), stage.auxiliary)
        terms["loss"].backward()
        share_gradients(self.trainee)
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average()
        self.audio_s += sum(
            stage.recipes[(self.step * num_processes() + n) % len(stage.recipes)].audio_s
            for n in range(num_processes())
        )
        self.step += 1
        return {name: term.item() for name, term in terms.items()}

    def _set_rates(self, factor: float) -> None:
        bases = (self.schedule.matrix_rate, self.schedule.other_rate)
        for optimizer, base in zip(self.optimizers, bases, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * factor

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(_AVERAGE_KEEP, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.average.parameters(), self.trainee.model.parameters(), strict=True):
            mean.lerp_(value, 1 - keep)


def train(trainer: Trainer, *, num_workers: int, minutes: float = math.inf) -> None:
    """Train from where the trainer stands to the end of its schedule, or for `minutes`, and save."""
    deadline = time.monotonic() + 60 * minutes
    journal = Journal(trainer)
    for batch in _batches(trainer, num_workers):
        journal.note(trainer.learn(batch))
        if trainer.step % _SAVE_EVERY == 0 and rank() == 0:
            trainer.save()
        # All stop at the same step, because they wait for each other's gradients.
        if in_any(time.monotonic() > deadline, trainer.device):
            break
    if rank() == 0:
        trainer.save()


def _batches(trainer: Trainer, num_workers: int) -> Iterator[Batch]:
    """The batches that are left, stage by stage; every process takes its own."""
    while trainer.step < trainer.schedule.num_steps:
        stage = trainer.schedule.stage(trainer.step)
        first, last = (step * num_processes() + rank() for step in (trainer.step, stage.until_step))
        yield from DataLoader(
            Batches(trainer.labeller, stage.recipes, trainer.seed),
            batch_size=None,
            sampler=range(first, last, num_processes()),
            num_workers=num_workers,
            pin_memory=trainer.device.type == "cuda",
        )


class Journal:
    """Means of the loss terms and, now and then, the development WER: `output/log.jsonl` and the log."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._sums: dict[str, float] = {}
        self._num_steps = 0
        self._started = time.monotonic()

    def note(self, terms: dict[str, float]) -> None:
        """Count the terms of one step; every so often write their means."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._num_steps += 1
        if self._trainer.step % _LOG_EVERY == 0:
            if rank() == 0:
                self._write()
            self._sums, self._num_steps = {}, 0

    def _write(self) -> None:
        trainer = self._trainer
        row = {
            "step": trainer.step,
            "audio_h": trainer.audio_s / 3600,
            "wall_s": time.monotonic() - self._started,
        }
        row |= {name: value / self._num_steps for name, value in self._sums.items()}
        if trainer.step % _CHECK_EVERY == 0:
            window_s = trainer.schedule.stage(trainer.step - 1).recipes[-1].window_s
            row["wer"] = development_wer(trainer.average, trainer.labeller, window_s)
        trainer.output.mkdir(parents=True, exist_ok=True)
        with (trainer.output / "log.jsonl").open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
        wer = f", WER {row['wer']:.1%}" if "wer" in row else ""
        log.info("step %d of %d, loss %.3f%s", trainer.step, trainer.schedule.num_steps, row["loss"], wer)
