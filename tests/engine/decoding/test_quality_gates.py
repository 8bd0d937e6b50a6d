"""Quality gates, retries and loop cuts, on made-up decodings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.benchmark.random_model import build_generation_config, build_tokenizer
from pipeline.engine.decoding.echoes import is_echo, is_one_phrase, is_rushed
from pipeline.engine.decoding.loops import Loop, cut_loops, find_loop
from pipeline.engine.decoding.quality_gates import compression_ratio, judge, settle
from pipeline.engine.decoding.tasks import Decoding, Task
from pipeline.engine.model.vocabulary import Vocabulary
from tests.engine.conftest import MINI

WORDS = list(range(1000, 1400))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = build_tokenizer(MINI)
    config = build_generation_config(MINI, tokenizer)
    return Vocabulary(
        tokenizer=tokenizer,
        size=tokenizer.get_vocab_size(),
        start=config.decoder_start_token_id,
        end=config.eos_token_id,
        previous=config.prev_sot_token_id,
        no_timestamps=config.no_timestamps_token_id,
        languages={},
        tasks={},
        suppress=(),
        begin_suppress=(),
        max_initial_timestamp=50,
        max_length=None,
    )


def make_decoding(tokens, *, logprob=-0.3, no_speech=0.1, ended=True, temperature=0.0) -> Decoding:
    task = Task(index=0, prompt=(1,), start=0, max_new_tokens=444, temperature=temperature)
    return Decoding(
        task=task,
        no_speech_prob=no_speech,
        num_positions=1500,
        tokens=list(tokens),
        sum_logprob=logprob * (len(tokens) + 1),
        ended=ended,
    )


@dataclass(kw_only=True)
class Sounds:
    """What is said of every decoding; `invented` holds first tokens of those that are not borne out."""

    is_repeated: bool = False
    invented: tuple[int, ...] = ()
    asked: list[int] = field(default_factory=list)

    def repeats(self, _index, _decoding) -> bool:
        return self.is_repeated

    def bears_out(self, _index, decoding) -> bool:
        self.asked.append(decoding.tokens[0])
        return decoding.tokens[0] not in self.invented


LOUD = torch.ones(1500, dtype=torch.bool)
GOOD = make_decoding(WORDS[:20])
LOOP = make_decoding([*WORDS[:5], *WORDS[10:13] * 30], logprob=-0.05)
ENDLESS = make_decoding(WORDS[:200], ended=False)
UNSURE = make_decoding(WORDS[:20], logprob=-1.2)


def test_compression_ratio_counts_the_bytes_of_the_text():
    assert compression_ratio("ab" * 200) > 20
    assert compression_ratio("") == 0
    assert compression_ratio("é" * 2) == 4 / 12


def test_sound_text_passes_and_unsure_endless_or_looping_text_does_not(vocabulary):
    assert judge(GOOD, vocabulary, LOUD).passed
    for bad in (UNSURE, ENDLESS, LOOP):
        assert not judge(bad, vocabulary, LOUD).passed


def test_unsure_text_where_no_speech_is_likely_is_silence(vocabulary):
    verdict = judge(make_decoding(WORDS[:20], logprob=-1.2, no_speech=0.7), vocabulary, LOUD)
    assert verdict.is_silent
    assert verdict.passed
    assert not judge(make_decoding(WORDS[:20], logprob=-0.5, no_speech=0.9), vocabulary, LOUD).is_silent


@pytest.mark.parametrize(
    ("start_s", "end_s", "passed"),
    [(0.0, 4.0, True), (9.0, 12.0, True), (12.0, 12.8, True), (12.0, 13.0, False), (20.0, 30.0, False)],
)
def test_text_that_stands_in_silence_does_not_pass(vocabulary, start_s, end_s, passed):
    until_ten = torch.arange(1500) < 500
    first, last = (vocabulary.first_timestamp + round(time_s / 0.02) for time_s in (start_s, end_s))
    decoding = make_decoding([first, *WORDS[:20], last])
    assert judge(decoding, vocabulary, until_ten).passed == passed
    assert judge(decoding, vocabulary, LOUD).passed


@pytest.mark.parametrize("period", [1, 2, 3, 7, 40])
def test_a_phrase_said_over_and_over_is_a_loop(period):
    rounds = max(4, -(-16 // period))
    tokens = [*WORDS[100:110], *WORDS[:period] * rounds, *WORDS[200:205]]
    assert find_loop(tokens) == Loop(start=10, stop=10 + rounds * period, period=period)


@pytest.mark.parametrize("tokens", [[], WORDS, WORDS[:1] * 8, WORDS[:3] * 3, [*WORDS[:5], *WORDS[:5]]])
def test_ordinary_repetition_is_no_loop(tokens):
    assert find_loop(tokens) is None


@given(tokens=st.lists(st.integers(1000, 1003), max_size=120))
def test_no_loop_is_left_after_cutting_and_the_rest_keeps_its_order(vocabulary, tokens):
    kept = cut_loops(tokens, vocabulary)
    assert find_loop(kept) is None
    rest = iter(tokens)
    assert all(token in rest for token in kept)


def test_a_loop_is_cut_at_its_second_round_with_the_timestamps_inside_it(vocabulary):
    time = vocabulary.first_timestamp
    rounds = [token for n in range(8) for token in (time + n, *WORDS[:3], time + n + 1)]
    kept = [time, *WORDS[:3], time + 1, time + 1, time + 8, time + 50]
    assert cut_loops([*rounds, time + 50], vocabulary) == kept


def run_settle(first, answers, vocabulary, *, is_sparse=False, floor=None, asks_languages=False, sounds=None):
    """Settles with retries from `answers(index, temperature)`; returns results and what was asked."""
    asked = []

    def retry(indices, temperatures):
        (temperature,) = set(temperatures)
        asked.append((list(indices), temperature))
        return [answers(index, temperature) for index in indices]

    num_positions, sounding = 3000 if is_sparse else 1500, [LOUD] * len(first)
    found = settle(
        first, retry, vocabulary, num_positions=num_positions, sounding=sounding, floors=[floor] * len(first),
        asks_languages=asks_languages, sounds=sounds or Sounds(),
    )  # fmt: skip
    return found, asked


def test_windows_that_pass_are_not_retried(vocabulary):
    settled, asked = run_settle([GOOD, GOOD], None, vocabulary, is_sparse=True)
    assert asked == []
    assert [one.fallback for one in settled] == [None, None]


def test_a_sparse_window_that_fails_is_decoded_dense_before_any_temperature(vocabulary):
    settled, asked = run_settle([GOOD, LOOP], lambda *_: GOOD, vocabulary, is_sparse=True)
    assert asked == [([1], 0.0)]
    assert settled[1].fallback == "dense"
    assert settled[1].decoding is GOOD


@pytest.mark.parametrize(("is_sparse", "floor", "asks"), [
    (True, -0.3, [([1], 0.0)]), (True, -0.6, []), (True, None, []), (False, -0.3, []),
])  # fmt: skip
def test_sparse_text_below_the_floor_of_its_level_is_decoded_dense_and_dense_text_is_not(
    vocabulary, is_sparse, floor, asks
):
    sure, unsure = (make_decoding(WORDS[:20], logprob=logprob) for logprob in (-0.1, -0.5))
    settled, asked = run_settle(
        [sure, unsure], lambda *_: make_decoding(WORDS[:9], logprob=-0.5), vocabulary,
        is_sparse=is_sparse, floor=floor,
    )  # fmt: skip
    assert asked == asks
    assert [one.fallback for one in settled] == [None, "dense" if asks else None]
    assert len(settled[1].tokens) == (9 if asks else 20)


def test_a_sparse_window_without_text_is_not_asked_how_sure_it_is(vocabulary):
    nothing = make_decoding([vocabulary.first_timestamp], logprob=-0.9)
    settled, asked = run_settle([nothing], None, vocabulary, is_sparse=True, floor=-0.3)
    assert (asked, settled[0].fallback) == ([], None)


def test_a_dense_window_that_fails_gets_the_first_temperature_that_passes(vocabulary):
    def answers(_, temperature):
        return make_decoding(WORDS[:20] if temperature == 0.4 else WORDS[:2] * 40, temperature=temperature)

    settled, asked = run_settle([LOOP], answers, vocabulary)
    assert [temperature for _, temperature in asked] == [0.2, 0.4]
    assert settled[0].fallback == "temperature=0.4"


@pytest.mark.parametrize(("is_sparse", "fallback"), [(False, "language"), (True, "dense")])
def test_a_window_in_a_language_that_is_a_guess_is_asked_for_its_own_first(vocabulary, is_sparse, fallback):
    settled, asked = run_settle(
        [GOOD, LOOP], lambda *_: GOOD, vocabulary, is_sparse=is_sparse, asks_languages=True
    )
    assert asked == [([1], 0.0)]
    assert [one.fallback for one in settled] == [None, fallback]


def test_all_failing_windows_are_retried_together(vocabulary):
    def answers(index, temperature):
        return GOOD if (index, temperature) != (0, 0.2) else UNSURE

    _, asked = run_settle([UNSURE, GOOD, ENDLESS], answers, vocabulary)
    assert asked == [([0, 2], 0.2), ([0], 0.4)]


def test_if_nothing_passes_the_best_mean_log_probability_wins(vocabulary):
    def answers(_, temperature):
        return make_decoding(
            WORDS[:20], logprob=-1.5 + temperature * 0.5 * (temperature < 0.9), temperature=temperature
        )

    settled, asked = run_settle([make_decoding(WORDS[:9], logprob=-1.6)], answers, vocabulary, is_sparse=True)
    assert [temperature for _, temperature in asked] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert settled[0].fallback == "dense+temperature=0.8"


def test_a_loop_that_survives_every_retry_is_cut_and_marked(vocabulary):
    settled, _ = run_settle([LOOP], lambda *_: LOOP, vocabulary)
    assert settled[0].tokens == (*WORDS[:5], *WORDS[10:13])
    assert settled[0].fallback == "temperature=0+loop_cut"


PROMPT = "Parliament of Canada, Hansard. The Honourable Member for Ottawa."


@pytest.mark.parametrize(
    ("text", "echoes"),
    [
        (" The Honourable Member for Ottawa.", True),
        (" The honourable member for Ottawa. The Honourable Member for Ottawa!", True),
        (" The Honourable Member for Ottawa has the floor.", False),
        (" Ottawa.", False),  # a word of a prompt may well be said
        ("", False),
    ],
)
def test_text_all_of_whose_sentences_stand_in_the_prompt_is_its_echo(text, echoes):
    assert is_echo(text, PROMPT) is echoes


def test_more_text_than_anybody_says_while_anything_sounds_is_rushed():
    sounding = torch.zeros(1500, dtype=torch.bool)
    sounding[:20] = True  # 0.4 s
    assert not is_rushed(" Three.", sounding)
    assert is_rushed(PROMPT[-33:], sounding)
    assert not is_rushed(PROMPT * 10, LOUD)


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        (" Please wait while I connect your call. Please wait, while I connect your call.", True),
        (" 862-0387 862-0387", True),
        (" 240 240 240", True),
        (" Ha.", False),
        (" No, no.", True),  # which a dense pass may well say too
        (" One two three one two four", False),
        ("", False),
    ],
)
def test_a_text_that_is_the_same_words_several_times_is_one_phrase(text, repeats):
    assert is_one_phrase(text) is repeats


def test_a_sparse_window_whose_text_is_one_phrase_twice_is_decoded_dense(vocabulary):
    twice = make_decoding(WORDS[:4] * 2)
    (found,), asked = run_settle([twice], lambda *_: twice, vocabulary, is_sparse=True)
    assert (asked, found.fallback, found.tokens) == ([([0], 0.0)], "dense", tuple(twice.tokens))
    (found,), asked = run_settle([twice], None, vocabulary)
    assert (asked, found.fallback, found.tokens) == ([], None, tuple(twice.tokens))


def test_rushed_text_does_not_pass(vocabulary):
    sounding = torch.zeros(1500, dtype=torch.bool)
    sounding[:10] = True
    assert not judge(GOOD, vocabulary, sounding).passed


def with_prompt(decoding, prompt):
    task = Task(index=0, prompt=(*prompt, 1), start=len(prompt), max_new_tokens=444)
    return replace(decoding, task=task)


def test_an_echo_of_the_prompt_is_decoded_again_before_the_temperature_rises(vocabulary):
    asked = []

    def retry(indices, temperatures):
        asked.append((indices, temperatures))
        return [make_decoding(WORDS[30:40])]

    echo, other = with_prompt(GOOD, WORDS[:30]), with_prompt(GOOD, WORDS[30:60])
    found = settle(
        [echo, other], retry, vocabulary, num_positions=1500, sounding=[LOUD] * 2, floors=[None] * 2,
        sounds=Sounds(),
    )  # fmt: skip
    assert asked == [([0], [0.0])]
    assert [one.fallback for one in found] == ["unprompted", None]
    assert found[0].tokens == tuple(WORDS[30:40])


@pytest.mark.parametrize(("is_said", "fallback"), [(True, None), (False, "temperature=0+loop_cut")])
def test_a_repetition_that_the_sound_bears_out_is_text(vocabulary, is_said, fallback):
    again = make_decoding(WORDS[:5] * 5)
    (settled,) = settle(
        [again], lambda indices, _: [again] * len(indices), vocabulary, num_positions=1500,
        sounding=[LOUD], floors=[None], sounds=Sounds(is_repeated=is_said),
    )  # fmt: skip
    assert settled.tokens == tuple(WORDS[:5] * 5 if is_said else WORDS[:5])
    assert settled.fallback == fallback


def test_only_text_that_is_doubted_is_asked_for_its_sound(vocabulary):
    sounds = Sounds()
    until_ten = torch.arange(1500) < 500
    little, sure, unsure = (
        make_decoding(WORDS[30:40]),
        *(make_decoding(WORDS[n : n + 20], no_speech=n / 100) for n in (10, 40)),
    )
    found = settle(
        [GOOD, little, sure, unsure], None, vocabulary, num_positions=1500, sounding=[until_ten] * 4,
        floors=[None] * 4, sounds=sounds,
    )  # fmt: skip
    assert [one.fallback for one in found] == [None] * 4
    assert sounds.asked == [WORDS[30], WORDS[40]]


@pytest.mark.parametrize("loud", [GOOD, LOOP, UNSURE, ENDLESS])
def test_text_that_the_sound_does_not_bear_out_is_none_and_is_not_tried_again(vocabulary, loud):
    settled, asked = run_settle([loud], None, vocabulary, sounds=Sounds(invented=(WORDS[0],)))
    assert (settled[0].is_silent, settled[0].fallback, asked) == (True, "unheard", [])


def test_a_dense_pass_decides_for_sparse_text_that_the_sound_does_not_bear_out(vocabulary):
    sounds = Sounds(invented=(WORDS[0],))
    for answer, fallback in ((make_decoding(WORDS[30:50]), "dense"), (GOOD, "dense+unheard")):
        settled, asked = run_settle([GOOD], lambda *_, a=answer: a, vocabulary, is_sparse=True, sounds=sounds)
        assert asked == [([0], 0.0)]
        assert (settled[0].is_silent, settled[0].fallback) == (fallback != "dense", fallback)


def test_what_is_drawn_at_a_temperature_decides_nothing_but_is_not_kept(vocabulary):
    drawn = make_decoding(WORDS[90:110], logprob=-0.1, temperature=0.2)
    settled, asked = run_settle([UNSURE], lambda *_: drawn, vocabulary, sounds=Sounds(invented=(WORDS[90],)))
    assert len(asked) == 5
    assert (settled[0].tokens, settled[0].is_silent) == (tuple(UNSURE.tokens), False)
