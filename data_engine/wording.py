"""How counts are said."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """`1 shard`, `1,200 shards`; `many` is for words that take more than an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
