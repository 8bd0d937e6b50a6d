"""Whisper as openai-whisper keeps it: a `.pt` of `dims` and tensors, under the names that transformers uses.

Only tensors and numbers are unpickled; no code of the file is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.engine.model.tensors import ModelNotFound, StoredTensor, map_file

CHECKPOINT = ".pt"
MAX_INITIAL_TIMESTAMP = 50  # encoder positions: 1 s, which openai-whisper and faster-whisper take by default
# Parts of names in transformers and what openai-whisper calls them.
OPENAI_NAMES = {
    "layers.": "blocks.",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn": "cross_attn",
    "self_attn": "attn",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "embed_tokens": "token_embedding",
}
_OURS = {theirs: name for name, theirs in OPENAI_NAMES.items()}
# The longest first: `cross_attn_ln` before `attn`. Whole parts of a name: `value` is none of `values`.
_THEIRS = re.compile("|".join(rf"(?<![a-z_]){re.escape(name)}(?![a-z_])"
                              for name in sorted(_OURS, key=len, reverse=True)))  # fmt: skip
# The decoder heads (layer.head) that follow the audio, by decoder layers, heads and size of the vocabulary,
# from openai-whisper; large-v1 has the sizes of large-v2, and gets its heads.
ALIGNMENT_HEADS = {
    (4, 6, 51864): "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    (4, 6, 51865): "2.2 3.0 3.2 3.3 3.4 3.5",
    (6, 8, 51864): "3.3 4.7 5.1 5.5 5.7",
    (6, 8, 51865): "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    (12, 12, 51864): "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    (12, 12, 51865): "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    (24, 16, 51864): "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 "
    "20.14 21.12",
    (24, 16, 51865): "13.15 15.4 15.15 16.1 20.0 23.4",
    (
        32,
        20,
        51865,
    ): "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 "
    "23.5 23.7 23.13 25.5 26.1 26.12 27.15",
    (32, 20, 51866): "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
    (4, 20, 51866): "2.4 2.11 3.3 3.6 3.11 3.14",
}
DIMS = {
    "d_model": "n_audio_state",
    "vocab_size": "n_vocab",
    "num_mel_bins": "n_mels",
    "encoder_layers": "n_audio_layer",
    "encoder_attention_heads": "n_audio_head",
    "decoder_layers": "n_text_layer",
    "decoder_attention_heads": "n_text_head",
    "max_source_positions": "n_audio_ctx",
    "max_target_positions": "n_text_ctx",
}


def map_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """A checkpoint's config, as transformers names it, and its tensors, mapped into memory.

    Raises ModelNotFound for a file that is none, or is not whole.
    """
    map_file(path)
    import torch  # not where no such file is read

    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        config = {ours: int(held["dims"][theirs]) for ours, theirs in DIMS.items()}
        tensors = {our_name(name): _stored(tensor) for name, tensor in held["model_state_dict"].items()}
    except Exception as exc:  # torch raises whatever its reader of zip files and pickles met
        raise ModelNotFound(
            f"{path} is no checkpoint of openai-whisper, or is not whole ({type(exc).__name__})"
        ) from exc
    return {"model_type": "whisper", **config}, tensors


def _stored(tensor: Any) -> StoredTensor:
    import torch

    return StoredTensor((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def our_name(name: str) -> str:
    """`encoder.blocks.0.attn.query.weight` → `model.encoder.layers.0.self_attn.q_proj.weight`."""
    return "model." + _THEIRS.sub(lambda found: _OURS[found[0]], name)


def openai_name(name: str) -> str:
    """The other way round."""
    for ours, theirs in OPENAI_NAMES.items():
        name = name.replace(ours, theirs)
    return name.removeprefix("model.")


def generation_of(relative: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A generation config for these weights, from that of any model of the same vocabulary."""
    heads = ALIGNMENT_HEADS.get(
        tuple(config[name] for name in ("decoder_layers", "decoder_attention_heads", "vocab_size"))
    )
    return {
        "suppress_tokens": relative.get("suppress_tokens"),
        "begin_suppress_tokens": relative.get("begin_suppress_tokens"),
        "alignment_heads": heads and [[int(n) for n in head.split(".")] for head in heads.split()],
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP,
        "max_length": config["max_target_positions"],
    }
