"""Masks by GrabCut, on drawn scenes and photos whose masks are known, and on boxes that give it nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image, decode
from data_engine.scenes.scene import UNSEEN_SEED, make_scene
from filters.score import MinimumScore
from specialists.mask_encoding import encode_at
from tests.outlined import decoded

cv2 = pytest.importorskip("cv2")

from specialists.grabcut import GrabCut  # noqa: E402 - needs OpenCV to be of use

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Box = tuple[float, float, float, float]


def said(*by_image: tuple[Image, list[Annotation]]):
    rows = AnnotationRows("others")
    for image, statements in by_image:
        assert rows.add(image.image_id, statements) == []
    return rows.table()


def regions(image: Image, boxes: list[Box]):
    return said(
        (image, [Annotation("region", f"thing {i}", "phrase", box=box) for i, box in enumerate(boxes)])
    )


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def disc(width: int = 120, height: int = 90) -> tuple[Image, np.ndarray, Box]:
    """A red disc on green, with some grain; its mask and its box."""
    y, x = np.mgrid[:height, :width]
    truth = (x - 60) ** 2 + (y - 40) ** 2 <= 20**2
    pixels = np.where(truth[..., None], (200, 30, 30), (40, 160, 60)).astype(np.uint8)
    pixels += np.random.default_rng(0).integers(0, 20, pixels.shape, np.uint8)
    return Image("d" * 32, pixels), truth, (40, 20, 81, 61)


def quality(
    made: list[tuple[Image, list[tuple[Box, np.ndarray]]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each mask's IoU with truth, its score, and the IoU of the plain box, prompted by truth's boxes."""
    overlaps, scores, plain = [], [], []
    for image, things in made:
        rows = GrabCut()([image], regions(image, [box for box, _ in things]))[0]
        for row, (box, truth) in zip(rows, things, strict=True):
            overlaps.append(iou(decoded(row), truth))
            scores.append(row.score)
            x0, y0, x1, y1 = (max(0, round(v)) for v in box)
            filled = np.zeros_like(truth)
            filled[y0:y1, x0:x1] = True
            plain.append(iou(filled, truth))
    return np.array(overlaps), np.array(scores), np.array(plain)


def test_masks_of_unseen_scenes_have_truths_outlines() -> None:
    made = []
    for index in range(15):
        scene = make_scene(UNSEEN_SEED, index)
        masks = [a for a in scene.annotations if a.kind == "region" and a.mask is not None]
        image = Image(f"{index:032x}", decode(scene.jpeg()))
        made.append((image, [(tuple(a.box), decoded(a)) for a in masks]))
    overlaps, _, plain = quality(made)
    print(f"mean IoU {overlaps.mean():.3f} of {len(overlaps)} masks, {plain.mean():.3f} of their boxes")
    assert overlaps.mean() > 0.85 and plain.mean() < 0.7


def test_on_photos_the_score_tells_the_better_masks(shared: Path) -> None:
    photos = shared / "data" / "photos"
    truth = json.loads((photos / "instances.json").read_text())
    outlined = {a["image_id"] for a in truth["annotations"] if a.get("segmentation") and not a["iscrowd"]}
    made = []
    for entry in [entry for entry in truth["images"] if entry["id"] in outlined][:12]:
        image = Image(f"{entry['id']:032x}", decode((photos / "images" / entry["file_name"]).read_bytes()))
        things = []
        for a in truth["annotations"]:
            if a["image_id"] == entry["id"] and a.get("segmentation") and not a["iscrowd"]:
                parts = coco_mask.frPyObjects(a["segmentation"], image.height, image.width)
                x, y, w, h = a["bbox"]
                things.append(((x, y, x + w, y + h), coco_mask.decode(coco_mask.merge(parts)).astype(bool)))
        made.append((image, things))
    overlaps, scores, plain = quality(made)
    print(f"mean IoU {overlaps.mean():.3f} of {len(overlaps)} masks, {plain.mean():.3f} of their boxes")
    print(f"{overlaps[scores > 0].mean():.3f} of the {(scores > 0).sum()} that are no guess")
    assert overlaps.mean() > plain.mean()
    assert overlaps[scores > 0].mean() > overlaps[scores == 0].mean() + 0.05


def test_a_mask_is_that_of_the_thing_and_hangs_on_the_statement() -> None:
    image, truth, box = disc()
    table = regions(image, [box])
    (row,) = GrabCut()([image], table)[0]
    assert iou(decoded(row), truth) > 0.95
    assert (row.kind, row.text, row.granularity) == ("region", None, None)
    assert row.parent == table["annotation_id"][0].as_py()
    assert row.mask["size"] == [90, 120] and row.score > 0.9
    columns, lines = np.flatnonzero(decoded(row).any(0)), np.flatnonzero(decoded(row).any(1))
    assert row.box == (columns[0], lines[0], columns[-1] + 1, lines[-1] + 1)
    assert AnnotationRows("grabcut").add(image.image_id, [row]) == []


def test_phrases_and_regions_get_masks_but_not_lines_of_text_nor_a_regions_further_texts() -> None:
    image, _, box = disc()
    text = Annotation("text", "a red disc", "brief")
    region = Annotation("region", "disc", "phrase", box=box)
    table = said(
        (
            image,
            [
                text,
                Annotation("phrase", "a red disc", parent=text, span=(0, 10), box=box),
                region,
                Annotation("region", "a disc that is red", "brief", region, box=box),
                Annotation("region", parent=region, box=box, mask={"size": [90, 120], "counts": "0i0"}),
                Annotation("region", "RED", "ocr", box=box, quad=(40, 20, 81, 20, 81, 61, 40, 61)),
                Annotation("region", None, "proposal", box=(30, 10, 90, 70)),
                Annotation("phrase", parent=text, score=0.5),
            ],
        )
    )
    ids = table["annotation_id"].to_pylist()
    made = GrabCut()([image], table)[0]
    assert [(row.kind, row.parent) for row in made] == [
        ("phrase", ids[1]),
        ("region", ids[2]),
        ("region", ids[6]),
    ]
    assert made[0].mask == made[1].mask
    assert GrabCut(sources=["nobody"])([image], table) == [[]]


def test_an_images_masks_depend_neither_on_its_neighbours_nor_on_what_was_cut_before() -> None:
    scenes = [make_scene(UNSEEN_SEED, index) for index in (3, 4)]
    images = [Image(f"{i:032x}", scene.pixels) for i, scene in enumerate(scenes)]
    boxes = [[a.box for a in scene.annotations if a.mask and a.kind == "region"] for scene in scenes]
    tables = [regions(image, list(some)) for image, some in zip(images, boxes, strict=True)]
    both = said(
        *(
            (image, [Annotation("region", f"thing {i}", "phrase", box=box) for i, box in enumerate(some)])
            for image, some in zip(images, boxes, strict=True)
        )
    )
    grabcut = GrabCut()
    together = grabcut(images, both)
    cv2.setRNGSeed(99)
    alone = [grabcut([image], table)[0] for image, table in zip(images, tables, strict=True)]
    backwards = grabcut(images[::-1], both)[::-1]
    for other in (alone, backwards):
        assert [[r.mask for r in rows] for rows in other] == [[r.mask for r in rows] for rows in together]


@pytest.mark.parametrize(
    "box",
    [(0, 0, 120, 90), (-40, -10, 500, 300), (50, 30, 53, 60), (10, 10, 10.2, 10.2), (118.6, 0, 119.2, 90)],
    ids=["whole image", "beyond it", "thin", "less than a pixel", "at the edge"],
)
def test_a_box_that_shows_nothing_to_learn_from_gives_its_ellipse_as_a_guess(box: Box) -> None:
    image, _, _ = disc()
    (row,) = GrabCut()([image], regions(image, [box]))[0]
    x0, y0, x1, y1 = row.box
    share = decoded(row).sum() / ((x1 - x0) * (y1 - y0))
    assert row.score == 0.0 and 0.75 < share <= 1
    assert 0 <= x0 <= max(box[0], 0) + 1 and min(box[2], 120) - 1 <= x1 <= 120
    filtered = said((image, [row]))
    assert MinimumScore(0.1)(filtered).to_pylist() == [False]


def test_a_picture_of_one_colour_gives_a_guess_and_a_box_beside_the_picture_nothing() -> None:
    grey = Image("e" * 32, np.full((60, 80, 3), 128, np.uint8))
    made = GrabCut()([grey], regions(grey, [(20, 20, 50, 50), (80, 10, 90, 20), (5, -9, 20, 0)]))[0]
    assert len(made) == 1 and decoded(made[0]).any()


def test_a_large_image_is_cut_small_and_its_mask_has_its_own_size() -> None:
    image, truth, box = disc()
    large = Image("f" * 32, cv2.resize(image.pixels, (2400, 1800), interpolation=cv2.INTER_CUBIC))
    (row,) = GrabCut()([large], regions(large, [tuple(20 * v for v in box)]))[0]
    enlarged = truth.repeat(20, axis=0).repeat(20, axis=1)
    assert row.mask["size"] == [1800, 2400] and iou(decoded(row), enlarged) > 0.93


@given(st.data())
@settings(deadline=None)
def test_run_lengths_of_a_part_are_those_of_the_whole_image(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    shape = (data.draw(st.integers(1, height - y0)), data.draw(st.integers(1, width - x0)))
    part = data.draw(arrays(bool, shape))
    whole = np.zeros((height, width), np.uint8, order="F")
    whole[y0 : y0 + shape[0], x0 : x0 + shape[1]] = part
    found = encode_at(part, (x0, y0), (width, height))
    expected = coco_mask.encode(whole)
    if not part.any():
        assert found is None
    else:
        assert found == {"size": [height, width], "counts": expected["counts"].decode()}


@given(st.lists(st.tuples(*(st.floats(-40, 160, width=32) for _ in range(4))), min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_a_mask_lies_in_its_box_rounded_to_pixels(corners: list[Box]) -> None:
    image, _, _ = disc()
    boxes = [(min(a, c), min(b, d), max(a, c) + 0.5, max(b, d) + 0.5) for a, b, c, d in corners]
    table = regions(image, boxes)
    prompts = dict(zip(table["annotation_id"].to_pylist(), table["box"].to_pylist(), strict=True))
    for row in GrabCut()([image], table)[0]:
        x0, y0, x1, y1 = prompts[row.parent]
        columns, lines = np.flatnonzero(decoded(row).any(0)), np.flatnonzero(decoded(row).any(1))
        # A box of less than a pixel gives the pixel that it lies in.
        assert x0 - 1 <= columns[0] and columns[-1] + 1 <= max(x1 + 0.5, 1) + 1
        assert y0 - 1 <= lines[0] and lines[-1] + 1 <= max(y1 + 0.5, 1) + 1
        assert 0 <= row.score <= 1


def test_what_cannot_be_is_refused() -> None:
    image, _, _ = disc()
    with pytest.raises(SpecialistError, match="given none"):
        GrabCut()([image], None)
    for args in ({"context": 0.0}, {"iterations": 0}, {"max_pixels": 10}, {"context": float("nan")}):
        with pytest.raises(RecipeError, match="must be"):
            GrabCut(**args)
