"""Random models of the true Whisper shapes, written as folders that any Whisper loader reads; no network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from pipeline.engine.model.snapshot import Snapshot
from pipeline.engine.model.whisper import Model, build_model

SILENT_TOKENS = [
    "<|startoftranscript|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Sizes and vocabulary of one model; the defaults are those of whisper-tiny."""

    name: str
    num_text: int = 50257
    num_languages: int = 99
    num_mels: int = 80
    dim: int = 384
    heads: int = 6
    encoder_layers: int = 4
    decoder_layers: int = 4

    @property
    def is_multilingual(self) -> bool:
        return not self.name.endswith(".en")


TINY = Kind(name="tiny")
LARGE = Kind(name="large-v2", dim=1280, heads=20, encoder_layers=32, decoder_layers=32)
LARGE_V3 = replace(LARGE, name="large-v3", num_languages=100, num_mels=128)
KINDS = {
    kind.name: kind
    for kind in (
        TINY,
        Kind(name="tiny.en", num_text=50256),
        Kind(name="base", dim=512, heads=8, encoder_layers=6, decoder_layers=6),
        Kind(name="small", dim=768, heads=12, encoder_layers=12, decoder_layers=12),
        Kind(name="medium", dim=1024, heads=16, encoder_layers=24, decoder_layers=24),
        LARGE,
        LARGE_V3,
        replace(LARGE_V3, name="large-v3-turbo", decoder_layers=4),
        replace(LARGE_V3, name="distil-large-v3", decoder_layers=2),
    )
}


def special_tokens(kind: Kind) -> list[str]:
    """Whisper's special tokens in the order of their ids."""
    languages = [f"<|{code}|>" for code in list(LANGUAGES)[: kind.num_languages]]
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    times = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    return ["<|endoftext|>", "<|startoftranscript|>", *languages, *tasks, "<|notimestamps|>", *times]


def build_tokenizer(kind: Kind) -> Tokenizer:
    """Bytes, then made-up words, then the special tokens, each at its true id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{number}" for number in range(kind.num_text - len(alphabet))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*alphabet, *words])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special_tokens(kind)])
    return tokenizer


def build_generation_config(
    kind: Kind, tokenizer: Tokenizer, *, never_ends: bool = False
) -> GenerationConfig:
    """The settings that the released models have. never_ends: suppress the end token, for equal work."""
    ids = {token: tokenizer.token_to_id(token) for token in special_tokens(kind)}
    end = ids["<|endoftext|>"]
    many = {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in list(LANGUAGES)[: kind.num_languages]},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    }
    one = {"is_multilingual": False, "forced_decoder_ids": [[1, ids["<|notimestamps|>"]]]}
    never = [*range(1, 60, 7), *(ids[token] for token in [*SILENT_TOKENS, "<|nospeech|>"])]
    return GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        prev_sot_token_id=ids["<|startofprev|>"],
        no_timestamps_token_id=ids["<|notimestamps|>"],
        begin_suppress_tokens=[220, end],
        suppress_tokens=[*never, end] if never_ends else never,
        max_initial_timestamp_index=50,
        max_length=448,
        **(many if kind.is_multilingual else one),
    )


def write_random_model(folder: Path, kind: Kind, *, seed: int = 0, never_ends: bool = False) -> Path:
    """Writes a model whose greedy output mixes words, timestamps and, unless it never ends, ends."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(kind)
    generation = build_generation_config(kind, tokenizer, never_ends=never_ends)
    model = WhisperForConditionalGeneration(build_config(kind, tokenizer, generation)).eval()
    _enliven(model, generation)
    model.generation_config = generation
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=kind.num_mels).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def random_model(folder: Path, kind: Kind, *, device: torch.device, dtype: str) -> Model:
    """A model that never ends, its weights made on the device; only the tokeniser goes to the folder."""
    tokenizer = build_tokenizer(kind)
    generation = build_generation_config(kind, tokenizer, never_ends=True)
    config = build_config(kind, tokenizer, generation)
    tokenizer.save(str(folder / "tokenizer.json"))
    snapshot = Snapshot(
        name=kind.name,
        revision="random",
        path=folder,
        tokeniser=folder,
        config=config.to_dict(),
        generation=generation.to_dict(),
    )
    with torch.device("meta"):
        shapes = {
            name: tensor.shape
            for name, tensor in WhisperForConditionalGeneration(config).state_dict().items()
        }
    weights = {
        name: torch.ones(shape, device=device)
        if "norm.weight" in name
        else torch.randn(shape, device=device) * 0.02
        for name, shape in shapes.items()
    }
    return build_model(snapshot, weights, device=device, dtype=dtype)


def random_transformers_model(kind: Kind, *, device: torch.device) -> WhisperForConditionalGeneration:
    """transformers' own model of the same shapes, made on the device: bfloat16 on a GPU, else float32."""
    tokenizer = build_tokenizer(kind)
    generation = build_generation_config(kind, tokenizer, never_ends=True)
    with torch.device(device):
        model = WhisperForConditionalGeneration(build_config(kind, tokenizer, generation)).eval()
    model.generation_config = generation
    return model.to(torch.bfloat16 if device.type == "cuda" else torch.float32)


def build_config(kind: Kind, tokenizer: Tokenizer, generation: GenerationConfig) -> WhisperConfig:
    return WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_mel_bins=kind.num_mels,
        d_model=kind.dim,
        encoder_layers=kind.encoder_layers,
        decoder_layers=kind.decoder_layers,
        encoder_attention_heads=kind.heads,
        decoder_attention_heads=kind.heads,
        encoder_ffn_dim=4 * kind.dim,
        decoder_ffn_dim=4 * kind.dim,
        pad_token_id=generation.pad_token_id,
        bos_token_id=generation.bos_token_id,
        eos_token_id=generation.eos_token_id,
        decoder_start_token_id=generation.decoder_start_token_id,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=0.08,
    )


@torch.no_grad()
def _enliven(model: WhisperForConditionalGeneration, generation: GenerationConfig) -> None:
    """Fresh weights say one token for ever; these say many, timestamps and the end among them."""
    for name, tensor in model.named_parameters():
        if name.endswith("bias"):
            tensor.normal_(0, 0.05)
    model.model.decoder.embed_positions.weight.normal_(0, 0.4)
    embedding = model.model.decoder.embed_tokens.weight
    embedding[generation.no_timestamps_token_id + 1 :] *= 0.6
    embedding[generation.eos_token_id].normal_(0, 0.3)
