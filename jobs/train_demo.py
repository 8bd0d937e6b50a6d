"""Train the bundled model on synthetic speech (needs espeak-ng), or make its held-out sets or recordings."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from jobs import cli

_DEFAULT_STEPS = 12_000
_BATCH_AUDIO_S = {"cpu": 80.0, "cuda": 960.0}


@click.command(context_settings=cli.SETTINGS, help=__doc__)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of checkpoint, log and model; again: goes on."
)
@click.option("--steps", default=_DEFAULT_STEPS, type=click.IntRange(min=1), show_default=True,
              help="Steps of the whole schedule.")  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(min=0), help="Stop after so many minutes, to go on another time."
)
@click.option("--start-from", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Begin with the weights of this model folder, on full windows.")  # fmt: skip
@click.option("--batch-audio-s", type=click.FloatRange(min=30),
              help="Seconds of audio a step and process.  [default: 80 on a CPU, 960 on a GPU]")  # fmt: skip
@click.option("--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), show_default=True)
@click.option("--held-out", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="A split that --make-eval wrote: ends with a table of the model on it.")  # fmt: skip
@click.option(
    "--make-eval", type=click.Path(path_type=Path), help="Write the held-out sets to this folder, and end."
)
@click.option("--seed", type=click.IntRange(min=0),
              help="With --make-eval: write more of the final split, drawn with this seed.")  # fmt: skip
@click.option("--words", type=click.IntRange(min=1),
              help="With --seed: words in each of the five large sets.  [default: 2050]")  # fmt: skip
@click.option(
    "--make-speech", type=click.Path(path_type=Path), help="Write the demo recordings there, and end."
)
def train_demo(**given: Any) -> tuple[dict[str, Any], int]:
    """Carry out what the options ask for; one line and status 1 where libespeak-ng is missing."""
    from pipeline.demo.speech import SpeechUnavailableError

    if sum(given[name] is not None for name in ("output", "make_eval", "make_speech")) != 1:
        raise cli.WrongUse("give one of --output, --make-eval and --make-speech")
    if given["seed"] is not None and given["make_eval"] is None:
        raise cli.WrongUse("--seed: only with --make-eval")
    if given["words"] is not None and given["seed"] is None:
        raise cli.WrongUse("--words: only with --seed")
    try:
        if given["make_eval"] is not None:
            return _make_eval(given["make_eval"], given["seed"], given["words"]), cli.OK
        if given["make_speech"] is not None:
            return _make_speech(given["make_speech"]), cli.OK
        return _train(given), cli.OK
    except SpeechUnavailableError as error:
        click.echo(f"error: {error}", err=True)
        return {"error": str(error)}, cli.UNFINISHED


def _make_eval(output: Path, seed: int | None, words: int | None) -> dict[str, Any]:
    from pipeline.demo import heldout

    if seed is None:
        return {"output": str(output), "sets": heldout.write_held_out(output)}
    try:
        sets = heldout.write_further(output, seed, words or heldout.MIN_WORDS)
    except ValueError as error:
        raise cli.WrongUse(f"--seed: {error}") from error
    return {"output": str(output), "sets": sets}


def _make_speech(output: Path) -> dict[str, Any]:
    from pipeline.demo.samples import write_samples

    return {"output": str(output), "num_recordings": len(write_samples(output))}


def _train(given: dict[str, Any]) -> dict[str, Any]:
    from pipeline.demo import processes
    from pipeline.demo.evaluation import as_table, evaluate
    from pipeline.demo.export import export_model
    from pipeline.demo.schedule import default_schedule, further_schedule
    from pipeline.demo.speech import require_speech
    from pipeline.demo.training import Trainer, train

    require_speech()
    device = _device(given["device"])
    processes.join(device)
    batch_audio_s = given["batch_audio_s"] or _BATCH_AUDIO_S[device.type]
    output: Path = given["output"]
    plan = default_schedule if given["start_from"] is None else further_schedule
    trainer = Trainer(output, plan(given["steps"], batch_audio_s), device)
    resumed = trainer.restore()
    if not resumed and given["start_from"] is not None:
        trainer.start_from(given["start_from"])
    minutes = math.inf if given["minutes"] is None else given["minutes"]
    train(
        trainer,
        num_workers=max(1, (os.cpu_count() or 2) - 1 if device.type == "cuda" else 1),
        minutes=minutes,
    )
    totals: dict[str, Any] = {"output": str(output), "step": trainer.step, "resumed": resumed}
    totals["audio_h"] = round(trainer.audio_s / 3600, 2)
    if processes.rank() == 0:
        tokenizer = trainer.labeller.tokenizer
        totals["model_bytes"] = export_model(trainer.average.cpu(), tokenizer, output / "model")
        if given["held_out"] is not None:
            totals["held_out"] = evaluate(output / "model", given["held_out"], device)
            click.echo(as_table(totals["held_out"]))
    return totals


def _device(name: str) -> Any:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise cli.WrongUse("--device cuda: this machine has no CUDA device; it may be auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


if __name__ == "__main__":
    cli.run(train_demo, "earshard train_demo")
