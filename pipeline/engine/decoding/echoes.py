"""Text that nobody said: its prompt or itself over again, or more of it than anybody says in that time."""

from __future__ import annotations

import re

from torch import Tensor

from pipeline.engine.audio import POSITION_S
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.model.vocabulary import Vocabulary

# Of 921 texts of clips in 17 languages (whisper-base, tiny.en) none that was right had over 22 characters for
# each second that sounds; a sentence of 2 s that was given twice stood at 36, echoed prompts at 82 and 142.
MAX_CHARACTERS_PER_S = 32.0
MIN_REPEATED = 4  # letters and digits, of a whole text that is one phrase several times
MIN_ECHO = 12  # letters and digits; a word or two of a prompt may well be said
SENTENCE_END = re.compile(r"[.!?;\n\u3002\uff01\uff1f]+")


def is_echo(text: str, prompt: str) -> bool:
    """Whether every sentence of a text stands in its prompt, whatever its case and punctuation."""
    before, sentences = _plain(prompt), [_plain(one) for one in SENTENCE_END.split(text)]
    return sum(map(len, sentences)) >= MIN_ECHO and all(sentence in before for sentence in sentences)


def echoes_prompt(decoding: Decoding, vocabulary: Vocabulary) -> bool:
    """Whether a text is that of its prompt, as far as one was put before it."""
    task = decoding.task
    said = vocabulary.decode(task.prompt[: task.start])
    return task.start > 0 and is_echo(vocabulary.decode(decoding.tokens), said)


def is_one_phrase(text: str) -> bool:
    """Whether a text is the same words several times and nothing else, whatever their case and punctuation.

    A decoder that is left little of the padding of a clip may begin anew where the clip has ended.
    """
    plain = _plain(text)
    return len(plain) >= MIN_REPEATED and plain in (2 * plain)[1:-1]


def is_rushed(text: str, sounding: Tensor) -> bool:
    """Whether a text is longer than anybody says while anything sounds.

    sounding: bool, one for each 20 ms of the window (`sound.sounding_samples`).
    """
    return len(text) > MAX_CHARACTERS_PER_S * POSITION_S * int(sounding.sum())


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))
