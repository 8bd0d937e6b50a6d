"""The trained model as a folder that transformers, and the engine, load like any Whisper checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from pipeline.demo.network import GUIDED_HEADS, GUIDED_LAYERS
from pipeline.demo.tokens import Vocabulary, vocabulary_of

MAX_BYTES = 16 * 1024 * 1024
_MAX_TOKENS = 448


def export_model(model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, folder: Path) -> int:
    """Write weights (float16 safetensors), configurations and tokeniser to `folder`, replacing what is there.

    Returns:
        The size of the folder in bytes.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    half = WhisperForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half = half.to(torch.float16)
    half.generation_config = generation_config(vocabulary_of(tokenizer))
    half.save_pretrained(partial)
    # Stored in half precision, but loaded as float32 unless the caller says otherwise.
    config = WhisperForConditionalGeneration.config_class.from_pretrained(partial, dtype=torch.float32)
    # Guided attention is sharp: a median over Whisper's 7 positions would wipe it out.
    config.median_filter_width = 1
    config.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(partial)
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return sum(path.stat().st_size for path in folder.iterdir())


def generation_config(ids: Vocabulary) -> GenerationConfig:
    """Whisper's generation settings with this tokeniser's ids.

    <|endoftext|> is not suppressed at the beginning, so that a window without speech is empty also without
    timestamps, and the first timestamp has no upper limit.
    """
    return GenerationConfig(
        alignment_heads=[[layer, head] for layer in GUIDED_LAYERS for head in GUIDED_HEADS],
        begin_suppress_tokens=[ids.blank],
        bos_token_id=ids.end,
        eos_token_id=ids.end,
        pad_token_id=ids.end,
        decoder_start_token_id=ids.start,
        is_multilingual=True,
        lang_to_id={f"<|{language}|>": token for language, token in ids.languages.items()},
        max_initial_timestamp_index=None,
        max_length=_MAX_TOKENS,
        no_timestamps_token_id=ids.no_timestamps,
        prev_sot_token_id=ids.start_of_previous,
        return_timestamps=False,
        suppress_tokens=sorted(set(ids.special) - {ids.end, ids.no_timestamps}),
        task_to_id={"transcribe": ids.transcribe, "translate": ids.translate},
    )
