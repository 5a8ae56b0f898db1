"""A taught toy model mends captions: words that it doubts are exchanged, all others stay."""

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


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(overfitted(tmp_path_factory.getbasetemp() / "florence2_overfitted"))


@pytest.fixture(scope="module")
def mend(taught: str) -> Mended:
    return Mended(taught, ["noisy"], max_prompts_per_batch=4)


IMAGES = [Image(f"image-{i}", pixels) for i, pixels in enumerate(pictures())]


def table(*texts: str, granularity: str = "brief", image: int = 0, source: str = "noisy") -> pa.Table:
    made = AnnotationRows(source)
    rows = [Annotation("text", text, granularity) for text in texts]
    assert made.add(IMAGES[image].image_id, rows) == []
    return made.table()


def mended(mend: Mended, text: str, granularity: str = "brief", image: int = 0) -> str | None:
    """The text that the model makes of one, None where it leaves it."""
    (found,) = mend([IMAGES[image]], table(text, granularity=granularity, image=image))
    assert all(row.kind == "text" and row.granularity == granularity for row in found)
    assert all(row.score is not None and 0 <= row.score <= 1 for row in found)
    return found[0].text if found else None


def test_a_wrong_word_is_exchanged_and_a_right_text_has_no_row(mend: Mended) -> None:
    assert mended(mend, "a blue square on a green field") == BRIEF[0]
    assert mended(mend, "a red square on a blue field") == BRIEF[0]
    assert mended(mend, BRIEF[0]) is None
    assert mended(mend, "a red ball near a dog", image=1) == BRIEF[1]
    assert mended(mend, "The square is blue. The field is green.", "more_detailed") == (
        "The square is red. The field is green."
    )


def test_two_words_are_exchanged_one_after_the_other_up_to_the_limit(taught: str, mend: Mended) -> None:
    twice = "a blue square on a red field"
    assert mended(mend, twice) == BRIEF[0]
    once = Mended(taught, ["noisy"], exchanges=1)
    found = mended(once, twice)
    assert found in ("a red square on a red field", "a blue square on a green field", None)


def test_what_stands_in_quotation_marks_is_not_touched(mend: Mended) -> None:
    found = mended(mend, 'a "blue" square on a green field')
    assert found is None or '"blue"' in found


def test_an_article_goes_with_its_word(mend: Mended) -> None:
    assert mended(mend, "an orange square on a green field") == BRIEF[0]


def test_many_images_are_answered_as_one_alone_is(mend: Mended) -> None:
    wrong = ["a blue square on a green field", "a red square on a blue field"]
    both = pa.concat_tables([table(*wrong), table("a red ball near a dog", image=1)])
    found = mend(IMAGES, both)
    assert [row.text for row in found[0]] == [BRIEF[0], BRIEF[0]]
    assert [row.text for row in found[1]] == [BRIEF[1]]


def test_other_sources_kinds_and_granularities_are_left_alone(taught: str, mend: Mended) -> None:
    assert mend([IMAGES[0]], table("a blue square on a green field", source="other")) == [[]]
    assert mended(mend, "a blue square on a green field", "ocr") is None
    brief = Mended(taught, ["noisy"], tasks=["CAPTION"])
    assert mended(brief, "The square is blue. The field is green.", "more_detailed") is None


words = st.text(string.ascii_lowercase + " .,'\"<>éß\n", max_size=40)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words)
def test_any_text_is_answered_with_one_as_likely_or_none(mend: Mended, text: str) -> None:
    found = mended(mend, text)
    assert found is None or found.strip()


def test_unusable_arguments_are_refused(taught: str) -> None:
    with pytest.raises(RecipeError, match="writes no caption"):
        Mended(taught, ["noisy"], tasks=["OD"])
    with pytest.raises(RecipeError, match="list of sources"):
        Mended(taught, [])
    with pytest.raises(RecipeError, match="below"):
        Mended(taught, ["noisy"], below=1.0)
    with pytest.raises(RecipeError, match="at least 1"):
        Mended(taught, ["noisy"], exchanges=0)
    with pytest.raises(SpecialistError, match="no texts to mend"):
        Mended(taught, ["noisy"])([IMAGES[0]], None)


def test_the_recipe_reader_knows_it() -> None:
    use = "specialists.florence2.mending:Mended"
    assert code_version(use) == str(VERSION) or str(VERSION) in code_version(use)
    found = signature(use)
    assert found is not None and "sources" in found.required
