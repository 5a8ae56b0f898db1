"""The pictures of one shard, read and decoded ahead of the model that looks at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.errors import ImageError
from data_engine.image import Image, decode, image_id_of
from data_engine.image_bytes import ByteReader

_COLUMNS = ("image_id", "keys", "uri", "offset", "length", "bytes")
_SIZES = ("image_id", "keys", "uri", "width", "height")

_NO_PIXELS = np.zeros((1, 1, 3), np.uint8)


@dataclass(slots=True, frozen=True)
class Picture:
    """One row of the image index, with its decoded image or the reason why there is none."""

    image_id: str
    key: str
    uri: str | None
    image: Image | None
    error: ImageError | None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, where it could be decoded."""
        return None if self.image is None else (self.image.width, self.image.height)


def unread_pictures(
    dataset: Dataset, shard: str, *, batch: int, skip: Collection[str] = ()
) -> Iterator[list[Picture]]:
    """Batches of a shard's pictures without a byte of any file: of the right size, and black.

    Their pixels take no memory whatever their size. Images whose id is in `skip` are errors.
    """

    def one(row: dict[str, Any]) -> Picture:
        if row["image_id"] in skip:
            error = ImageError("killed_worker", "the process died whenever it worked on this image")
            return Picture(row["image_id"], _key(row), row["uri"], None, error)
        pixels = np.broadcast_to(_NO_PIXELS, (row["height"], row["width"], 3))
        return Picture(row["image_id"], _key(row), row["uri"], Image(row["image_id"], pixels), None)

    for rows in dataset.image_batches(shard, batch, _SIZES):
        yield [one(row) for row in rows.to_pylist()]


def read_pictures(
    dataset: Dataset,
    shard: str,
    *,
    batch: int,
    threads: int,
    ahead: int = 1,
    skip: Collection[str] = (),
    single_from: int | None = None,
) -> Iterator[list[Picture]]:
    """Batches of decoded pictures; `ahead` further batches are decoded while the caller works.

    Memory is bounded by `batch * (ahead + 1)` decoded images whatever the shard's size. Images whose id
    is in `skip` are not touched: they killed the process before. From row `single_from` on each picture
    comes alone, and with `ahead=0` it is touched only when it is asked for.
    """

    def one(row: dict[str, Any]) -> Picture:
        image = error = None
        try:
            if row["image_id"] in skip:
                raise ImageError("killed_worker", "the process died whenever it worked on this image")
            data = reader.read(row["uri"], row["offset"], row["length"], row["bytes"])
            if image_id_of(data) != row["image_id"]:
                raise ImageError("changed", "the file is not the one that was ingested: its bytes differ")
            image = Image(row["image_id"], decode(data))
        except ImageError as caught:
            # Without its traceback, whose frames keep the image's bytes.
            error = ImageError(caught.reason, caught.message)
        return Picture(row["image_id"], _key(row), row["uri"], image, error)

    with (
        ByteReader(rows_of=dataset.url) as reader,
        ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool,
    ):
        waiting: deque[list[Future[Picture]]] = deque()
        try:
            for piece in _pieces(dataset.image_batches(shard, batch, _COLUMNS), single_from):
                waiting.append([pool.submit(one, row) for row in piece.to_pylist()])
                if len(waiting) > ahead:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()


def _key(row: dict[str, Any]) -> str:
    """The first name of an image; empty in an index that was not written here and has none."""
    return next(iter(row["keys"] or ()), "")


def _pieces(batches: Iterator[pa.RecordBatch], single_from: int | None) -> Iterator[pa.RecordBatch]:
    seen = 0
    for rows in batches:
        seen += rows.num_rows
        if single_from is None or seen <= single_from:
            yield rows
        else:
            yield from (rows.slice(i, 1) for i in range(rows.num_rows))
