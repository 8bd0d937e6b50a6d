"""Weights as faster-whisper and openai-whisper keep them: the same model, and one line for a broken file."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.engine import Engine, EngineOptions, ModelNotFound
from pipeline.engine.model import hub
from pipeline.engine.model.snapshot import num_weights, resolve, weights_digest
from pipeline.engine.model.tensors import BFLOAT16, StoredTensor
from pipeline.engine.model.weights import read_weights
from tests.engine.conftest import MINI, MINI_EN, MINI_V3, TINY, make_speechlike
from tests.engine.model.other_weights import binary, variables_of, write_checkpoint, write_model_bin
from tests.real_weights import WEIGHTS, needs_weights

SHORT = EngineOptions(max_new_tokens=24)


@pytest.fixture(autouse=True)
def _no_caches(monkeypatch, tmp_path):
    """Caches of this machine say nothing here, and the hub cannot be reached."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def texts(model, windows):
    return [result.text for result in Engine.load(model, options=SHORT).transcribe(windows)]


def assert_same_tensors(one, other, *, dtype=torch.float32):
    weights, others = read_weights(one), read_weights(other)
    weights.pop("proj_out.weight", None)
    assert others.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(others[name], tensor.to(dtype).float()), name


@pytest.mark.parametrize("kind", [MINI, MINI_EN, MINI_V3], ids=lambda kind: kind.name)
def test_a_float32_folder_of_ctranslate2_is_the_same_model_to_the_bit(model_folder, tmp_path, kind):
    source = model_folder(kind)
    twin = write_model_bin(source, tmp_path / "twin")
    assert_same_tensors(resolve(source), resolve(twin))
    ours, theirs = (Engine.load(folder, options=SHORT)._model.vocabulary for folder in (source, twin))
    for field in ("languages", "tasks", "suppress", "begin_suppress", "start", "end", "no_timestamps"):
        assert getattr(theirs, field) == getattr(ours, field)
    windows = [make_speechlike(4, seed) for seed in range(2)]
    assert texts(twin, windows) == texts(source, windows)


def test_float16_is_rounding_and_has_the_evidence_of_the_same_weights(model_folder, tmp_path):
    source = resolve(model_folder(MINI))
    twin = resolve(write_model_bin(source.path, tmp_path / "twin", kind="float16"))
    assert_same_tensors(source, twin, dtype=torch.float16)
    assert weights_digest(twin.tensors) == weights_digest(source.tensors)
    assert num_weights(twin) == num_weights(source)


def test_int8_is_within_half_a_step_of_every_weight(model_folder, tmp_path):
    source = resolve(model_folder(MINI))
    twin = read_weights(resolve(write_model_bin(source.path, tmp_path / "twin", kind="int8")))
    name = "model.decoder.layers.1.encoder_attn.v_proj.weight"
    weight = read_weights(source)[name]
    half_step = weight.abs().amax(1, keepdim=True) / 254
    assert ((twin[name] - weight).abs() <= half_step * 1.001).all()
    assert not torch.equal(twin[name], weight)


def test_a_checkpoint_of_openai_takes_the_tokeniser_that_lies_beside_it(model_folder, tmp_path):
    source = model_folder(MINI)
    checkpoint = write_checkpoint(source, tmp_path / "base.pt")
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(source / name, tmp_path / name)
    assert_same_tensors(resolve(source), resolve(checkpoint), dtype=torch.float16)
    windows = [make_speechlike(3, 1)]
    half = write_model_bin(source, tmp_path / "half", kind="float16")
    assert texts(checkpoint, windows) == texts(half, windows)


def in_hub_cache(tmp_path, repository):
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots").mkdir()
    return folder / "snapshots" / ("0" * 40)


def test_a_checkpoint_takes_the_tokeniser_of_any_cached_model_of_its_vocabulary(model_folder, tmp_path):
    write_model_bin(model_folder(MINI_EN), in_hub_cache(tmp_path, "Systran/faster-whisper-tiny.en"))
    whole = model_folder(replace(MINI, name="whole vocabulary", num_text=TINY.num_text))
    checkpoint = write_checkpoint(whole, tmp_path / "base.pt")
    with pytest.raises(ModelNotFound, match=r"base\.pt has no tokeniser, .*whisper-tiny beside it$"):
        resolve(checkpoint)
    twin = write_model_bin(whole, in_hub_cache(tmp_path, "Systran/faster-whisper-small"))
    assert resolve(checkpoint).tokeniser == twin


def test_a_short_name_means_what_faster_whisper_or_openai_left_where_the_hub_has_left_nothing(
    model_folder, tmp_path
):
    source = model_folder(MINI)
    (tmp_path / "cache" / "whisper").mkdir(parents=True)
    checkpoint = write_checkpoint(source, tmp_path / "cache" / "whisper" / "base.pt")
    twin = write_model_bin(source, in_hub_cache(tmp_path, "Systran/faster-whisper-tiny"))
    assert (resolve("tiny").path, resolve("tiny").revision) == (twin, "0" * 40)
    assert resolve("base").path == checkpoint
    shutil.copytree(source, in_hub_cache(tmp_path, "openai/whisper-base"))
    assert resolve("base").path.parents[1].name == "models--openai--whisper-base"
    with pytest.raises(ModelNotFound) as failure:
        resolve("small")
    found = f"Systran/faster-whisper-tiny, openai/whisper-base, {checkpoint}"
    assert str(failure.value).endswith(f"; in local caches: {found}")


@pytest.mark.parametrize(
    ("repository", "converted"),
    [
        ("openai/whisper-base.en", "Systran/faster-whisper-base.en"),
        ("distil-whisper/distil-small.en", "Systran/faster-distil-whisper-small.en"),
        ("openai/whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
    ],
)
def test_the_names_of_converted_repositories_are_those_of_faster_whisper(repository, converted):
    assert hub.converted_name(repository) == converted


def cut_off(data):
    return data[: len(data) // 2]


def say_another_version(data):
    return b"\x05" + data[1:]


def say_another_model(data):
    return data.replace(b"WhisperSpec", b"WhimperSpec", 1)


def lose_a_variable(data):
    return data.replace(b"encoder/num_heads", b"encoder/num_hands", 1)


def point_elsewhere(data):
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 290403936\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, r"model\.bin is not whole: it ends after \d+ bytes"),
        (say_another_version, r"model\.bin is no Whisper model of CTranslate2 \(binary version 6\)"),
        (say_another_model, r"model\.bin is no Whisper model of CTranslate2"),
        (lose_a_variable, r"model\.bin lacks the variable 'encoder/num_heads'"),
        (point_elsewhere, r"model\.bin is a Git LFS pointer"),
        (lambda data: b"", r"model\.bin is empty"),
    ],
)
def test_a_broken_model_bin_is_one_line(model_folder, tmp_path, damage, message):
    folder = write_model_bin(model_folder(MINI), tmp_path / "twin")
    file = folder / "model.bin"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelNotFound, match=message) as failure:
        resolve(folder)
    assert "\n" not in str(failure.value)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("content", ["half", "pickle", "zip"])
def test_a_broken_checkpoint_is_one_line_and_nothing_in_it_is_run(
    model_folder, tmp_path, monkeypatch, content
):
    monkeypatch.chdir(tmp_path)
    path = write_checkpoint(model_folder(MINI), tmp_path / "base.pt")
    if content == "half":
        path.write_bytes(path.read_bytes()[:50_000])
    elif content == "pickle":
        path.write_bytes(pickle.dumps({"dims": Bomb()}))
    else:
        torch.save({"dims": Bomb()}, path)
    with pytest.raises(ModelNotFound, match=r"base\.pt is no checkpoint of openai-whisper, or") as failure:
        resolve(path)
    assert "\n" not in str(failure.value)
    assert not Path("exploded").exists()


def test_a_folder_of_checkpoints_is_told_to_name_one(model_folder, tmp_path):
    write_checkpoint(model_folder(MINI), tmp_path / "base.pt")
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ModelNotFound, match=r"holds no model\.safetensors .*; of base\.pt name the file"):
        resolve(tmp_path)


def test_a_projection_of_its_own_is_read(model_folder, tmp_path):
    source = model_folder(MINI)
    folder = write_model_bin(source, tmp_path / "twin")
    variables = variables_of(resolve(source))
    projection = variables["decoder/embeddings/weight"] * np.float32(2)
    (folder / "model.bin").write_bytes(binary(variables | {"decoder/projection/weight": projection}))
    twin = resolve(folder)
    assert not twin.config["tie_word_embeddings"]
    assert np.array_equal(read_weights(twin)["proj_out.weight"], projection)


def test_bfloat16_is_the_upper_half_of_a_float32():
    values = torch.tensor([[0.1, -3.0], [7e9, 0.0]], dtype=torch.bfloat16)
    stored = StoredTensor(values.view(torch.int16).numpy().view(BFLOAT16))
    assert np.array_equal(stored.float32(), values.float().numpy())


@needs_weights
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_real_weights_are_the_same_model_in_each_form(name, tmp_path):
    whole, twin = resolve(WEIGHTS / name), resolve(WEIGHTS / f"{name}-ct2")
    assert_same_tensors(whole, twin)
    checkpoint = write_checkpoint(whole.path, tmp_path / "real.pt")
    for file in ("tokenizer.json", "generation_config.json"):
        shutil.copy(whole.path / file, tmp_path / file)
    openai = resolve(checkpoint)
    assert_same_tensors(whole, openai)
    assert openai.generation["alignment_heads"] == twin.generation["alignment_heads"]


@pytest.mark.parametrize("quantization", ["float32", "float16", "int8", "int8_float16", "int16"])
def test_what_ctranslate2_itself_converts_is_read(model_folder, tmp_path, quantization):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    source = resolve(model_folder(MINI))
    converter = ctranslate2.converters.TransformersConverter(str(source.path), copy_files=["tokenizer.json"])
    folder = converter.convert(str(tmp_path / "twin"), quantization=quantization)
    twin, weights = read_weights(resolve(folder)), read_weights(source)
    weights.pop("proj_out.weight", None)
    assert twin.keys() == weights.keys()
    step = {"float32": 0, "float16": 2**-11, "int16": 2**-10}.get(quantization, 1 / 127)
    for tensor, wanted in ((twin[name], weights[name]) for name in weights):
        assert (tensor - wanted).abs().max() <= step * wanted.abs().max()
