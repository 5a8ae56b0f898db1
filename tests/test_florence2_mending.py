"""A taught toy model mends captions: words that what it sees contradicts are exchanged, all others stay."""

from __future__ import annotations

import string

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.entry_point import code_version, signature
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.florence2.mending import VERSION, Mended
from tests.toy_florence2 import BRIEF, overfitted, pictures

SQUARE = (8.0, 12.0, 40.0, 36.0)
"""The place that the toy model was taught to describe: "a red square"."""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(overfitted(tmp_path_factory.getbasetemp() / "florence2_overfitted"))


@pytest.fixture(scope="module")
def mend(taught: str) -> Mended:
    return Mended(taught, ["noisy"], max_prompts_per_batch=4)


IMAGES = [Image(f"image-{i}", pixels) for i, pixels in enumerate(pictures())]


def rows(*texts: str, granularity: str = "brief", link: str | None = None) -> list[Annotation]:
    """A region at the square's place, and texts; `link` is a phrase of the first that points there."""
    told = [Annotation("text", text, granularity) for text in texts]
    region = Annotation("region", "square", "phrase", box=SQUARE)
    if link is None:
        return [region, *told]
    start = texts[0].index(link)
    phrase = Annotation("phrase", link, parent=told[0], span=(start, start + len(link)), box=SQUARE)
    return [region, *told, phrase]


def table(made: list[Annotation], image: int = 0, source: str = "noisy") -> pa.Table:
    store = AnnotationRows(source)
    assert store.add(IMAGES[image].image_id, made) == []
    return store.table()


def mended(mend: Mended, text: str, granularity: str = "brief", link: str | None = None) -> str | None:
    """The text that the model makes of one, None where it leaves it."""
    (found,) = mend([IMAGES[0]], table(rows(text, granularity=granularity, link=link)))
    assert all(row.kind == "text" and row.granularity == granularity for row in found)
    assert all(row.score is not None and 0.5 < row.score <= 1 for row in found)
    return found[0].text if found else None


def test_a_wrong_word_is_exchanged_and_a_right_text_has_no_row(mend: Mended) -> None:
    assert mended(mend, "a blue square on a green field") == BRIEF[0]
    assert mended(mend, "a blue square on a green field", link="a blue square") == BRIEF[0]
    assert mended(mend, BRIEF[0]) is None
    assert mended(mend, BRIEF[0], link="a red square") is None


def test_only_what_is_seen_is_held_against_a_text(mend: Mended) -> None:
    """Nobody has boxed a field, so nothing is known of it."""
    assert mended(mend, "a red square on a blue field") is None


def test_what_stands_in_quotation_marks_is_not_touched(mend: Mended) -> None:
    assert mended(mend, 'a "blue square" on a green field') is None
    assert mended(mend, 'a "blue" square on a green field') is None


def test_an_article_goes_with_its_word(mend: Mended) -> None:
    assert mended(mend, "an orange square on a green field") == BRIEF[0]


def test_many_images_are_answered_as_one_alone_is(mend: Mended) -> None:
    wrong = ["a blue square on a green field", "an orange square on a green field"]
    other = [Annotation("text", "a red ball near a dog", "brief")]
    found = mend(IMAGES, pa.concat_tables([table(rows(*wrong)), table(other, image=1)]))
    assert [row.text for row in found[0]] == [BRIEF[0], BRIEF[0]]
    assert found[1] == []


def test_less_gain_is_asked_for_more_exchanges(taught: str) -> None:
    strict = Mended(taught, ["noisy"], gain=1e30)
    assert mended(strict, "a blue square on a green field") is None


def test_other_sources_kinds_and_granularities_are_left_alone(taught: str, mend: Mended) -> None:
    wrong = rows("a blue square on a green field")
    assert mend([IMAGES[0]], table(wrong, source="other")) == [[]]
    assert mended(mend, "a blue square on a green field", "ocr") is None
    detailed = Mended(taught, ["noisy"], tasks=["DETAILED_CAPTION"])
    assert mended(detailed, "a blue square on a green field") is None


def test_without_boxes_nothing_is_asked(mend: Mended) -> None:
    assert mend([IMAGES[0]], table([Annotation("text", "a blue square", "brief")])) == [[]]


words = st.text(string.ascii_lowercase + " .,'\"<>éß\n", max_size=30)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words, words)
def test_any_text_is_answered_with_one_that_differs_or_none(mend: Mended, before: str, after: str) -> None:
    text = f"{before} square {after}"
    found = mended(mend, text)
    assert found is None or (found.strip() and found != " ".join(text.replace("<", " ").split()))


def test_unusable_arguments_are_refused(taught: str) -> None:
    with pytest.raises(RecipeError, match="writes no caption"):
        Mended(taught, ["noisy"], tasks=["OD"])
    with pytest.raises(RecipeError, match="list of sources"):
        Mended(taught, [])
    with pytest.raises(RecipeError, match="gain"):
        Mended(taught, ["noisy"], gain=0.5)
    with pytest.raises(SpecialistError, match="no texts to mend"):
        Mended(taught, ["noisy"])([IMAGES[0]], None)


def test_the_recipe_reader_knows_it() -> None:
    use = "specialists.florence2.mending:Mended"
    assert str(VERSION) in code_version(use)
    found = signature(use)
    assert found is not None and "sources" in found.required
