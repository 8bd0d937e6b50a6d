"""Sentences of the synthetic language: word classes, templates, open names and the ban on held-out text.

Slots are filled uniformly, so a sentence cannot be guessed from its beginning: it must be heard.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LANGUAGES = ("en", "es")
Split = Literal["train", "dev", "final"]

_GRAMMARS = Path(__file__).parent / "grammar"
_SALAD_SHARE = 0.15  # sentences of unrelated words: no template at all helps there
_SALAD_LENGTHS = (3, 9)
_OPEN_NAME_SHARE = 0.5  # of the name slots
_NAME_SLOTS = frozenset({"name", "nombre"})
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfklmnprstv" for vowel in "aeiou")
_TOKEN = re.compile(r"\{(\w+)\}|\[([^\]]+)\]|(\S+)")


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """One language: its word classes (slot name to words) and its sentence templates."""

    language: str
    classes: dict[str, tuple[str, ...]]
    templates: tuple[str, ...]

    @functools.cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word a sentence can hold, open names aside, sorted."""
        words = {word for members in self.classes.values() for word in members}
        for template in self.templates:
            for _, choice, literal in _TOKEN.findall(template):
                words.update(choice.split("|") if choice else [literal] if literal else [])
        return tuple(sorted(words))


@functools.cache
def load_grammar(language: str) -> Grammar:
    """The grammar of one of LANGUAGES, from `grammar/<language>.toml`."""
    table = tomllib.loads((_GRAMMARS / f"{language}.toml").read_text(encoding="utf-8"))
    classes = {name: tuple(words.split()) for name, words in table["words"].items()}
    for name, base in table.get("plurals", {}).items():
        classes[name] = tuple(
            word + "s" for word in classes[base] if word[-1] not in "shxyzlnrdj" or language == "en"
        )
    for name, base in table.get("feminines", {}).items():
        classes[name] = tuple(word[:-1] + "a" if word.endswith("o") else word for word in classes[base])
    return Grammar(language=language, classes=classes, templates=tuple(table["sentences"]["templates"]))


def split_of(text: str) -> Split:
    """The split of a sentence, by its text alone: about 2 % each are dev and final, the rest train."""
    bucket = hashlib.sha256(text.encode()).digest()[0]
    return "final" if bucket < 5 else "dev" if bucket < 10 else "train"


def open_name(rng: random.Random, *, unseen: bool = False) -> str:
    """A made-up name of two or three syllables; a tenth of all such names are never used in training."""
    while True:
        name = "".join(rng.choice(_SYLLABLES) for _ in range(rng.choice((2, 3, 3))))
        if is_unseen_name(name) == unseen:
            return name


def is_unseen_name(name: str) -> bool:
    """True if an open name is reserved for the unseen-name set."""
    return hashlib.sha256(f"name {name}".encode()).digest()[0] % 10 == 0


def sample_sentence(rng: random.Random, language: str, split: Split, *, unseen_names: bool = False) -> str:
    """One lower-case sentence without punctuation that belongs to `split`.

    With `unseen_names` every name slot holds an unseen open name (and there is at least one).
    """
    grammar = load_grammar(language)
    while True:
        if not unseen_names and rng.random() < _SALAD_SHARE:
            text = " ".join(rng.choice(grammar.vocabulary) for _ in range(rng.randint(*_SALAD_LENGTHS)))
        else:
            text, num_names = _fill(rng, grammar, unseen_names)
            if unseen_names and not num_names:
                continue
        if split_of(text) == split:
            return text


def _fill(rng: random.Random, grammar: Grammar, unseen_names: bool) -> tuple[str, int]:
    words, num_names = [], 0
    for slot, choice, literal in _TOKEN.findall(rng.choice(grammar.templates)):
        if slot in _NAME_SLOTS and (unseen_names or rng.random() < _OPEN_NAME_SHARE):
            words.append(open_name(rng, unseen=unseen_names))
            num_names += 1
        elif slot:
            words.append(rng.choice(grammar.classes[slot]))
        else:
            words.append(rng.choice(choice.split("|")) if choice else literal)
    return " ".join(words), num_names
