"""COCO's and Objects365's JSON: boxes, masks and captions arrive where a person sees them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_engine.errors import SourceError
from data_engine.image import ImageInfo, decode
from data_engine.ingest.masks import Frame
from data_engine.ingest.run import ingest
from tests.ingested import by_key, failures, images, labels
from tests.picture_files import jpeg, png, put

# pycocotools 2.0.11 decodes into an array type that numpy 2 warns about; only these tests decode.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 7, "name": "hot dog"}]


def coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]], **more: Any) -> str:
    return json.dumps(
        {"info": {"a": [1, 2]}, "images": images, "annotations": annotations, "categories": CATEGORIES} | more
    )


def entry(number: int, name: str, width: int = 24, height: int = 16, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": width, "height": height, **more}


def box(number: int, image: int, xywh: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "bbox": xywh, "iscrowd": 0, **more}


def test_boxes_masks_and_captions_are_merged_by_file_name(tmp_path: Path) -> None:
    said = [
        box(1, 5, [2, 3, 10, 5], segmentation=[[2, 3, 12, 3, 12, 8, 2, 8]]),
        box(2, 5, [20, 10, 30, 30], category_id=7),
        box(3, 5, [0, 0, 24, 16], iscrowd=1, segmentation={"size": [16, 24], "counts": [0, 384]}),
    ]
    captions = [
        {"id": 1, "image_id": "x", "caption": " A cat. "},
        {"id": 2, "image_id": "x", "caption": "Two."},
    ]
    source = put(
        tmp_path / "in",
        {
            "instances_val.json": coco([entry(5, "a.jpg", license=3)], said),
            "captions_val.json": coco([{"id": "x", "file_name": "a.jpg"}], captions),
            "images/a.jpg": jpeg(1),
            "images/unnamed.jpg": jpeg(2),
            "person_keypoints_val.json": coco([entry(5, "a.jpg")], said),
        },
    )
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.format, summary.images, summary.failures) == ("coco", 1, {})
    assert (summary.labels, summary.left_out, summary.ignored) == ({"human": 5}, {"crowd regions": 1}, 2)
    text_a, text_b, cat, mask, dog = labels(tmp_path / "out")
    assert [(t["kind"], t["granularity"], t["text"]) for t in (text_a, text_b)] == [
        ("text", "brief", "A cat."),
        ("text", "brief", "Two."),
    ]
    assert (cat["kind"], cat["granularity"], cat["text"], cat["box"]) == (
        "region",
        "phrase",
        "cat",
        [2, 3, 12, 8],
    )
    assert (dog["text"], dog["box"]) == ("hot dog", [20, 10, 24, 16])
    assert (mask["kind"], mask["text"], mask["parent_id"]) == ("region", None, cat["annotation_id"])
    assert mask["box"] == cat["box"]
    drawn = coco_mask.decode(mask["mask"])
    assert drawn.shape == (16, 24) and drawn[3:8, 2:12].all() and drawn.sum() == 50
    assert all(row["source"] == "human" and row["score"] is None for row in labels(tmp_path / "out"))
    (image,) = images(tmp_path / "out")
    assert image["keys"] == ["a.jpg"] and json.loads(image["metadata"]) == {"id": "x"}


@pytest.mark.parametrize("layout", ["root", "annotations", "file", "file in annotations"])
def test_images_are_found_wherever_they_commonly_lie(tmp_path: Path, layout: str) -> None:
    names = {
        "a.jpg": "a.jpg",
        "b.jpg": "images/b.jpg",
        "c.jpg": "val2017/c.jpg",
        "images/v1/patch8/d.jpg": "train/patch8/d.jpg",
        "sub/e.jpg": "sub/e.jpg",
        "../f.jpg": "f.jpg",
    }
    said = coco([entry(i, name) for i, name in enumerate(names)], [])
    folder = "annotations/" if "annotations" in layout else ""
    files: dict[str, bytes | str] = {key: jpeg(i) for i, key in enumerate(names.values())}
    files["train/patch9/d.jpg"] = jpeg(99)
    source = put(tmp_path / "in", files | {f"{folder}zhiyuan_objv2_val.json": said})
    given = source / folder / "zhiyuan_objv2_val.json" if "file" in layout else source
    summary = ingest(str(given), str(tmp_path / "out"))
    assert (summary.images, summary.failures, summary.ignored) == (6, {}, 1)
    found = by_key(tmp_path / "out")
    for name, key in names.items():
        assert found["f.jpg" if name == "../f.jpg" else name]["uri"] == str(source / key)


def test_a_name_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path, {"secret.jpg": jpeg(1)})
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), "sub/../../secret.jpg"]
    said = coco([entry(i, n) for i, n in enumerate(names)] + [entry(9, "ok.jpg")], [])
    source = put(tmp_path / "in", {"instances.json": said, "ok.jpg": jpeg(2)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, {"missing": 3})


def test_missing_images_are_one_failure_each(tmp_path: Path) -> None:
    entries = [entry(i, f"{i}.jpg") for i in range(5)]
    said = coco(entries, [box(i, i, [0, 0, 5, 5]) for i in range(5)])
    source = put(tmp_path / "in", {"instances.json": said, "1.jpg": jpeg(1), "3.jpg": jpeg(3)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures, summary.labels) == (2, {"missing": 3}, {"human": 2})
    assert [f["key"] for f in failures(tmp_path / "out")] == ["0.jpg", "2.jpg", "4.jpg"]


BAD = {
    "NaN": box(1, 1, [float("nan"), 0, 5, 5]),
    "infinite": box(1, 1, [0, 0, float("inf"), 5]),
    "three numbers": box(1, 1, [0, 0, 5]),
    "words": box(1, 1, ["a", 0, 5, 5]),
    "outside": box(1, 1, [30, 30, 5, 5]),
    "no area": box(1, 1, [3, 3, 0, 5]),
    "unknown category": box(1, 1, [0, 0, 5, 5], category_id=99),
    "no category": {"id": 1, "image_id": 1, "bbox": [0, 0, 5, 5]},
    "no box": {"id": 1, "image_id": 1, "category_id": 1},
    "unknown image": box(1, 77, [0, 0, 5, 5]),
    "no image": {"id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]},
    "empty caption": {"id": 1, "image_id": 1, "caption": "  "},
    "list": [1, 2],
    "nothing": None,
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_annotation_is_a_failure_and_its_neighbours_stay(tmp_path: Path, name: str) -> None:
    said = [box(0, 1, [0, 0, 4, 4]), BAD[name], box(2, 1, [4, 4, 4, 4])]
    source = put(tmp_path / "in", {"instances.json": coco([entry(1, "a.jpg")], said), "a.jpg": jpeg(1)})  # type: ignore[arg-type]
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.labels, summary.failures) == (1, {"human": 2}, {"bad_annotation": 1})


MASKS = {
    "odd polygon": [[1, 2, 3, 4, 5]],
    "two points": [[1, 1, 5, 5]],
    "NaN": [[1, 1, 5, float("nan"), 5, 5]],
    "runs too short": {"size": [16, 24], "counts": [3, 3]},
    "runs too long": {"size": [16, 24], "counts": [0, 10_000_000_000]},
    "negative runs": {"size": [16, 24], "counts": [-5, 389]},
    "other size": {"size": [10, 10], "counts": [50, 50]},
    "enormous size": {"size": [1_000_000, 1_000_000], "counts": "a"},
    "damaged string": {"size": [16, 24], "counts": "\x01\x02"},
    "cut string": {"size": [16, 24], "counts": "ppppp"},
    "empty": {"size": [16, 24], "counts": [384]},
    "no counts": {"size": [16, 24]},
    "a word": "circle",
}


@pytest.mark.parametrize("name", MASKS)
def test_a_malformed_mask_costs_only_the_mask(tmp_path: Path, name: str) -> None:
    said = [box(0, 1, [0, 0, 4, 4], segmentation=MASKS[name])]
    source = put(tmp_path / "in", {"instances.json": coco([entry(1, "a.jpg")], said), "a.jpg": jpeg(1)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.labels, summary.failures) == ({"human": 1}, {"bad_annotation": 1})


def test_all_three_forms_of_a_mask_are_the_same_mask() -> None:
    info = ImageInfo("", 24, 16, "png", 1)
    drawn = np.zeros((16, 24), np.uint8)
    drawn[3:8, 2:12] = 1
    compressed = coco_mask.encode(np.asfortranarray(drawn))["counts"].decode()
    flat = drawn.reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    frame = Frame.of(24, 16, info)
    expected = {"size": [16, 24], "counts": compressed}
    assert frame.mask({"size": [16, 24], "counts": compressed}) == expected
    assert frame.mask({"size": [16, 24], "counts": runs}) == expected
    assert frame.mask([[2, 3, 12, 3, 12, 8, 2, 8]]) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_of_the_stored_pixels_are_turned_with_them(tmp_path: Path, orientation: int) -> None:
    """A white square is drawn in the stored pixels; after ingest the box must lie around it as shown."""
    import PIL.Image

    from tests.picture_files import encoded

    stored = np.zeros((32, 48, 3), np.uint8)
    stored[4:10, 20:40] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "PNG", exif=exif)
    swapped = orientation >= 5
    # Sizes that are not swapped cannot tell: such labels are taken to be as shown.
    x, y, w, h = 20, 4, 20, 6
    if not swapped:
        white = np.argwhere(decode(data)[:, :, 0] > 0)
        (y, x), (h, w) = white.min(axis=0).tolist(), (np.ptp(white, axis=0) + 1).tolist()
    runs = np.zeros((32, 48), np.uint8)
    runs[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(np.asfortranarray(runs))
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    said = [
        box(1, 1, [x, y, w, h], segmentation=[polygon]),
        box(2, 1, [x, y, w, h], segmentation={"size": [32, 48], "counts": rle["counts"].decode()}),
    ]
    source = put(tmp_path / "in", {"instances.json": coco([entry(1, "a.png", 48, 32)], said), "a.png": data})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert summary.failures == {}
    shown = decode(data)[:, :, 0] > 0
    for row in labels(tmp_path / "out"):
        x0, y0, x1, y1 = (int(v) for v in row["box"])
        assert shown[y0:y1, x0:x1].all() and shown.sum() == (y1 - y0) * (x1 - x0) == 120
        if row["mask"]:
            assert np.array_equal(coco_mask.decode(row["mask"]) > 0, shown)


def test_labels_of_a_larger_original_are_scaled_and_those_of_another_shape_refused(tmp_path: Path) -> None:
    files = {
        "instances.json": coco(
            [entry(1, "half.png", 48, 32), entry(2, "other.png", 100, 10)],
            [
                box(1, 1, [10, 8, 20, 12]),
                box(2, 2, [1, 1, 5, 5]),
                {"id": 3, "image_id": 2, "caption": "stays"},
            ],
        ),
        "half.png": png(1, 24, 16),
        "other.png": png(2, 24, 16),
    }
    summary = ingest(str(put(tmp_path / "in", dict(files))), str(tmp_path / "out"))
    scaled, caption = labels(tmp_path / "out")
    assert scaled["box"] == [5, 4, 15, 10] and caption["text"] == "stays"
    assert summary.failures == {"bad_annotation": 1}


def test_a_broken_json_is_said_with_its_place(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"instances.json": coco([entry(1, "a.jpg")], [])[:-30], "a.jpg": jpeg(1)})
    with pytest.raises(SourceError, match=r"instances\.json is not the JSON it should be"):
        ingest(str(source), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_json_that_is_something_else_is_not_taken_for_coco(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"00000_stats.json": '{"count": 3, "images": 3}', "a.jpg": jpeg(1)})
    assert ingest(str(source), str(tmp_path / "out")).format == "folder"


def test_a_new_image_of_the_folder_is_noticed(tmp_path: Path) -> None:
    from data_engine.errors import DatasetError

    said = coco([entry(1, "a.jpg"), entry(2, "b.jpg")], [])
    source = put(tmp_path / "in", {"instances.json": said, "a.jpg": jpeg(1)})
    ingest(str(source), str(tmp_path / "out"))
    assert ingest(str(source), str(tmp_path / "out")).already
    put(source, {"b.jpg": jpeg(2)})
    with pytest.raises(DatasetError, match="has changed"):
        ingest(str(source), str(tmp_path / "out"))


def test_the_real_photos_have_every_label_of_their_files(shared: Path, tmp_path: Path) -> None:
    photos = shared / "data" / "photos"
    instances = json.loads((photos / "instances.json").read_text())
    captions = json.loads((photos / "captions.json").read_text())
    summary = ingest(str(photos), str(tmp_path / "out"), shard_size=30)
    assert (summary.images, summary.keys, summary.shards, summary.failures) == (87, 87, 3, {})
    found = labels(tmp_path / "out")
    kinds = Counter("mask" if row["mask"] else row["granularity"] for row in found)
    single = [a for a in instances["annotations"] if not a["iscrowd"]]
    assert kinds["phrase"] == len(single) == 783
    assert kinds["brief"] == len(captions["annotations"]) == 435
    assert kinds["mask"] == sum(bool(a.get("segmentation")) for a in single)
    assert summary.left_out == {"crowd regions": 7}

    names = {c["id"]: c["name"] for c in instances["categories"]}
    keys = {i["id"]: i["file_name"] for i in instances["images"]}
    ids = {key: row["image_id"] for key, row in by_key(tmp_path / "out").items()}
    expected = Counter((ids[keys[a["image_id"]]], names[a["category_id"]]) for a in single)
    assert Counter((r["image_id"], r["text"]) for r in found if r["granularity"] == "phrase") == expected

    # COCO's own boxes are drawn around its polygons, so each mask must fill the box of its region.
    parents = {row["annotation_id"]: row for row in found}
    sizes = {row["image_id"]: [row["height"], row["width"]] for row in images(tmp_path / "out")}
    overlaps = []
    for row in found:
        if row["mask"]:
            assert row["mask"]["size"] == sizes[row["image_id"]]
            x0, y0, x1, y1 = parents[row["parent_id"]]["box"]
            around = coco_mask.toBbox(row["mask"])
            overlaps.append(coco_mask.iou([around], [[x0, y0, x1 - x0, y1 - y0]], [0])[0][0])
    assert min(overlaps) > 0.5 and np.median(overlaps) > 0.95
