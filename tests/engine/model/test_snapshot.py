"""Names and folders to models, and one clear line when there is none."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import save_file

from pipeline.engine import Engine, ModelNotFound
from pipeline.engine.model import packed
from pipeline.engine.model.snapshot import DEMO_FOLDER, resolve
from pipeline.engine.model.weights import read_weights
from tests.engine.conftest import MINI, MINI_EN


@pytest.fixture
def copied(model_folder, tmp_path):
    return shutil.copytree(model_folder(MINI), tmp_path / "copy")


def test_a_folder_gives_its_names_languages_and_sizes(model_folder):
    engine = Engine.load(model_folder(MINI), device="cpu")
    assert engine.model_name == str(model_folder(MINI))
    assert (engine.device, engine.dtype) == ("cpu", "float32")
    assert engine.is_multilingual
    assert len(engine.languages) == 99
    english = Engine.load(model_folder(MINI_EN))
    assert (english.is_multilingual, english.languages) == (False, ("en",))


def test_the_revision_of_a_folder_follows_its_content(copied):
    before = resolve(copied).revision
    assert resolve(copied).revision == before
    weights = read_weights(resolve(copied))
    weights["model.encoder.conv1.bias"] += 1
    save_file(weights, copied / "model.safetensors")
    assert resolve(copied).revision != before


def test_ids_missing_from_the_generation_config_come_from_the_tokeniser(copied):
    complete = Engine.load(copied)._model.vocabulary
    generation = json.loads((copied / "generation_config.json").read_text())
    for key in ("no_timestamps_token_id", "prev_sot_token_id", "eos_token_id", "decoder_start_token_id"):
        del generation[key]
    (copied / "generation_config.json").write_text(json.dumps(generation))
    config = json.loads((copied / "config.json").read_text())
    for key in ("eos_token_id", "decoder_start_token_id"):
        config.pop(key, None)
    (copied / "config.json").write_text(json.dumps(config))
    vocabulary = Engine.load(copied)._model.vocabulary
    for field in ("no_timestamps", "previous", "end", "start"):
        assert getattr(vocabulary, field) == getattr(complete, field)


def cut_off(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def leave_the_first_bytes(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def leave_a_pointer(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 290403936\n"
    (folder / "model.safetensors").write_text(pointer)


def lose_a_shard(folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_the_tokeniser(folder):
    (folder / "tokenizer.json").unlink()


def lose_a_number(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["d_model"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, r"model\.safetensors is not whole: \d+ of \d+ bytes"),
        (leave_the_first_bytes, r"model\.safetensors is no safetensors file, or only its first 100 bytes"),
        (leave_a_pointer, r"model\.safetensors is a Git LFS pointer"),
        (lose_a_shard, r"model-00002-of-00002\.safetensors is missing"),
        (lose_the_tokeniser, r"has neither tokenizer\.json nor vocab\.json"),
        (lose_a_number, r"config\.json: names no 'd_model'"),
    ],
)
def test_broken_models_are_found_without_loading_them(copied, damage, message):
    damage(copied)
    with pytest.raises(ModelNotFound, match=message) as failure:
        resolve(copied)
    assert "\n" not in str(failure.value)


@pytest.fixture
def hub_cache(copied, monkeypatch, tmp_path):
    """A hub that cannot be reached, and the folder of `acme/mini` in its cache."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "hub" / "models--acme--mini"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    return copied.rename(_made(folder / "snapshots") / ("0" * 40))


def _made(folder):
    folder.mkdir()
    return folder


def test_a_cache_that_another_tool_left_without_a_tokeniser_says_so(hub_cache):
    lose_the_tokeniser(hub_cache)
    with pytest.raises(ModelNotFound, match=r"models--acme--mini.* has neither tokenizer\.json"):
        resolve("acme/mini")


def test_a_cache_without_a_generation_config_serves_where_the_hub_cannot_be_reached(hub_cache):
    (hub_cache / "generation_config.json").unlink()
    assert resolve("acme/mini").path == hub_cache


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "not a name!"])
def test_a_model_that_is_not_there_is_one_line(name):
    with pytest.raises(ModelNotFound) as failure:
        Engine.load(name)
    assert "\n" not in str(failure.value)


def test_an_unreachable_hub_is_named_quickly_with_the_way_out(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(ModelNotFound, match=r"openai/whisper-tiny .*--model FOLDER"):
        Engine.load("openai/whisper-tiny")
    assert time.monotonic() - started < 60  # not the minutes of all its retries


def test_files_that_are_no_whisper_model_are_refused(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(ModelNotFound, match=r"holds no model\.safetensors and no model\.bin$"):
        Engine.load(copied)
    (copied / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelNotFound, match="no Whisper model"):
        Engine.load(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(ModelNotFound, match="not JSON"):
        Engine.load(copied)


def test_the_bundled_model_lies_beside_the_package():
    assert DEMO_FOLDER.parts[-3:] == ("pipeline", "demo", "model")


def test_bfloat16_weights_are_cast_after_the_scales_were_folded_in(model_folder, monkeypatch):
    monkeypatch.setattr(packed, "is_best_for_many_rows", lambda: False)
    exact = Engine.load(model_folder(MINI))._model.encoder.layers[0].qkv.weight
    rounded = Engine.load(model_folder(MINI), dtype="bfloat16")._model.encoder.layers[0].qkv.weight
    assert torch.equal(rounded, exact.bfloat16())


def test_the_line_about_the_hub_names_the_models_of_the_local_cache(hub_cache):
    with pytest.raises(ModelNotFound, match=r"openai/whisper-tiny is not .*; in local caches: acme/mini$"):
        resolve("tiny")
    lose_the_tokeniser(hub_cache)
    with pytest.raises(ModelNotFound, match=r"--model FOLDER$"):
        resolve("tiny")


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("tiny.en", "openai/whisper-tiny.en"),
        ("large", "openai/whisper-large-v3"),
        ("turbo", "openai/whisper-large-v3-turbo"),
        ("distil-large-v3.5", "distil-whisper/distil-large-v3.5"),
    ],
)
def test_short_names_mean_repositories_of_the_hub(hub_cache, name, repository):
    folder = hub_cache.parents[1]
    folder.rename(folder.with_name(f"models--{repository.replace('/', '--')}"))
    found = resolve(name)
    assert (found.name, found.revision) == (name, "0" * 40)
