"""Signs: a panel with one or two lines of text, perhaps turned a little, and where its ink lies."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageChops
import PIL.ImageDraw
import PIL.ImageFont

from data_engine.scenes.draw import Stamp, polygon, turned
from data_engine.scenes.world import COLOURS, NOTICES, PANELS, PLACES, invented_name

_OVERSAMPLE = 3
_FONT = (24.0, 30.0)
"""Height of the type in pixels of a picture whose shorter side is 240 or less: Pillow's built-in face
has capitals of about 0.7 of it, so they are 16 pixels high or more, which text recognisers need."""

_MAX_TURN = 15.0


@dataclass(frozen=True, eq=False)
class Line:
    """One line of text; `quad` (4, 2) lies in the stamp's pixels, clockwise from the text's top left."""

    text: str
    quad: np.ndarray


@dataclass(frozen=True, eq=False)
class Sign:
    """`ink` (h, w) uint8 is the share of each of the stamp's pixels that text covers."""

    colour: str
    lines: tuple[Line, ...]
    stamp: Stamp
    ink: np.ndarray


@functools.lru_cache(maxsize=64)
def _font(size: int) -> PIL.ImageFont.FreeTypeFont:
    font = PIL.ImageFont.load_default(size)
    if not isinstance(font, PIL.ImageFont.FreeTypeFont):
        raise RuntimeError("this build of Pillow has no FreeType: signs need a scalable font")
    return font


def random_lines(rng: np.random.Generator) -> tuple[str, ...]:
    """The text of a sign: an invented name, a place of that name, or a notice."""
    draw = rng.random()
    if draw < 0.3:
        return (NOTICES[int(rng.integers(len(NOTICES)))],)
    name = invented_name(rng)
    place = PLACES[int(rng.integers(len(PLACES)))]
    if draw < 0.45:
        return (name,)
    if draw < 0.6:
        return (f"{name} {place}",)
    return (name, place) if draw < 0.85 else (place, name)


def random_sign(rng: np.random.Generator, shorter_side: int) -> Sign:
    """A sign for a picture whose shorter side is that many pixels; upright in two cases of five."""
    panel, ink = PANELS[int(rng.integers(len(PANELS)))]
    height = float(rng.uniform(*_FONT)) * max(1.0, shorter_side / 240)
    degrees = 0.0 if rng.random() < 0.4 else float(rng.uniform(-_MAX_TURN, _MAX_TURN))
    return make_sign(random_lines(rng), panel, ink, height, degrees)


def make_sign(lines: tuple[str, ...], panel: str, ink: str, height: float, degrees: float) -> Sign:
    """Draw a sign. `height` is that of the type in pixels; `panel` and `ink` are names of colours."""
    large = _OVERSAMPLE
    font = _font(round(height * large))
    boxes = [font.getbbox(line) for line in lines]
    inner = max(box[2] - box[0] for box in boxes)
    pitch = height * large * 1.2
    pad = height * large * 0.45
    # Whole large pixels, so that the panel's edges do not fall between them.
    width = math.ceil(inner + 2 * pad)
    tall = math.ceil(pitch * len(lines) + pad)
    half = np.array([width, tall]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    reach = np.abs(turned(corners, degrees)).max(axis=0)
    size_x, size_y = (int(math.ceil(r / large) + 1) * 2 * large for r in reach)
    size = size_x, size_y
    centre = np.array(size) / 2

    text = PIL.Image.new("L", size)
    quads: list[np.ndarray] = []
    top = centre[1] - half[1] + pad / 2
    for row, (line, box) in enumerate(zip(lines, boxes, strict=True)):
        x = round(centre[0] - (box[0] + box[2]) / 2)
        y = round(top + pitch * row + pitch / 2 - (box[1] + box[3]) / 2)
        written = PIL.Image.new("L", size)
        PIL.ImageDraw.Draw(written).text((x, y), line, fill=255, font=font)
        x0, y0, x1, y1 = written.getbbox() or (x, y, x + 1, y + 1)
        text = PIL.ImageChops.lighter(text, written)
        # One small pixel of air, in which the edges of turned and averaged letters fade.
        low, high = np.array([x0, y0]) - large, np.array([x1, y1]) + large
        around = np.array([low, (high[0], low[1]), high, (low[0], high[1])]) - centre
        quads.append((turned(around, degrees) + centre) / large)
    if degrees:
        text = text.rotate(-degrees, PIL.Image.Resampling.BILINEAR)
    letters = np.asarray(text.reduce(large))

    plate, field = PIL.Image.new("L", size), PIL.Image.new("L", size)
    polygon(PIL.ImageDraw.Draw(plate), turned(corners, degrees) + centre - 0.5, 255)
    border = 1.5 * large * max(1.0, height / 24)
    inside = corners * (half - border) / half
    polygon(PIL.ImageDraw.Draw(field), turned(inside, degrees) + centre - 0.5, 255)
    alpha = np.asarray(plate.reduce(large))
    shown = (np.asarray(field.reduce(large), dtype=np.float32) / 255)[..., None]
    inked = (letters.astype(np.float32) / 255)[..., None]
    paper, paint = (np.array(COLOURS[name], dtype=np.float32) for name in (panel, ink))
    rgb = paint + (paper - paint) * shown * (1 - inked)

    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corner = np.array([columns[0], rows[0]])
    return Sign(
        panel,
        tuple(Line(line, quad - corner) for line, quad in zip(lines, quads, strict=True)),
        Stamp(alpha[part], rgb[part]),
        letters[part],
    )
