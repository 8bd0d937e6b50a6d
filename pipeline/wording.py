"""Numbers as a person writes them."""

from __future__ import annotations


def counted(num: int, noun: str) -> str:
    """`1 shard`, `2,000 shards`."""
    return f"{num:,} {noun}{'s' * (num != 1)}"


def duration(seconds: float | None) -> str:
    """`1.5 s`, `12.0 min`, `1,000.0 h`; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"
