"""What the engine returns."""

from __future__ import annotations

from dataclasses import dataclass

UNHEARD = "unheard"  # the mark in `fallback` of a window whose text the sound did not bear out


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word as it is spelt, the space before it included; seconds from the window's start.

    probability: the mean of its tokens', given all text before them.
    """

    start_s: float
    end_s: float
    word: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A sentence or phrase of one window, or what stands between two timestamp tokens.

    start_s, end_s: seconds from the window's start, inside the window. tokens: text token ids.
    avg_logprob, no_speech_prob and compression_ratio are those of the whole window, as in openai-whisper.
    words: None where they were not asked for.
    """

    start_s: float
    end_s: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    tokens: tuple[int, ...]
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """One window's transcript and what it took.

    language: what is spoken. text_language: of a translation, English; None where what is spoken is written.
    language_probability is None where the language was given or the model knows only one.
    kept_positions of total_positions encoder positions reached the decoder.
    fallback: None, or what the quality gates made of the window: `dense`, `unprompted` (its text was its
        prompt) or `language` (it was asked for its own), `temperature=0.4`, `loop_cut`, joined with "+" in
        that order (`temperature=0`: every temperature failed and the greedy text won); or `unheard`: its
        text was hardly less likely over silence, so it has none.
    spoken: when each word, or each letter of a spelt one, was said, seconds from the window's start; empty
        where nothing was aligned.
    temperature: of the decoding that was kept.
    device_s: this window's share of the seconds the device worked, retries included.
    retry_device_s: the part of it that went into decoding again.
    kept: the positions that the first decoding kept, ascending; None for all.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str | None
    text_language: str | None
    language_probability: float | None
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    num_tokens: int
    kept_positions: int
    total_positions: int
    fallback: str | None
    device_s: float
    temperature: float = 0.0
    retry_device_s: float = 0.0
    kept: tuple[int, ...] | None = None
    spoken: tuple[tuple[float, float], ...] = ()

    @classmethod
    def empty(cls, language: str | None) -> WindowResult:
        """Of a window that nothing was decoded from."""
        return cls(
            text="", segments=(), language=language, text_language=None,
            language_probability=None, avg_logprob=0.0, no_speech_prob=1.0, compression_ratio=0.0,
            num_tokens=0, kept_positions=0, total_positions=0, fallback=None, device_s=0.0,
        )  # fmt: skip

    @property
    def written_language(self) -> str | None:
        """The language of the text."""
        return self.text_language or self.language

    @property
    def is_unheard(self) -> bool:
        """Whether there was text that the sound did not bear out."""
        return self.fallback is not None and UNHEARD in self.fallback.split("+")

    @property
    def sparsity(self) -> float:
        """Share of encoder positions dropped; 0 for a window without samples."""
        return 1.0 - self.kept_positions / self.total_positions if self.total_positions else 0.0
