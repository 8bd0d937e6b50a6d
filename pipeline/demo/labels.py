"""The truth about a scene in Whisper's format: token sequences, and labels for every frame."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from transformers import WhisperTokenizer

from pipeline.demo.scenes import Placed, Scene
from pipeline.demo.speech import SAMPLE_RATE
from pipeline.demo.tokens import Vocabulary, vocabulary_of

FRAMES_PER_S = 50
MAX_FRAMES = 1500
NUM_PHONEME_CLASSES = 512  # buckets for the about 90 phonemes of both languages; 0 is silence
_MARK_REACH = 3  # frames on each side of a timestamp in which it can be heard


@dataclass(frozen=True)
class Target:
    """A token to predict, and the frames [first, last) of the window in which it is heard."""

    token: int
    first: int = 0
    last: int = 0


class Labeller:
    """Token sequences and frame labels of scenes, for one tokeniser."""

    def __init__(self, tokenizer: WhisperTokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: Vocabulary = vocabulary_of(tokenizer)
        self._pieces: dict[str, list[int]] = {}

    def pieces(self, word: str) -> list[int]:
        """The tokens of a word with its leading space."""
        if word not in self._pieces:
            self._pieces[word] = self.tokenizer.encode(" " + word, add_special_tokens=False)
        return self._pieces[word]

    def transcript(self, scene: Scene, *, shifts: list[int], timestamps: bool) -> list[Target]:
        """What follows the prompt, to <|endoftext|>; timestamps are `shifts` frames later, by sentence."""
        targets: list[Target] = []
        for placed, shift in zip(scene.sentences, shifts, strict=True):
            opening, closing = (self._mark(at, shift) for at in (placed.start_s, placed.end_s))
            words = [_heard(token, start_s, end_s) for token, start_s, end_s in self._token_times(placed)]
            targets += [opening, *words, closing] if timestamps else words
        if timestamps and not targets:
            targets = [Target(self.ids.first_timestamp)]
        return [*targets, Target(self.ids.end)]

    def frames(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Token and phoneme class heard in each frame, int64 [T]; <|nospeech|> and 0 where nothing is."""
        num_frames = len(scene.samples) * FRAMES_PER_S // SAMPLE_RATE
        tokens = np.full(num_frames, self.ids.no_speech, dtype=np.int64)
        phonemes = np.zeros(num_frames, dtype=np.int64)
        for placed in scene.sentences:
            for token, start_s, end_s in self._token_times(placed):
                tokens[_reach(start_s, end_s)] = token
            heard = placed.utterance.phonemes
            ends = [at for _, at in heard[1:]] + [placed.utterance.duration_s]
            for (name, at), end in zip(heard, ends, strict=True):
                phonemes[_reach(placed.start_s + at, placed.start_s + end)] = _phoneme_class(
                    scene.language, name
                )
        return tokens, phonemes

    def _token_times(self, placed: Placed) -> list[tuple[int, float, float]]:
        """(token, start_s, end_s) in the window; a word's time is shared out evenly over its tokens."""
        utterance = placed.utterance
        times: list[tuple[int, float, float]] = []
        for word, start_s, end_s in zip(
            utterance.text.split(" "), utterance.word_starts_s, utterance.word_ends_s, strict=True
        ):
            tokens = self.pieces(word)
            edges = (placed.start_s + np.linspace(start_s, end_s, len(tokens) + 1)).tolist()
            times += zip(tokens, edges[:-1], edges[1:], strict=True)
        return times

    def _mark(self, at_s: float, shift: int) -> Target:
        frame = round(at_s * FRAMES_PER_S)
        token = self.ids.first_timestamp + min(frame + shift, MAX_FRAMES)
        return Target(token, max(0, frame - _MARK_REACH), frame + _MARK_REACH + 1)


def _heard(token: int, start_s: float, end_s: float) -> Target:
    first = int(start_s * FRAMES_PER_S)
    return Target(token, first, max(first + 1, int(np.ceil(end_s * FRAMES_PER_S))))


def _reach(start_s: float, end_s: float) -> slice:
    return slice(int(start_s * FRAMES_PER_S), int(end_s * FRAMES_PER_S) + 1)


def _phoneme_class(language: str, name: str) -> int:
    return 1 + zlib.crc32(f"{language} {name}".encode()) % (NUM_PHONEME_CLASSES - 1)
