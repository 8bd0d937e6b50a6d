"""Beam search: against a plain one, against greedy decoding and draws, and against transformers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding.beam_slots import Beams, BeamSlots, Hypotheses
from pipeline.engine.decoding.rules import History
from pipeline.engine.decoding.tasks import Task
from pipeline.engine.model.layers import attend
from pipeline.engine.scheduling.work import Pass, Work
from pipeline.engine.sparsify.level import Level
from tests.engine.conftest import MINI, make_speechlike
from tests.engine.decoding.test_slots import cut_at_end, decode_with_engine
from tests.real_weights import WEIGHTS, needs_weights


class WholeTexts:
    """A decoder's cache that keeps nothing: whole texts are decoded again for every token."""

    def __init__(self, memory):
        self.memory = memory

    def attend_past(self, layer, q, k, v):
        return attend(q, k, v, causal=True)

    def attend_memory(self, layer, q):
        keys, values = self.memory[layer]
        rows = len(q)
        return attend(q, keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))


def plain_beam_search(engine: Engine, window, beams: Beams, max_new_tokens: int) -> list[int]:
    """One window, one hypothesis after the other, as openai/whisper's BeamSearchDecoder."""
    model, rules = engine._model, engine._passes._rules
    prompt = model.vocabulary.start_sequence("en", "transcribe", timestamps=True)
    hidden = model.encoder(model.features([window]))
    cache = WholeTexts([layer.project_memory(hidden) for layer in model.decoder.layers])
    live, ended = [([], 0.0)], []
    for _ in range(max_new_tokens):
        ways = []
        for tokens, total in live:
            row = torch.tensor([[*prompt, *tokens]])
            out = model.decoder(row, torch.arange(row.shape[1])[None], cache)
            logits = model.decoder.logits(out[:, -1])
            history = History.create(1, model.device)
            for place, token in enumerate(tokens):
                rules.record(torch.tensor([token]), history, first=place == 0)
            rules.restrict(logits, history, first=not tokens)
            logprobs = logits.log_softmax(-1)[0]
            best = logprobs.topk(beams.size + 1)
            ways += [([*tokens, t], total + p) for p, t in zip(*(x.tolist() for x in best), strict=True)]
        live = []
        for tokens, total in sorted(ways, key=lambda way: -way[1]):
            if tokens[-1] == model.vocabulary.end:
                ended.append((tokens[:-1], total))
            else:
                live.append((tokens, total))
            if len(live) == beams.size:
                break
        if len(ended) >= round(beams.size * beams.patience):
            break
    ranked = ended + live[: max(0, beams.size - len(ended))]
    return max(ranked, key=lambda one: beams.score(len(one[0]), one[1]))[0]


@pytest.mark.parametrize("settings", [{}, {"patience": 2.0}, {"length_penalty": 1.0}], ids=str)
@pytest.mark.parametrize("beam_size", [2, 5])
@torch.inference_mode()
def test_windows_side_by_side_are_decoded_as_each_by_a_plain_search(model_folder, beam_size, settings):
    options = EngineOptions(
        beam_size=beam_size, timestamps="tokens", max_new_tokens=12, batch_size=2, **settings
    )
    engine = Engine.load(model_folder(MINI), options=options)
    windows = [make_speechlike(seconds, n) for n, seconds in enumerate((3.0, 9.0, 5.0))]
    beams = Beams(**{"size": beam_size, "patience": 1.0, "length_penalty": None, **settings})
    expected = [plain_beam_search(engine, window, beams, 12) for window in windows]
    assert decode_with_engine(engine, windows, "en") == expected
    assert len({tuple(tokens) for tokens in expected}) == 3


@pytest.fixture
def engines(model_folder):
    """Greedy decoding, and beam search."""
    options = [EngineOptions(max_new_tokens=16, batch_size=2, beam_size=size) for size in (1, 3)]
    return [Engine.load(model_folder(MINI, 1), options=chosen) for chosen in options]


def test_one_hypothesis_is_greedy_decoding(engines, monkeypatch):
    greedy, beam = engines
    windows = [make_speechlike(4.0, n) for n in range(3)]
    one = Beams(size=1, patience=1.0, length_penalty=None)

    def slots_of_one(number, num_positions):
        model, rules = beam._model, beam._passes._rules
        return BeamSlots(model, rules, size=number, num_positions=num_positions, beams=one)

    monkeypatch.setattr(beam._passes._scheduler._device, "new_slots", slots_of_one)
    assert decode_with_engine(beam, windows, "en") == decode_with_engine(greedy, windows, "en")


@torch.inference_mode()
def test_what_is_drawn_at_a_temperature_is_what_is_drawn_without_beams(engines):
    drawn = []
    for engine in engines:
        works = [Work(samples=make_speechlike(4.0, n), seed=n, language="en") for n in range(3)]
        settings = [Pass(temperature=t) for t in (0.6, 1.0, 0.4)]
        drawn.append([decoding.tokens for decoding in engine._passes.run(works, settings)])
    assert drawn[0] == drawn[1]


def test_a_windows_text_does_not_depend_on_its_company_or_on_being_sparse_beside_dense_ones(engines):
    beam = engines[1]
    windows = [make_speechlike(4.0 + n, n) for n in range(5)]
    levels = [Level(layer=1, sparsity=0.5) if n % 2 else None for n in range(5)]
    together = beam.transcribe(windows, languages=["en"] * 5, levels=levels)
    for n, window in enumerate(windows):
        (alone,) = beam.transcribe([window], languages=["en"], levels=levels[n])
        assert (alone.text, alone.fallback) == (together[n].text, together[n].fallback)


def test_a_wider_search_finds_likelier_text_than_greedy_decoding(engines):
    windows = [make_speechlike(4.0, n) for n in range(4)]
    works = [[Work(samples=window, seed=0, language="en") for window in windows] for _ in engines]
    with torch.inference_mode():
        greedy, beam = (
            [decoding.avg_logprob for decoding in engine._passes.run(own, Pass())]
            for engine, own in zip(engines, works, strict=True)
        )
    assert sum(beam) > sum(greedy)


def test_hypotheses_that_have_not_ended_stand_in_where_too_few_have():
    beams = Beams(size=2, patience=1.0, length_penalty=None)
    task = Task(index=0, prompt=(1,), start=0, max_new_tokens=2)
    slot = Hypotheses(task=task, beams=beams, no_speech_prob=0.1, num_positions=1500)
    slot.take([(7, 0, -0.1), (99, 0, -2.0), (8, 0, -3.0), (9, 0, -4.0)], end=99)
    assert (slot.live, slot.ended) == ([([7], -0.1), ([8], -3.0)], [([], -2.0)])
    assert not slot.is_finished
    slot.take([(5, 0, -0.3), (5, 1, -3.5), (6, 0, -5.0), (6, 1, -6.0)], end=99)
    assert slot.is_finished
    best = slot.best()
    assert (best.tokens, best.sum_logprob, best.ended) == ([7, 5], -0.3, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0; it may be 1 to 32"),
        ({"patience": 2.0}, "patience is 2.0; it may be left out with greedy decoding"),
        ({"length_penalty": 1.0}, "length_penalty is 1.0; it may be left out"),
        ({"beam_size": 5, "patience": 0.0}, "patience is 0.0; it may be above 0"),
        ({"beam_size": 5, "length_penalty": 2.0}, "length_penalty is 2.0; it may be 0 to 1"),
    ],
)
def test_other_searches_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EngineOptions(**options)


@needs_weights
@pytest.mark.skipif(
    not os.environ.get("EARSHARD_SPEECH"), reason="EARSHARD_SPEECH names no set of recordings"
)
def test_short_windows_are_decoded_as_by_transformers():
    """Without timestamps: transformers ranks by log-probabilities from before the timestamp rules."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    folder, windows = WEIGHTS / "whisper-base", real_windows(Path(os.environ["EARSHARD_SPEECH"]))
    assert len(windows) > 3
    engine = Engine.load(folder, options=EngineOptions(beam_size=5, timestamps="none"))
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features = WhisperFeatureExtractor.from_pretrained(folder)(
        windows, sampling_rate=16000, return_tensors="pt"
    )
    theirs = model.generate(
        features.input_features, force_unique_generate_call=True, num_beams=5, do_sample=False,
        language="en", task="transcribe", return_timestamps=False,
    ).tolist()  # fmt: skip
    end, prompt = model.generation_config.eos_token_id, 4
    ours = decode_with_engine(engine, windows, "en")
    assert ours == [cut_at_end(row[prompt:], end) for row in theirs]


def real_windows(folder: Path) -> list[np.ndarray]:
    import soundfile

    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()][:6]
    found = [soundfile.read(folder / line["audio_filepath"], dtype="float32") for line in lines]
    return [samples for samples, rate in found if rate == 16000]
