"""Of phrases that claim one region, keep the surest: non-maximum suppression *across* phrases.

A grounding model asked for "a dog" and "its tail" puts both on the dog. GrIT (Peng et al., Kosmos-2, arXiv
2306.14824) thins a caption's boxes out whatever their phrase; here so is what the texts of an image say.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.blacklist import plain_phrase
from data_engine.box_pairs import groups_of
from data_engine.errors import RecipeError
from filters.nms import boxes_of, suppress, sure_scores

VERSION = 1

_COLUMNS = ["image_id", "parent_id", "text", "box", "score"]


class PhraseNms:
    """Drops a phrase's box that a surer phrase's box of the same text overlaps at an IoU above `iou`.

    - `across`: `text`, within each text (GrIT's rule); or `image`, over all texts of an image, where a box
      falls only to one of *another* phrase: the same words in two texts agree and both stay.
    - `iou`: 0.9 by default, our own choice: the boxes of a whole and of its part may overlap by much.

    Masks and other rows stay; a mask falls with its phrase. A box without a score counts as sure. Its value
    is the score. Raises RecipeError.
    """

    columns = ("kind", *_COLUMNS)

    def __init__(self, iou: float = 0.9, across: str = "text") -> None:
        if not 0 <= iou < 1:
            raise RecipeError(f"iou is {iou}", "it must be at least 0 and below 1")
        if across not in ("text", "image"):
            raise RecipeError(f"across is {across!r}", "write text or image")
        self.iou = iou
        self.across = across

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        wanted = pc.and_(pc.equal(annotations["kind"], "phrase"), pc.is_valid(annotations["box"]))
        wanted = pc.and_(wanted, pc.is_valid(annotations["text"]))
        rows = np.flatnonzero(wanted.to_numpy())
        found = annotations.select(_COLUMNS).filter(wanted)
        order = np.argsort(-sure_scores(found), kind="stable")
        keep = np.ones(annotations.num_rows, bool)
        if self.across == "text":
            keep[rows] = suppress(boxes_of(found), groups_of(found["parent_id"]), order, self.iou)
        else:
            alike = groups_of(found["image_id"], _plain(found["text"]))
            keep[rows] = suppress(boxes_of(found), groups_of(found["image_id"]), order, self.iou, alike)
        return pa.array(keep)

    def values(self, annotations: pa.Table) -> pa.Array:
        return annotations["score"].combine_chunks()


def _plain(texts: pa.ChunkedArray) -> pa.Array:
    coded = texts.combine_chunks().dictionary_encode()
    return pa.array([plain_phrase(text) for text in coded.dictionary.to_pylist()], pa.string()).take(
        coded.indices
    )
