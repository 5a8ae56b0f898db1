"""Statements that are wrong on purpose: what was said of one image, said of another.

They measure a scorer (data_engine.quality.scores): one that puts these below the statements that they
were made from is worth filtering by.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import SpecialistError
from data_engine.image import Image
from specialists.said import Statement, statements

VERSION = 1


class Mismatched:
    """For each statement that it is given, the same with the words of another image of the batch.

    Statements are texts of granularity `brief`, and regions of granularity `phrase` and `brief`, each of
    which keeps its box. Words come from a statement of the same kind and granularity, half the batch
    away, and are never ones that the image's own such statements have; where no image of the batch has
    others, nothing is said. The same batches give the same statements.
    """

    needs_pixels = False

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        if said is None:
            raise SpecialistError(
                "wrong statements are made from right ones, and none were given",
                "name the source of the right ones under `needs`",
            )
        given = statements(said)
        made: list[list[Annotation]] = [[] for _ in images]
        for kind, granularity in (("text", "brief"), ("region", "phrase"), ("region", "brief")):
            wanted = [
                (i, statement)
                for i, image in enumerate(images)
                for statement in given.get(image.image_id, [])
                if (statement.kind, statement.granularity) == (kind, granularity) and _words(statement)
            ]
            own: dict[int, set[str]] = {}
            for i, statement in wanted:
                own.setdefault(i, set()).add(_words(statement))
            for place, (i, statement) in enumerate(wanted):
                start = place + len(wanted) // 2
                for other in range(start, start + len(wanted)):
                    words = wanted[other % len(wanted)][1]
                    if _words(words) not in own[i]:
                        made[i].append(Annotation(kind, words.text, granularity, box=statement.box))
                        break
        return made


def _words(statement: Statement) -> str:
    return " ".join((statement.text or "").casefold().split())
