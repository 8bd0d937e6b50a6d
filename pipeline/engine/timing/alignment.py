"""Word times of settled text: which positions the decoder attended to for each token, in heads known for it.

What these heads asked is kept as a text is decoded; of text that was changed since, or was searched by beams,
one more pass of the decoder says it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from pipeline.engine.audio import POSITION_S, SAMPLE_RATE
from pipeline.engine.decoding.caches import project_memory
from pipeline.engine.decoding.segments import Span
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.model.decoder import DecoderLayer
from pipeline.engine.model.layers import attend
from pipeline.engine.model.snapshot import Snapshot
from pipeline.engine.model.whisper import Model
from pipeline.engine.results import Word
from pipeline.engine.timing.words import alignment_heads, first_positions, group_words, match

MEDIAN_WIDTH = 7  # of models whose config names none; openai/whisper timing.py
REACH_S = 0.5  # openai/whisper timing.py
ROWS_TOGETHER = 8  # on a GPU; a CPU gains nothing, and one by one no window's times depend on its company


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A window's final tokens and what they were decoded from.

    hidden: encoder output [positions, dim]. kept: the positions of the window that its rows are, ascending
    int64 [positions]; None for all. prompt, tokens: ids, without the end token. num_samples: of the window.
    queries: see `Decoding`; empty where they are not known.
    """

    hidden: Tensor
    kept: Tensor | None
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    num_samples: int
    queries: Mapping[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, decoding: Decoding, tokens: tuple[int, ...], num_samples: int) -> Spoken:
        """What became of a decoding whose pass kept its encoder output."""
        assert decoding.hidden is not None, "the pass was told to keep its encoder output"
        return cls(
            hidden=decoding.hidden,
            kept=decoding.kept,
            prompt=decoding.task.prompt,
            tokens=tokens,
            num_samples=num_samples,
            queries=decoding.queries if decoding.ended and [*tokens] == decoding.tokens else {},
        )


@dataclass(frozen=True, kw_only=True)
class TokenTimes:
    """Seconds from the window's start at which each token begins, and last the end of the text.

    probabilities: of each token among all text tokens, given those before it; 0 for a timestamp. Empty where
    they were not asked for.
    """

    starts_s: tuple[float, ...]
    probabilities: tuple[float, ...]


class Aligner:
    """Finds the times of tokens in a few heads of one model's decoder.

    of_words: their probabilities too. heads: those it listens to, by layer.
    """

    def __init__(self, model: Model, snapshot: Snapshot, *, of_words: bool = True) -> None:
        shape = model.shape
        self._model, self._of_words = model, of_words
        self._median_width = snapshot.config.get("median_filter_width", MEDIAN_WIDTH)
        self.heads: defaultdict[int, list[int]] = defaultdict(list)
        for layer, head in alignment_heads(snapshot.generation, shape.decoder_layers, shape.decoder_heads):
            self.heads[layer].append(head)

    def align(self, texts: Sequence[Spoken]) -> list[TokenTimes]:
        """Times of each window's tokens, from that window alone; results in the same order."""
        together = ROWS_TOGETHER if self._model.device.type == "cuda" else 1
        done: dict[int, TokenTimes] = {}
        for number, text in enumerate(texts):
            if text.queries and not self._of_words:
                done[number] = TokenTimes(starts_s=_starts_s(text, self._match(text)), probabilities=())
        left = [number for number in range(len(texts)) if number not in done]
        for size in {len(texts[number].hidden) for number in left}:
            same = [number for number in left if len(texts[number].hidden) == size]
            for first in range(0, len(same), together):
                numbers = same[first : first + together]
                found = self._align_together([texts[number] for number in numbers])
                done |= dict(zip(numbers, found, strict=True))
        return [done[number] for number in range(len(texts))]

    def _match(self, text: Spoken) -> Tensor:
        """How tokens and positions match, [tokens, positions], by what was asked as the text was decoded."""
        _, num_positions = _places(text)
        asked = []
        for layer, queries in text.queries.items():
            decoder_layer = self._model.decoder.layers[layer]
            assert isinstance(decoder_layer, DecoderLayer)
            keys, _ = decoder_layer.project_memory(text.hidden[None])
            own = keys[0, self.heads[layer], :num_positions]
            asked.append(queries.float() @ own.float().transpose(1, 2))
        return match(torch.cat(asked), median_width=self._median_width)

    def _align_together(self, texts: Sequence[Spoken]) -> list[TokenTimes]:
        """Windows of equally many positions; shorter texts are padded at their end, unseen by the rest."""
        decoder, device = self._model.decoder, self._model.device
        hidden = torch.stack([text.hidden for text in texts])
        hearing = AlignmentCache(
            memory=project_memory(decoder, hidden),
            heads=self.heads,
            places=[_places(text) for text in texts],
            median_width=self._median_width,
        )
        rows = [(*text.prompt, *text.tokens) for text in texts]
        width = max(map(len, rows))
        padded = [[*row, *[self._model.vocabulary.end] * (width - len(row))] for row in rows]
        tokens = torch.tensor(padded, device=device)
        out = decoder(tokens, torch.arange(width, device=device).expand_as(tokens), hearing)
        return [
            TokenTimes(
                starts_s=_starts_s(text, hearing.matches[number]),
                probabilities=self._probabilities(text, out[number]) if self._of_words else (),
            )
            for number, text in enumerate(texts)
        ]

    def _probabilities(self, text: Spoken, hidden: Tensor) -> tuple[float, ...]:
        """hidden: the decoder's output, [tokens, dim]; a token is predicted at the place before its own."""
        first, vocabulary = len(text.prompt) - 1, self._model.vocabulary
        logits = self._model.decoder.logits(hidden[first : first + len(text.tokens)])
        logits[:, vocabulary.end : vocabulary.last_timestamp + 1] = float("-inf")
        ids = torch.tensor(text.tokens, device=hidden.device)
        return tuple(logits.softmax(-1).gather(1, ids[:, None]).squeeze(1).tolist())


@dataclass(frozen=True, kw_only=True)
class AlignmentCache:
    """A decoder's cache for whole texts at once, which notes how tokens and positions match.

    memory: keys and values of each layer, [rows, heads, positions, head_dim]. heads: those listened to, by
    layer. places: per row the tokens and positions that count. matches: per row [tokens, positions], summed
    over the heads so far.
    """

    memory: Sequence[tuple[Tensor, ...]]
    heads: dict[int, list[int]]
    places: Sequence[tuple[slice, int]]
    median_width: int
    matches: dict[int, Tensor] = field(default_factory=dict)

    def attend_past(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        return attend(q, k, v, causal=True)

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        keys, values = self.memory[layer]
        heads = self.heads.get(layer, [])
        for row, (tokens, num_positions) in enumerate(self.places if heads else ()):
            queries, own = q[row, heads, tokens].float(), keys[row, heads, :num_positions].float()
            found = match(queries @ own.transpose(1, 2), median_width=self.median_width)
            self.matches[row] = self.matches[row] + found if row in self.matches else found
        return attend(q, keys, values)


def _places(text: Spoken) -> tuple[slice, int]:
    """The places that predict the tokens and the end, and how many positions carry samples."""
    first = len(text.prompt) - 1
    limit = math.ceil(text.num_samples / SAMPLE_RATE / POSITION_S)
    inside = min(limit, len(text.hidden)) if text.kept is None else int((text.kept < limit).sum())
    return slice(first, first + len(text.tokens) + 1), max(1, inside)


def _starts_s(text: Spoken, found: Tensor) -> tuple[float, ...]:
    positions = first_positions(-found.double().cpu().numpy())
    if text.kept is not None:
        positions = text.kept.cpu().numpy()[positions]
    duration_s = text.num_samples / SAMPLE_RATE
    return tuple(min(round(float(p) * POSITION_S, 2), duration_s) for p in positions)


def place_words(
    spans: Sequence[Span], tokens: Sequence[int], times: TokenTimes, model: Model, language: str | None
) -> list[tuple[Span, tuple[Word, ...]]]:
    """The words of each span, and the span at the times of its words.

    tokens: those that the spans were cut from, whose times these are.
    """
    vocabulary = model.vocabulary
    places = [place for place, token in enumerate(tokens) if vocabulary.is_text(token)]
    first = 0
    found = []
    for span in spans:
        own = places[first : first + len(span.tokens)]
        first += len(span.tokens)
        groups = group_words(span.tokens, vocabulary.decode, language)
        words = [_word(own[group.start : group.stop], group.text, times) for group in groups]
        found.append(fit(span, words))
    return found


def fit(span: Span, words: Sequence[Word]) -> tuple[Span, tuple[Word, ...]]:
    """A span that begins with its first word and ends with its last.

    Where one of them reaches more than REACH_S past the span's own timestamps, it is the word that is cut: it
    was drawn out over a pause (openai/whisper timing.py, `add_word_timestamps`).
    """
    first, last = words[0], words[-1]
    is_early = first.start_s < span.start_s - REACH_S and span.start_s < first.end_s
    is_late = last.end_s > span.end_s + REACH_S and span.end_s > last.start_s
    start_s = span.start_s if is_early else first.start_s
    end_s = span.end_s if is_late else last.end_s
    cut = (replace(w, start_s=max(w.start_s, start_s), end_s=min(w.end_s, end_s)) for w in words)
    return replace(span, start_s=start_s, end_s=end_s), tuple(cut)


def _word(places: Sequence[int], text: str, times: TokenTimes) -> Word:
    return Word(
        start_s=times.starts_s[places[0]],
        end_s=times.starts_s[places[-1] + 1],
        word=text,
        probability=fmean(times.probabilities[place] for place in places) if times.probabilities else 0.0,
    )
