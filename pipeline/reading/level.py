"""How loud a recording is and whether its channels cancel: what one pass shows, the next one mends.

A recording that is far too quiet, or beyond full scale, is decoded again with a gain before its samples
become int16; where the mean of the channels is far weaker than they are, the loudest is taken instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

FRAME = 512  # samples, 32 ms at 16 kHz
# A level is the peak of the loudest frames but for about a second of them, or 3 % of a short recording: a
# click is no speech. silero-vad loses speech below -36 dB: 3 % of the seconds there, half of them at -60 dB.
LEVEL_FRAMES, LEVEL_SHARE = 32, 0.03
QUIET = 10 ** (-36 / 20)
SILENT = 2 / 32768  # what is no louder holds nothing
SILENT_FLOAT = 1e-5  # -100 dB, in samples of more than 16 bits
WANTED = 10 ** (-12 / 20)
BEYOND = 10 ** (2 / 20)  # what a lossy codec or a resampler adds to full scale is less, and is clipped
FAR_BEYOND = 8.0  # a peak above it is a broken sample, unless it is one of many
FULL_SCALE = 32766 / 32768
# Channels cancel where their mean has less than a tenth of the energy that it would have if they had nothing
# to do with each other.
CANCELLED = 0.1
AUDIBLE = 1e-11  # mean square of the differences
STRIDE = 16  # a share of a recording is enough to tell
PIECE = 512  # differences that are looked at together: half a second at 16 kHz


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """What is done to the samples of a recording beside resampling them; `gains` by channel, empty: none."""

    channel: int | None = None
    gains: tuple[float, ...] = ()

    @property
    def choice(self) -> str | None:
        """Which channel was taken, and why."""
        return None if self.channel is None else f"channel {self.channel}: channels cancel in the mix"

    @property
    def gains_db(self) -> tuple[float, ...]:
        """The gains in decibels."""
        return tuple(round(20 * math.log10(gain), 2) for gain in self.gains)


AS_IT_IS = Adjustment()


@dataclass
class ChannelEnergy:
    """Energies of some channels and of their mean, in what is left without low frequencies."""

    of_channels: np.ndarray = field(default_factory=lambda: np.zeros(0))
    of_mean: float = 0.0
    num_audible: int = 0
    num_cancelled: int = 0

    def add(self, samples: np.ndarray) -> None:
        """Take a block in, [time, channels], full scale at 1."""
        num = len(samples) // STRIDE * STRIDE
        steps = samples[1:num:STRIDE] - samples[0:num:STRIDE]
        if not len(steps):
            return
        edges = np.arange(0, len(steps), PIECE)
        energies = np.add.reduceat(np.square(steps), edges)
        of_mean = np.add.reduceat(
            np.square(steps @ np.full(steps.shape[1], 1 / steps.shape[1], np.float32)), edges
        )
        if energies.shape[1] > len(self.of_channels):
            self.of_channels = np.pad(self.of_channels, (0, energies.shape[1] - len(self.of_channels)))
        self.of_channels[: energies.shape[1]] += energies.sum(axis=0)
        self.of_mean += float(of_mean.sum())
        audible = energies.sum(axis=1) > AUDIBLE * min(PIECE, len(steps))
        self.num_audible += int(audible.sum())
        self.num_cancelled += int(_cancels(energies, of_mean)[audible].sum())

    @property
    def loudest(self) -> int | None:
        """The loudest channel where they cancel in their mean, over all or most of the time; else None."""
        mostly = self.num_cancelled > self.num_audible / 2
        cancels = mostly or bool(_cancels(self.of_channels, np.asarray(self.of_mean)))
        return int(self.of_channels.argmax()) if self.num_audible and cancels else None


def _cancels(energies: np.ndarray, of_mean: np.ndarray) -> np.ndarray:
    """energies: [..., channels]. Returns a bool of each."""
    return of_mean * energies.shape[-1] ** 2 < CANCELLED * energies.sum(axis=-1)


def level(samples: np.ndarray) -> float:
    """How loud a channel is; int16 [time], full scale at 1."""
    if not len(samples):
        return 0.0
    edges = np.arange(0, len(samples), FRAME)
    high, low = np.maximum.reduceat(samples, edges), np.minimum.reduceat(samples, edges)
    peaks = np.maximum(high.astype(np.int32), -low.astype(np.int32))
    left_out = min(max(1, round(LEVEL_SHARE * len(peaks))), LEVEL_FRAMES, len(peaks) - 1)
    return float(np.partition(peaks, len(peaks) - 1 - left_out)[len(peaks) - 1 - left_out]) / 32768


def adjusted(
    before: Adjustment, samples: np.ndarray, peaks: np.ndarray, loudest: int | None
) -> Adjustment | None:
    """What is to be done otherwise in another pass; None: it may stay.

    samples: what came of it, int16 [channels, time]. peaks: of each channel before it became int16 and was
    clipped, 0 where it was int16 all along. loudest: the channel to take in place of the mix.
    """
    if loudest is not None and before.channel is None:
        return replace(before, channel=loudest)
    factors = [_factor(level(channel), float(peak)) for channel, peak in zip(samples, peaks, strict=True)]
    if all(factor == 1.0 for factor in factors):
        return None
    gains = before.gains or (1.0,) * len(factors)
    return replace(before, gains=tuple(g * factor for g, factor in zip(gains, factors, strict=True)))


def _factor(loudness: float, peak: float) -> float:
    """By what a channel is multiplied, to a decibel."""
    if peak > BEYOND and (peak <= FAR_BEYOND or loudness >= FULL_SCALE):
        return 1 / peak
    if loudness <= SILENT and SILENT_FLOAT < peak < QUIET:
        return _decibels(WANTED / peak)
    return _decibels(WANTED / loudness) if SILENT < loudness < QUIET else 1.0


def _decibels(factor: float) -> float:
    return 10 ** (round(20 * np.log10(factor)) / 20)
