"""Models by name: the repositories of the hub and the files of local caches that a name means."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.engine.model.ctranslate2 import MODEL_BIN
from pipeline.engine.model.openai import CHECKPOINT
from pipeline.engine.model.tensors import ModelNotFound

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
TOKENISERS = ("tokenizer.json", "vocab.json")
SETTINGS = (
    f"config.json {GENERATION} preprocessor_config.json tokenizer.json tokenizer_config.json "
    "vocab.json merges.txt added_tokens.json special_tokens_map.json normalizer.json"
).split()
# The full-precision twins that some repositories keep beside their weights (model.fp32-*) stay out.
FILES = [*SETTINGS, WEIGHTS, INDEX, "model-*-of-*.safetensors", MODEL_BIN]
CONNECT_TIMEOUT_S = 10.0
_OPENAI = "tiny tiny.en base base.en small small.en medium medium.en large-v1 large-v2"
_DISTIL = "distil-small.en distil-medium.en distil-large-v2 distil-large-v3 distil-large-v3.5"
# What people call models, and the repositories of the hub that they mean.
SHORT_NAMES = {
    **{name: f"openai/whisper-{name}" for name in _OPENAI.split()},
    **{name: f"distil-whisper/{name}" for name in _DISTIL.split()},
    **dict.fromkeys(("large-v3", "large"), "openai/whisper-large-v3"),
    **dict.fromkeys(("large-v3-turbo", "turbo"), "openai/whisper-large-v3-turbo"),
}
# What faster-whisper fetches under these names, where its repository is not Systran's of the same name.
CONVERTED = {
    "openai/whisper-large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-whisper/distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}
# By size of the vocabulary, the smallest model that has it.
SMALLEST = {51864: "openai/whisper-tiny.en", 51865: "openai/whisper-tiny", 51866: "openai/whisper-large-v3"}


def find(name: str, revision: str | None) -> Path:
    """The folder, or the file of openai-whisper, of a model by its name.

    A short name means the hub's repository where it lies in the hub's cache, else what faster-whisper or
    openai-whisper left of it on this machine, else the hub's repository. revision: a commit of the hub.
    Raises ModelNotFound.
    """
    repository = SHORT_NAMES.get(name, name)
    cached = _cached(repository, revision)
    if cached is not None and can_run(cached) and _has_settings(cached):
        return cached
    if name in SHORT_NAMES:
        converted = _cached(converted_name(repository), revision)
        if converted is not None and can_run(converted):
            return converted
        checkpoint = openai_cache() / f"{repository.rpartition('whisper-')[2]}{CHECKPOINT}"
        if checkpoint.is_file():
            return checkpoint
    return _fetched(repository, revision, cached)


def converted_name(repository: str) -> str:
    """The repository that faster-whisper fetches for one of OpenAI or Distil-Whisper."""
    kind = repository.partition("/")[2]
    stem = kind if kind.startswith("whisper-") else f"distil-whisper-{kind.removeprefix('distil-')}"
    return CONVERTED.get(repository, f"Systran/faster-{stem}")


def openai_cache() -> Path:
    """Where openai-whisper keeps what it fetched."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"


def tokeniser_folders(beside: Path, vocab_size: int) -> Iterator[Path]:
    """Where a tokeniser for weights without one may lie: their own folder, the hub's cache, then the hub."""
    yield beside
    yield from sorted(_snapshots())
    if (repository := SMALLEST.get(vocab_size)) is not None:
        try:
            yield Path(_download(repo_id=repository, allow_patterns=SETTINGS))
        except Exception:  # the hub's client lets httpx, OSError and its own errors through
            return


def can_run(folder: Path) -> bool:
    """Whether the weights of a folder are there, and a tokeniser where they cannot do without."""
    if (folder / MODEL_BIN).is_file():
        return True
    files = weight_files(folder)
    return bool(files) and all(path.is_file() for path in files) and has_tokeniser(folder)


def has_tokeniser(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENISERS)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that a folder has or that its index names; none where it has neither."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    names = read_json(folder / INDEX).get("weight_map", {}).values()
    return [folder / name for name in sorted(set(names))]


def _has_settings(folder: Path) -> bool:
    return (folder / GENERATION).is_file() or (folder / MODEL_BIN).is_file()


def _download(**wanted: Any) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(etag_timeout=CONNECT_TIMEOUT_S, **wanted)


def _cached(repository: str, revision: str | None) -> Path | None:
    """What the hub's cache holds of a repository. Raises ModelNotFound for what cannot name one."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            _download(repo_id=repository, revision=revision, allow_patterns=FILES, local_files_only=True)
        )
    except HFValidationError as exc:
        raise ModelNotFound(f"{repository!r} is neither a folder nor a model's name on the hub") from exc
    except LocalEntryNotFoundError:
        return None


def _fetched(repository: str, revision: str | None, cached: Path | None) -> Path:
    """A repository of the hub. What another tool left half in the cache is asked of the hub."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(_download(repo_id=repository, revision=revision, allow_patterns=FILES))
    except RepositoryNotFoundError as exc:
        raise ModelNotFound(
            f"the hub has no model {repository!r} that may be read; see --model FOLDER"
        ) from exc
    except Exception as exc:  # the hub's client lets httpx, OSError and its own errors through
        if cached is not None:
            return cached  # whatever it lacks is told when it is read
        found = ", ".join(_found_in_caches())
        raise ModelNotFound(
            f"model {repository} is not in the local cache and the hub cannot be reached "
            f"({type(exc).__name__}); give a local copy with --model FOLDER"
            f"{f'; in local caches: {found}' if found else ''}"
        ) from exc


def _found_in_caches() -> list[str]:
    """Which models are whole in the caches of the hub and of openai-whisper."""
    names = {folder.parents[1].name.removeprefix("models--").replace("--", "/")
             for folder in _snapshots() if can_run(folder)}  # fmt: skip
    return [*sorted(names), *map(str, sorted(openai_cache().glob(f"*{CHECKPOINT}")))]


def _snapshots() -> Iterator[Path]:
    """The folders of Whisper models in the hub's cache."""
    from huggingface_hub import constants

    return filter(_is_whisper, Path(constants.HF_HUB_CACHE).glob("models--*--*/snapshots/*"))


def _is_whisper(folder: Path) -> bool:
    try:
        settings = read_json(folder / "config.json")
    except ModelNotFound:
        return False
    return settings.get("model_type") == "whisper" or "suppress_ids" in settings


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds, or nothing where it is missing. Raises ModelNotFound for another kind of file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as exc:
        raise ModelNotFound(f"{path} is not JSON: {' '.join(str(exc).split())}") from exc
    if not isinstance(found, dict):
        raise ModelNotFound(f"{path} holds no JSON object")
    return found
