"""Languages written without spaces, and how texts are joined."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})


def join_texts(texts: Iterable[tuple[str, str | None]]) -> str:
    """Texts with the language of each (a code, None where unknown), joined as their languages join words.

    Empty texts are left out; between two texts is a space unless both are written without.
    """
    pieces = [(text.strip(), language in UNSPACED_LANGUAGES) for text, language in texts if text.strip()]
    gaps = ["" if before and after else " " for (_, before), (_, after) in pairwise(pieces)]
    return "".join(gap + text for gap, (text, _) in zip(["", *gaps], pieces, strict=False))
