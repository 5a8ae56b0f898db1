"""The pixels of an image, and of its masks, as a browser shows them."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import PIL.Image

from data_engine.errors import ImageError, QueryError
from data_engine.image import decode
from data_engine.image_bytes import ByteReader
from data_engine.run_lengths import check_fills, run_lengths
from pipelines.viewer.tables import Relations, Tables

SIDES = {"thumb": 384, "page": 720, "full": 1600}
"""The longer side of what is sent, in pixels; smaller images are sent as large as they are."""

_CACHE_BYTES = 64 << 20
_AT_ONCE = 2
"""Images decoded at once: each may take 256 MiB."""


class Pictures:
    """Reads, turns and scales images; keeps the last small ones. Safe to use from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._reader = ByteReader(rows_of=tables.dataset.url)
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def close(self) -> None:
        self._reader.__exit__()

    def jpeg(self, shard: str, image_id: str, size: str) -> bytes:
        """An image as a JPEG of at most SIDES[size] pixels a side, EXIF orientation applied.

        Raises QueryError where the data set has no such image, ImageError (`missing`, `changed`, `corrupt`,
        ...) where its file is not what was ingested.
        """
        with self._lock:
            kept = self._kept.get(f"{size}/{image_id}")
        if kept is not None:
            return kept
        row = _find(
            self._tables,
            shard,
            'SELECT uri, "offset", length, bytes FROM {0.images} WHERE image_id = ?',
            image_id,
            True,
        )
        if row is None:
            raise QueryError(
                f"shard {shard[:40]} has no image {image_id[:40]!r}", "search for it by its id or key"
            )
        with self._room:
            data = self._reader.read(row["uri"], row["offset"], row["length"], row["bytes"], verify=image_id)
            image = PIL.Image.fromarray(decode(data))
            image.thumbnail((SIDES[size], SIDES[size]), PIL.Image.Resampling.BOX, reducing_gap=2.0)
            out = io.BytesIO()
            image.save(out, "JPEG", quality=88, subsampling=0 if size == "full" else 2)
        jpeg = out.getvalue()
        with self._lock:
            self._kept[f"{size}/{image_id}"] = jpeg
            self._size += len(jpeg)
            while self._size > _CACHE_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1])
        return jpeg


def mask_png(tables: Tables, shard: str, annotation_id: str) -> bytes:
    """A statement's mask as a PNG of two colours, opaque where the mask is; at most SIDES["full"] a side.

    Raises QueryError where there is none, and ImageError for run lengths that are none.
    """
    row = _find(tables, shard, "SELECT mask FROM {0.annotations} WHERE annotation_id = ?", annotation_id)
    if row is None or row["mask"] is None:
        raise QueryError(f"there is no mask {annotation_id[:40]!r}", "load the page again")
    height, width = row["mask"]["size"]
    if height * width > PIL.Image.MAX_IMAGE_PIXELS:
        raise ImageError("too_large", f"a mask of {width} x {height} pixels")
    runs = run_lengths(row["mask"]["counts"])
    check_fills(runs, height, width)
    inside = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8).reshape(width, height).T
    step = -(-max(height, width) // SIDES["full"])
    image = PIL.Image.fromarray(np.ascontiguousarray(inside[::step, ::step]), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    out = io.BytesIO()
    image.save(out, "PNG", bits=1, transparency=b"\x00\xff")
    return out.getvalue()


def _find(tables: Tables, shard: str, sql: str, id_: str, with_bytes: bool = False) -> dict[str, Any] | None:
    if shard not in tables.shards:
        return None

    def build(r: Relations) -> tuple[str, list[str]]:
        return sql.format(r), [id_]

    found = tables.select([shard], build, with_bytes=with_bytes).to_pylist()
    return found[0] if found else None
