"""The model of a job: what its name stands for, whether it can do what is asked, and how it is loaded."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.adaptive.policy_file import PolicyFile
from pipeline.config import JobOptions, JobRequest, OptionError, RunOptions, as_option
from pipeline.dataflow import workers
from pipeline.dataflow.cluster import on_cluster
from pipeline.dataflow.machine import allowed_bytes, cpu_flags
from pipeline.driver.model_cache import fetch_model
from pipeline.engine import ENGINE_VERSION
from pipeline.engine.model.hub import SHORT_NAMES
from pipeline.engine.model.snapshot import BUNDLED, ModelNotFound, Snapshot, num_weights, resolve
from pipeline.engine.model.vocabulary import read_vocabulary
from pipeline.engine.options import LANGUAGE_MODES, WrongValue, check_fits
from pipeline.errors import UnfinishedError
from pipeline.sources.locations import is_url, without_secrets
from pipeline.sources.recording import InputError

# OpenMP's threads wait for each other at the end of every operation. By default they spin for so long that a
# model of two threads took two to five times its CPU time while others used the cores.
SPINS = "1000"
FAST_INT8 = "avx2"  # int8 took 0.73 of float32's time, less with VNNI (docs/performance.md)
# What a process holds beside the weights: it was 0.38 GB at most with tiny.en, 0.42 with base.
PROCESS_BYTES = 400_000_000
log = logging.getLogger("earshard")


class NotEnoughMemory(UnfinishedError):
    """The model does not fit into the memory that there is; the message says how much it needs."""


if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.engine import Engine


def resolve_options(
    request: JobRequest, run: RunOptions, stored: Mapping[str, Any] | None = None
) -> JobOptions:
    """Resolve every `auto`, once: what a stored job resolved it to stays.

    Raises `OptionError` and `ModelNotFound`.
    """
    before = stored["options"] if stored is not None else {}
    pinned = before.get("model_revision") if before.get("model") == request.model else None
    auto_dtype = before.get("dtype") or _auto_dtype(run)
    snapshot = find_model(request.model, pinned)
    if request.model in SHORT_NAMES:
        log.info("--model %s: %s", request.model, snapshot.path)
    if request.dtype == "int8" and workers.has_gpus(run):
        raise OptionError("--dtype int8: must be bfloat16, float16 or float32 on GPUs")
    options = JobOptions(
        model=without_secrets(request.model) if is_url(request.model) else request.model,
        model_revision=snapshot.revision,
        dtype=auto_dtype if request.dtype == "auto" else request.dtype,
        engine_version=before.get("engine_version", ENGINE_VERSION) if request.upgrade else ENGINE_VERSION,
        **request.options,
    )
    if request.dtype == "auto":
        log.info("--dtype auto: %s", options.dtype)
    _check_fits_model(options, snapshot)
    if request.policy is not None:
        _check_policy(request.policy, options.model, snapshot)
    return options


def _auto_dtype(run: RunOptions) -> str:
    """bfloat16 on GPUs, int8 on CPUs that have instructions for it, float32 on others.

    The CPUs of a cluster need not be alike, and int8 without those instructions is other arithmetic.
    """
    if workers.has_gpus(run):
        return "bfloat16"
    return "int8" if FAST_INT8 in cpu_flags() and not on_cluster() else "float32"


def _check_fits_model(options: JobOptions, snapshot: Snapshot) -> None:
    """Raise `OptionError` for what the model cannot do, before Ray is started to find out."""
    vocabulary = read_vocabulary(snapshot)
    try:
        check_fits(
            sparsify_layer=options.sparsify_layer,
            language=None if options.language in LANGUAGE_MODES else options.language,
            task=options.task,
            num_layers=snapshot.config["encoder_layers"],
            languages=vocabulary.language_codes,
            tasks=vocabulary.task_names,
        )
    except WrongValue as error:
        raise as_option(error, f" ({options.model})") from error


def check_manifest(plan: pa.Table, options: JobOptions) -> None:
    """Raise `InputError` for languages and prompts of manifests that the model cannot take."""
    languages = sorted(set(plan.column("language").to_pylist()) - {None})
    has_prompts = plan.column("prompt").null_count < plan.num_rows
    if not languages and not has_prompts:
        return
    vocabulary = read_vocabulary(find_model(options.model, options.model_revision))
    if unknown := [code for code in languages if code not in vocabulary.language_codes]:
        raise InputError(f"{options.model} does not know the languages of some lines: {' '.join(unknown)}")
    if has_prompts and vocabulary.previous is None:
        raise InputError(f"{options.model} takes no prompt, and some lines have one")


def _check_policy(policy: PolicyFile, model: str, snapshot: Snapshot) -> None:
    """Raise `OptionError` for a policy of other weights: its evidence says nothing of these."""
    if policy.model_revision != snapshot.revision:
        raise OptionError(
            f"--sparsity: the policy was measured on {policy.model} ({policy.model_revision}), the model is "
            f"{model} ({snapshot.revision}); must be adaptive, or a policy for this model"
        )
    for number, level in enumerate(policy.levels, 1):
        try:
            level.check(num_layers=snapshot.config["encoder_layers"])
        except ValueError as error:
            raise OptionError(f"--sparsity: level {number} of the policy: {error}") from error


def find_model(model: str, revision: str | None) -> Snapshot:
    """The files of a model, fetched to this node if need be.

    model: a name on the hub, a folder, a `.pt` of openai-whisper, a URL of a folder, or `demo`.
    revision: what to ask the hub for; of the others there is only what is there now.
    Raises `ModelNotFound`, and `InputError` for a URL.
    """
    if is_url(model):
        return replace(resolve(fetch_model(model)), name=model)
    is_here = model == BUNDLED or os.path.exists(model)
    return resolve(model, revision=None if is_here else revision)


def check_memory(options: JobOptions, *, num_actors: int = 1, beside: int = 0) -> None:
    """Raise `NotEnoughMemory` where a model on this machine's CPUs would be killed while it is loaded.

    beside: bytes that other processes of the job take.
    """
    weights = num_weights(find_model(options.model, options.model_revision)) * (
        4 if options.dtype == "float32" else 2
    )
    need, there = num_actors * (PROCESS_BYTES + weights) + beside, allowed_bytes()
    if need > there:
        raise NotEnoughMemory(
            f"{there / 1e9:.2f} GB of memory are there, and {options.model} in {options.dtype} needs at "
            f"least {need / 1e9:.2f} GB; give the machine or the container more, or choose a smaller model"
        )


def load_engine(options: JobOptions, run: RunOptions, workers: workers.Workers) -> Engine:
    """Make the engine inside the actor that owns it. Raises `ModelNotFound` and `NotEnoughMemory`."""
    if not workers.gpus_per_actor:
        check_memory(options)
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported
    from pipeline.engine import Engine, EngineOptions

    if workers.threads_per_actor is not None:
        import torch

        torch.set_num_threads(workers.threads_per_actor)
    engine_options = EngineOptions(
        task=options.task,
        initial_prompt=options.initial_prompt,
        hotwords=options.hotwords,
        condition_on_previous_text=options.condition_on_previous_text,
        beam_size=options.beam_size,
        patience=options.patience,
        length_penalty=options.length_penalty,
        word_timestamps=options.word_timestamps,
        sparsity=0.0 if isinstance(options.sparsity, str) else options.sparsity,
        sparsify_layer=options.sparsify_layer,
        selector=options.selector,
        batch_size=run.batch_size or "auto",
    )
    snapshot = find_model(options.model, options.model_revision)
    if snapshot.revision != options.model_revision:
        raise ModelNotFound(f"{options.model} has changed since the job was planned")
    engine = Engine.load(
        snapshot,
        device="cuda" if workers.gpus_per_actor else "cpu",
        dtype=options.dtype,
        options=engine_options,
    )
    if workers.gpus_per_actor:  # kernels are compiled and graphs captured; a CPU has nothing to set up
        engine.warm_up()
    return engine
