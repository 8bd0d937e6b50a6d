"""Dense greedy decoding against transformers' generate, token for token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from pipeline.benchmark.random_model import Kind
from pipeline.engine import Engine, EngineOptions
from pipeline.engine.model.snapshot import DEMO_FOLDER
from pipeline.engine.scheduling.work import Pass, Work
from tests.engine.conftest import LARGE_V3, MINI, MINI_EN, MINI_V3, TINY, TINY_EN, make_speechlike

HOW = {False: "none", True: "tokens"}
LENGTHS_S = [30.0, 7.3, 21.0]


def decode_with_engine(engine: Engine, windows, language: str | None) -> list[list[int]]:
    """Tokens of one greedy pass, without the gates."""
    works = [Work(samples=window, seed=0, language=language) for window in windows]
    with torch.inference_mode():
        return [decoding.tokens for decoding in engine._passes.run(works, Pass())]


def decode_with_transformers(folder: Path, windows, **settings) -> list[list[int]]:
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features = WhisperFeatureExtractor.from_pretrained(folder)(
        windows, sampling_rate=16000, return_tensors="pt"
    )
    out = model.generate(
        features.input_features,
        force_unique_generate_call=True,
        num_beams=1,
        do_sample=False,
        **settings,
    ).tolist()
    prompt = len(settings.get("prompt_ids", ())) + 1
    config = model.generation_config
    if config.is_multilingual:
        prompt += 2
    prompt += not settings["return_timestamps"]
    return [cut_at_end(row[prompt:], config.eos_token_id) for row in out]


def cut_at_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


def languages_of(kind: Kind) -> dict[str, str]:
    return {"language": "en", "task": "transcribe"} if kind.is_multilingual else {}


@pytest.mark.slow
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("kind", [TINY, TINY_EN, LARGE_V3], ids=lambda kind: kind.name)
def test_greedy_tokens_of_the_real_shapes_equal_those_of_generate(model_folder, kind, timestamps):
    folder = model_folder(kind)
    windows = [make_speechlike(seconds, seed) for seed, seconds in enumerate(LENGTHS_S[:2])]
    engine = Engine.load(folder, options=EngineOptions(timestamps=HOW[timestamps], max_new_tokens=12))
    theirs = decode_with_transformers(
        folder, windows, return_timestamps=timestamps, max_new_tokens=12, **languages_of(kind)
    )
    assert decode_with_engine(engine, windows, "en") == theirs


# In a fast round every seed of the first, and one of the second.
MANY = [
    pytest.param(kind, seed, marks=[pytest.mark.slow] if seed and kind is not MINI else [])
    for kind in (MINI, MINI_EN)
    for seed in range(3)
]


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize(("kind", "seed"), MANY, ids=lambda one: getattr(one, "name", None))
def test_greedy_tokens_of_many_seeds_equal_those_of_generate(model_folder, kind, timestamps, seed):
    folder = model_folder(kind, seed)
    windows = [make_speechlike(seconds, seed * 10 + n) for n, seconds in enumerate(LENGTHS_S)]
    engine = Engine.load(folder, options=EngineOptions(timestamps=HOW[timestamps], max_new_tokens=60))
    theirs = decode_with_transformers(
        folder, windows, return_timestamps=timestamps, max_new_tokens=60, **languages_of(kind)
    )
    assert decode_with_engine(engine, windows, "en") == theirs


def test_the_comparison_meets_ends_timestamps_and_the_token_limit(model_folder):
    tokens, limit = [], 60
    for seed in range(3):
        options = EngineOptions(timestamps="tokens", max_new_tokens=limit)
        engine = Engine.load(model_folder(MINI, seed), options=options)
        windows = [make_speechlike(seconds, seed * 10 + n) for n, seconds in enumerate(LENGTHS_S)]
        tokens += decode_with_engine(engine, windows, "en")
    first_time = engine._model.vocabulary.first_timestamp
    assert {len(row) == limit for row in tokens} == {True, False}
    assert sum(token >= first_time for row in tokens for token in row) > 3 * len(tokens)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_slots_refilled_in_any_number_give_the_same_tokens(model_folder, batch_size):
    folder = model_folder(MINI, 1)
    windows = [make_speechlike(3.0 + n, n) for n in range(7)]
    options = {"timestamps": "tokens", "max_new_tokens": 40}
    alone = decode_with_engine(
        Engine.load(folder, options=EngineOptions(batch_size=7, **options)), windows, "en"
    )
    engine = Engine.load(folder, options=EngineOptions(batch_size=batch_size, **options))
    assert decode_with_engine(engine, windows, "en") == alone


@pytest.mark.parametrize("timestamps", [False, True])
def test_an_initial_prompt_equals_prompt_ids_of_generate(model_folder, timestamps):
    folder = model_folder(MINI)
    prompt = "hello hello"
    options = EngineOptions(initial_prompt=prompt, timestamps=HOW[timestamps], max_new_tokens=40)
    engine = Engine.load(folder, options=options)
    ids = engine._model.vocabulary.encode_prompt(prompt, 224)
    windows = [make_speechlike(9.0, 1), make_speechlike(4.0, 2)]
    theirs = decode_with_transformers(
        folder,
        windows,
        prompt_ids=torch.tensor(ids),
        return_timestamps=timestamps,
        max_new_tokens=40,
        **languages_of(MINI),
    )
    assert decode_with_engine(engine, windows, "en") == theirs
    assert ids[0] == engine._model.vocabulary.previous
    assert engine._model.vocabulary.tokenizer.decode(ids[1:]) == " hello hello"


def test_windows_of_several_prompts_are_decoded_together_as_each_by_itself(model_folder):
    folder = model_folder(MINI)
    windows = [make_speechlike(3.0 + n, n) for n in range(5)]
    prompts = ["hello hello", None, "a longer text that was said before", "hello hello", None]
    alone = []
    for window, prompt in zip(windows, prompts, strict=True):
        options = EngineOptions(initial_prompt=prompt or "of all", max_new_tokens=12)
        alone.append(Engine.load(folder, options=options).transcribe([window], languages=["en"])[0])
    engine = Engine.load(folder, options=EngineOptions(initial_prompt="of all", max_new_tokens=12))
    together = engine.transcribe(windows, languages=["en"] * 5, prompts=prompts)
    assert [one.text for one in together] == [one.text for one in alone]
    assert len({one.text for one in engine.transcribe(windows[:1] * 3, prompts=["one", "two", None])}) > 1
    with pytest.raises(ValueError, match="prompts has 1 entries for 5 windows"):
        engine.transcribe(windows, prompts=["x"])


def test_a_long_prompt_keeps_its_end_and_at_most_half_the_context(model_folder):
    engine = Engine.load(model_folder(MINI), options=EngineOptions(initial_prompt="x" * 400 + "end"))
    previous = engine._passes._previous
    assert len(previous) == 224
    assert engine._model.vocabulary.tokenizer.decode(previous[1:]).endswith("xend")


def test_without_a_limit_the_text_stops_at_the_decoders_last_position(model_folder):
    engine = Engine.load(model_folder(MINI, 2), options=EngineOptions(timestamps="none"))
    task = engine._passes._task(0, Work(samples=make_speechlike(2, 0), seed=0, language="en"), Pass())
    assert len(task.prompt) + task.max_new_tokens == 448


@pytest.mark.parametrize("kind", [MINI, MINI_V3], ids=lambda kind: kind.name)
def test_detected_languages_equal_those_of_transformers(model_folder, kind):
    folder = model_folder(kind)
    windows = [make_speechlike(5.0, seed) for seed in range(3)]
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features = WhisperFeatureExtractor.from_pretrained(folder)(
        windows, sampling_rate=16000, return_tensors="pt"
    )
    ids = model.detect_language(features.input_features).tolist()
    engine = Engine.load(folder, options=EngineOptions(max_new_tokens=1))
    works = [Work(samples=window, seed=0, language=None) for window in windows]
    with torch.inference_mode():
        engine._passes.run(works, Pass())
    assert [engine._model.vocabulary.languages[work.language] for work in works] == ids
    assert all(1 / kind.num_languages < work.language_probability <= 1 for work in works)


@pytest.mark.skipif(
    not (DEMO_FOLDER / "model.safetensors").is_file(), reason="the bundled model is not built yet"
)
@pytest.mark.parametrize("timestamps", [False, True])
def test_greedy_tokens_of_the_bundled_model_equal_those_of_generate(timestamps):
    windows = [make_speechlike(seconds, seed) for seed, seconds in enumerate(LENGTHS_S[:2])]
    engine = Engine.load("demo", options=EngineOptions(timestamps=HOW[timestamps], max_new_tokens=200))
    theirs = decode_with_transformers(
        DEMO_FOLDER,
        windows,
        return_timestamps=timestamps,
        max_new_tokens=200,
        **({"language": engine.languages[0], "task": "transcribe"} if engine.is_multilingual else {}),
    )
    assert decode_with_engine(engine, windows, engine.languages[0]) == theirs


def test_hotwords_come_before_every_prompt_and_take_half_the_context_at_most(model_folder):
    vocabulary = Engine.load(model_folder(MINI))._model.vocabulary
    hot, said = (vocabulary.encode_prompt(text, 100)[1:] for text in ("w1 w2", "w3 w4"))
    assert vocabulary.encode_prompt("w3 w4", 100, hotwords="w1 w2") == [vocabulary.previous, *hot, *said]
    assert vocabulary.encode_prompt("", 100, hotwords="w1 w2") == [vocabulary.previous, *hot]
    long = vocabulary.encode_prompt("w3 " * 300 + "w4", 100, hotwords="w1 w2")
    assert (len(long), long[1 : 1 + len(hot)], long[-len(said) // 2 :]) == (100, hot, said[-len(said) // 2 :])
    engine = Engine.load(model_folder(MINI), options=EngineOptions(hotwords="w1 w2"))
    assert engine._passes.encode_prompt("w3 w4") == (vocabulary.previous, *hot, *said)
    assert engine._passes._previous == (vocabulary.previous, *hot)
