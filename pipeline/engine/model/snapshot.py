"""A model's name, folder or file to its settings and tensors: what is on this machine, then the hub.

Nothing that a model ships is executed. Three kinds of weights are read: the safetensors of transformers, the
`model.bin` of CTranslate2 and faster-whisper, and the `.pt` of openai-whisper.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine.audio import POSITION_S, WINDOW_S
from pipeline.engine.model import ctranslate2, hub, openai
from pipeline.engine.model.expected import what_is_wrong
from pipeline.engine.model.hub import GENERATION, INDEX, SHORT_NAMES, read_json
from pipeline.engine.model.shape import Shape
from pipeline.engine.model.tensors import ModelNotFound, StoredTensor, map_safetensors

BUNDLED = "demo"
DEMO_FOLDER = Path(__file__).parents[2] / "demo" / "model"
SAMPLED_BLOCKS = 64
BLOCK_BYTES = 1 << 16
SAMPLED_VALUES = 256
NUM_TIMES = round(WINDOW_S / POSITION_S) + 1  # timestamps, which follow `<|notimestamps|>` in a vocabulary


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One revision of a model: its settings as transformers names them, its tensors mapped into memory.

    revision: the hub's commit, or a digest of the content of what lies elsewhere.
    path: the folder, or the file of openai-whisper. tokeniser: the folder that has one.
    """

    name: str
    revision: str
    path: Path
    tokeniser: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict, repr=False, compare=False)


def resolve(model: str | Path, *, revision: str | None = None) -> Snapshot:
    """Finds a model's files and reads all but the values of its tensors.

    model: a folder, a `.pt` of openai-whisper, `demo` for the bundled model, a name on the hub such as
        openai/whisper-tiny, or one of SHORT_NAMES such as tiny.
    Raises ModelNotFound.
    """
    path = DEMO_FOLDER if model == BUNDLED else Path(model)
    if path.is_dir() or (path.is_file() and model not in SHORT_NAMES):
        if revision is not None:
            raise ModelNotFound(f"{model} is on this machine, and has no revision {revision}")
        return _read(path, str(model), None)
    if isinstance(model, Path) or model == BUNDLED or model.startswith((".", "/", "~")):
        raise ModelNotFound(f"model folder {path} does not exist")
    found = hub.find(model, revision)
    return _read(found, model, found.name if found.is_dir() else None)


def _read(path: Path, name: str, revision: str | None) -> Snapshot:
    config, generation, tensors, tokeniser = _contents(path)
    try:
        shape = Shape.from_config(config)
    except (KeyError, ValueError) as exc:
        missing = f"names no {exc}" if isinstance(exc, KeyError) else str(exc)
        raise ModelNotFound(f"{path / 'config.json'}: {missing}") from exc
    sizes = {name: tensor.values.shape for name, tensor in tensors.items()}
    if wrong := what_is_wrong(sizes, shape):
        raise ModelNotFound(f"{path} {wrong}")
    return Snapshot(
        name=name,
        revision=revision or _digest(path),
        path=path,
        tokeniser=tokeniser,
        config=config,
        generation=generation,
        tensors=tensors,
    )


# Config, generation config, tensors, and the folder of the tokeniser.
_Contents = tuple[dict[str, Any], dict[str, Any], dict[str, StoredTensor], Path]


def _contents(path: Path) -> _Contents:
    if path.is_file() and path.suffix != openai.CHECKPOINT:
        raise ModelNotFound(
            f"{path} is a file; a model is a folder, or a {openai.CHECKPOINT} of openai-whisper"
        )
    if path.is_file():
        return _read_checkpoint(path)
    has_model_bin = (path / ctranslate2.MODEL_BIN).is_file() and not hub.weight_files(path)
    return _read_model_bin(path) if has_model_bin else _read_safetensors(path)


def _read_safetensors(folder: Path) -> _Contents:
    config = read_json(folder / "config.json")
    if config.get("model_type") != "whisper":
        raise ModelNotFound(f"{folder} holds no Whisper model (config.json without model_type whisper)")
    files = hub.weight_files(folder)
    if not files:
        raise ModelNotFound(f"{folder} holds no model.safetensors and no model.bin{_checkpoints_in(folder)}")
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        if not path.is_file():
            raise ModelNotFound(f"{path} is missing, though {INDEX} names it")
        tensors |= map_safetensors(path)
    if not hub.has_tokeniser(folder):
        raise ModelNotFound(f"{folder} has neither {' nor '.join(hub.TOKENISERS)}")
    return config, read_json(folder / GENERATION), tensors, folder


def _read_model_bin(folder: Path) -> _Contents:
    path = folder / ctranslate2.MODEL_BIN
    variables = ctranslate2.map_variables(path)
    try:
        config = ctranslate2.config_of(variables)
    except KeyError as exc:
        raise ModelNotFound(f"{path} lacks the variable {exc} of a Whisper model") from exc
    generation = ctranslate2.generation_of(read_json(folder / "config.json"), config)
    tokeniser = folder if hub.has_tokeniser(folder) else _relative(path, config["vocab_size"])
    return config, generation, ctranslate2.tensors_of(variables), tokeniser


def _read_checkpoint(path: Path) -> _Contents:
    config, tensors = openai.map_checkpoint(path)
    relative = _relative(path, config["vocab_size"])
    return config, openai.generation_of(_suppressed(relative), config), tensors, relative


def _suppressed(folder: Path) -> dict[str, Any]:
    """The ids that a model never says, as transformers lists them."""
    generation = read_json(folder / GENERATION)
    return (
        generation
        if generation.get("suppress_tokens")
        else ctranslate2.suppressed(read_json(folder / "config.json"))
    )


def _relative(path: Path, vocab_size: int) -> Path:
    """The folder of a tokeniser of this size, with the ids that are never said. Raises ModelNotFound."""
    from tokenizers import Tokenizer

    for folder in hub.tokeniser_folders(path.parent, vocab_size):
        file = folder / hub.TOKENISERS[0]
        if file.is_file() and _suppressed(folder)["suppress_tokens"]:
            last = Tokenizer.from_file(str(file)).token_to_id("<|notimestamps|>")
            if last is not None and last + 1 + NUM_TIMES == vocab_size:
                return folder
    relative = hub.SMALLEST.get(vocab_size, "a Whisper model of its vocabulary")
    raise ModelNotFound(
        f"{path} has no tokeniser, and no model in the local cache has one of {vocab_size} tokens; put the "
        f"tokenizer.json and {GENERATION} of {relative} beside it"
    )


def _checkpoints_in(folder: Path) -> str:
    """A word on files of openai-whisper in a folder that was given in their place."""
    names = sorted(path.name for path in folder.glob(f"*{openai.CHECKPOINT}"))
    return f"; of {', '.join(names)} name the file" if names else ""


def num_weights(snapshot: Snapshot) -> int:
    """How many numbers the weights of a model are."""
    return sum(tensor.values.size for tensor in snapshot.tensors.values())


def weights_digest(tensors: Mapping[str, StoredTensor]) -> str:
    """A digest of a model's weights, the same in float32 and in float16 and in whatever files they lie.

    The first `SAMPLED_VALUES` of every tensor in float16, in the order of their names, without the encoder's
    positions, which are computed, and the projection that is the token embedding.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors.keys() - {"proj_out.weight", "model.encoder.embed_positions.weight"}):
        digest.update(name.encode() + tensors[name].first(SAMPLED_VALUES).astype("<f2").tobytes())
    return digest.hexdigest()[:40]


def _digest(path: Path) -> str:
    """A digest of what lies at a path: JSON whole, of weights evenly spaced blocks and the size."""
    weights = {".safetensors", ".bin", openai.CHECKPOINT}
    digest = hashlib.sha256()
    for file in _digested(path):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        step = max(BLOCK_BYTES, size // SAMPLED_BLOCKS) if file.suffix in weights else BLOCK_BYTES
        with file.open("rb") as opened:
            for offset in range(0, size, step):
                opened.seek(offset)
                digest.update(opened.read(BLOCK_BYTES))
    return digest.hexdigest()[:40]


def _digested(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    kinds = {".json", ".safetensors", ".txt"}
    return [file for file in sorted(path.iterdir())
            if file.suffix in kinds or file.name == ctranslate2.MODEL_BIN]  # fmt: skip
