"""The held-out sets of the bundled model: windows of 30 s with their truth.

They are the same bytes wherever the libraries are the same.
Their sentences are banned from training by text, their voices and noise are their own, and the development
split shares none of them with the final one. libespeak-ng carries state from one utterance to the next, so
each set is made in a fresh process. Another seed draws other windows of the final split, as many as wanted.

Run as `python -m tests.synthetic.held_out FOLDER [--seed N [--words N]]`; needs espeak-ng.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from tests.synthetic.noise import add_noise, empty_room
from tests.synthetic.scenes import Layout, Scene, Script, compose
from tests.synthetic.speech import SAMPLE_RATE
from tests.synthetic.text import Split

WINDOW_S = 30.0
_NOISY_SNR_DB = 10.0
_SPLIT_SEEDS = {"dev": 101, "final": 202}


MIN_WORDS = 2050  # normalised, where numbers and short forms join, 2,000 are left


@dataclass(frozen=True, kw_only=True)
class HeldOutSet:
    """One set: windows are added until it holds `min_words` words and `min_windows` windows.

    is_large: has as many words as are asked for.
    """

    name: str
    layout: Layout
    language: str = "en"
    min_words: int = MIN_WORDS
    min_windows: int = 0
    noisy: bool = False
    unseen_names: float = 0.0
    is_large: bool = True


SETS = (
    HeldOutSet(name="packed", layout="packed"),
    HeldOutSet(name="spread", layout="spread"),
    HeldOutSet(name="half", layout="half"),
    HeldOutSet(name="noisy", layout="packed", noisy=True),
    HeldOutSet(name="second-language", layout="packed", language="es"),
    HeldOutSet(name="names", layout="packed", min_words=500, unseen_names=0.5, is_large=False),
    HeldOutSet(name="no-speech", layout="empty", min_words=0, min_windows=100, is_large=False),
)


def write_held_out(output: Path) -> list[dict[str, object]]:
    """Write `output/<split>/<set>/*.flac`, with references.jsonl in each set's and each split's folder.

    Returns:
        One row per set: split, set, num_windows, num_words, audio_s.
    """
    return [
        row for split in ("dev", "final") for row in _write_split(output, split, _SPLIT_SEEDS[split], SETS)
    ]


def write_further(output: Path, seed: int, min_words: int) -> list[dict[str, object]]:
    """Write other windows of the final split, `output/final/<set>/*.flac`, as `write_held_out` does.

    Args:
        output: folder.
        seed: any number that is not one of the splits' own; the same one gives the same bytes.
        min_words: words in each of packed, spread, half, noisy and second-language; the other sets stay as
            they are.

    Raises ValueError for a seed that made the held-out sets, and where `output/final` is there already.
    """
    if seed in _SPLIT_SEEDS.values():
        raise ValueError(f"seed is {seed}, which made the held-out sets; it may be any other number")
    if (output / "final").exists():
        raise ValueError(f"{output / 'final'} is there already, which other windows would be mixed with")
    sets = [replace(one, min_words=min_words) if one.is_large else one for one in SETS]
    return _write_split(output, "final", seed, sets)


def _write_split(
    output: Path, split: Split, seed: int, sets: Sequence[HeldOutSet]
) -> list[dict[str, object]]:
    tasks = [(output / split, held_out, split, seed) for held_out in sets]
    with multiprocessing.get_context("spawn").Pool(processes=2, maxtasksperchild=1) as pool:
        made = pool.starmap(_write_set, tasks, chunksize=1)
    _write_references(output / split, [row for references in made for row in references])
    return [_summary(split, held_out, references) for held_out, references in zip(sets, made, strict=True)]


def _write_set(folder: Path, held_out: HeldOutSet, split: Split, seed: int) -> list[dict[str, object]]:
    target = folder / held_out.name
    target.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"{seed} {held_out.name}")
    noise_rng = np.random.default_rng([seed, *held_out.name.encode()])
    references: list[dict[str, object]] = []
    num_words = 0
    while num_words < held_out.min_words or len(references) < held_out.min_windows:
        scene = compose(rng, _script(held_out, split))
        file_name = f"{held_out.name}-{len(references):03d}.flac"
        soundfile.write(
            target / file_name, _final_samples(noise_rng, held_out, scene), SAMPLE_RATE, subtype="PCM_16"
        )
        references.append(_reference(scene, f"{held_out.name}/{file_name}", held_out.name))
        num_words += len(scene.text.split())
    own = [{**row, "audio_filepath": Path(str(row["audio_filepath"])).name} for row in references]
    _write_references(target, own)
    return references


def _script(held_out: HeldOutSet, split: Split) -> Script:
    return Script(
        language=held_out.language,
        layout=held_out.layout,
        duration_s=WINDOW_S,
        split=split,
        unseen_names=held_out.unseen_names,
    )


def _final_samples(rng: np.random.Generator, held_out: HeldOutSet, scene: Scene) -> np.ndarray:
    """The scene at half of full scale, with the set's noise."""
    if held_out.layout == "empty":
        return empty_room(rng, len(scene.samples))
    samples = 0.5 * scene.samples
    if held_out.noisy:
        samples = add_noise(rng, samples, _NOISY_SNR_DB)
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def _reference(scene: Scene, path: str, name: str) -> dict[str, object]:
    words = [
        {"word": word, "start": round(placed.start_s + start, 3), "end": round(placed.start_s + end, 3)}
        for placed in scene.sentences
        for word, start, end in zip(
            placed.utterance.text.split(" "),
            placed.utterance.word_starts_s,
            placed.utterance.word_ends_s,
            strict=True,
        )
    ]
    segments = [
        {"start": round(placed.start_s, 3), "end": round(placed.end_s, 3), "text": placed.utterance.text}
        for placed in scene.sentences
    ]
    return {
        "audio_filepath": path,
        "text": scene.text,
        "language": scene.language,
        "set": name,
        "segments": segments,
        "words": words,
    }


def _write_references(folder: Path, references: list[dict[str, object]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in references)
    (folder / "references.jsonl").write_text(lines, encoding="utf-8")


def _summary(split: str, held_out: HeldOutSet, references: list[dict[str, object]]) -> dict[str, object]:
    num_words = sum(len(str(row["text"]).split()) for row in references)
    return {
        "split": split,
        "set": held_out.name,
        "num_windows": len(references),
        "num_words": num_words,
        "audio_s": len(references) * WINDOW_S,
    }


def main() -> None:
    """Write the held-out sets, or with a seed further windows of the final split."""
    parser = argparse.ArgumentParser(description="Write the held-out sets of the bundled model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, help="write other windows of the final split, drawn with this")
    parser.add_argument("--words", type=int, default=MIN_WORDS, help="words in each of the large sets")
    given = parser.parse_args()
    if given.seed is None:
        rows = write_held_out(given.folder)
    else:
        rows = write_further(given.folder, given.seed, given.words)
    print(json.dumps({"output": str(given.folder), "sets": rows}))


if __name__ == "__main__":
    main()
