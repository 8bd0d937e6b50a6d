"""The token rules against transformers' own processors, on random histories and logits."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from pipeline.engine.decoding.rules import History, Rules
from pipeline.engine.model.vocabulary import Vocabulary

# 0-9 text, 10 end, 11 start, 12-15 other specials, 16 no speech, 17 no timestamps, 18-29 times.
VOCABULARY = Vocabulary(
    tokenizer=Tokenizer(models.BPE()),
    size=30,
    start=11,
    end=10,
    previous=12,
    no_timestamps=17,
    languages={},
    tasks={},
    suppress=(3, 11, 12, 13, 14, 15, 16),
    begin_suppress=(0, 10),
    max_initial_timestamp=4,
    max_length=None,
)
CPU = torch.device("cpu")


def restrict_with_transformers(
    logits: torch.Tensor, chosen: list[int], vocabulary: Vocabulary, *, timestamps: bool
):
    prompt = [vocabulary.start]
    ids = torch.tensor([prompt + chosen])
    out = SuppressTokensAtBeginLogitsProcessor(vocabulary.begin_suppress, begin_index=1)(ids, logits)
    out = SuppressTokensLogitsProcessor(vocabulary.suppress)(ids, out)
    if not timestamps:
        return out
    config = SimpleNamespace(
        no_timestamps_token_id=vocabulary.no_timestamps,
        eos_token_id=vocabulary.end,
        bos_token_id=vocabulary.end,
        max_initial_timestamp_index=vocabulary.max_initial_timestamp,
    )
    return WhisperTimeStampLogitsProcessor(config, begin_index=1)(ids, out)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), timestamps=st.booleans(), max_initial=st.sampled_from([None, 0, 4]))
def test_allowed_tokens_equal_those_of_transformers_along_a_whole_decoding(seed, timestamps, max_initial):
    vocabulary = replace(VOCABULARY, max_initial_timestamp=max_initial)
    rules = Rules(vocabulary, CPU, timestamps=timestamps)
    generator = torch.Generator().manual_seed(seed)
    history, chosen = History.create(1, CPU), []
    for step in range(12):
        logits = torch.randn(1, vocabulary.size, generator=generator) * 2
        theirs = restrict_with_transformers(logits.clone(), chosen, vocabulary, timestamps=timestamps)
        token, logprob = rules.choose(logits, history, first=step == 0, temperature=None, draw=torch.zeros(1))
        assert torch.equal(logits, theirs)
        assert token.item() == theirs.argmax().item()
        torch.testing.assert_close(logprob, theirs.log_softmax(-1)[:, token.item()])
        if token.item() == vocabulary.end:
            break
        chosen.append(token.item())


def test_each_row_of_a_batch_has_its_own_history():
    rules = Rules(VOCABULARY, CPU, timestamps=True)
    generator = torch.Generator().manual_seed(5)
    together = History.create(4, CPU)
    apart = [History.create(1, CPU) for _ in range(4)]
    for step in range(10):
        logits = torch.randn(4, VOCABULARY.size, generator=generator)
        settings_ = {"first": step == 0, "temperature": None, "draw": torch.zeros(1)}
        alone = [
            rules.choose(logits[row : row + 1].clone(), apart[row], **settings_)[0].item() for row in range(4)
        ]
        assert rules.choose(logits.clone(), together, **settings_)[0].tolist() == alone


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_draws_follow_the_tempered_distribution(temperature):
    rules = Rules(VOCABULARY, CPU, timestamps=False)
    logits = torch.randn(1, VOCABULARY.size, generator=torch.Generator().manual_seed(1))
    num_draws = 20_000
    draws = (torch.arange(num_draws) + 0.5) / num_draws
    tokens, _ = rules.choose(
        logits.repeat(num_draws, 1),
        History.create(num_draws, CPU),
        first=False,
        temperature=torch.full((num_draws,), temperature),
        draw=draws,
    )
    rules.restrict(logits, History.create(1, CPU), first=False)
    expected = (logits / temperature).softmax(-1)[0]
    shares = torch.bincount(tokens, minlength=VOCABULARY.size) / num_draws
    torch.testing.assert_close(shares, expected, atol=2e-4, rtol=0)
    assert shares[list(VOCABULARY.suppress)].sum() == 0


def test_a_temperature_of_zero_is_greedy_beside_a_drawn_row():
    rules = Rules(VOCABULARY, CPU, timestamps=False)
    logits = torch.randn(2, VOCABULARY.size, generator=torch.Generator().manual_seed(2))
    greedy, _ = rules.choose(
        logits.clone(), History.create(2, CPU), first=False, temperature=None, draw=torch.zeros(2)
    )
    mixed, _ = rules.choose(
        logits.clone(),
        History.create(2, CPU),
        first=False,
        temperature=torch.tensor([0.0, 1.0]),
        draw=torch.tensor([0.99, 0.99]),
    )
    assert mixed[0] == greedy[0]
