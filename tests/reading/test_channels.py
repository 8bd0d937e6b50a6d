"""`--channels auto`: one sound is mixed, a silent channel left out, two voices are split; parts agree."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.reading.channels import MAX_LOOK_S, PIECE_S, Heard
from tests.reading.decoding import likeness
from tests.reading.made_audio import RATE, vowels, write
from tests.reading.read_rows import content, plan_of, read, read_all
from tests.reading.test_streams import container

VOICE, OTHER = vowels(12), vowels(9.6, seed=1, rate=20_000)  # the other one speaks slower
SILENCE = np.zeros_like(VOICE)
NOISE = (0.02 * np.random.default_rng(0).standard_normal(len(VOICE))).astype(np.float32)
FIRST = (np.arange(len(VOICE)) // (2 * RATE)) % 2 == 0  # who speaks, by turns of two seconds


def rows_of(tmp_path, *channels, name="a.wav", **how):
    """The rows of a recording of these channels, and the samples of each."""
    write(tmp_path / name, np.stack(channels, 1), **how)
    row, samples = content(read(plan_of(tmp_path), channels="auto"))
    pieces = [
        [s for w, s in zip(row["windows"], samples, strict=True) if w["recording"] == i]
        for i in range(len(row["recordings"]))
    ]
    return row["recordings"], [np.concatenate(piece) for piece in pieces]


def in_a_room(voice, delay, seed):
    """What a microphone hears of it: late, with echoes."""
    rng = np.random.default_rng(seed)
    response = 0.1 * rng.standard_normal(RATE // 4) * np.exp(-np.arange(RATE // 4) / 800)
    response[delay] += 1
    return np.convolve(voice, response)[: len(voice)].astype(np.float32) / 4


ONE_SOUND = {
    "the same": (VOICE, VOICE),
    "softer": (VOICE, 0.05 * VOICE),
    "softer and inverted": (VOICE, -0.3 * VOICE),
    "three": (VOICE, 0.5 * VOICE, 0.8 * VOICE),
    "with crosstalk alone": (VOICE, 0.01 * VOICE + 0.0005 * NOISE),
    "two microphones": (in_a_room(VOICE, 10, 1) + 0.1 * NOISE, in_a_room(VOICE, 80, 2) + 0.1 * NOISE[::-1]),
}


@pytest.mark.parametrize("channels", ONE_SOUND.values(), ids=ONE_SOUND)
def test_channels_of_one_sound_are_mixed(tmp_path, channels):
    (recording,), (samples,) = rows_of(tmp_path, *channels)
    assert recording["channel_choice"] == f"mix of {len(channels)} channels: they hold one sound"
    assert (recording["channel"], recording["scorable"]) == (0, True)
    assert likeness(samples, np.mean(channels, axis=0)) > 0.99


def test_of_one_sound_that_cancels_in_the_mix_one_channel_is_taken(tmp_path):
    (recording,), (samples,) = rows_of(tmp_path, VOICE, -0.8 * VOICE)
    assert recording["channel_choice"] == (
        "mix of 2 channels: they hold one sound; channel 0: channels cancel in the mix"
    )
    assert likeness(samples, VOICE) > 0.99


@pytest.mark.parametrize("silence", [SILENCE, NOISE, 0.0002 * NOISE], ids=["zeros", "noise", "dither"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_channel_in_which_nobody_speaks_is_left_out(tmp_path, silence, place):
    channels = [silence, silence]
    channels[place] = VOICE
    (recording,), (samples,) = rows_of(tmp_path, *channels, subtype="FLOAT")
    assert recording["channel_choice"] == f"channel {place} of 2: nobody speaks in {1 - place}"
    assert (recording["channel"], recording["scorable"]) == (place, True)
    assert likeness(samples, VOICE) > 0.99


TWO_VOICES = {
    "at once": (VOICE, OTHER),
    "by turns": (VOICE * FIRST, OTHER * ~FIRST),
    "with crosstalk": (VOICE * FIRST + 0.03 * OTHER * ~FIRST, OTHER * ~FIRST + 0.03 * VOICE * FIRST),
}


@pytest.mark.parametrize("channels", TWO_VOICES.values(), ids=TWO_VOICES)
def test_two_voices_are_two_rows(tmp_path, channels):
    recordings, samples = rows_of(tmp_path, *channels)
    assert [recording["channel_choice"] for recording in recordings] == [
        f"channel {channel} of 2: channels 0, 1 hold different sounds" for channel in (0, 1)
    ]
    assert [recording["channel"] for recording in recordings] == [0, 1]
    assert not any(recording["scorable"] for recording in recordings)
    assert [likeness(*pair) > 0.99 for pair in zip(samples, channels, strict=True)] == [True, True]


def test_of_several_channels_each_sound_is_taken_once(tmp_path):
    recordings, samples = rows_of(tmp_path, SILENCE, VOICE, OTHER, VOICE)
    assert [recording["channel"] for recording in recordings] == [1, 2]
    why = "channels 1, 2 hold different sounds; 3 like 1; nobody speaks in 0"
    assert recordings[1]["channel_choice"] == f"channel 2 of 4: {why}"
    assert likeness(samples[1], OTHER) > 0.99


def test_where_nobody_speaks_or_the_channels_are_many_they_are_mixed(tmp_path):
    (recording,), _ = rows_of(tmp_path, SILENCE, NOISE)
    assert recording["channel_choice"] == "mix of 2 channels: nobody speaks"
    (tmp_path / "a.wav").unlink()
    (recording,), _ = rows_of(tmp_path, *[VOICE] * 9)
    assert recording["channel_choice"] == "mix of 9 channels: more than 8 are not compared"


def test_one_channel_needs_no_word(tmp_path):
    write(tmp_path / "a.wav", VOICE)
    (tmp_path / "b.jsonl").write_text("")
    (recording,) = content(read(plan_of(tmp_path), channels="auto"))[0]["recordings"]
    assert (recording["channel_choice"], recording["channel"]) == (None, 0)


def test_a_channel_that_a_manifest_names_is_taken_as_it_is(tmp_path):
    write(tmp_path / "a.wav", np.stack([VOICE, OTHER], 1))
    (tmp_path / "m.jsonl").write_text('{"path": "a.wav", "channel": 1, "id": "x"}\n')
    row, samples = content(read(plan_of(tmp_path / "m.jsonl"), channels="auto"))
    assert row["recordings"][0]["channel_choice"] is None
    assert likeness(np.concatenate(samples), OTHER) > 0.99


def test_channels_of_several_streams_are_numbered_on(tmp_path):
    container(tmp_path / "a.mkv", VOICE, OTHER)
    rows = content(read(plan_of(tmp_path), channels="auto", streams="all"))[0]["recordings"]
    assert [(row["channel"], row["channel_choice"]) for row in rows] == [(0, None), (1, None)]


@pytest.mark.slow
def test_every_part_has_the_channels_of_the_whole_although_one_voice_comes_late(tmp_path):
    first = np.concatenate([vowels(10, seed=seed) for seed in range(30)])
    second = np.concatenate([np.zeros(250 * RATE), *(vowels(8, seed=seed, rate=20_000) for seed in range(5))])
    write(tmp_path / "late.wav", np.stack([first, second], 1))
    write(tmp_path / "never.wav", np.stack([0 * first, first], 1))
    found = read_all(plan_of(tmp_path), shard_hours=0.03, channels="auto")
    channels = {name: {} for name in ("late.wav", "never.wav")}
    for (name, part, channel), (recording, _) in found.items():
        channels[name].setdefault(part, {})[channel] = recording["duration_s"]
    assert len(channels["late.wav"]) > 1
    for name, wanted in (("late.wav", {0, 1}), ("never.wav", {1})):
        assert {frozenset(part) for part in channels[name].values()} == {frozenset(wanted)}
        assert all(len(set(part.values())) == 1 for part in channels[name].values())
        assert sum(max(part.values()) for part in channels[name].values()) == pytest.approx(300, abs=0.01)


def test_a_channel_that_may_still_speak_is_kept_apart():
    heard = Heard(2)
    samples = np.stack([VOICE, SILENCE]) * 20_000
    for _ in range(round(MAX_LOOK_S / PIECE_S)):
        heard.add(samples.astype(np.int16), [[(0.0, 12.0)], []])
    assert not heard.is_clear
    assert heard.choice().apart == (0, 1)
    heard.ended = True
    assert heard.choice().apart == (0,)
