"""Real-time factors and money. All from device time, so that an idle hour is not sold as a busy one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SECONDS_PER_HOUR = 3600.0
NUM_SLOWEST = 3  # recordings of a shard
SHORT_S = 10.0  # what is shorter counts as this long: it fills no window, and says nothing by being slow


def rtf(device_s: float, audio_s: float) -> float | None:
    """Device seconds per second of audio; None without audio."""
    return device_s / audio_s if audio_s > 0 else None


def rtfx(device_s: float, audio_s: float) -> float | None:
    """Seconds of audio per device second; None without audio or without device time."""
    return audio_s / device_s if audio_s > 0 and device_s > 0 else None


def cost_usd(device_s: float, gpu_hour_usd: float, device: str) -> float | None:
    """The price of the device time; None on a CPU, which the price of a GPU says nothing about."""
    return device_s / SECONDS_PER_HOUR * gpu_hour_usd if device.startswith("cuda") else None


def slowest_recordings(
    recordings: Iterable[Mapping[str, Any]], number: int = NUM_SLOWEST
) -> list[dict[str, Any]]:
    """Those that took most device time for their length (`SLOW_RECORDING`), slowest first; ties by id."""

    def rank(recording: Mapping[str, Any]) -> tuple[float, str]:
        return -recording["device_s"] / max(recording["audio_s"], SHORT_S), recording["recording_id"]

    return [dict(recording) for recording in sorted(recordings, key=rank)[:number]]
