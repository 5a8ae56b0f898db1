"""Small files that are large, long or endless once they are opened: what each costs is bounded."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from data_engine.errors import DatasetError, FdeError, ImageError, SourceError
from data_engine.image import MAX_SCANS, decode, inspect
from data_engine.ingest.run import ingest
from data_engine.noise.masks import cut
from data_engine.quality.coco import sound_mask
from data_engine.run_lengths import sound
from data_engine.scenes.sheet import _traced
from data_engine.shards import read_provenance
from data_engine.storage import Store
from tests.ingested import failures, labels
from tests.parquet_footers import nested
from tests.picture_files import encoded, jpeg, pixels, png, put

# --- pictures


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    whole = png(1)
    return whole[:33] + b"".join(chunks) + whole[33:]


def inflating(size: int) -> bytes:
    return zlib.compress(b"\0" * size, 9)


def scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    whole = encoded(pixels(1, side, side), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + whole[-2:]


def frames(count: int) -> bytes:
    """A GIF of so many frames of one pixel."""
    frame = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    return b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0" + frame * count + b";"


def tiff(next_directory: int, width: int = 1, height: int = 1, strip: int = 1) -> bytes:
    """A grey TIFF whose directory names another: itself, at 8."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 150),
            (277, 3, 1), (278, 4, height), (279, 4, strip)]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (b"II*\0\x08\0\0\0" + directory + struct.pack("<I", next_directory)).ljust(150, b"\0") + b"\x80"


def animated_webp(count: int) -> bytes:
    images = [PIL.Image.fromarray(pixels(i, 8, 8)) for i in range(count)]
    return encoded(images[0], "WEBP", save_all=True, append_images=images[1:])


BOMBS = {
    "png pixels": png_with() .replace(struct.pack(">II", 24, 16), struct.pack(">II", 200_000, 200_000)),
    "png text": png_with(chunk(b"zTXt", b"a\0\0" + inflating(100 << 20))),
    "png texts": png_with(*[chunk(b"zTXt", b"a\0\0" + inflating(1 << 20))] * 200),
    "png international text": png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + inflating(100 << 20))),
    "png profile": png_with(chunk(b"iCCP", b"a\0\0" + inflating(100 << 20))),
    "jpeg scans": scans(MAX_SCANS),
    "gif frames": frames(100_000),
    "gif canvas": frames(1).replace(b"GIF89a\x01\0\x01\0", b"GIF89a\xff\xff\xff\xff"),
    "tiff circle": tiff(8),
    "tiff width": tiff(0, width=4_000_000_000),
    "tiff strip": tiff(0, width=9000, height=9000, strip=4_000_000_000),
    "webp frames": animated_webp(100),
}  # fmt: skip
"""Each is smaller than two megabytes."""

FINE = {"gif frames", "tiff circle", "webp frames"}
"""Of these the first frame is a picture like any other."""

_LOOK = """
import resource, sys
from pathlib import Path
from data_engine.errors import ImageError
from data_engine.image import decode, inspect
decode(Path(sys.argv[1]).read_bytes())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for place in sys.argv[2:]:
    for look in (inspect, decode):
        try:
            look(Path(place).read_bytes())
            print(Path(place).name, "fine")
        except ImageError as error:
            print(Path(place).name, error.reason)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_picture_bombs_take_little_memory_and_are_refused_or_seen_in_part(tmp_path: Path) -> None:
    put(tmp_path, {"sound.png": png(1, 2000, 2000), **BOMBS})
    places = [str(tmp_path / name) for name in ("sound.png", *BOMBS)]
    # By a shell: a process that another one starts by itself takes over its largest size.
    command = ["/bin/sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", _LOOK, *places]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *told, growth = done.stdout.splitlines()
    assert len(told) == 2 * len(BOMBS)
    for line in told:
        name, _, reason = line.rpartition(" ")
        assert (reason == "fine") == (name in FINE), line
    assert int(growth) < 300 * 1024, f"{growth} KiB"


def test_a_progressive_picture_is_none() -> None:
    assert inspect(scans(0)).format == "jpeg"
    with pytest.raises(ImageError) as raised:
        decode(scans(MAX_SCANS))
    assert raised.value.reason == "too_large"


# --- Parquet

_INGEST = """
import resource, sys
from data_engine.errors import FdeError
from data_engine.ingest.run import ingest
ingest(sys.argv[1], sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(ingest(sys.argv[3], sys.argv[4], workers=1).failures)
except FdeError as error:
    print(error.message)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_parquet_file_whose_dictionary_fills_every_row(tmp_path: Path) -> None:
    """A kilobyte that spells 32 images of 16 MiB: one of them is in memory at a time."""
    size, count = 16 << 20, 32
    column = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([b"\0" * size]))
    (tmp_path / "bomb").mkdir()
    pq.write_table(
        pa.table({"image": column}), tmp_path / "bomb/a.parquet", compression="zstd", store_schema=False
    )
    assert (tmp_path / "bomb/a.parquet").stat().st_size < 4096
    (tmp_path / "sound").mkdir()
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "sound/a.parquet")
    places = [str(tmp_path / name) for name in ("sound", "one", "bomb", "two")]
    command = ["/bin/sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", _INGEST, *places]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, growth = done.stdout.splitlines()
    assert f"all {count} were refused" in told
    # The dictionary, its page, and a few rows on their way to the thread that looks at them.
    assert int(growth) < 12 * (size >> 10), f"{growth} KiB"


@pytest.mark.parametrize("depth", [101, 50_000])
def test_a_schema_of_endless_depth_is_a_damaged_file(tmp_path: Path, depth: int) -> None:
    put(tmp_path, {"source/0.parquet": nested(depth), "ds/annotations/x/00000.parquet": nested(depth)})
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "source/1.parquet")
    summary = ingest(str(tmp_path / "source"), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, {"broken_archive": 1})
    try:
        assert read_provenance(Store(str(tmp_path / "ds")), "annotations/x/00000.parquet") is None
    except FdeError as error:
        assert error.hint


# --- COCO


def coco(folder: Path, *said: dict[str, object], name: str = "cup") -> Path:
    """A COCO folder of one picture, 24 x 16, of which so much is said."""
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], **s} for i, s in enumerate(said)
    ]
    whole = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 24, "height": 16}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": name}],
    }
    return put(folder, {"a.jpg": jpeg(1), "instances.json": json.dumps(whole)})


def test_masks_that_claim_more_than_their_image(tmp_path: Path) -> None:
    bombs = [
        {"size": [100_000, 100_000], "counts": [10**10]},
        {"size": [16, 24], "counts": [2**62, 2**62]},
        {"size": [16, 24], "counts": [-5, 389]},
        {"size": [16, 24], "counts": "o" * 100_000},
        {"size": [16, 24], "counts": "`" * 7},
        {"size": [16, 24], "counts": [1] * 200_000},
        {"size": ["1" * 5000, 24], "counts": []},
    ]
    source = coco(tmp_path / "source", *({"segmentation": bomb} for bomb in bombs))
    summary = ingest(str(source), str(tmp_path / "ds"))
    assert summary.failures == {"bad_annotation": len(bombs)}
    assert [row["mask"] for row in labels(tmp_path / "ds")] == [None] * len(bombs)


def test_a_polygon_of_a_million_points_is_a_mask_of_its_image(tmp_path: Path) -> None:
    angles = np.linspace(0, 6.28, 500_000)
    points = np.stack([12 + 1e7 * np.cos(angles), 8 + 1e7 * np.sin(angles)], axis=1).round(1)
    source = coco(tmp_path / "source", {"segmentation": [points.reshape(-1).tolist()]})
    ingest(str(source), str(tmp_path / "ds"))
    (mask,) = [row["mask"] for row in labels(tmp_path / "ds") if row["mask"]]
    assert mask["size"] == [16, 24] and len(mask["counts"]) < 100


def test_names_and_captions_of_millions_of_characters_are_cut(tmp_path: Path) -> None:
    said = [{"caption": "word " * 400_000}, {}]
    source = coco(tmp_path / "source", *said, name="n" * 3_000_000)
    ingest(str(source), str(tmp_path / "ds"))
    assert max(len(row["text"]) for row in labels(tmp_path / "ds")) <= 100_000
    assert {row["reason"] for row in failures(tmp_path / "ds")} <= {"too_long", "too_many"}


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [' + "[" * 200_000,
        '{"images": [{"id": ' + "9" * 10_000 + "}]}",
        '{"images": [1], "x": ' + '{"a":' * 100_000,
        '{"images": [{"id": 1e999, "file_name": "a.jpg"}], "annotations": [' + '{"id": NaN},' * 3 + "{}]}",
    ],
    ids=["deep", "digits", "deep objects", "infinite"],
)
def test_json_that_is_deep_or_no_number_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    source = put(tmp_path / "source", {"instances.json": text, "a.jpg": jpeg(1)})
    try:
        ingest(str(source), str(tmp_path / "ds"), format="coco")
    except SourceError as error:
        assert "\n" not in error.message and len(error.message) < 2000
    else:
        assert failures(tmp_path / "ds")


def test_a_picture_of_every_kind_of_bomb_costs_itself(tmp_path: Path) -> None:
    """Through the command's own way, beside a sound one."""
    ending = {"png": ".png", "jpe": ".jpg", "gif": ".gif", "tif": ".tif", "web": ".webp"}
    files = {name.replace(" ", "-") + ending[name[:3]]: data for name, data in BOMBS.items()}
    summary = ingest(str(put(tmp_path / "source", {"sound.jpg": jpeg(5), **files})), str(tmp_path / "ds"))
    assert summary.keys == 1 + len(FINE)
    assert sum(summary.failures.values()) == len(BOMBS) - len(FINE)


# --- masks of a data set that was not written here

MASKS = [
    {"size": [400, 400], "counts": "5"},
    {"size": [4, 4], "counts": "0PPP_n1"},
    {"size": [4, 4], "counts": "o" * 7},
    {"size": [4, 4], "counts": ""},
    {"size": [-4, -4], "counts": "`0"},
    {"size": [100_000, 100_000], "counts": "`0"},
    {"size": [4, 4], "counts": "\x00\xff"},
]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_run_lengths_that_are_none_never_reach_pycocotools(mask: dict[str, Any]) -> None:
    """It gives what lies in memory for a mask that is too short: 160,000 pixels for the first of these."""
    with pytest.raises(ImageError):
        sound(mask)
    with pytest.raises(DatasetError, match="the data set holds"):
        sound_mask(mask)
    with pytest.raises(ImageError):
        cut(mask, (0.0, 0.0, 2.0, 2.0))
    picture = PIL.Image.new("RGB", (40, 40))
    said = [{"mask": mask, "box": [0.0, 0.0, 2.0, 2.0]}]
    assert _traced(picture, said).tobytes() == picture.tobytes()


def test_masks_that_are_some_pass() -> None:
    rle = coco_mask.encode(np.asfortranarray(pixels(3, 40, 30)[..., 0] > 100))
    mask = {"size": [30, 40], "counts": rle["counts"].decode()}
    assert sound(mask) is mask and sound_mask(mask) is mask
