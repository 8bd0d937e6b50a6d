"""Languages written without spaces."""

from __future__ import annotations

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
