"""YAML from anybody: plain values only, and of a size that is known before anything walks through them."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 100


def load(text: str) -> Any:
    """The values of a document. Raises ValueError (yaml.YAMLError is none) that says in one line what is wrong.

    Ten lines of aliases of aliases spell a billion values, which share their memory until something copies them;
    an alias may also hold itself.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, more than {MAX_CHARACTERS:,}")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:500]) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _size(data, {}, 0) > MAX_VALUES:
        raise ValueError(f"its aliases spell more than {MAX_VALUES:,} values")
    return data


def _size(value: Any, known: dict[int, int], depth: int) -> int:
    """How many values there are, with each alias counted as what it stands for."""
    if not isinstance(value, dict | list):
        return 1
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep, or holds itself")
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known, depth + 1) for part in parts)
    return known[id(value)]
