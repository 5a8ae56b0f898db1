"""A contact sheet: pictures with what was said of them drawn on, for people to look at.

It takes any pictures and any annotations as plain dicts (of `write.as_dicts`, or rows of a table), not
only scenes. Text comes from data and may hold anything: what the font cannot draw is left as a box.
"""

from __future__ import annotations

import bisect
import functools
import math
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import PIL.ImageFont
import pycocotools.mask

from data_engine.errors import ImageError
from data_engine.run_lengths import sound

_COLOURS = (
    (230, 25, 75), (0, 130, 200), (60, 150, 60), (245, 130, 48), (145, 30, 180), (0, 128, 128),
    (170, 110, 40), (240, 50, 180), (128, 0, 0), (0, 0, 128),
)  # fmt: skip
_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 24), (110, 110, 110)
_MARGIN = 10
_MOST_LINES = 14
_MOST_CHARACTERS = 2000

Said = Sequence[Mapping[str, Any]]
Font = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont


def contact_sheet(
    pictures: Sequence[tuple[np.ndarray, Said]], columns: int = 3, cell: int = 420, masks: bool = True
) -> PIL.Image.Image:
    """Draw `pictures`, pairs of pixels (h, w, 3) uint8 and annotations, in rows of `columns`.

    Each picture is scaled to `cell` pixels wide. A box is drawn once, with the first text said of it and
    its score; a mask is traced along its edge; a quad is outlined; rows of kind `text` stand below the picture.
    An empty list gives an empty sheet. Boxes and quads outside of the picture are cut off at its edge.
    """
    cells = [_cell(pixels, said, cell, masks) for pixels, said in pictures]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(one.height for one in row) for row in rows]
    width = _MARGIN + min(columns, max(1, len(cells))) * (cell + _MARGIN)
    sheet = PIL.Image.new("RGB", (width, _MARGIN + sum(h + _MARGIN for h in heights)), _PAPER)
    y = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, one in enumerate(row):
            sheet.paste(one, (_MARGIN + column * (cell + _MARGIN), y))
        y += height + _MARGIN
    return sheet


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Font:
    return PIL.ImageFont.load_default(size)


def _clean(text: str) -> str:
    """One line that any font takes: no lone surrogates, control characters as spaces."""
    safe = text[:_MOST_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    spaced = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in safe)
    return " ".join(spaced.split())


def _cell(pixels: np.ndarray, said: Said, cell: int, masks: bool) -> PIL.Image.Image:
    scale = cell / pixels.shape[1]
    picture = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    picture = picture.resize((cell, max(1, round(pixels.shape[0] * scale))), PIL.Image.Resampling.LANCZOS)
    if masks:
        picture = _traced(picture, said)
    _outline(picture, said, scale)
    texts = [row for row in said if row.get("kind") == "text" and row.get("text")]
    written = _caption(texts, cell)
    whole = PIL.Image.new("RGB", (cell, picture.height + written.height), _PAPER)
    whole.paste(picture, (0, 0))
    whole.paste(written, (0, picture.height))
    return whole


def _key(row: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(round(float(v), 1) for v in row["box"])


def _colours(said: Said) -> dict[tuple[float, ...], tuple[int, int, int]]:
    """Every distinct box has its own colour, in the order of the rows."""
    boxes = dict.fromkeys(_key(row) for row in said if row.get("box") is not None)
    return {box: _COLOURS[i % len(_COLOURS)] for i, box in enumerate(boxes)}


def _traced(picture: PIL.Image.Image, said: Said) -> PIL.Image.Image:
    """The edge of each mask in its box's colour; the thing's own colours stay as they are."""
    colours = _colours(said)
    canvas = np.asarray(picture).copy()
    drawn: set[str] = set()
    for row in said:
        mask = row.get("mask")
        if mask is None or row.get("box") is None or mask["counts"] in drawn:
            continue
        drawn.add(mask["counts"])
        try:
            whole = PIL.Image.fromarray(_decoded(mask) * np.uint8(255))
        except ImageError:
            continue  # of a data set that was not written here: there is nothing to draw
        inside = whole.resize(picture.size, PIL.Image.Resampling.BILINEAR).point(lambda v: 255 * (v >= 128))
        edge = np.asarray(inside) > np.asarray(inside.filter(PIL.ImageFilter.MinFilter(5)))
        canvas[edge] = colours[_key(row)]
    return PIL.Image.fromarray(canvas)


def _decoded(mask: Mapping[str, Any]) -> np.ndarray:
    """Pixels of a COCO RLE, (h, w) of 0 and 1. Raises ImageError for run lengths that are none."""
    with warnings.catch_warnings():
        # pycocotools' decode still has NumPy 1's __array__.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        decoded: np.ndarray = pycocotools.mask.decode(dict(sound(mask)))
    return decoded


def _outline(picture: PIL.Image.Image, said: Said, scale: float) -> None:
    draw = PIL.ImageDraw.Draw(picture)
    font = _font(12)
    labels: list[tuple[float, float, str, tuple[int, int, int]]] = []
    colours = _colours(said)
    done: set[tuple[float, ...]] = set()
    for row in said:
        if row.get("box") is None or not row.get("text") or _key(row) in done:
            continue
        done.add(_key(row))
        colour = colours[_key(row)]
        x0, y0, x1, y1 = (float(v) * scale for v in row["box"])
        if row.get("quad") is not None:
            quad = [float(v) * scale for v in row["quad"]]
            corners = list(zip(quad[::2], quad[1::2], strict=True))
            draw.line([*corners, corners[0]], fill=colour, width=2)
            x, y = corners[0]
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)  # the text's own top left
        elif x1 > x0 and y1 > y0:
            draw.rectangle([x0, y0, x1, y1], outline=colour, width=2)
        score = row.get("score")
        label = _clean(str(row["text"]))[:60] + ("" if score is None else f" {float(score):.2f}")
        labels.append((x0, y0 - 15, label, colour))
    for x, y, label, colour in labels:  # last, so that no outline runs through a label
        width = font.getlength(label) + 6
        x = min(max(0.0, x), max(0.0, picture.width - width))
        y = min(max(0.0, y), picture.height - 15)
        draw.rectangle([x, y, x + width, y + 15], fill=colour)
        draw.text((x + 3, y), label, fill=_PAPER, font=font)


def _caption(texts: Said, width: int) -> PIL.Image.Image:
    font, small = _font(14), _font(11)
    lines: list[tuple[str, Font, tuple[int, int, int], int]] = []
    for row in texts:
        name = " ".join(_clean(str(row[key])) for key in ("granularity", "source") if row.get(key))
        lines.append((name, small, _FAINT, 15))
        lines += [(line, font, _INK, 18) for line in _wrapped(_clean(str(row["text"])), font, width - 8)]
    image = PIL.Image.new("RGB", (width, sum(line[3] for line in lines) + 6 if lines else 0), _PAPER)
    draw = PIL.ImageDraw.Draw(image)
    y = 3
    for text, face, colour, pitch in lines:
        draw.text((4, y), text, fill=colour, font=face)
        y += pitch
    return image


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines at most `width` pixels wide; words longer than a line are broken, what is left is cut."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        while font.getlength(word) > width and len(word) > 1:
            lengths = range(1, len(word))
            fits = max(1, bisect.bisect(lengths, width, key=lambda n: math.ceil(font.getlength(word[:n]))))
            lines += [line, word[:fits]] if line else [word[:fits]]
            line, word = "", word[fits:]
        if line and font.getlength(f"{line} {word}") > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
        if len(lines) > _MOST_LINES:
            return [*lines[:_MOST_LINES], "..."]
    return [*lines, line] if line else lines
