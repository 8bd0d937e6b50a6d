"""Blocks of any rate and channel count to 16 kHz int16, with the caps applied before anything grows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.reading.audio import DecodeRequest
from pipeline.reading.blocks import Block, Stream
from pipeline.reading.level import AS_IT_IS, Adjustment, ChannelEnergy
from pipeline.sources.recording import RecordingError

MAX_BAD_SHARE = 0.01  # of non-finite samples; beyond it the recording is unusable


class Conversion:
    """One pass over a stream. `convert` yields int16 [time, channels]; the counts are right afterwards."""

    def __init__(self, request: DecodeRequest, adjustment: Adjustment = AS_IT_IS) -> None:
        self.request = request
        self.adjustment = adjustment
        self.num_channels = 0  # of the output
        self.num_samples = 0  # per channel
        self.num_bad_samples = 0
        self.ended = False
        self.over_hours = False  # it goes on behind the most hours that are taken
        self.peaks = np.zeros(0, np.float32)  # of each channel before it was clipped; 0: int16 all along
        self.energy = ChannelEnergy()
        allowed_s = max(0.0, request.limits.max_hours * 3600 - request.offset_s)
        self._ends_by_hours = allowed_s <= request.max_s
        limit_s = min(allowed_s, request.max_s)
        self._limit = math.inf if math.isinf(limit_s) else round(limit_s * SAMPLE_RATE)
        self._run_up = round((request.offset_s - request.opens_s) * SAMPLE_RATE)  # still left out

    def convert(self, stream: Stream) -> Iterator[np.ndarray]:
        """Convert from `offset_s` on, until `max_s` or the end. Raises `RecordingError`."""
        resampler: Resampler | None = None
        blocks = self._wanted(stream)
        for block in blocks:
            samples = self._prepare(block)
            if resampler is None or resampler.rate != block.rate:
                if resampler is not None:
                    yield from self._emit(resampler.finish())
                resampler = Resampler(block.rate, samples.shape[1])
            resampled = resampler.push(samples)
            goes_on = len(resampled) - self._run_up > self._limit - self.num_samples
            yield from self._emit(resampled)
            if self.num_samples >= self._limit:
                self.ended = self._ends_by_hours
                self.over_hours = self.ended and (goes_on or next(blocks, None) is not None)
                return
        if resampler is not None:
            yield from self._emit(resampler.finish())
        self.ended = True
        self._check_bad_samples()

    def _wanted(self, stream: Stream) -> Iterator[Block]:
        """The blocks from `opens_s` on, checked."""
        skip_s = self.request.opens_s - stream.start_s
        for block in stream.blocks:
            self._check(block)
            skip = min(round(skip_s * block.rate), len(block.samples)) if skip_s > 0 else 0
            skip_s -= skip / block.rate
            if skip < len(block.samples):
                yield Block(samples=block.samples[skip:], rate=block.rate) if skip else block

    def _check(self, block: Block) -> None:
        limits, num_channels = self.request.limits, block.samples.shape[1]
        if not limits.min_rate <= block.rate <= limits.max_rate:
            allowed = f"{limits.min_rate} to {limits.max_rate}"
            raise RecordingError("bad_rate", f"has {block.rate} Hz, allowed are {allowed}")
        if num_channels > limits.max_channels:
            allowed = f"allowed are {limits.max_channels}"
            raise RecordingError("too_many_channels", f"has {num_channels} channels, {allowed}")

    def _prepare(self, block: Block) -> np.ndarray:
        """Pick or mix the channels; int16 stays int16 where it may."""
        samples = block.samples
        if samples.dtype.kind == "f":
            samples = self._finite(samples)
        channel = self.request.channel if self.adjustment.channel is None else self.adjustment.channel
        if channel is not None:
            if channel >= samples.shape[1]:
                raise RecordingError("corrupt", f"has no channel {channel}")
            samples = samples[:, channel : channel + 1]
        elif not self.request.split and samples.shape[1] > 1:
            samples = _as_float(samples)
            self.energy.add(samples)
            samples = samples.mean(axis=1, dtype=np.float32, keepdims=True)
        self.num_channels = self.num_channels or samples.shape[1]
        return _with_channels(samples, self.num_channels)

    def _finite(self, samples: np.ndarray) -> np.ndarray:
        if math.isfinite(float(np.abs(samples).max(initial=0.0))):
            return samples
        bad = ~np.isfinite(samples)
        self.num_bad_samples += int(bad.any(axis=1).sum())
        return np.where(bad, np.float32(0), samples)

    def _check_bad_samples(self) -> None:
        if self.num_bad_samples > MAX_BAD_SHARE * self.num_samples:
            raise RecordingError("bad_samples", f"{self.num_bad_samples} samples are not finite numbers")

    def _emit(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        left_out = min(self._run_up, len(samples))
        self._run_up -= left_out
        samples = samples[left_out:][: int(min(len(samples), self._limit - self.num_samples))]
        if not len(samples):
            return
        self.num_samples += len(samples)
        if self.adjustment.gains:
            samples = _as_float(samples) * np.asarray(self.adjustment.gains, np.float32)
        if samples.dtype != np.int16:
            peaks = np.abs(samples).max(axis=0)
            self.peaks = np.maximum(self.peaks, peaks) if len(self.peaks) else peaks
        yield to_int16(samples)


class Resampler:
    """One rate to 16 kHz by soxr (HQ), streamed; equal rates pass through untouched."""

    def __init__(self, rate: int, num_channels: int) -> None:
        import soxr

        self.rate = rate
        self._num_channels = num_channels
        self._stream = (
            soxr.ResampleStream(rate, SAMPLE_RATE, num_channels, dtype="float32", quality="HQ")
            if rate != SAMPLE_RATE
            else None
        )

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Resample a block, [time, channels]."""
        if self._stream is None:
            return samples
        return self._stream.resample_chunk(np.ascontiguousarray(_as_float(samples)))

    def finish(self) -> np.ndarray:
        """What is still inside the filter."""
        empty = np.zeros((0, self._num_channels), np.float32)
        return empty if self._stream is None else self._stream.resample_chunk(empty, last=True)


def _as_float(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.int16:
        return samples.astype(np.float32) * np.float32(1 / 32768)
    return samples.astype(np.float32, copy=False)


def _with_channels(samples: np.ndarray, num_channels: int) -> np.ndarray:
    """Keep the channel count of the first block where a later one has another."""
    if samples.shape[1] == num_channels:
        return samples
    if samples.shape[1] > num_channels:
        return samples[:, :num_channels]
    return np.pad(samples, ((0, 0), (0, num_channels - samples.shape[1])))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Samples as int16; floats beyond full scale are clipped."""
    if samples.dtype == np.int16:
        return samples
    scaled = np.rint(samples * np.float32(32768))
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)
