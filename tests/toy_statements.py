"""Specialists that say what their args tell them to, and one that says what no model should."""

from __future__ import annotations

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from tests.toy_sources import number_of

VERSION = 1


class Boxes:
    """The same regions for each picture: lists of name, x0, y0, x1, y1 and, where there is one, a score."""

    def __init__(self, boxes: list[list]):
        self.boxes = boxes

    def __call__(self, images, said):
        return [
            [
                Annotation(
                    "region", name, "phrase", box=numbers[:4], score=numbers[4] if numbers[4:] else None
                )
                for name, *numbers in self.boxes
            ]
            for _ in images
        ]


class Misbehaves:
    """One good text for each picture, then what `how` names; only on the pictures of `on` where given."""

    def __init__(self, how: str, on: list[int] | None = None):
        self.how = how
        self.on = on

    def __call__(self, images, said):
        return [self._said(image) for image in images]

    def _said(self, image):
        good = [Annotation("text", "good", "brief")]
        if self.on is not None and number_of(image.pixels) not in self.on:
            return good
        more = BAD[self.how]()
        return more if self.how in ("none", "generator") else [*good, *more]


def _box(*box: float, **more) -> Annotation:
    return Annotation("region", more.pop("text", "box"), "phrase", box=box, **more)


def _endless():
    yield Annotation("text", "good", "brief")
    raise ValueError("lost its way")


# Pictures are 24 x 16.
BAD = {
    "nan": lambda: [_box(float("nan"), 0, 5, 5)],
    "infinite": lambda: [_box(0, 0, float("inf"), 5)],
    "beyond float32": lambda: [_box(0, 0, 1e300, 5)],
    "huge integer": lambda: [_box(0, 0, 10**400, 5)],
    "inverted": lambda: [_box(9, 9, 5, 5)],
    "no area": lambda: [_box(5, 5, 5, 9)],
    "no area in float32": lambda: [_box(5, 5, 5 + 1e-9, 9)],
    "three numbers": lambda: [_box(1, 2, 3)],
    "words": lambda: [_box("a", "b", "c", "d")],
    "outside": lambda: [_box(100, 100, 120, 120)],
    "mostly outside": lambda: [_box(20, 2, 60, 12)],
    "score 7": lambda: [_box(1, 1, 5, 5, score=7.0)],
    "score nan": lambda: [_box(1, 1, 5, 5, score=float("nan"))],
    "no kind": lambda: [Annotation("verse", "x")],
    "unhashable kind": lambda: [Annotation(["text"], "x")],
    "a number for a text": lambda: [Annotation("text", 5, "brief")],
    "a number for a granularity": lambda: [Annotation("text", "x", 5)],
    "a number for a parent": lambda: [Annotation("text", "x", "brief", 5)],
    "a surrogate in a granularity": lambda: [Annotation("text", "x", "\ud800")],
    "no annotation": lambda: [{"kind": "text"}],
    "nothing": lambda: [None],
    "a span without end": lambda: [Annotation("phrase", "x", parent="p", span=(0, float("inf")), box=(1, 1, 5, 5))],
    "a span beyond int32": lambda: [Annotation("phrase", "x", parent="p", span=(0, 2**40), box=(1, 1, 5, 5))],
    "a mask of another size": lambda: [_box(1, 1, 5, 5, mask={"size": [5, 5], "counts": "0i0"})],
    "a mask that is none": lambda: [_box(1, 1, 5, 5, mask={"size": [16, 24], "counts": "\u20ac"})],
    "a mask that does not fill the image": lambda: [_box(1, 1, 5, 5, mask={"size": [16, 24], "counts": "0P="})],
    "a mask that is cut": lambda: [_box(1, 1, 5, 5, mask={"size": [16, 24], "counts": "0P"})],
    "a mask of numbers": lambda: [_box(1, 1, 5, 5, mask={"size": [16, 24], "counts": [1, 2]})],
    "ten thousand boxes": lambda: [_box(1, 1, 5, 5 + i / 1000, score=0.5) for i in range(10_500)],
    "10 kB labels": lambda: [_box(1, 1, 5, 5 + i, text="x" * 10_000) for i in range(3)],
    "megabytes": lambda: [Annotation("text", "y" * 99_999, "brief") for _ in range(30)],
    "none": lambda: None,
    "generator": _endless,
    "own errors": lambda: [
        ImageError("too_odd", "an odd thing"),
        ImageError("too_odd", "another"),
        ImageError("\ud800" * 500, "\ud800" * 5000),
    ],
}  # fmt: skip
