"""What a text gains by its sound, beside silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.engine.decoding import unheard
from pipeline.engine.decoding.tasks import Decoding, Task
from pipeline.engine.decoding.unheard import Silence, is_suspect
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.whisper import load_model
from tests.engine.conftest import MINI, make_speechlike

WORDS = list(range(1000, 1020))


@pytest.fixture
def model(model_folder):
    return load_model(resolve(model_folder(MINI, 1)), device=torch.device("cpu"), dtype="float32")


def decoded(model, window, tokens=WORDS) -> Decoding:
    start = tuple(model.vocabulary.start_sequence("en", "transcribe", timestamps=False))
    return Decoding(
        task=Task(index=0, prompt=start, start=0, max_new_tokens=100),
        no_speech_prob=0.0,
        num_positions=1500,
        tokens=list(tokens),
        hidden=model.encoder(model.features([window]))[0],
    )


@torch.inference_mode()
def test_over_silence_a_text_gains_nothing_and_over_sound_it_gains_or_loses(model, monkeypatch):
    silence = Silence(model)
    silent = decoded(model, np.zeros(480_000, np.float32))
    gains = silence.gains(silent)
    assert gains == pytest.approx([0.0] * len(WORDS), abs=1e-5)
    heard = decoded(model, make_speechlike(20.0, 1))
    mean = float(np.mean(silence.gains(heard)))
    assert abs(mean) > 1e-3
    for least, is_unheard in ((mean - 1e-3, False), (mean + 1e-3, True)):
        monkeypatch.setattr(unheard, "MIN_GAIN", least)
        assert silence.is_unheard(heard) is is_unheard


@torch.inference_mode()
def test_of_a_loop_the_first_round_counts(model):
    window = make_speechlike(20.0, 1)
    once, loop = decoded(model, window), decoded(model, window, WORDS + WORDS[-4:] * 20)
    silence = Silence(model)
    assert silence.gains(loop) == pytest.approx(silence.gains(once), abs=1e-5)


def test_little_text_for_much_sound_is_suspect_and_so_is_likely_silence():
    task = Task(index=0, prompt=(1,), start=0, max_new_tokens=100)

    def text(num, no_speech=0.1):
        return Decoding(task=task, no_speech_prob=no_speech, num_positions=1500, tokens=WORDS[:num])

    ten_s = torch.arange(1500) < 500
    assert is_suspect(text(14), ten_s)
    assert not is_suspect(text(16), ten_s)
    assert not is_suspect(text(1), torch.arange(1500) < 30)
    assert is_suspect(text(16, no_speech=0.3), ten_s)
