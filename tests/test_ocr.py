"""The real OCR models on drawn pictures: text, place, rotation and reading order."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import AnnotationRows
from data_engine.errors import RecipeError
from data_engine.image import Image

pytest.importorskip("rapidocr")
pytest.importorskip("onnxruntime")

from specialists.ocr import Ocr, reading_order

WORDS = [("Hello World", (20, 20)), ("right", (260, 24)), ("SECOND line 42", (20, 100))]


@pytest.fixture(scope="module")
def ocr() -> Ocr:
    return Ocr(threads=2)


PAGE = (400, 240)


def page(size: tuple[int, int] = PAGE) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", size, "white")
    pen = PIL.ImageDraw.Draw(picture)
    font = PIL.ImageFont.load_default(32)
    for (text, corner), colour in zip(WORDS, ("black", "blue", "red"), strict=True):
        pen.text(corner, text, fill=colour, font=font)
    return picture


def read(ocr: Ocr, picture: PIL.Image.Image):
    return ocr([Image("0" * 32, np.asarray(picture))], None)[0]


def first_corner(size: tuple[int, int], point: tuple[float, float], degrees: float) -> np.ndarray:
    """Where a point of a page lies after PIL turned it counter-clockwise and made room."""
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    width, height = size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix.T
    return matrix @ np.array(point) - corners.min(axis=0)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, 25])
def test_text_is_read_at_any_angle_and_its_quad_begins_at_its_own_top_left(ocr: Ocr, degrees: int) -> None:
    turned = page().rotate(degrees, expand=True, fillcolor="white", resample=PIL.Image.Resampling.BICUBIC)
    found = read(ocr, turned)
    assert [a.text for a in found] == [text for text, _ in WORDS], "in reading order, wherever up is"
    for annotation, (_, corner) in zip(found, WORDS, strict=True):
        quad = np.array(annotation.quad).reshape(4, 2)
        where = first_corner(PAGE, corner, degrees)
        distances = np.linalg.norm(quad - where, axis=1)
        assert distances.argmin() == 0 and distances[0] < 15
        x, y = quad.T
        assert x @ np.roll(y, -1) - y @ np.roll(x, -1) > 0, "clockwise as seen"
        assert list(annotation.box) == pytest.approx([x.min(), y.min(), x.max(), y.max()])
        assert (
            annotation.kind == "region" and annotation.granularity == "ocr" and 0.5 <= annotation.score <= 1
        )
    assert not AnnotationRows("ocr").add("0" * 32, found)


def test_the_answer_for_an_image_does_not_depend_on_the_others(ocr: Ocr) -> None:
    pictures = [page(), PIL.Image.new("RGB", (50, 40), "grey"), page((420, 300))]
    images = [Image(f"{i:032x}", np.asarray(p)) for i, p in enumerate(pictures)]
    together = [[(a.text, a.quad, a.score) for a in found] for found in ocr(images, None)]
    assert together == [[(a.text, a.quad, a.score) for a in ocr([one], None)[0]] for one in images]
    assert [len(found) for found in together] == [3, 0, 3]


def test_lines_below_the_minimum_score_are_left_out(ocr: Ocr) -> None:
    scores = [a.score for a in read(ocr, page())]
    strict = Ocr(minimum_score=1.0, threads=2)
    assert len(read(strict, page())) == sum(score >= 1.0 for score in scores) < 3


@pytest.mark.parametrize("size", [(1, 1), (600, 5), (5, 600)])
def test_tiny_and_elongated_images_are_read_as_empty(ocr: Ocr, size: tuple[int, int]) -> None:
    assert read(ocr, PIL.Image.new("RGB", size, (200, 180, 160))) == []


def test_a_large_image_is_shrunk_and_its_boxes_are_in_its_own_pixels(ocr: Ocr) -> None:
    small = read(ocr, page())
    large = read(ocr, page().resize((400 * 6, 240 * 6), PIL.Image.Resampling.BICUBIC))
    assert [a.text for a in large] == [a.text for a in small]
    for a, b in zip(large, small, strict=True):
        assert np.array(a.box) / 6 == pytest.approx(np.array(b.box), abs=6)


def test_colours_are_given_as_the_library_takes_them(ocr: Ocr) -> None:
    pixels = np.asarray(page())
    blue_first, red_first = (ocr.engine(np.ascontiguousarray(p)).scores for p in (pixels[..., ::-1], pixels))
    ours = sorted(a.score for a in read(ocr, page()))
    assert ours == pytest.approx(sorted(blue_first))
    assert ours != pytest.approx(sorted(red_first)), "or the order would not show"


def test_no_network_and_no_file_is_touched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read(Ocr(threads=1), page())) == 3
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_threads_follow_the_share_that_ray_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = Ocr().engine.text_det.session.session.get_session_options()
    assert options.intra_op_num_threads == 1


@pytest.mark.parametrize("arguments", [{"minimum_score": 2}, {"max_side": 10}, {"threads": 0}])
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        Ocr(**arguments)


@given(
    order=st.permutations(range(9)),
    degrees=st.floats(-180, 180),
    tilt=st.floats(-0.3, 0.3),
)
def test_reading_order_is_that_of_the_page_whichever_way_it_is_turned(order, degrees, tilt) -> None:
    # Three lines of three words, the lines a little uneven.
    words = []
    for line in range(3):
        for column in range(3):
            x, y = column * 130.0, line * 30.0 + (5 if column == 1 else 0)
            words.append(np.array([[x, y], [x + 100, y], [x + 100, y + 20], [x, y + 20]]))
    turn = np.deg2rad(degrees + tilt)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    quads = [words[i] @ matrix for i in order]
    assert [order[i] for i in reading_order(quads)] == list(range(9))


def test_nothing_has_no_order() -> None:
    assert reading_order([]) == []
