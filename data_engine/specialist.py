"""The two protocols that a user's own code may implement. There is no base class and no registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from data_engine.image import Image


class Specialist(Protocol):
    """Built once per actor with the recipe's `args`, then called once per batch.

    `images` are decoded, in the shard's order. `said` holds the annotation rows (data_engine.schema's
    ANNOTATIONS) of these images by the specialists that the recipe lists under `needs`; it is None when
    it lists none. The answer has one list of annotations per image, in the same order. An ImageError in
    such a list is one thing that could not be said: a failure of that image, which keeps the others.

    A specialist with the attribute `needs_pixels = False` answers to statements alone: no file is read
    for it, and its `images` have their ids and sizes, and black pixels.

    What it raises costs only the image that causes it: the batch is tried again image by image.
    """

    def __call__(
        self, images: Sequence[Image], said: pa.Table | None
    ) -> Sequence[Sequence[Annotation | ImageError]]: ...


class Filter(Protocol):
    """True keeps a row; the filter's name in the recipe is the reason given for the rest.

    `annotations` are the rows of one shard that the filter applies to and that no earlier filter dropped,
    all rows of an image together. What else a filter may have:

    - `values(annotations) -> pa.Array`, float, one per row: what it measured, stored beside its verdicts.
    - `cascades = False`: what hangs on a dropped row does not fall with it, for only the row's text is
      wrong and not the region or sentence that others belong to.
    - `columns`, a tuple of the annotation columns that it looks at: it is given those (and `image_id`), and
      no time goes into copying the others. Without it, all.
    - `image_columns`, a tuple of columns of the image index, such as `("width", "height")`: they are
      joined to `annotations`, each with `image_` before its name.
    - `whole_image = True`: where it drops a row, everything that was said of that image is dropped.
    - `survey(dataset, where) -> str`: called once before the first shard, to look at the whole data set.
      Its answer stands for what was found: where it changes, verdicts are made anew.
    """

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray: ...
