"""The images that a report shows: the same ones every time, spread over the data set, as cards."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

from data_engine.dataset import Dataset
from data_engine.errors import FdeError, ImageError
from data_engine.qa.scope import Scope
from data_engine.query_output import printable
from pipelines.report.card import Card
from pipelines.report.layout import lay_out
from pipelines.viewer.pictures import Pictures
from pipelines.viewer.story import story
from pipelines.viewer.tables import Relations, Tables

MOST_IMAGES = 400

PICTURE_BYTES = 24 << 20
"""Of all pictures in a page together; those behind are left out, and say so."""

_LARGE_UP_TO = 48
"""So many images are shown large; of more, the pictures are small ones."""

_LEAST_SHARDS = 64
"""Images are drawn from at least so many shards, where there are."""

_SECONDS = 300.0

_MASKS = "SELECT annotation_id, mask FROM {0.annotations} WHERE image_id = ? AND mask IS NOT NULL LIMIT 500"


def gallery(dataset: Dataset, scope: Scope, count: int) -> Iterator[Card]:
    """Cards of `count` images, or of all where there are fewer, in the order of the data set.

    Which ones is decided by a hash of their ids: a data set that has not changed gives the same ones. Of a
    large one, `count` shards (but at least 64) that are spread evenly are drawn from. What cannot be shown of
    an image is said in its card.
    """
    tables = Tables(dataset)
    pictures = Pictures(tables)
    size = "page" if count <= _LARGE_UP_TO else "thumb"
    left = PICTURE_BYTES
    try:
        for shard, image_id in _sample(tables, min(count, MOST_IMAGES)):
            made = _card(tables, scope, shard, image_id)
            try:
                if left <= 0:
                    raise ImageError(
                        "too_large", f"pictures of a report are bounded to {PICTURE_BYTES >> 20} MiB"
                    )
                jpeg = pictures.jpeg(shard, image_id, size)
                left -= len(jpeg)
                made.picture = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
            except ImageError as error:
                made.gone = f"The picture cannot be shown ({error.reason}): {error}"
            except FdeError as error:
                made.gone = f"The picture cannot be shown: {error.message}"
            yield made
    finally:
        pictures.close()
        tables.close()


def _sample(tables: Tables, count: int) -> list[tuple[str, str]]:
    if not tables.shards or count < 1:
        return []
    drawn = _spread(tables.shards, max(count, _LEAST_SHARDS))

    def build(r: Relations) -> tuple[str, list[Any]]:
        first = f"SELECT shard, row, image_id FROM {r.images} ORDER BY hash(image_id), image_id LIMIT {int(count)}"  # noqa: S608
        return f"SELECT shard, image_id FROM ({first}) ORDER BY shard, row", []  # noqa: S608

    rows = tables.select(drawn, build, sources=[], seconds=_SECONDS).to_pylist()
    return [(row["shard"], row["image_id"]) for row in rows]


def _spread(shards: Sequence[str], count: int) -> list[str]:
    if count >= len(shards):
        return list(shards)
    return [shards[number * len(shards) // count] for number in range(count)]


def _card(tables: Tables, scope: Scope, shard: str, image_id: str) -> Card:
    def build(r: Relations) -> tuple[str, list[Any]]:
        return _MASKS.format(r), [image_id]

    try:
        told = story(tables, shard, image_id)
        masks = {row["annotation_id"]: row["mask"] for row in tables.select([shard], build).to_pylist()}
        return lay_out(told, masks, scope.round, scope.sources)
    except FdeError as error:
        why = f"what was said of it cannot be read: {printable(error.message)}"
        return Card(image_id, image_id, 4, 3, image_id, image_id, notes=[why])
