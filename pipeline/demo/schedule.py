"""What is trained when: stages of growing windows, and the learning rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.demo.batches import Recipe

_SHORT = (0.85, 0.1, 0.0, 0.05)  # packed, spread, half, empty
_FULL = (0.62, 0.13, 0.2, 0.05)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps before `until_step`: their recipes, taking turns, and the weight of the auxiliary losses."""

    until_step: int
    recipes: tuple[Recipe, ...]
    auxiliary: float


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Stages, and a learning rate that warms up, holds, and falls from `decay_from` to the last step."""

    stages: tuple[Stage, ...]
    decay_from: int
    warmup: int = 100
    matrix_rate: float = 0.01
    other_rate: float = 2e-3

    @property
    def num_steps(self) -> int:
        return self.stages[-1].until_step

    def stage(self, step: int) -> Stage:
        """The stage that step number `step` (from 0) belongs to."""
        return next(stage for stage in self.stages if step < stage.until_step)

    def rate(self, step: int) -> float:
        """The factor on both learning rates, in (0, 1]."""
        left = (self.num_steps - step) / max(1, self.num_steps - self.decay_from)
        return min(1.0, (step + 1) / self.warmup, max(left, 0.02))


def default_schedule(num_steps: int, batch_audio_s: float) -> Schedule:
    """Windows of 5 s for half of the steps, then in turn with windows of 30 s, at last those alone.

    Attention costs grow with the square of the window, so most is learnt on short ones, which stand at random
    positions of the 30 s. A step and process takes about `batch_audio_s` seconds of audio.
    """
    short, full = _recipe(5.0, batch_audio_s, _SHORT), _full_windows(batch_audio_s)
    return Schedule(
        stages=(
            Stage(until_step=round(0.5 * num_steps), recipes=(short,), auxiliary=1.0),
            Stage(until_step=round(0.8 * num_steps), recipes=(short, full), auxiliary=1.0),
            Stage(until_step=num_steps, recipes=(full,), auxiliary=1.0),
        ),
        decay_from=round(0.4 * num_steps),
    )


def further_schedule(num_steps: int, batch_audio_s: float) -> Schedule:
    """For a model that knows its language: full windows, and a lower rate that soon begins to fall.

    Most windows are attended to near by, which costs half as much, until the last quarter.
    """
    cheap, whole = (_full_windows(batch_audio_s, near) for near in (0.8, 0.2))
    return Schedule(
        stages=(
            Stage(until_step=round(0.75 * num_steps), recipes=(cheap,), auxiliary=1.0),
            Stage(until_step=num_steps, recipes=(whole,), auxiliary=1.0),
        ),
        decay_from=round(0.2 * num_steps),
        matrix_rate=0.006,
        other_rate=1.3e-3,
    )


def _full_windows(batch_audio_s: float, near: float = 0.0) -> Recipe:
    return replace(_recipe(30.0, batch_audio_s, _FULL), thinned=0.3, near=near)


def _recipe(window_s: float, batch_audio_s: float, shares: tuple[float, float, float, float]) -> Recipe:
    return Recipe(window_s=window_s, batch_size=max(1, round(batch_audio_s / window_s)), shares=shares)
