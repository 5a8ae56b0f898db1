"""Things that a model found, under the names that it gives them when it is asked about each.

While a model lists all that there is, it must choose a name before it has said where. Asked about one box it has seen the
place (docs/scenes.md has what that is worth to the shipped toy model).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data_engine.annotation import Annotation


def renamed(rows: Sequence[Annotation]) -> list[Annotation]:
    """One image's rows: each thing whose category was asked bears the surest answer, which is no row of its own then.

    Its score is the geometric mean of both, as of all that has a label and a place.
    """
    names: dict[int, Annotation] = {}
    answers: set[int] = set()
    for row in rows:
        if _is_thing(row.parent) and row.kind == "region" and row.granularity == "phrase" and row.text:
            answers.add(id(row))
            best = names.get(id(row.parent))
            if best is None or (row.score or 0.0) > (best.score or 0.0):
                names[id(row.parent)] = row
    for row in rows:
        name = names.get(id(row))
        if name is not None:
            row.text = name.text
            if row.score is not None and name.score is not None:
                row.score = math.sqrt(row.score * name.score)
    return [row for row in rows if id(row) not in answers]


def _is_thing(row: Annotation | str | None) -> bool:
    return (
        isinstance(row, Annotation)
        and row.kind == "region"
        and row.granularity == "phrase"
        and row.parent is None
        and row.mask is None
    )
