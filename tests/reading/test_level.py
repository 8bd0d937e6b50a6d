"""Speech that is far too quiet, beyond full scale, or cancelled in the mix is heard all the same."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.reading.level import level
from tests.reading.decoding import decode, likeness
from tests.reading.made_audio import RATE, encode, vowels, write
from tests.reading.read_rows import content, plan_of, read

VOICE = vowels(4)


def quieter(decibels, voice=VOICE):
    return voice * 10 ** (-decibels / 20)


@pytest.mark.parametrize(
    ("name", "subtype", "decibels"),
    [("a.flac", "PCM_24", 50), ("a.wav", "PCM_24", 60), ("a.wav", "FLOAT", 60), ("a.wav", "PCM_16", 50),
     ("a.wav", "FLOAT", 80), ("a.wav", "PCM_32", 90), ("a.flac", "PCM_16", 40)],
)  # fmt: skip
def test_what_is_far_too_quiet_becomes_as_loud_as_speech_is(decoder, tmp_path, name, subtype, decibels):
    found = decode(decoder, write(tmp_path / name, quieter(decibels), subtype=subtype))
    (gain_db,) = found.gains_db
    assert gain_db == pytest.approx(decibels - 6, abs=4)
    assert level(found.samples[0]) == pytest.approx(10 ** (-12 / 20), rel=0.15)
    assert likeness(found.samples[0], VOICE) > (0.99 if subtype != "PCM_16" else 0.9)


def test_what_is_loud_enough_stays_to_the_bit(decoder, tmp_path):
    for decibels in (0, 10, 20, 28):
        voice = quieter(decibels)
        found = decode(decoder, write(tmp_path / "a.wav", voice, subtype="FLOAT"))
        assert found.gains_db == ()
        assert np.array_equal(found.samples[0], np.rint(voice * np.float32(32768)).astype(np.int16))


def test_a_click_makes_nothing_loud_and_a_loud_word_does(decoder, tmp_path):
    quiet = quieter(55, vowels(20))
    quiet[RATE : RATE + 100] = 0.9
    assert decode(decoder, write(tmp_path / "a.wav", quiet, subtype="FLOAT")).gains_db[0] > 40
    quiet[5 * RATE : 7 * RATE] = vowels(2)
    assert decode(decoder, write(tmp_path / "a.wav", quiet, subtype="FLOAT")).gains_db == ()


@pytest.mark.parametrize("samples", [np.zeros(4 * RATE), np.tile([0.0, 1 / 32768], 2 * RATE)])
def test_silence_stays_silence(decoder, tmp_path, samples):
    found = decode(decoder, write(tmp_path / "a.wav", samples, subtype="PCM_16"))
    assert found.gains_db == ()
    assert np.abs(found.samples).max() <= 1


@pytest.mark.parametrize(("decibels", "num_windows"), [(90, 0), (60, 1)])
def test_without_voice_activity_noise_below_absolute_silence_is_not_a_window_though_it_was_made_louder(
    tmp_path, decibels, num_windows
):
    noise = np.random.default_rng(0).standard_normal(4 * RATE).clip(-3, 3)
    write(tmp_path / "a.wav", quieter(decibels, noise), subtype="PCM_24")
    row, windows = content(read(plan_of(tmp_path)))
    assert row["recordings"][0]["gain_db"] > 30
    assert len(windows) == num_windows


@pytest.mark.parametrize("peak", [2.0, 4.0, 20.0, 32768.0])
def test_floats_beyond_full_scale_are_scaled_and_not_clipped(decoder, tmp_path, peak):
    voice = VOICE / np.abs(VOICE).max()
    found = decode(decoder, write(tmp_path / "a.wav", voice * peak, subtype="FLOAT"))
    assert found.gains_db == (pytest.approx(-20 * np.log10(peak), abs=0.1),)
    assert np.abs(found.samples[0] - np.rint(voice * 32768).clip(-32768, 32767)).max() <= 1


def test_a_broken_sample_makes_nothing_softer(decoder, tmp_path):
    voice = VOICE.copy()
    voice[100] = 1e30
    found = decode(decoder, write(tmp_path / "a.wav", voice, subtype="FLOAT"))
    assert found.gains_db == ()
    assert likeness(found.samples[0, 200:], VOICE[200:]) > 0.99


def test_each_channel_that_is_kept_apart_has_a_level_of_its_own(decoder, tmp_path):
    path = write(tmp_path / "a.wav", np.stack([VOICE, quieter(55)], 1), subtype="FLOAT")
    found = decode(decoder, path, channels="split")
    assert found.gains_db[0] == 0
    assert likeness(found.samples[1], VOICE) > 0.99
    row, _ = content(read(plan_of(tmp_path), channels="split"))
    assert [r["gain_db"] for r in row["recordings"]] == list(found.gains_db)


HUM = 0.2 * np.sin(2 * np.pi * 50 * np.arange(4 * RATE) / RATE)
NOISE = 0.003 * np.random.default_rng(0).standard_normal((4 * RATE, 2))
CANCELLING = {
    "inverted": np.stack([VOICE, -VOICE], 1),
    "weaker": np.stack([0.98 * VOICE, -VOICE], 1),
    "noisy": np.stack([VOICE, -VOICE], 1) + NOISE,
    "with_an_offset": np.stack([VOICE, -VOICE], 1) * 0.5 + 0.3,
    "with_a_hum": np.stack([VOICE + HUM, -VOICE + HUM], 1) * 0.5,
    "three": np.stack([VOICE, -0.5 * VOICE, -0.5 * VOICE], 1),
    "quiet": np.stack([quieter(45), -quieter(45)], 1),
    "after_music": np.concatenate([np.tile(vowels(1, seed=9), (2, 1)).T, np.stack([VOICE, -VOICE], 1)]),
}


@pytest.mark.parametrize("samples", CANCELLING.values(), ids=CANCELLING)
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_of_channels_that_cancel_the_loudest_is_taken(decoder, tmp_path, name, samples):
    found = decode(decoder, write(tmp_path / name, samples, subtype="PCM_24"))
    assert found.channel_choice is not None
    taken = int(found.channel_choice.split()[1].rstrip(":"))
    energies = np.square(np.diff(samples, axis=0)).sum(axis=0)
    assert energies[taken] > 0.99 * energies.max()
    assert likeness(found.samples[0], samples[:, taken]) > 0.99


MIXED = {
    "the_same": np.stack([VOICE, VOICE], 1),
    "one_silent": np.stack([VOICE, 0 * VOICE], 1),
    "one_of_eight": np.stack([VOICE] + 7 * [0 * VOICE], 1),
    "two_speakers": np.stack([VOICE, vowels(4, seed=1)], 1),
    "in_turn": np.concatenate([np.stack([VOICE, 0 * VOICE], 1), np.stack([0 * VOICE, VOICE], 1)]),
    "silent": np.zeros((4 * RATE, 2)),
}


@pytest.mark.parametrize("samples", MIXED.values(), ids=MIXED)
def test_channels_that_do_not_cancel_are_mixed(decoder, tmp_path, samples):
    found = decode(decoder, write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert found.channel_choice is None
    assert np.abs(found.samples[0] - np.rint(samples.mean(axis=1) * 32768)).max() <= 1


def test_a_row_says_which_channel_was_taken_and_by_how_much_it_was_made_louder(tmp_path):
    write(tmp_path / "a.flac", np.stack([quieter(50), -quieter(50)], 1), subtype="PCM_24")
    write(tmp_path / "b.flac", np.stack([VOICE, VOICE], 1))
    write(tmp_path / "c.wav", 4 * VOICE, subtype="FLOAT")
    row, _ = content(read(plan_of(tmp_path)))
    first, second, third = row["recordings"]
    assert first["channel_choice"].startswith("channel 0: ")
    assert (first["gain_db"] > 40, second["gain_db"], third["gain_db"] < -5) == (True, None, True)
    assert (second["channel_choice"], third["channel_choice"]) == (None, None)


def test_channels_of_a_lossy_file_that_cancel_are_found(decoder, tmp_path):
    write(tmp_path / "a.mp3", np.stack([VOICE, -VOICE], 1))
    assert decode(decoder, tmp_path / "a.mp3").channel_choice is not None
    assert decode(decoder, encode(tmp_path / "b.m4a", VOICE, "aac")).channel_choice is None
