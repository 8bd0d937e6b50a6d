"""A folder of transformers written again as CTranslate2 and openai-whisper keep their weights."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.engine.model.openai import DIMS, openai_name
from pipeline.engine.model.snapshot import Snapshot, resolve
from pipeline.engine.model.weights import read_weights

TYPES = ("float32", "int8", "int16", "int32", "float16")
SELF = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
LAYER = {
    "self_attention/linear_0": SELF,
    "self_attention/linear_1": ("self_attn.out_proj",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
CROSS = {
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
}
NORMS = {"self_attention/layer_norm": "self_attn_layer_norm", "ffn/layer_norm": "final_layer_norm"}


def write_model_bin(source: Path, folder: Path, *, kind: str = "float32", copies=("tokenizer.json",)) -> Path:
    """The model of `source` as CTranslate2 converts it. kind: float32, float16 or int8."""
    snapshot = resolve(source)
    variables = variables_of(snapshot)
    if kind != "float32":
        variables = {name: smaller for name, values in variables.items()
                     for name, smaller in _smaller(name, values, kind)}  # fmt: skip
    folder.mkdir()
    (folder / "model.bin").write_bytes(binary(variables))
    ids = snapshot.generation
    settings = {"suppress_ids": ids["suppress_tokens"], "suppress_ids_begin": ids["begin_suppress_tokens"],
                "alignment_heads": ids.get("alignment_heads"), "lang_ids": []}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    for name in copies:
        shutil.copy(source / name, folder / name)
    return folder


def variables_of(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """The variables of CTranslate2's WhisperSpec, by name."""
    tensors = {name: tensor.numpy() for name, tensor in read_weights(snapshot).items()}
    variables = {"encoder/conv1/weight": tensors["model.encoder.conv1.weight"],
                 "encoder/conv1/bias": tensors["model.encoder.conv1.bias"],
                 "encoder/conv2/weight": tensors["model.encoder.conv2.weight"],
                 "encoder/conv2/bias": tensors["model.encoder.conv2.bias"],
                 "decoder/embeddings/weight": tensors["model.decoder.embed_tokens.weight"],
                 "decoder/scale_embeddings": np.int8(0)}  # fmt: skip
    for side in ("encoder", "decoder"):
        ours = f"model.{side}"
        variables[f"{side}/num_heads"] = np.int16(snapshot.config[f"{side}_attention_heads"])
        variables[f"{side}/position_encodings/encodings"] = tensors[f"{ours}.embed_positions.weight"]
        variables |= _norm(tensors, f"{ours}.layer_norm", f"{side}/layer_norm")
        for index in range(snapshot.config[f"{side}_layers"]):
            variables |= _layer(tensors, f"{ours}.layers.{index}", f"{side}/layer_{index}")
    return variables


def _layer(tensors: Mapping[str, np.ndarray], ours: str, theirs: str) -> dict[str, np.ndarray]:
    is_decoder = "decoder" in ours
    variables = {}
    for name, parts in (LAYER | CROSS if is_decoder else LAYER).items():
        weights = [tensors[f"{ours}.{part}.weight"] for part in parts]
        biases = [
            tensors.get(f"{ours}.{part}.bias", np.zeros(len(weight), np.float32))
            for part, weight in zip(parts, weights, strict=True)
        ]
        variables[f"{theirs}/{name}/weight"] = np.concatenate(weights)
        variables[f"{theirs}/{name}/bias"] = np.concatenate(biases)
    norms = NORMS | ({"attention/layer_norm": "encoder_attn_layer_norm"} if is_decoder else {})
    for name, norm in norms.items():
        variables |= _norm(tensors, f"{ours}.{norm}", f"{theirs}/{name}")
    return variables


def _norm(tensors: Mapping[str, np.ndarray], ours: str, theirs: str) -> dict[str, np.ndarray]:
    return {f"{theirs}/gamma": tensors[f"{ours}.weight"], f"{theirs}/beta": tensors[f"{ours}.bias"]}


def _smaller(name: str, values: np.ndarray, kind: str) -> list[tuple[str, np.ndarray]]:
    if values.ndim == 0:
        return [(name, values)]
    if kind == "float16":
        return [(name, values.astype(np.float16))]
    if not re.search(r"(linear_\d|conv\d|embeddings)/weight", name):
        return [(name, values)]
    scale = 127 / np.abs(values).reshape(len(values), -1).max(1)
    whole = np.rint(values * scale.reshape(-1, *[1] * (values.ndim - 1)))
    return [(name, whole.astype(np.int8)), (f"{name}_scale", scale.astype(np.float32))]


def binary(variables: Mapping[str, np.ndarray]) -> bytes:
    """A `model.bin` of these variables; without a projection tokens are chosen by their embedding."""
    parts = [struct.pack("<I", 6), _text("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, values in variables.items():
        kind = TYPES.index(values.dtype.name)
        parts += [_text(name), struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)]
        parts += [struct.pack("<BI", kind, values.nbytes), values.tobytes()]
    if "decoder/projection/weight" in variables:
        return b"".join([*parts, struct.pack("<I", 0)])
    alias = _text("decoder/projection/weight") + _text("decoder/embeddings/weight")
    return b"".join([*parts, struct.pack("<I", 1), alias])


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write_checkpoint(source: Path, path: Path) -> Path:
    """The model of `source` as openai-whisper keeps it, in float16."""
    snapshot = resolve(source)
    dims = {theirs: snapshot.config[ours] for ours, theirs in DIMS.items()}
    dims |= {"n_text_state": dims["n_audio_state"]}
    tensors = {openai_name(name): tensor.half() for name, tensor in read_weights(snapshot).items()
               if name != "proj_out.weight"}  # fmt: skip
    torch.save({"dims": dims, "model_state_dict": tensors}, path)
    return path
