"""What the sentences of a text are made of: objects, attributes, actions, names, and how they hang together.

FLD-5B's Table 3 counts them, and its filter on texts goes by them (arXiv 2311.06242, section 4.2), after
DiHT (arXiv 2301.02280): texts with too many objects are dropped, and so are those in which no object or
action is related to anything. The paper does not publish its rules. Ours, over spaCy's tags and tree:

- object: a common noun (NOUN), unless it belongs to the name of another ("tennis" of "tennis racket");
- name: a proper noun (PROPN); neighbours in one name ("New York") count once;
- attribute: what describes an object: an adjective (ADJ) wherever it stands, a participle before a noun
  ("a parked car"), a number before one, a noun in the name of another;
- action: a verb (VERB), unless it is such a participle; auxiliaries are none;
- complexity of an object or an action: its degree in the dependency tree taken as undirected, as Table 3
  has it: its children, and one for its head. A text's is its largest: the object of "a dog" has 1, of "a dog
  on a sofa" 2, of "a brown dog sleeps on a sofa" 3.

A text is parsed once however often it is said in a shard, and not again while it is among the last ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.schema import ELEMENTS
from specialists.noun_phrases import parsed, parser
from specialists.said import statements

VERSION = 1

_REMEMBERED = 200_000


class TextElements:
    """A row of granularity `elements` for every text about a whole image in `said`, with the text as parent.

    Its text is JSON: `objects`, `names`, `attributes` and `actions` (lists of words, in lower case but for
    names), `object_complexity`, `action_complexity` (largest degrees, 0 where there is none), `tokens` and
    `sentences`. `granularities` are those of the texts that are looked at. A text longer than
    `longest` characters is not parsed and gets no row: the parser's memory grows with it.

    No image is read. Raises RecipeError, MissingPackageError or ModelLoadError.
    """

    needs_pixels = False

    def __init__(
        self,
        granularities: Sequence[str] = ("brief", "detailed", "more_detailed"),
        longest: int = 20_000,
        sources: list[str] | None = None,
    ) -> None:
        if not granularities or isinstance(granularities, str) or longest < 1:
            raise RecipeError("`granularities` must be a list, `longest` at least 1", "correct `args`")
        self.granularities = frozenset(granularities)
        self.longest = longest
        self.sources = None if sources is None else frozenset(sources)
        parser()  # a missing parser fails here, once
        self.parsed: dict[str, str] = {}

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per text, in the order of `said`."""
        if said is None:
            raise SpecialistError(
                "there are no texts to take apart", "name the specialists that write texts under `needs`"
            )
        given = statements(said, self.sources)
        asked = [
            [
                s
                for s in given.get(image.image_id, [])
                if s.kind == "text"
                and s.granularity in self.granularities
                and s.text
                and len(s.text) <= self.longest
            ]
            for image in images
        ]
        self._parse(dict.fromkeys(s.text or "" for one in asked for s in one))
        return [
            [Annotation("text", self.parsed[s.text or ""], ELEMENTS, parent=s.reference) for s in one]
            for one in asked
        ]

    def _parse(self, texts: Iterable[str]) -> None:
        """Put what is new into `parsed`, which forgets all that is not asked for here when it is full."""
        wanted = list(texts)
        new = [text for text in wanted if text not in self.parsed]
        if len(self.parsed) + len(new) > _REMEMBERED:
            self.parsed = {text: self.parsed[text] for text in wanted if text in self.parsed}
        for text, document in zip(new, parsed(new), strict=True):
            self.parsed[text] = json.dumps(elements(document), ensure_ascii=False)


def elements(document: Any) -> dict[str, Any]:
    """What a parsed text is made of; the keys are those of a row's JSON."""
    found: dict[str, list[str]] = {"objects": [], "names": [], "attributes": [], "actions": []}
    object_complexity = action_complexity = 0
    for token in document:
        kind = _kind(token.pos_, token.dep_)
        if kind is None:
            continue
        if kind == "names":
            if token.i and document[token.i - 1].pos_ == "PROPN" and found["names"]:
                found["names"][-1] += f" {token.text}"
            else:
                found["names"].append(token.text)
            continue
        found[kind].append(token.lower_)
        if kind == "objects":
            object_complexity = max(object_complexity, degree(token))
        elif kind == "actions":
            action_complexity = max(action_complexity, degree(token))
    return {
        **found,
        "object_complexity": object_complexity,
        "action_complexity": action_complexity,
        "tokens": len(document),
        "sentences": sum(1 for _ in document.sents),
    }


def degree(token: Any) -> int:
    """Edges of a token in the tree: to its children, and to its head unless it is the root."""
    return int(token.n_lefts + token.n_rights + (token.head.i != token.i))


@lru_cache(maxsize=4096)
def _kind(pos: str, dep: str) -> str | None:
    if pos == "PROPN":
        return "names"
    if pos == "NOUN":
        return "attributes" if dep == "compound" else "objects"
    if pos == "ADJ" or (pos == "VERB" and dep == "amod") or (pos == "NUM" and dep == "nummod"):
        return "attributes"
    return "actions" if pos == "VERB" else None
