"""Whisper as CTranslate2 and faster-whisper keep it: `model.bin`, under the names that transformers uses.

The file, as CTranslate2's model_spec.py writes version 6 of it, is little-endian: its version, the name and
revision of what it specifies, the number of variables; of each its name, rank, sizes, type, bytes and values;
then aliases, each a name and the name of the variable that it stands for.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.model.openai import MAX_INITIAL_TIMESTAMP
from pipeline.engine.model.tensors import BFLOAT16, ModelNotFound, StoredTensor, map_file

MODEL_BIN = "model.bin"
VERSION, SPECIFICATION = 6, "WhisperSpec"
TYPES = ("<f4", "<i1", "<i2", "<i4", "<f2", BFLOAT16)
SCALE = "weight_scale"
# Variables and what transformers calls them, in layers and outside; a fused map is listed by its parts.
NORM = {"gamma": "weight", "beta": "bias"}
NORMS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "layer_norm": "layer_norm",
}
MAPS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "conv1": ("conv1",),
    "conv2": ("conv2",),
}
TABLES = {
    "position_encodings/encodings": "embed_positions.weight",
    "embeddings/weight": "embed_tokens.weight",
}
PLACE = re.compile(r"(encoder|decoder)/(?:layer_(\d+)/)?(.+)")


class _Cursor:
    """Reads a file's bytes from front to back. Its methods raise IndexError past the end."""

    def __init__(self, data: np.ndarray) -> None:
        self._data, self.at = data, 0

    def bytes(self, size: int) -> np.ndarray:
        if self.at + size > len(self._data):
            raise IndexError
        self.at += size
        return self._data[self.at - size : self.at]

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.bytes(struct.calcsize(code)).tobytes())[0])

    def text(self) -> str:
        """A length with the closing zero, then the text."""
        return self.bytes(self.number("H")).tobytes().rstrip(b"\0").decode()


def map_variables(path: Path) -> dict[str, np.ndarray]:
    """The variables of a `model.bin` and its aliases, by CTranslate2's names, mapped into memory.

    Raises ModelNotFound for a file that is none of Whisper, or is not whole.
    """
    cursor = _Cursor(map_file(path))
    try:
        version, specification = cursor.number("I"), cursor.text()
        if (version, specification) != (VERSION, SPECIFICATION):
            raise ValueError
        cursor.number("I")
        variables = dict(_variable(cursor) for _ in range(cursor.number("I")))
        for _ in range(cursor.number("I")):
            alias, name = cursor.text(), cursor.text()
            variables[alias] = variables[name]
    except IndexError as exc:
        raise ModelNotFound(f"{path} is not whole: it ends after {path.stat().st_size} bytes") from exc
    except (ValueError, KeyError) as exc:
        raise ModelNotFound(f"{path} is no Whisper model of CTranslate2 (binary version {VERSION})") from exc
    return variables


def _variable(cursor: _Cursor) -> tuple[str, np.ndarray]:
    name = cursor.text()
    shape = [cursor.number("I") for _ in range(cursor.number("B"))]
    kind = cursor.number("B")
    if kind >= len(TYPES):
        raise ValueError
    return name, cursor.bytes(cursor.number("I")).view(TYPES[kind]).reshape(shape)


def tensors_of(variables: Mapping[str, np.ndarray]) -> dict[str, StoredTensor]:
    """Variables under the names of transformers, fused maps apart, integers with their scales."""
    tensors: dict[str, StoredTensor] = {}
    for name, values in variables.items():
        if (place := PLACE.fullmatch(name)) is None or name.endswith(SCALE):
            continue
        side, layer, rest = place.groups()
        prefix = f"model.{side}." if layer is None else f"model.{side}.layers.{layer}."
        stored = StoredTensor(values, _scale(variables, name))
        tensors |= {prefix + own: part for own, part in _parts(rest, stored)}
    if "decoder/projection/weight" in variables and not _is_tied(variables):
        projection = "decoder/projection/weight"
        tensors["proj_out.weight"] = StoredTensor(variables[projection], _scale(variables, projection))
    return tensors


def _scale(variables: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    scale = variables.get(f"{name}_scale")
    return None if scale is None else scale.astype("<f4").reshape(-1)


def _parts(name: str, stored: StoredTensor) -> list[tuple[str, StoredTensor]]:
    """The tensors in one variable, by their names within the layer or the side; none in a setting."""
    if name in TABLES:
        return [(TABLES[name], stored)]
    owner, _, kind = name.rpartition("/")
    if owner in NORMS and kind in NORM:
        return [(f"{NORMS[owner]}.{NORM[kind]}", stored)]
    if owner not in MAPS or kind not in {"weight", "bias"}:
        return []
    size = len(stored.values) // len(MAPS[owner])
    return [
        (f"{part}.{kind}", stored.rows(number * size, (number + 1) * size))
        for number, part in enumerate(MAPS[owner])
        if not (part.endswith("k_proj") and kind == "bias")  # keys have none: zeros fill the fused map
    ]


def _is_tied(variables: Mapping[str, np.ndarray]) -> bool:
    """Whether tokens are chosen by their embedding, which an alias says."""
    return variables["decoder/projection/weight"] is variables.get("decoder/embeddings/weight")


def config_of(variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What transformers' config.json says of these variables. Raises KeyError for one that is missing."""
    vocab_size, dim = variables["decoder/embeddings/weight"].shape
    layers = {side: {m[2] for m in map(PLACE.fullmatch, variables) if m and m[1] == side and m[2]}
              for side in ("encoder", "decoder")}  # fmt: skip
    return {
        "model_type": "whisper",
        "d_model": dim,
        "vocab_size": vocab_size,
        "num_mel_bins": variables["encoder/conv1/weight"].shape[1],
        "encoder_layers": len(layers["encoder"]),
        "encoder_attention_heads": int(variables["encoder/num_heads"]),
        "decoder_layers": len(layers["decoder"]),
        "decoder_attention_heads": int(variables["decoder/num_heads"]),
        "max_source_positions": len(variables["encoder/position_encodings/encodings"]),
        "max_target_positions": len(variables["decoder/position_encodings/encodings"]),
        "tie_word_embeddings": "decoder/projection/weight" not in variables or _is_tied(variables),
    }


def generation_of(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers' generation config says, from CTranslate2's config.json."""
    return {
        **suppressed(settings),
        "alignment_heads": settings.get("alignment_heads"),
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP,
        "max_length": config["max_target_positions"],
    }


def suppressed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The ids that are never said, and those that are not said first."""
    return {
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
    }
