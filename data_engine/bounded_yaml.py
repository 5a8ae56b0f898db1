"""YAML from anybody: plain values only, and of a size that is known before anything walks through them."""

from __future__ import annotations

from typing import Any

import yaml
import yaml.composer

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 100

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML's own loader keeps the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where values are made: by then a `<<` has put keys of other mappings among the node's own.
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def load(text: str, name: str = "the text") -> Any:
    """The values of a document; `name` stands for it in errors. Raises ValueError (yaml.YAMLError is none) that says
    in one line what is wrong.

    Ten lines of aliases of aliases spell a billion values, which share their memory until something copies them;
    an alias may also hold itself.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, more than {MAX_CHARACTERS:,}")
    try:
        loader = _Loader(text)
        loader.name = name
        data = loader.get_single_data()
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
