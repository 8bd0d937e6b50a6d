"""The engines that a user could take instead, on the same weights, prompt and number of tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.benchmark.peers.contender import CaseSetup, new_tokens
from pipeline.engine.audio import NUM_FRAMES, SAMPLE_RATE
from pipeline.engine.model.openai import openai_name
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.weights import read_weights


class Generate:
    """transformers' generate."""

    def __init__(self, setting: CaseSetup, *, dtype: torch.dtype = torch.float32) -> None:
        from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

        self._setting = setting
        loaded = WhisperForConditionalGeneration.from_pretrained(setting.folder, dtype=dtype)
        self._model = loaded.to(setting.device).eval()
        self._extract = WhisperFeatureExtractor.from_pretrained(setting.folder)

    def features(self, samples: Sequence[np.ndarray]) -> Tensor:
        """The extractor's numpy path, as its users call it."""
        found = self._extract(list(samples), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return found.input_features

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> list[list[int]]:
        out = self._model.generate(
            mel.to(self._model.device, self._model.dtype),
            language="en",
            task="transcribe",
            return_timestamps=False,
            max_new_tokens=self._setting.num_tokens,
            num_beams=1,
            do_sample=False,
            force_unique_generate_call=True,
        )
        return [new_tokens(row, self._setting) for row in out.tolist()]


class CTranslate2:
    """The engine inside faster-whisper, with whichever of its two ways of threading is faster."""

    def __init__(self, setting: CaseSetup, *, compute_type: str) -> None:
        ctranslate2 = import_module("ctranslate2")

        self._setting = setting
        self._suppress = resolve(setting.folder).generation["suppress_tokens"]
        converted = Path(f"{setting.folder}-ct2")
        if not converted.is_dir():
            ctranslate2.converters.TransformersConverter(str(setting.folder)).convert(str(converted))
        self._storage = ctranslate2.StorageView
        threadings = {(setting.threads, 1), (1, setting.threads)}
        self._models = [
            ctranslate2.models.Whisper(
                str(converted),
                device=setting.device,
                compute_type=compute_type,
                intra_threads=inside,
                inter_threads=beside,
            )
            for inside, beside in threadings
        ]

    def features(self, samples: Sequence[np.ndarray]) -> Tensor:
        """faster-whisper's extractor, one window at a time, as it is."""
        extract = import_module("faster_whisper.feature_extractor").FeatureExtractor(
            feature_size=resolve(self._setting.folder).config["num_mel_bins"]
        )
        return torch.from_numpy(np.stack([extract(window)[:, :NUM_FRAMES] for window in samples]))

    def __call__(self, mel: Tensor) -> list[list[int]]:
        if len(self._models) > 1:
            self._models = [min(self._models, key=lambda model: self._seconds(model, mel))]
        return self._run(self._models[0], mel)

    def _seconds(self, model: object, mel: Tensor) -> float:
        self._run(model, mel)
        started = time.perf_counter()
        self._run(model, mel)
        return time.perf_counter() - started

    def _run(self, model: object, mel: Tensor) -> list[list[int]]:
        # One call for each of its workers: it splits no batch of features itself.
        pieces = torch.tensor_split(mel, min(len(mel), model.num_workers))  # type: ignore[attr-defined]
        calls = [
            model.generate(  # type: ignore[attr-defined]
                self._storage.from_array(np.ascontiguousarray(piece.numpy())),
                [list(self._setting.prompt)] * len(piece),
                beam_size=1,
                asynchronous=True,
                # It halves the length for Whisper and counts the prompt in.
                max_length=2 * self._setting.num_tokens,
                suppress_tokens=self._suppress,
            )
            for piece in pieces
        ]
        results = [future.result() for futures in calls for future in futures]
        return [result.sequences_ids[0][: self._setting.num_tokens] for result in results]


class OpenAIWhisper:
    """The openai-whisper package."""

    def __init__(self, setting: CaseSetup) -> None:
        whisper = import_module("whisper")

        snapshot = resolve(setting.folder)
        config = snapshot.config
        dimensions = whisper.model.ModelDimensions(
            n_mels=config["num_mel_bins"],
            n_audio_ctx=config["max_source_positions"],
            n_audio_state=config["d_model"],
            n_audio_head=config["encoder_attention_heads"],
            n_audio_layer=config["encoder_layers"],
            n_vocab=config["vocab_size"],
            n_text_ctx=config["max_target_positions"],
            n_text_state=config["d_model"],
            n_text_head=config["decoder_attention_heads"],
            n_text_layer=config["decoder_layers"],
        )
        self._whisper, self._num_mels = whisper, config["num_mel_bins"]
        self._model = whisper.model.Whisper(dimensions).eval()
        self._model.load_state_dict(openai_weights(setting.folder))
        self._options = whisper.DecodingOptions(
            language="en",
            without_timestamps=True,
            fp16=False,
            sample_len=setting.num_tokens,
            suppress_tokens=snapshot.generation["suppress_tokens"],
        )

    def features(self, samples: Sequence[np.ndarray]) -> Tensor:
        """Its log_mel_spectrogram, for all windows at once."""
        return self._whisper.log_mel_spectrogram(np.stack(samples), self._num_mels)

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> list[list[int]]:
        return [result.tokens for result in self._whisper.decode(self._model, mel, self._options)]


def openai_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder under openai-whisper's names."""
    return {
        openai_name(name): tensor
        for name, tensor in read_weights(resolve(folder)).items()
        if name != "proj_out.weight"  # the embedding again
    }
