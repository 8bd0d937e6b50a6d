"""The bundled recordings: synthetic speech in the containers, rates and channels found in archives."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from pipeline.demo.scenes import Layout, Script, compose
from pipeline.demo.speech import SAMPLE_RATE

FOLDER = Path(__file__).parent / "speech"
_LEVEL = 0.6  # of full scale: lossy codecs overshoot


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One recording: what it holds, and how it is stored (`subtype` is soundfile's; PyAV writes m4a)."""

    file_name: str
    language: str
    duration_s: float
    sample_rate: int
    layout: Layout = "packed"
    subtype: str | None = None
    stereo: bool = False


SAMPLES = (
    Sample(file_name="kitchen.wav", language="en", duration_s=12, sample_rate=16_000, subtype="PCM_16"),
    Sample(file_name="mercado.flac", language="es", duration_s=12, sample_rate=44_100, stereo=True),
    Sample(file_name="river.mp3", language="en", duration_s=26, sample_rate=44_100),
    Sample(file_name="castillo.ogg", language="es", duration_s=16, sample_rate=22_050, subtype="VORBIS"),
    Sample(
        file_name="harbour.opus",
        language="en",
        duration_s=45,
        sample_rate=48_000,
        layout="spread",
        subtype="OPUS",
    ),
    Sample(file_name="isla.m4a", language="es", duration_s=24, sample_rate=44_100, stereo=True),
    Sample(file_name="telephone.wav", language="en", duration_s=10, sample_rate=8_000, subtype="ULAW"),
    Sample(file_name="station.flac", language="en", duration_s=58, sample_rate=16_000, layout="spread"),
)


def write_samples(folder: Path) -> list[tuple[str, str, str]]:
    """Write the recordings and references.tsv (audio_filepath, text, language).

    Returns:
        The rows of references.tsv.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for sample in SAMPLES:
        script = Script(
            language=sample.language, layout=sample.layout, duration_s=sample.duration_s, split="final"
        )
        scene = compose(random.Random(f"sample {sample.file_name}"), script)
        _store(folder / sample.file_name, sample, _LEVEL * scene.samples)
        rows.append((sample.file_name, scene.text, sample.language))
    lines = ["\t".join(row) for row in (("audio_filepath", "text", "language"), *rows)]
    (folder / "references.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return rows


def _store(path: Path, sample: Sample, samples: np.ndarray) -> None:
    resampled = soxr.resample(samples, SAMPLE_RATE, sample.sample_rate)
    channels = np.stack([resampled, 0.8 * resampled]) if sample.stereo else resampled[None]
    if path.suffix == ".m4a":
        _store_aac(path, sample.sample_rate, channels)
    else:
        container = "OGG" if path.suffix == ".opus" else None
        soundfile.write(path, channels.T, sample.sample_rate, subtype=sample.subtype, format=container)


def _store_aac(path: Path, sample_rate: int, channels: np.ndarray) -> None:
    layout = "stereo" if len(channels) == 2 else "mono"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=sample_rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels, dtype=np.float32), "fltp", layout)
        frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), 0
        for part in (frame, None):
            container.mux(stream.encode(part))
