"""OWL on the phrases of texts, on toy checkpoints; the reference is the library, one image at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.entry_point import code_version, signature
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.schema import ANNOTATIONS
from pipelines.annotate import annotate
from specialists import owl_grounding
from specialists.noun_phrases import noun_phrases
from specialists.owl_grounding import OwlGrounding
from tests import toy_owl
from tests.test_owl import counted, inside
from tests.toy_sources import write_pictures

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("spacy")

TEXT = "A red ball lies near the old dog in St. Louis."
PHRASES = ["A red ball", "the old dog", "St. Louis"]
IMAGES = toy_owl.pictures()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def owlv2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_owl.owlv2(tmp_path_factory.mktemp("toys") / "owlv2"))


@pytest.fixture(scope="module")
def owlvit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_owl.owlvit(tmp_path_factory.mktemp("toys") / "owlvit"))


@pytest.fixture(scope="module")
def everything(owlv2: str) -> OwlGrounding:
    return OwlGrounding(owlv2, threshold=0, max_boxes_per_phrase=1000, max_images=2, device="cpu")


def said(*texts: tuple[str, str, str], source: str = "captions") -> pa.Table:
    rows = AnnotationRows(source)
    for image_id, text, granularity in texts:
        assert rows.add(image_id, [Annotation("text", text, granularity)]) == []
    return rows.table()


def facts(rows: list[Annotation]) -> list[tuple[Any, ...]]:
    return [(r.text, r.span, r.parent) for r in rows]


def test_one_row_per_phrase_and_box_hanging_on_its_text_whatever_its_granularity(
    everything: OwlGrounding,
) -> None:
    longer = "Two men with a green hat walk in the street. A horse is near them, and a small cat."
    table = said(
        ("image-0", TEXT, "brief"),
        ("image-0", longer, "more_detailed"),
        ("image-2", "a man in a hat", "detailed"),
        ("image-2", "a dog", "class"),
    )
    texts = dict(zip(table["annotation_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    made = everything(IMAGES, table)
    assert [bool(rows) for rows in made] == [True, False, True, False, False]
    for image, rows in zip(IMAGES, made, strict=True):
        for row in rows:
            assert (row.kind, row.granularity) == ("phrase", None)
            assert isinstance(row.parent, str) and row.span is not None
            assert texts[row.parent][row.span[0] : row.span[1]] == row.text
        stored = AnnotationRows("owl")
        assert stored.add(image.image_id, rows, (image.width, image.height)) == []
    for text in (TEXT, longer):
        hanging = [r for r in made[0] if texts[str(r.parent)] == text]
        spans = list(dict.fromkeys((r.text, *(r.span or ())) for r in hanging))
        assert spans == noun_phrases([text])[0]
        for phrase, start, _ in spans:
            scores = [r.score for r in hanging if (r.text, r.span and r.span[0]) == (phrase, start)]
            assert scores == sorted(scores, reverse=True) and len(scores) > 1
    assert {r.text for r in made[2]} == {"a man", "a hat"}


@pytest.mark.parametrize("kind", ["owlv2", "owlvit"])
def test_boxes_and_scores_of_each_phrase_are_the_librarys(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    threshold = 0.4
    model = OwlGrounding(folder, threshold=threshold, max_boxes_per_phrase=1000, max_images=3)
    made = model(IMAGES, said(*((image.image_id, TEXT, "brief") for image in IMAGES)))
    lengths = set()
    for image, rows in zip(IMAGES, made, strict=True):
        for phrase in PHRASES:
            processor, output, size = toy_owl.library(folder, image, [phrase])
            (found,) = processor.post_process_grounded_object_detection(
                output, threshold=threshold, target_sizes=[size]
            )
            wanted = [
                (score, inside(box, image))
                for score, box in zip(found["scores"].tolist(), found["boxes"].tolist(), strict=True)
            ]
            wanted = sorted((one for one in wanted if one[1] is not None), key=lambda one: -one[0])
            ours = [r for r in rows if r.text == phrase]
            assert [r.score for r in ours] == pytest.approx([score for score, _ in wanted], abs=1e-5)
            for row, (_, box) in zip(ours, wanted, strict=True):
                assert row.box == pytest.approx(box, abs=1e-2)
            lengths.add(len(ours))
    assert len(lengths) > 2 and max(lengths) > 2, "or the comparison would prove little"


def test_an_image_is_encoded_once_and_a_phrase_once_however_many_texts_there_are(owlv2: str) -> None:
    model = OwlGrounding(owlv2, threshold=0, max_images=2)
    seen = counted(model.model)
    table = said(
        ("image-0", TEXT, "brief"),
        ("image-0", "the old dog", "detailed"),
        ("image-0", "a hat near the old dog. a hat.", "more_detailed"),
        ("image-1", "They wait.", "brief"),
        ("image-2", "the old dog and a man", "brief"),
        ("image-3", "a hat", "brief"),
    )
    model(IMAGES, table)
    assert seen == {"images": 3, "image_passes": 2, "texts": 5, "text_passes": 1}


def test_many_phrases_are_compared_in_parts_that_change_nothing(
    everything: OwlGrounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = said(*((image.image_id, TEXT, "brief") for image in IMAGES))
    whole = everything(IMAGES, table)
    monkeypatch.setattr(owl_grounding, "_QUERIES_AT_ONCE", 2)
    for one, other in zip(everything(IMAGES, table), whole, strict=True):
        assert facts(one) == facts(other)
        assert [r.score for r in one] == pytest.approx([r.score for r in other], abs=1e-6)


def test_an_image_says_the_same_in_any_company(everything: OwlGrounding) -> None:
    table = said(
        ("image-0", TEXT, "brief"),
        ("image-1", "three small cats and a man with a green hat on the old street near the horse", "brief"),
        ("image-1", "a dog", "detailed"),
        ("image-2", "the old man", "brief"),
        ("image-4", "St. Louis and a dog", "brief"),
    )
    together = everything(IMAGES, table)
    for image, rows in zip(IMAGES, together, strict=True):
        (alone,) = everything([image], table)
        assert facts(alone) == facts(rows)
        assert [r.score for r in alone] == pytest.approx([r.score for r in rows], abs=1e-5)
        for one, other in zip(alone, rows, strict=True):
            assert one.box == pytest.approx(other.box, abs=1e-3)
    again = everything(IMAGES, table)
    assert [[(r.box, r.score) for r in rows] for rows in again] == [
        [(r.box, r.score) for r in rows] for rows in together
    ]


def test_a_phrases_boxes_do_not_depend_on_the_text_around_it(everything: OwlGrounding) -> None:
    alone, among = said(("image-0", "the old dog", "brief")), said(("image-0", TEXT, "brief"))
    one, other = (
        [r for r in everything(IMAGES[:1], t)[0] if r.text == "the old dog"] for t in (alone, among)
    )
    assert [r.score for r in one] == pytest.approx([r.score for r in other], abs=1e-6)
    assert len(one) > 2 and {r.span for r in one} != {r.span for r in other}


def test_a_wording_said_twice_is_answered_for_both(everything: OwlGrounding) -> None:
    table = said(("image-0", "a dog", "brief"), ("image-0", "a dog", "detailed"))
    rows = everything(IMAGES[:1], table)[0]
    one, other = (
        [(r.box, r.score) for r in rows if r.parent == i] for i in table["annotation_id"].to_pylist()
    )
    assert one == other != []


def test_the_threshold_and_the_number_of_boxes_bound_what_is_said(
    owlv2: str, everything: OwlGrounding
) -> None:
    table = said(("image-0", TEXT, "brief"))
    whole = everything(IMAGES[:1], table)[0]
    few = OwlGrounding(owlv2, threshold=0, max_boxes_per_phrase=3)(IMAGES[:1], table)[0]
    for phrase in PHRASES:
        scores = [r.score for r in whole if r.text == phrase]
        assert [r.score for r in few if r.text == phrase] == scores[:3]
    middle = sorted(r.score for r in whole)[len(whole) // 2]
    strict = OwlGrounding(owlv2, threshold=middle, max_boxes_per_phrase=1000)(IMAGES[:1], table)[0]
    assert [r.score for r in strict] == [r.score for r in whole if r.score > middle] != []
    assert OwlGrounding(owlv2, threshold=1)(IMAGES[:1], table) == [[]]


def test_a_text_of_any_length_is_grounded_to_its_last_sentence(everything: OwlGrounding) -> None:
    text = "A red dog sleeps near the old street. " * 300 + "A green horse is near the man."
    assert len(text) > 10_000
    (rows,) = everything(IMAGES[:1], said(("image-0", text, "more_detailed")))
    assert {r.span for r in rows if r.text == "the man"} == {(len(text) - 8, len(text) - 1)}
    assert len({r.span for r in rows if r.text == "A red dog"}) == 300


def test_phrases_too_long_to_read_are_asked_by_their_end(everything: OwlGrounding) -> None:
    """Letters are tokens of their own in the toy: 40 before the dog, of which 13 are read."""
    long, short = "the " + "x" * 40 + " dog", "x" * 13 + " dog"
    rows = everything(
        IMAGES[:1], said(("image-0", f"I see {long}.", "brief"), ("image-0", f"I see {short}.", "detailed"))
    )[0]
    one, other = ([r.score for r in rows if r.text == phrase] for phrase in (long, short))
    assert one and one == pytest.approx(other, abs=1e-6)


def test_phrases_that_only_spell_special_tokens_are_not_asked(
    everything: OwlGrounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "<|endoftext|> and a dog"
    phrases = [("<|endoftext|>", 0, 13), ("a dog", 18, 23)]
    monkeypatch.setattr("specialists.phrase_texts.noun_phrases", lambda texts: [phrases for _ in texts])
    (rows,) = everything(IMAGES[:1], said(("image-0", text, "brief")))
    assert {r.text for r in rows} == {"a dog"}
    monkeypatch.setattr("specialists.phrase_texts.noun_phrases", lambda texts: [phrases[:1] for _ in texts])
    seen = counted(everything.model)
    assert everything(IMAGES[:1], said(("image-0", text, "brief"))) == [[]] and not seen


def test_nothing_to_ground_is_no_error(everything: OwlGrounding) -> None:
    table = said(("image-0", "They wait.", "brief"), ("image-1", "", "brief"), ("image-2", "a dog", "ocr"))
    assert everything(IMAGES, table) == [[]] * 5
    assert everything(IMAGES, ANNOTATIONS.empty_table()) == [[]] * 5
    assert everything([], ANNOTATIONS.empty_table()) == []
    with pytest.raises(SpecialistError, match="texts") as caught:
        everything(IMAGES, None)
    assert "needs" in caught.value.hint


def test_sources_narrow_what_is_grounded(owlv2: str) -> None:
    table = pa.concat_tables(
        [said(("image-0", "a dog", "brief"), source=s) for s in ("alt_text", "captions")]
    )
    model = OwlGrounding(owlv2, threshold=0, sources=["captions"])
    assert {r.parent for r in model(IMAGES[:1], table)[0]} == {table["annotation_id"][1].as_py()}


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.5}, {"threshold": -1}, {"max_boxes_per_phrase": 0}, {"max_images": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        OwlGrounding("/nowhere", **wrong)


def test_what_is_no_owl_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "grounding-dino"}')
    with pytest.raises(ModelLoadError, match="'grounding-dino', not of OWLv2") as caught:
        OwlGrounding(str(tmp_path))
    assert "google/owlv2-base-patch16-ensemble" in caught.value.hint


def test_a_recipe_runs_it_and_names_it_without_importing_it(owlv2: str, tmp_path: Path) -> None:
    takes = signature("specialists.owl_grounding:OwlGrounding")
    assert takes is not None and takes.required == () and "threshold" in takes.optional
    assert code_version("specialists.owl_grounding:OwlGrounding").endswith("version 1")
    write_pictures(tmp_path / "pictures", 5)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=3)
    dataset = Dataset.open(str(tmp_path / "ds"))
    recipe = Recipe(
        name="triplets",
        specialists={
            "captions": SpecialistPart(
                use="tests.toy_specialists:Numbers", args={"word": "A red dog is near the old hat, not"}
            ),
            "owl": SpecialistPart(
                use="specialists.owl_grounding:OwlGrounding",
                args={"model": owlv2, "threshold": 0.0, "max_boxes_per_phrase": 2},
                needs=["captions"],
                batch=4,
            ),
        },
    ).check()
    summary = annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    assert [stage.failures for stage in summary.stages] == [0, 0]
    rows = sql(
        dataset,
        "SELECT a.text AS phrase, t.text[a.span[1] + 1 : a.span[2]] AS spelled, count(*) AS n "
        "FROM annotations a JOIN annotations t ON a.parent_id = t.annotation_id "
        "WHERE a.source = 'owl' AND a.text IN ('A red dog', 'the old hat') GROUP BY ALL ORDER BY ALL",
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("A red dog", "A red dog", 10),
        ("the old hat", "the old hat", 10),
    ]
