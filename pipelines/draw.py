"""Draw a data set's images with what was said about them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, StorageError
from data_engine.output_file import make_place, written
from data_engine.runner.pictures import read_pictures
from data_engine.scenes.sheet import contact_sheet
from data_engine.shards import read_table


def draw_dataset(
    dataset: Dataset,
    output: Path,
    *,
    sources: Sequence[str] | None = None,
    images: int = 6,
    kept: bool = False,
) -> int:
    """Write one picture of the first images, in the format of its name's suffix; returns how many images.

    Raises DatasetError for an unknown source, and StorageError for a suffix of no format and where `output` cannot
    be written.

    `kept` leaves out what the filters dropped; without verdicts nothing is left out.
    """
    format_ = _format(output)
    make_place(output)
    have = dataset.sources()
    for source in sources or ():
        if source not in have:
            raise DatasetError(
                f"the data set has no source {source!r}", f"it has: {', '.join(have) or 'none yet'}"
            )
    pictures = []
    for shard in dataset.shards:
        for batch in read_pictures(dataset, shard, batch=min(16, images), threads=2):
            pictures += [(shard, p.image) for p in batch if p.image is not None]
            if len(pictures) >= images:
                break
        if len(pictures) >= images:
            break
    pictures = pictures[:images]
    said: dict[str, pa.Table] = {}
    for shard in {shard for shard, _ in pictures}:
        there = [s for s in sources or have if dataset.store.exists(f"annotations/{s}/{shard}.parquet")]
        table = pa.concat_tables(dataset.annotations(s, shard) for s in there) if there else None
        said[shard] = _kept(dataset, shard, table) if kept and table is not None else table
    tiles = []
    for shard, image in pictures:
        table = said[shard]
        rows = [] if table is None else table.filter(pc.equal(table["image_id"], image.image_id)).to_pylist()
        tiles.append((image.pixels, rows))
    with written(output) as stream:
        contact_sheet(tiles).save(stream, format_)
    return len(tiles)


def _format(output: Path) -> str:
    """Pillow's name of the format of a suffix, if it can write such a picture."""
    format_ = PIL.Image.registered_extensions().get(output.suffix.lower(), "")
    try:
        PIL.Image.new("RGB", (1, 1)).save(io.BytesIO(), format_)
    except (KeyError, OSError, ValueError) as error:
        raise StorageError(
            f"{output}: no picture can be written as {output.suffix or 'a file without a suffix'}",
            "name a file like figure.png or figure.jpg",
        ) from error
    return format_


def _kept(dataset: Dataset, shard: str, said: pa.Table) -> pa.Table:
    for round_ in dataset.store.folders("verdicts"):
        name = f"verdicts/{round_}/{shard}.parquet"
        if dataset.store.exists(name):
            verdicts = read_table(dataset.store, name, ["annotation_id", "kept"])
            dropped = verdicts.filter(pc.invert(verdicts["kept"]))["annotation_id"]
            said = said.filter(pc.invert(pc.is_in(said["annotation_id"], dropped.combine_chunks())))
    return said
