"""A model's name or folder to its files: local folder, then the hub's cache, then the hub.

Only JSON and safetensors are ever read; nothing that a model ships is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.model.expected import Sizes, what_is_wrong
from pipeline.engine.model.shape import Shape
from pipeline.errors import UserError, one_line

DEMO_FOLDER = Path(__file__).parents[2] / "demo" / "model"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
TOKENISERS = ("tokenizer.json", "vocab.json")
LFS_POINTER = b"version "  # how one begins
# The full-precision twins that some repositories keep beside their weights (model.fp32-*) stay out.
FILES = (
    f"config.json {GENERATION} preprocessor_config.json tokenizer.json tokenizer_config.json "
    "vocab.json merges.txt added_tokens.json special_tokens_map.json normalizer.json "
    f"{WEIGHTS} {INDEX} model-*-of-*.safetensors"
).split()
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
SAMPLED_BLOCKS = 64
BLOCK_BYTES = 1 << 16
SAMPLED_VALUES = 256
NUMBERS = {"F32": "<f4", "F16": "<f2"}  # any other is taken byte by byte


class ModelNotFound(UserError):
    """No usable model under this name or folder; the message is one line and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The files of one revision of a model, its two JSON settings read.

    revision: the hub's commit, or a digest of the content of a local folder.
    """

    name: str
    revision: str
    folder: Path
    config: dict[str, Any]
    generation: dict[str, Any]


def resolve(model: str | Path, *, revision: str | None = None) -> Snapshot:
    """Finds a model's files.

    model: a folder, `demo` for the bundled model, a name on the hub such as openai/whisper-tiny, or one of
        SHORT_NAMES such as tiny.
    Raises ModelNotFound.
    """
    folder = DEMO_FOLDER if model == "demo" else Path(model)
    if folder.is_dir():
        if revision is not None:
            raise ModelNotFound(f"{model} is a folder, and a folder has no revision {revision}")
        return _read_snapshot(folder, str(model), None)
    if isinstance(model, Path) or model == "demo" or model.startswith((".", "/", "~")):
        raise ModelNotFound(f"model folder {folder} does not exist")
    fetched = _fetch(SHORT_NAMES.get(model, model), revision)
    return _read_snapshot(fetched, model, fetched.name)


def _fetch(name: str, revision: str | None) -> Path:
    """The folder of a model of the hub. What another tool left half in the cache is asked of the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted: dict[str, Any] = {"repo_id": name, "revision": revision, "allow_patterns": FILES}
    cached: Path | None = None
    try:
        cached = Path(snapshot_download(**wanted, local_files_only=True))
        if _can_run(cached) and (cached / GENERATION).is_file():
            return cached
    except HFValidationError as exc:
        raise ModelNotFound(f"{name!r} is neither a folder nor a model's name on the hub") from exc
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(**wanted, etag_timeout=CONNECT_TIMEOUT_S))
    except RepositoryNotFoundError as exc:
        raise ModelNotFound(f"the hub has no model {name!r} that may be read; see --model FOLDER") from exc
    except Exception as exc:  # the hub's client lets httpx, OSError and its own errors through
        if cached is not None:
            return cached  # whatever it lacks is told when it is read
        raise ModelNotFound(
            f"model {name} is not in the local cache and the hub cannot be reached "
            f"({type(exc).__name__}); give a local copy with --model FOLDER{_found_in_cache()}"
        ) from exc


def _found_in_cache() -> str:
    """Which models of the hub are whole in the local cache, as the end of a message."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*--*/snapshots/*")
    names = {folder.parents[1].name.removeprefix("models--").replace("--", "/")
             for folder in folders if _is_whisper(folder) and _can_run(folder)}  # fmt: skip
    return f"; in the local cache: {', '.join(sorted(names))}" if names else ""


def _is_whisper(folder: Path) -> bool:
    try:
        return _read_json(folder / "config.json").get("model_type") == "whisper"
    except ModelNotFound:
        return False


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that a folder has or that its index names; none where it has neither."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    names = _read_json(folder / INDEX).get("weight_map", {}).values()
    return [folder / name for name in sorted(set(names))]


def _can_run(folder: Path) -> bool:
    files = weight_files(folder)
    has_tokeniser = any((folder / name).is_file() for name in TOKENISERS)
    return bool(files) and all(path.is_file() for path in files) and has_tokeniser


def _read_snapshot(folder: Path, name: str, revision: str | None) -> Snapshot:
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "whisper":
        raise ModelNotFound(f"{folder} holds no Whisper model (config.json without model_type whisper)")
    try:
        shape = Shape.from_config(config)
    except (KeyError, ValueError) as exc:
        missing = f"names no {exc}" if isinstance(exc, KeyError) else str(exc)
        raise ModelNotFound(f"{folder / 'config.json'}: {missing}") from exc
    files = weight_files(folder)
    if not files:
        raise ModelNotFound(f"{folder} holds no {WEIGHTS}; other weight formats are not read")
    found = {name: sizes for path in files for name, sizes in _read_sizes(path).items()}
    if wrong := what_is_wrong(found, shape):
        raise ModelNotFound(f"{folder} {wrong}")
    if not any((folder / name).is_file() for name in TOKENISERS):
        raise ModelNotFound(f"{folder} has neither {' nor '.join(TOKENISERS)}")
    return Snapshot(
        name=name,
        revision=revision or _digest(folder),
        folder=folder,
        config=config,
        generation=_read_json(folder / GENERATION),
    )


def _read_sizes(path: Path) -> dict[str, Sizes]:
    """The sizes of a file's tensors. Raises ModelNotFound where it is missing, no weights, or cut off."""
    if not path.is_file():
        raise ModelNotFound(f"{path} is missing, though {INDEX} names it")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == LFS_POINTER:
            raise ModelNotFound(f"{path} is a Git LFS pointer, not weights: `git lfs pull` brings them")
        length = int.from_bytes(start, "little")
        header = file.read(length) if length < size else b""
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        expected = 8 + length + max(int(entry["data_offsets"][1]) for entry in tensors.values())
        sizes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
        raise ModelNotFound(f"{path} is no safetensors file, or only its first {size} bytes") from exc
    if size != expected:
        raise ModelNotFound(f"{path} is not whole: {size} of {expected} bytes; fetch it again")
    return sizes


def _read_json(path: Path) -> dict[str, Any]:
    """What a file holds, or nothing where it is missing. Raises ModelNotFound for another kind of file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as exc:
        raise ModelNotFound(f"{path} is not JSON: {one_line(exc)}") from exc
    if not isinstance(found, dict):
        raise ModelNotFound(f"{path} holds no JSON object")
    return found


def weights_digest(folder: Path) -> str:
    """A digest of a model's weights, the same in float32 and in float16 and in whatever files they lie.

    The first `SAMPLED_VALUES` of every tensor in float16, in the order of their names, without the encoder's
    positions, which are computed, and the projection that is the token embedding.
    """
    digest = hashlib.sha256()
    tensors = {
        name: values for path in sorted(folder.glob("*.safetensors")) for name, values in _samples(path)
    }
    for name in sorted(tensors.keys() - {"proj_out.weight", "model.encoder.embed_positions.weight"}):
        digest.update(name.encode() + tensors[name].astype("<f2").tobytes())
    return digest.hexdigest()[:40]


def _samples(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The first values of each tensor in a safetensors file: a length, a header in JSON, the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            kind, (start, stop) = NUMBERS.get(tensor["dtype"], "u1"), tensor["data_offsets"]
            size = min(stop - start, SAMPLED_VALUES * np.dtype(kind).itemsize)
            file.seek(8 + length + start)
            yield name, np.frombuffer(file.read(size), kind)


def _digest(folder: Path) -> str:
    """A digest of a folder's content: the JSON whole, of the weights evenly spaced blocks and the size."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".json", ".safetensors", ".txt"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        step = max(BLOCK_BYTES, size // SAMPLED_BLOCKS) if path.suffix == ".safetensors" else BLOCK_BYTES
        with path.open("rb") as file:
            for offset in range(0, size, step):
                file.seek(offset)
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()[:40]


BUNDLED = "demo"
