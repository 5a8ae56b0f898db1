"""A taught toy model names what phrases point at; what it names otherwise is no region."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.florence2.pointing import Pointed
from tests.toy_florence2 import overfitted, pictures

SQUARE = (8.0, 12.0, 40.0, 36.0)
"""The place that the toy model was taught to call a square, and to describe as "a red square"."""

ASTRAY = (24.0, 24.0, 60.0, 50.0)
"""A place that overlaps it a little."""

IMAGES = [Image(f"image-{i}", pixels) for i, pixels in enumerate(pictures())]


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Pointed:
    taught = str(overfitted(tmp_path_factory.getbasetemp() / "florence2_overfitted"))
    return Pointed(taught, ["noisy"], max_prompts_per_batch=4)


def table(*phrases: tuple[str, tuple[float, ...]], source: str = "noisy") -> pa.Table:
    made: list[Annotation] = []
    for words, box in phrases:
        text = Annotation("text", words, "brief")
        made += [text, Annotation("phrase", words, parent=text, span=(0, len(words)), box=box)]
    store = AnnotationRows(source)
    assert store.add(IMAGES[0].image_id, made) == []
    return store.table()


def test_a_place_whose_name_a_phrase_confirms_is_a_region_with_its_description(point: Pointed) -> None:
    (found,) = point([IMAGES[0]], table(("the blue square", SQUARE)))
    region, description = found  # no phrase: what it sees is red
    assert (region.kind, region.granularity, region.text) == ("region", "phrase", "square")
    assert region.parent is None and tuple(region.box or ()) == SQUARE
    assert (description.granularity, description.text) == ("brief", "a red square")
    assert description.parent is region
    assert all(0 < (row.score or 0) <= 1 for row in found)


def test_phrases_are_where_what_they_say_is_seen(point: Pointed) -> None:
    """Also one that nobody linked, and one that is linked to another place."""
    linked = "a red square"
    said = table((linked, SQUARE), ("one square", SQUARE), ("the red square", ASTRAY))
    store = AnnotationRows("noisy")
    assert store.add(IMAGES[0].image_id, [Annotation("text", "It is a red square.", "detailed")]) == []
    (found,) = point([IMAGES[0]], pa.concat_tables([said, store.table()]))
    phrases = [
        (row.text, tuple(row.span or ()), tuple(row.box or ())) for row in found if row.kind == "phrase"
    ]
    assert sorted(phrases) == [
        ("a red square", (0, 12), SQUARE),
        ("a red square", (6, 18), SQUARE),
        ("one square", (0, 10), SQUARE),
        ("the red square", (0, 14), SQUARE),
    ]


def test_a_phrase_that_names_something_else_makes_no_region(point: Pointed) -> None:
    assert point([IMAGES[0]], table(("a red ball", SQUARE))) == [[]]


def test_phrases_about_one_thing_are_one_place_and_a_box_close_by_is_left_out(point: Pointed) -> None:
    moved = tuple(value + 1 for value in SQUARE)
    said = table(("a square", SQUARE), ("two squares", SQUARE), ("the square", moved), ("a square", ASTRAY))
    (found,) = point([IMAGES[0]], said)
    assert [tuple(row.box or ()) for row in found if row.parent is None] == [SQUARE]


def test_images_without_phrases_have_no_rows(point: Pointed) -> None:
    assert point(IMAGES, table(("a square", SQUARE), source="other")) == [[], []]
    found = point(IMAGES, table(("a square", SQUARE)))
    assert found[0] and not found[1]


def test_unusable_arguments_are_refused(point: Pointed) -> None:
    with pytest.raises(RecipeError, match="list of sources"):
        Pointed("nowhere", [])
    with pytest.raises(RecipeError, match="at least 1"):
        Pointed("nowhere", ["noisy"], max_prompts_per_batch=0)
    with pytest.raises(SpecialistError, match="no phrases"):
        point([IMAGES[0]], None)
