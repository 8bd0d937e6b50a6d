"""Every shape in which Whisper models are published is loaded, warmed up and heard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.vocabulary import read_vocabulary
from pipeline.engine.model.weights import read_weights
from tests.engine.conftest import MINI, MINI_EN, MINI_V3, make_speechlike

DISTIL = replace(MINI, name="mini-distil", encoder_layers=4, decoder_layers=2)
OPTIONS = EngineOptions(max_new_tokens=12, word_timestamps=True, batch_size=2)
GENERATION = "generation_config.json"


def change_json(path: Path, change: Callable[[dict], None]) -> None:
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def without_generation_config(folder: Path) -> None:
    (folder / GENERATION).unlink()


def with_an_old_generation_config(folder: Path) -> None:
    """As before transformers 4.31."""
    names = ("is_multilingual", "lang_to_id", "task_to_id", "no_timestamps_token_id", "prev_sot_token_id")
    change_json(folder / GENERATION, lambda stored: [stored.pop(name, None) for name in names])


def with_heads_of_a_teacher(folder: Path) -> None:
    change_json(folder / GENERATION, lambda stored: stored.update(alignment_heads=[[7, 0], [10, 17]]))


def in_shards(folder: Path) -> None:
    weights = read_weights(resolve(folder))
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    (folder / "model.safetensors").unlink()
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def in_float16(folder: Path) -> None:
    weights = {name: tensor.half() for name, tensor in read_weights(resolve(folder)).items()}
    save_file(weights, folder / "model.safetensors")


def with_added_tokens(folder: Path) -> None:
    """Two more tokens and the rows that fill the embedding up to a multiple of 8."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens([" Earshard", "zounds"])
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = read_weights(resolve(folder))
    embedding = weights["model.decoder.embed_tokens.weight"]
    rows = -(-(size + 2) // 8) * 8 - size
    weights["model.decoder.embed_tokens.weight"] = torch.cat([embedding, embedding[:rows]])
    save_file(weights, folder / "model.safetensors")
    change_json(folder / "config.json", lambda stored: stored.update(vocab_size=size + rows))


CHANGES = (
    without_generation_config,
    with_an_old_generation_config,
    with_heads_of_a_teacher,
    in_shards,
    in_float16,
    with_added_tokens,
)


@pytest.fixture
def changed(model_folder, tmp_path):
    """A function from a kind and a change to a model's folder."""

    def folder(kind, change=None) -> Path:
        copy = shutil.copytree(model_folder(kind), tmp_path / "copy")
        if change is not None:
            change(copy)
        return copy

    return folder


KINDS = (MINI, MINI_EN, MINI_V3, DISTIL)
# In a fast round every kind as it is, and every change of the first.
SHAPES = [
    pytest.param(kind, change, marks=[pytest.mark.slow] if change and kind is not MINI else [])
    for kind in KINDS
    for change in (None, *CHANGES)
]


@pytest.mark.parametrize(("kind", "change"), SHAPES, ids=lambda one: getattr(one, "name", None))
def test_it_is_warmed_up_and_hears_with_and_without_a_language(changed, kind, change):
    engine = Engine.load(changed(kind, change), options=OPTIONS)
    engine.warm_up()
    num_languages = {"mini.en": 1, "mini-v3": 100}.get(kind.name, 99)
    assert len(engine.languages) == num_languages
    assert engine.is_multilingual == kind.is_multilingual
    results = engine.transcribe([make_speechlike(2.0, n) for n in range(2)], languages=["en", None])
    assert [result.language is not None for result in results] == [True, True]
    assert all(segment.words for result in results for segment in result.segments)


@pytest.mark.parametrize("change", [without_generation_config, with_an_old_generation_config])
@pytest.mark.parametrize("kind", [MINI, MINI_V3], ids=lambda kind: kind.name)
def test_languages_and_tasks_come_from_the_tokeniser(changed, model_folder, kind, change):
    told = read_vocabulary(resolve(model_folder(kind)))
    found = read_vocabulary(resolve(changed(kind, change)))
    assert found.languages == told.languages
    assert found.tasks == told.tasks


@pytest.mark.parametrize("change", [in_shards, with_added_tokens, with_heads_of_a_teacher])
def test_the_text_is_that_of_the_model_as_it_was(changed, model_folder, change):
    windows = [make_speechlike(3.0, n) for n in range(2)]
    options = EngineOptions(max_new_tokens=20)
    texts = [
        [result.text for result in Engine.load(folder, options=options).transcribe(windows)]
        for folder in (changed(MINI, change), model_folder(MINI))
    ]
    assert texts[0] == texts[1]


def test_added_tokens_are_text_and_rows_without_a_token_are_never_said(changed):
    vocabulary = read_vocabulary(resolve(changed(MINI, with_added_tokens)))
    added = vocabulary.last_timestamp + 1
    assert vocabulary.is_text(added)
    assert not vocabulary.is_time(added)
    assert vocabulary.decode([added, vocabulary.last_timestamp, added + 1]) == " Earshardzounds"
    assert vocabulary.suppress[-1] == vocabulary.size - 1 > added + 1
