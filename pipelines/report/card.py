"""What a page shows of one image: shapes to draw, texts cut at their phrases, regions by source."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.report.words import Piece


@dataclass
class Shape:
    """A box or a quad in pixels of the image, with its mask where it has one. `number` is its own in its card,
    `layer` the list that it belongs to."""

    number: int
    layer: int
    hue: int
    told: str
    dropped: bool
    box: list[float] | None
    quad: str | None
    mask: str = ""


@dataclass
class Line:
    """A region, or a phrase, in words: what it says, by whom and how sure, and what became of it."""

    text: str
    facts: str
    fate: str | None
    dropped: bool
    hue: int
    shapes: list[int]


@dataclass
class Text:
    """A text with its phrases. `groups` are the lines of `Piece.group`, `loose` those that stand nowhere in it."""

    name: str
    facts: str
    fate: str | None
    dropped: bool
    layer: int | None
    pieces: list[Piece]
    groups: list[Line]
    loose: list[Line]
    note: str

    @property
    def entry(self) -> int | None:
        """The phrase that the keyboard comes to first; None where none stands in the text."""
        return next((piece.group for piece in self.pieces if piece.group is not None), None)


@dataclass
class Regions:
    """What one source said of places in the image."""

    source: str
    layer: int
    lines: list[Line]


@dataclass
class Card:
    title: str
    image_id: str
    width: int
    height: int
    facts: str
    alt: str
    texts: list[Text] = field(default_factory=list)
    regions: list[Regions] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measures: list[str] = field(default_factory=list)
    picture: str | None = None
    gone: str | None = None

    @property
    def first_layer(self) -> int:
        """The list that is drawn at first."""
        return next((shape.layer for shape in self.shapes), 0)

    @property
    def drawn(self) -> list[Shape]:
        """Shapes that have a place, large ones first, so that small ones can be pointed at."""
        return sorted((s for s in self.shapes if s.box or s.quad), key=_area, reverse=True)


def _area(shape: Shape) -> float:
    x0, y0, x1, y1 = shape.box or (0.0, 0.0, 0.0, 0.0)
    return (x1 - x0) * (y1 - y0)
