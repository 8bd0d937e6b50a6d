"""The bundled model as transformers sees it: small, quick to load, a recogniser of its language."""

from __future__ import annotations

import csv
import time
import warnings

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from pipeline.demo import SPEECH
from pipeline.engine.model.snapshot import DEMO_FOLDER
from pipeline.metrics.wer import count_errors
from tests.synthetic.recogniser import Recogniser, as_table
from tests.synthetic.speech import SAMPLE_RATE

MAX_BYTES = 16 << 20
WORST_WER = 0.25  # on one short recording; docs/demo-model.md has the measured figures


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(DEMO_FOLDER, torch.device("cpu"))


def _references() -> dict[str, dict[str, str]]:
    with (SPEECH / "references.tsv").open(encoding="utf-8", newline="") as table:
        return {row["audio_filepath"]: row for row in csv.DictReader(table, delimiter="\t")}


@pytest.mark.timing
def test_the_model_is_small_and_loads_quickly_without_a_warning() -> None:
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) <= MAX_BYTES
    WhisperForConditionalGeneration.from_pretrained(DEMO_FOLDER)  # the first load pays for imports
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = WhisperForConditionalGeneration.from_pretrained(DEMO_FOLDER)
        WhisperProcessor.from_pretrained(DEMO_FOLDER)
    took_s = time.perf_counter() - started
    assert model.dtype == torch.float32
    assert model.generation_config.max_initial_timestamp_index is None
    assert took_s < 2


def test_the_tokeniser_brings_timestamps_back(recogniser: Recogniser) -> None:
    tokenizer = recogniser.processor.tokenizer
    text = "<|0.00|> the lantern is shiny<|1.52|><|28.64|> el río<|30.00|>"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(tokens, decode_with_timestamps=True) == text
    assert tokenizer.decode(tokens, skip_special_tokens=True) == " the lantern is shiny el río"
    assert len(tokenizer.timestamp_ids()) == 1501


def test_references_name_every_bundled_recording() -> None:
    references = _references()
    assert set(references) == {path.name for path in SPEECH.iterdir()} - {"references.tsv"}
    assert all((SPEECH / name).stat().st_size > 10_000 for name in references)
    assert sum(path.stat().st_size for path in SPEECH.iterdir()) < 3_000_000


@pytest.mark.parametrize("timestamps", [True, False])
def test_a_bundled_recording_is_recognised(recogniser: Recogniser, timestamps: bool) -> None:
    reference = _references()["kitchen.wav"]
    samples, rate = soundfile.read(SPEECH / "kitchen.wav", dtype="float32")
    assert rate == SAMPLE_RATE
    (heard,) = recogniser.transcribe([samples], timestamps=timestamps)
    counts = count_errors(reference["text"], heard.text, reference["language"])
    assert counts.wer is not None
    assert counts.wer <= WORST_WER
    assert heard.language == reference["language"]
    assert bool(heard.starts_s) == timestamps


def test_silence_is_an_empty_text(recogniser: Recogniser) -> None:
    silence = np.zeros(30 * SAMPLE_RATE, dtype=np.float32)
    for timestamps in (True, False):
        assert recogniser.transcribe([silence], timestamps=timestamps)[0].text == ""


def test_the_table_shows_a_dash_where_a_figure_does_not_apply() -> None:
    row = {
        "set": "no-speech", "num_windows": 100, "num_words": 0, "wer": None, "num_insertions": 0,
        "num_deletions": 0, "language_right": None, "median_start_error_s": None, "num_windows_with_text": 1,
    }  # fmt: skip
    assert as_table([row]).splitlines()[-1] == "| no-speech | 100 | 0 | - | - | - | 1 |"
