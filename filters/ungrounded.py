"""Drop texts of which no phrase could be found in the image: most likely they are about something else."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import RecipeError

VERSION = 1


class Ungrounded:
    """Drops texts with fewer than `minimum` different phrases left that have a box.

    GrIT (arXiv 2306.14824) drops a pair when no box survives. Put it after the filters on phrases, and let
    its `where` see texts and phrases (`kind: [text, phrase]`). Only texts about whole images are judged
    (granularity brief, detailed, more_detailed), and of an image nobody has grounded, none: an image
    without a single phrase says nothing about its texts unless `strict`. The value is the number of phrases.
    """

    columns = ("annotation_id", "image_id", "kind", "granularity", "parent_id", "text")

    def __init__(self, minimum: int = 1, strict: bool = False) -> None:
        if minimum < 1:
            raise RecipeError(f"minimum is {minimum}", "it must be at least 1")
        self.minimum = minimum
        self.strict = strict

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        counts = self.values(annotations).to_numpy(zero_copy_only=False)
        keep = np.isnan(counts) | (counts >= self.minimum)
        if not self.strict:
            phrases = pc.equal(annotations["kind"], "phrase")
            grounded = pc.is_in(
                annotations["image_id"], annotations["image_id"].filter(phrases).combine_chunks()
            )
            keep |= ~grounded.to_numpy()
        return pa.array(keep)

    def values(self, annotations: pa.Table) -> pa.Array:
        phrases = pc.and_(pc.equal(annotations["kind"], "phrase"), pc.is_valid(annotations["text"]))
        found = annotations.select(["parent_id", "text"]).filter(phrases)
        counts = found.group_by("parent_id").aggregate([("text", "count_distinct")])
        at = pc.index_in(annotations["annotation_id"], counts["parent_id"])
        number = pc.fill_null(counts["text_count_distinct"].take(at), 0).to_numpy().astype(np.float32)
        described = pc.is_in(annotations["granularity"], pa.array(["brief", "detailed", "more_detailed"]))
        judged = pc.and_(pc.equal(annotations["kind"], "text"), described).to_numpy()
        return pa.array(np.where(judged, number, np.nan), pa.float32(), from_pandas=True)
