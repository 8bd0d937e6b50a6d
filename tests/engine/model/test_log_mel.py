"""Log-mel features against WhisperFeatureExtractor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from pipeline.engine.model.log_mel import LogMel
from tests.engine.conftest import make_speechlike

CPU = torch.device("cpu")


@pytest.mark.parametrize("num_mels", [80, 128])
def test_features_equal_those_of_the_extractor(num_mels):
    windows = [make_speechlike(seconds, n) for n, seconds in enumerate([30.0, 29.99, 12.34567, 0.5, 0.011])]
    windows += [np.zeros(16000, np.float32), np.ones(1, np.float32), np.full(480_000, 1e-4, np.float32)]
    theirs = WhisperFeatureExtractor(feature_size=num_mels)(windows, sampling_rate=16000, return_tensors="pt")
    ours = LogMel(num_mels, 3000, CPU)(windows)
    torch.testing.assert_close(ours, theirs.input_features, atol=1e-5, rtol=0)


def test_int16_samples_give_the_features_of_their_float_values():
    samples = (make_speechlike(3.0, 1) * 32767).astype(np.int16)
    mel = LogMel(80, 3000, CPU)
    assert torch.equal(mel([samples]), mel([samples.astype(np.float32) / 32768.0]))


def test_a_window_has_the_same_features_in_any_company():
    windows = [make_speechlike(seconds, 7) for seconds in (2.0, 30.0)]
    mel = LogMel(80, 3000, CPU)
    assert torch.equal(mel(windows)[0], mel(windows[:1])[0])
