"""Axes of a plot: values to places in its coordinates, and round numbers beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Axes:
    """A rectangle in a plot's coordinates, and the values (low, high) at its edges; y grows upwards."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """The place of a value on the horizontal axis."""
        low, high = self.x_range
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """The place of a value on the vertical axis."""
        low, high = self.y_range
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)


def round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, … times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= value * (1 - 1e-9))


def ticks(low: float, high: float, number: int) -> list[float]:
    """Round values from `low` to `high`, about `number` steps of them."""
    step = round_up((high - low) / number)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]
