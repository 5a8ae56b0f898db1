"""Writing: panels with one or two lines of text, stickers on things, and where their ink lies.

Pillow brings one typeface (Aileron), and the core needs no other: weight, width and slant are varied by
stroking, stretching and shearing it, which gives the same letters on every machine.
"""

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
from data_engine.scenes.english import invented_name
from data_engine.scenes.world import RGB, World

_OVERSAMPLE = 2
_FONT = (24.0, 30.0)
"""Height of the type in pixels of a picture whose shorter side is 240 or less: Pillow's built-in face
has capitals of about 0.7 of it, so they are 16 pixels high or more, which text recognisers need."""

_STICKER_FONT = (19.0, 23.0)


@dataclass(frozen=True)
class Type:
    """`height` in pixels; `bold` is the width of an outline, `stretch` a factor, `slant` a shear."""

    height: float
    bold: float = 0.0
    stretch: float = 1.0
    slant: float = 0.0


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


def random_lines(world: World, rng: np.random.Generator) -> tuple[str, ...]:
    """The text of a sign: an invented name, a place of that name, or a notice."""
    draw = rng.random()
    if draw < 0.3:
        return (world.notices[int(rng.integers(len(world.notices)))],)
    name = invented_name(rng)
    place = world.places[int(rng.integers(len(world.places)))]
    if draw < 0.45:
        return (name,)
    if draw < 0.6:
        return (f"{name} {place}",)
    return (name, place) if draw < 0.85 else (place, name)


def random_sign(world: World, rng: np.random.Generator, shorter_side: int) -> Sign:
    """A sign for a picture whose shorter side is that many pixels: upright, leaning, or on end."""
    paper, ink, colour = world.panels[int(rng.integers(len(world.panels)))]
    type_ = _random_type(rng, float(rng.uniform(*_FONT)) * max(1.0, shorter_side / 240))
    draw = rng.random()
    if draw < 0.4:
        degrees = 0.0
    elif draw < 0.85:
        degrees = float(rng.uniform(-15, 15))
    elif draw < 0.95:
        degrees = float(rng.uniform(-30, 30))
    else:
        degrees = -90.0 if rng.random() < 0.7 else 90.0
    return make_sign(random_lines(world, rng), colour, paper, ink, type_, degrees)


def _random_type(rng: np.random.Generator, height: float) -> Type:
    return Type(
        height,
        bold=float(rng.uniform(0.3, 0.8)) if rng.random() < 0.4 else 0.0,
        stretch=float(rng.uniform(0.9, 1.15)) if rng.random() < 0.4 else 1.0,
        slant=float(rng.uniform(0.1, 0.25)) if rng.random() < 0.2 else 0.0,
    )


def make_sign(
    lines: tuple[str, ...],
    colour: str,
    paper: RGB,
    ink: RGB,
    type_: Type,
    degrees: float,
    border: bool = True,
) -> Sign:
    """Draw a sign, turned clockwise by `degrees`. `colour` is the name of `paper`."""
    large = _OVERSAMPLE
    height = type_.height
    written = [_written(line, type_) for line in lines]
    inner = max(letters.width for letters in written)
    pitch = height * large * 1.2
    pad = height * large * (0.45 if border else 0.3)
    # Whole large pixels, so that the panel's edges do not fall between them.
    width = math.ceil(inner + 2 * pad)
    tall = math.ceil(pitch * len(lines) + pad)
    half = np.array([width, tall]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    reach = np.abs(turned(corners, degrees)).max(axis=0)
    size_x, size_y = (int(math.ceil(r / large) + 1) * 2 * large for r in reach)
    # The letters are written on a field that is large enough for the sign as it is before it is turned.
    field_size = (max(size_x, width + 2 * large), max(size_y, tall + 2 * large))
    centre = np.array(field_size) / 2

    text = PIL.Image.new("L", field_size)
    quads: list[np.ndarray] = []
    top = centre[1] - half[1] + pad / 2
    for row, letters in enumerate(written):
        x = round(centre[0] - letters.width / 2)
        y = round(top + pitch * row + pitch / 2 - letters.height / 2)
        text.paste(letters, (x, y))
        # One small pixel of air, in which the edges of turned and averaged letters fade.
        low = np.array([x, y]) - large
        high = np.array([x + letters.width, y + letters.height]) + large
        around = np.array([low, (high[0], low[1]), high, (low[0], high[1])]) - centre
        quads.append((turned(around, degrees) + (size_x / 2, size_y / 2)) / large)
    if degrees:
        text = (
            text.rotate(-degrees, PIL.Image.Resampling.BILINEAR, expand=False)
            if degrees % 90
            else _on_end(text, degrees)
        )
    text = _centred(text, (size_x, size_y))
    letters_seen = np.asarray(text.reduce(large))

    middle = np.array([size_x, size_y]) / 2
    plate, field = PIL.Image.new("L", (size_x, size_y)), PIL.Image.new("L", (size_x, size_y))
    polygon(PIL.ImageDraw.Draw(plate), turned(corners, degrees) + middle - 0.5, 255)
    rim = 1.5 * large * max(1.0, height / 24) if border else 0.0
    inside = corners * (half - rim) / half
    polygon(PIL.ImageDraw.Draw(field), turned(inside, degrees) + middle - 0.5, 255)
    alpha = np.asarray(plate.reduce(large))
    shown = (np.asarray(field.reduce(large), dtype=np.float32) / 255)[..., None]
    inked = (letters_seen.astype(np.float32) / 255)[..., None]
    rgb_paper, rgb_ink = np.array(paper, dtype=np.float32), np.array(ink, dtype=np.float32)
    rgb = rgb_ink + (rgb_paper - rgb_ink) * (shown * (1 - inked) if border else 1 - inked)

    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corner = np.array([columns[0], rows[0]])
    return Sign(
        colour,
        tuple(Line(line, quad - corner) for line, quad in zip(lines, quads, strict=True)),
        Stamp(alpha[part], rgb[part]),
        letters_seen[part],
    )


def labelled(
    thing: Stamp, colour: str, world: World, rng: np.random.Generator, shorter_side: int
) -> tuple[Stamp, Line, np.ndarray] | None:
    """A thing's stamp with a sticker that bears a name, the name's line and its ink; None if it does not fit."""
    choices = [panel for panel in world.panels if panel[2] != colour]
    paper, ink, name = choices[int(rng.integers(len(choices)))]
    type_ = _random_type(rng, float(rng.uniform(*_STICKER_FONT)) * max(1.0, shorter_side / 240))
    sticker = make_sign(
        (invented_name(rng),), name, paper, ink, type_, float(rng.uniform(-8, 8)), border=False
    )
    x = (thing.width - sticker.stamp.width) // 2
    y = (thing.height - sticker.stamp.height) // 2 + thing.height // 12
    if x < 0 or y < 0 or y + sticker.stamp.height > thing.height:
        return None
    window = np.s_[y : y + sticker.stamp.height, x : x + sticker.stamp.width]
    if (sticker.stamp.solid & (thing.alpha[window] < 255)).any():
        return None
    rgb = np.array(np.broadcast_to(thing.rgb, (thing.height, thing.width, 3)), dtype=np.float32)
    rgb[window] += (sticker.stamp.rgb - rgb[window]) * (sticker.stamp.alpha[..., None] / np.float32(255))
    whole_ink = np.zeros_like(thing.alpha)
    whole_ink[window] = sticker.ink
    line = sticker.lines[0]
    return Stamp(thing.alpha, rgb), Line(line.text, line.quad + (x, y)), whole_ink


@functools.lru_cache(maxsize=64)
def _font(size: int) -> PIL.ImageFont.FreeTypeFont:
    font = PIL.ImageFont.load_default(size)
    if not isinstance(font, PIL.ImageFont.FreeTypeFont):
        raise RuntimeError("this build of Pillow has no FreeType: signs need a scalable font")
    return font


def _written(line: str, type_: Type) -> PIL.Image.Image:
    """The letters of a line without any margin, `_OVERSAMPLE` times too large."""
    font = _font(round(type_.height * _OVERSAMPLE))
    stroke = round(type_.bold * _OVERSAMPLE)
    x0, y0, x1, y1 = font.getbbox(line, stroke_width=stroke)
    lean = math.ceil(type_.slant * (y1 - y0)) if type_.slant else 0
    width, height = math.ceil(x1 - x0) + 2 + lean, math.ceil(y1 - y0) + 2
    letters = PIL.Image.new("L", (width, height))
    PIL.ImageDraw.Draw(letters).text((1 - x0, 1 - y0), line, fill=255, font=font, stroke_width=stroke)
    if type_.slant or type_.stretch != 1.0:
        wide = math.ceil(width * type_.stretch)
        # Output x, y shows what stands at x / stretch - slant * (height - y): the foot stays, the head leans.
        matrix = (1 / type_.stretch, type_.slant, -type_.slant * height, 0.0, 1.0, 0.0)
        letters = letters.transform(
            (wide, height), PIL.Image.Transform.AFFINE, matrix, PIL.Image.Resampling.BILINEAR
        )
    return letters.crop(letters.getbbox() or (0, 0, 1, 1))


def _on_end(text: PIL.Image.Image, degrees: float) -> PIL.Image.Image:
    turn = PIL.Image.Transpose.ROTATE_90 if degrees % 360 == 270 else PIL.Image.Transpose.ROTATE_270
    return text.transpose(turn)


def _centred(picture: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    """The middle of a picture, of the size asked for."""
    x, y = (picture.width - size[0]) // 2, (picture.height - size[1]) // 2
    return picture.crop((x, y, x + size[0], y + size[1]))
