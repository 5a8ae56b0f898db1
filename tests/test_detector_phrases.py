"""The detector of phrases, with toy YOLO-World and YOLOE, against the networks run phrase by phrase."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.entry_point import code_version, signature
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.schema import ANNOTATIONS
from specialists.detector_phrases import PhraseDetector, _passes
from specialists.detector_vocabulary import load_open, load_text_model, set_vocabulary, text_features
from specialists.phrase_texts import PhraseText
from tests.toy_open_yolo import blots, save_clip, save_open_yolo

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("spacy")
if (
    importlib.util.find_spec("ultralytics") is None
):  # importing it here would not be as quiet as the detector does it
    pytest.skip("ultralytics is not installed", allow_module_level=True)

KINDS = ("world", "yoloe", "yoloe26")
TEXT = "A red ball lies near the old dog in the street."
MOST = 12
PHRASES = ["A red ball", "the old dog", "the street"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    return {kind: str(save_open_yolo(folder / f"{kind}.pt", kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def detectors(weights: dict[str, str], clip: str) -> dict[str, PhraseDetector]:
    """The best boxes of every phrase: of many, some would have nearly the same score, and change places."""
    return {
        kind: PhraseDetector(weights[kind], confidence=0.0, max_boxes_per_phrase=MOST, text_pretrained=clip)
        for kind in KINDS
    }


@pytest.fixture(scope="module")
def images() -> list[Image]:
    sizes = [(128, 96), (128, 96), (64, 128)]
    made = [blots(width, height, i) for i, (width, height) in enumerate(sizes)]
    for pixels in made:
        pixels.setflags(write=False)  # as decoded ones are
    return [Image(f"image-{i}", pixels) for i, pixels in enumerate(made)]


def said(*texts: tuple[str, str, str], source: str = "captions") -> pa.Table:
    rows = AnnotationRows(source)
    for image_id, text, granularity in texts:
        rows.add(image_id, [Annotation("text", text, granularity)])
    return rows.table()


def directly(
    weights: str, clip: str, image: Image, phrases: list[str], iou: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Boxes and scores of each phrase by the network alone, all of whose sides are multiples of its stride."""
    from ultralytics.utils import nms

    network = load_open(weights).model.eval()
    features = text_features(network, load_text_model(network, None, clip, "cpu"), phrases)
    set_vocabulary(network, features[None])
    pixels = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        said_ = network(pixels)[0]
        raw = said_[0] if isinstance(said_, tuple) else said_
        found = {}
        for i, phrase in enumerate(phrases):
            one = torch.cat([raw[:, :4], raw[:, 4 + i : 5 + i]], dim=1)
            (rows,) = nms.non_max_suppression(one, 0.0, iou, max_det=1000)
            edges = torch.tensor([image.width, image.height] * 2)
            boxes = torch.minimum(rows[:, :4].clamp(min=0), edges).numpy()
            wide = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            found[phrase] = (boxes[wide][:MOST], rows[:, 4].numpy()[wide][:MOST])
    return found


def by_phrase(rows: list[Annotation]) -> dict[str, np.ndarray]:
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        found.setdefault(row.text or "", []).append([*(row.box or ()), row.score or 0.0])
    return {phrase: np.array(numbers) for phrase, numbers in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_the_networks_for_each_phrase_by_itself(
    detectors: dict[str, PhraseDetector], weights: dict[str, str], clip: str, images: list[Image], kind: str
) -> None:
    table = said(
        ("image-0", TEXT, "brief"), ("image-0", "a hat", "detailed"), ("image-2", "a man and a cat", "brief")
    )
    made = detectors[kind](images, table)
    assert made[1] == []
    for i, phrases in ((0, [*PHRASES, "a hat"]), (2, ["a man", "a cat"])):
        wanted = directly(weights[kind], clip, images[i], [p.lower() for p in phrases], 0.7)
        found = by_phrase(made[i])
        assert list(found) == phrases
        for phrase in phrases:
            boxes, scores = wanted[phrase.lower()]
            assert len(boxes) > 5 and np.unique(scores).size > 5
            assert found[phrase][:, :4] == pytest.approx(boxes, abs=1e-2)
            assert found[phrase][:, 4] == pytest.approx(scores, abs=1e-4)
    best = [found[:, 4].max() for found in by_phrase(made[0]).values()]
    assert len(set(best)) == len(best), "each phrase has scores of its own"


def test_one_row_per_phrase_and_box_hanging_on_its_text(
    detectors: dict[str, PhraseDetector], images: list[Image]
) -> None:
    table = said(("image-0", TEXT, "brief"), ("image-2", "a man in a hat", "more_detailed"))
    first, none, third = detectors["world"](images, table)
    assert none == [] and {r.text for r in third} == {"a man", "a hat"}
    assert list(dict.fromkeys(r.text for r in first)) == PHRASES
    for row in first:
        assert row.kind == "phrase" and row.granularity is None and row.mask is None
        assert row.parent == table.column("annotation_id")[0].as_py()
        assert row.span is not None and TEXT[row.span[0] : row.span[1]] == row.text
        assert row.score is not None and 0 < row.score < 1 and row.box is not None
        x0, y0, x1, y1 = row.box
        assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 96
    scores = [[r.score for r in first if r.text == phrase] for phrase in PHRASES]
    assert all(len(one) > 5 and one == sorted(one, reverse=True) for one in scores)
    assert AnnotationRows("yolo").add("image-0", first, (128, 96)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_says_the_same_in_any_company(
    detectors: dict[str, PhraseDetector], images: list[Image], kind: str
) -> None:
    model = detectors[kind]
    table = said(
        ("image-0", "the city", "brief"),
        ("image-1", "three small cats and a man with a blue hat on the old street near the barn", "brief"),
        ("image-1", "a dog", "detailed"),
        ("image-2", TEXT, "brief"),
    )
    shapes: list[tuple[int, ...]] = []
    hook = model.network.model[0].register_forward_pre_hook(lambda _, x: shapes.append(tuple(x[0].shape)))
    together = model(images, table)
    hook.remove()
    assert shapes == [(2, 3, 96, 128), (1, 3, 128, 64)], "one pass for all images of a size"
    for i, image in enumerate(images):
        (alone,) = model([image], table)
        assert len(alone) > 5
        assert [(r.text, r.span, r.parent) for r in alone] == [
            (r.text, r.span, r.parent) for r in together[i]
        ]
        assert [r.score for r in alone] == pytest.approx([r.score for r in together[i]], abs=1e-4)
        assert np.array([r.box for r in alone]) == pytest.approx(
            np.array([r.box for r in together[i]]), abs=1e-2
        )
    again = model(images, table)
    assert [[(r.text, r.box, r.score) for r in rows] for rows in again] == [
        [(r.text, r.box, r.score) for r in rows] for rows in together
    ]


def test_a_phrase_is_read_once_however_often_and_in_whatever_case_it_is_said(
    detectors: dict[str, PhraseDetector], images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = detectors["yoloe"]
    read: list[str] = []
    encode = model.text_model.text_features
    monkeypatch.setattr(model.text_model, "text_features", lambda texts: read.extend(texts) or encode(texts))
    table = said(
        ("image-0", "a dog", "brief"),
        ("image-0", "A dog sees a  dog near the barn.", "detailed"),
        ("image-0", "a dog", "more_detailed"),
        ("image-1", "The barn", "brief"),
    )
    first, second, _ = model(images, table)
    assert sorted(read) == ["a dog", "the barn"]
    parents = table.column("annotation_id").to_pylist()
    spans = {(r.parent, r.text, r.span) for r in first}
    assert spans == {
        (parents[0], "a dog", (0, 5)),
        (parents[1], "A dog", (0, 5)),
        (parents[1], "a  dog", (11, 17)),
        (parents[1], "the barn", (23, 31)),
        (parents[2], "a dog", (0, 5)),
    }
    scores = [[r.score for r in first if (r.parent, r.span) == (p, s)] for p, t, s in spans if "dog" in t]
    assert all(one == scores[0] for one in scores) and len(scores[0]) > 5
    assert {r.text for r in second} == {"The barn"}


def test_thresholds_and_the_number_of_boxes_bound_what_is_said(
    weights: dict[str, str], clip: str, images: list[Image]
) -> None:
    table = said(("image-0", TEXT, "brief"))
    for kind in ("world", "yoloe"):
        loose = PhraseDetector(
            weights[kind], confidence=0.0, iou=1.0, max_boxes_per_phrase=7, text_pretrained=clip
        )
        everything = loose(images[:1], table)[0]
        # One place may be of several phrases: the library's own suppression would name it once.
        assert [sum(r.text == p for r in everything) for p in PHRASES] == [7, 7, 7]
        scores = sorted(r.score or 0 for r in everything)
        middle = (scores[10] + scores[11]) / 2
        strict = PhraseDetector(
            weights[kind], confidence=middle, iou=1.0, max_boxes_per_phrase=7, text_pretrained=clip
        )
        kept = strict(images[:1], table)[0]
        assert [(r.text, r.box) for r in kept] == [
            (r.text, r.box) for r in everything if (r.score or 0) > middle
        ]
        assert 0 < len(kept) < len(everything)


def test_more_phrases_than_go_through_at_once_are_asked_in_several_passes(
    weights: dict[str, str], clip: str, detectors: dict[str, PhraseDetector], images: list[Image]
) -> None:
    table = said(("image-0", TEXT, "brief"), ("image-1", "a man, a cat and a hat", "brief"))
    narrow = PhraseDetector(
        weights["yoloe"],
        confidence=0.0,
        max_boxes_per_phrase=MOST,
        max_phrases_per_pass=2,
        max_passes_per_batch=3,
        text_pretrained=clip,
    )
    for found, whole in zip(narrow(images, table), detectors["yoloe"](images, table), strict=True):
        # In YOLOE a phrase's score does not depend on the other phrases.
        assert [(r.text, r.span) for r in found] == [(r.text, r.span) for r in whole]
        assert [r.score for r in found] == pytest.approx([r.score for r in whole], abs=1e-4)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.sampled_from("ABCDEabcde"), max_size=12)), max_size=6),
    st.integers(1, 4),
)
def test_passes_have_each_phrase_of_an_image_once(texts: list[tuple[int, list[str]]], most: int) -> None:
    given_ = [PhraseText(image, [], [(word, 0, 1) for word in words]) for image, words in texts]
    asked = [(one.image, phrase) for one in _passes(given_, most) for phrase in one.phrases]
    assert sorted(asked) == sorted({(image, word.lower()) for image, words in texts for word in words})
    assert all(1 <= len(one.phrases) <= most for one in _passes(given_, most))


def test_boxes_that_are_no_numbers_are_left_out(
    weights: dict[str, str], clip: str, images: list[Image]
) -> None:
    model = PhraseDetector(weights["yoloe"], confidence=0.0, text_pretrained=clip)

    def broken(_: Any, __: Any, output: Any) -> Any:
        output[0][0][:, 0, ::2] = float("nan")
        output[0][0][:, 2, 1::4] = -5.0
        return output

    model.network.model[-1].register_forward_hook(broken)
    rows = model(images[:1], said(("image-0", TEXT, "brief")))[0]
    assert rows and AnnotationRows("yolo").add("image-0", rows, (128, 96)) == []


def test_nothing_to_ground_is_no_error(detectors: dict[str, PhraseDetector], images: list[Image]) -> None:
    model = detectors["world"]
    table = said(("image-0", "They wait.", "brief"), ("image-1", "", "brief"), ("image-2", "a dog", "ocr"))
    assert model(images, table) == [[], [], []]
    assert model(images, ANNOTATIONS.empty_table()) == [[], [], []]
    assert model([], ANNOTATIONS.empty_table()) == []
    with pytest.raises(SpecialistError, match="texts") as caught:
        model(images, None)
    assert "needs" in caught.value.hint


def test_sources_narrow_what_is_grounded(weights: dict[str, str], clip: str, images: list[Image]) -> None:
    table = pa.concat_tables(
        [said(("image-0", "a dog", "brief"), source=s) for s in ("alt_text", "captions")]
    )
    model = PhraseDetector(weights["yoloe"], confidence=0.0, text_pretrained=clip, sources=["captions"])
    assert {r.parent for r in model(images[:1], table)[0]} == {table.column("annotation_id")[1].as_py()}


@pytest.mark.parametrize(
    "more",
    [
        {"confidence": 1.5},
        {"iou": -1},
        {"imgsz": 8},
        {"max_boxes_per_phrase": 0},
        {"max_phrases_per_pass": 0},
        {"max_passes_per_batch": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        PhraseDetector("nowhere.pt", **more)


def test_weights_that_take_no_words_are_refused(tmp_path: Path, clip: str) -> None:
    (tmp_path / "text.pt").write_text("not weights")
    (tmp_path / "exported.onnx").write_bytes(b"")
    for name in ("text.pt", "exported.onnx", "none.pt"):
        with pytest.raises(ModelLoadError, match=name) as caught:
            PhraseDetector(str(tmp_path / name), text_pretrained=clip)
        assert "\n" not in caught.value.message and caught.value.hint


def test_a_recipe_can_name_both_without_importing_them() -> None:
    for use, required in (
        ("specialists.detector_phrases:PhraseDetector", ("weights",)),
        ("specialists.detector_open:OpenDetector", ("weights", "classes")),
    ):
        takes = signature(use)
        assert takes is not None and takes.required == required and "text_pretrained" in takes.optional
        assert code_version(use).endswith("version 1")
