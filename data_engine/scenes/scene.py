"""One scene: its pixels, and everything that is true of it as annotations.

The truth of a scene holds, in this order, so that parents stand before their children:
- three texts (brief, detailed, more_detailed) and, where there are signs, all their text (ocr);
- for each thing a region with its kind as text (`phrase`), a second region row with a description
  ("small red star", `brief`) whose parent is the first, and a mask row whose parent is the first;
- for each line of text on a sign a region (`ocr`) with its quad;
- for each phrase of each caption and each thing it stands for, a phrase row with the thing's box, and
  a mask row whose parent is that phrase row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError
from data_engine.scenes.draw import lay, paint_background
from data_engine.scenes.language import Box, Caption, Described, captions
from data_engine.scenes.layout import Layout, random_layout

SOURCE = "truth"

MIN_SIDE, MAX_SIDE = 96, 4096


@dataclass(frozen=True, eq=False)
class Scene:
    """`pixels` is (height, width, 3) uint8, as drawn: a JPEG of it differs by its compression."""

    pixels: np.ndarray
    layout: Layout
    captions: tuple[Caption, ...]
    annotations: tuple[Annotation, ...]


def make_scene(seed: int, index: int, size: tuple[int, int] = (320, 240)) -> Scene:
    """Scene `index` of the world `seed`; `size` is (width, height) in pixels.

    The same arguments give the same scene whatever else is made. Raises RecipeError for a size
    outside of `MIN_SIDE`..`MAX_SIDE`, or a negative seed or index.
    """
    width, height = size
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise RecipeError(
            f"scenes cannot be {width} x {height} pixels",
            f"choose a width and a height from {MIN_SIDE} to {MAX_SIDE}",
        )
    if seed < 0 or index < 0:
        raise RecipeError(f"there is no scene {index} of seed {seed}", "seed and index start at 0")
    rng = np.random.default_rng([seed, index])
    layout = random_layout(rng, width, height)
    canvas = paint_background(layout.background, width, height, rng)
    lay(canvas, [(thing.stamp, thing.x, thing.y) for thing in layout.things])
    pixels = np.clip(canvas + np.float32(0.5), 0, 255, out=canvas).astype(np.uint8)

    masks = layout.owner[..., None] == np.arange(len(layout.things), dtype=np.int16)
    things = [
        Described(
            thing.kind,
            thing.colour,
            thing.size,
            _bounds(masks[..., i]),
            int(masks[..., i].sum()),
            tuple(line.text for line in thing.lines),
        )
        for i, thing in enumerate(layout.things)
    ]
    told = captions(things, layout.hides, layout.background, width, height, rng)
    return Scene(pixels, layout, tuple(told), tuple(_truth(layout, things, masks, told)))


def _bounds(mask: np.ndarray) -> Box:
    """The box of a mask in pixel edges: x1 and y1 are one past the last pixel."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _encoded(masks: np.ndarray) -> list[dict[str, Any]]:
    """COCO RLE of masks (h, w, n)."""
    return [
        {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}
        for rle in pycocotools.mask.encode(np.asfortranarray(masks, dtype=np.uint8))
    ]


def _truth(
    layout: Layout, things: list[Described], masks: np.ndarray, told: list[Caption]
) -> list[Annotation]:
    rles = _encoded(masks)
    texts = [Annotation("text", c.text, c.granularity, source=SOURCE) for c in told]
    rows = [*texts]
    written = [line for thing in things for line in thing.lines]
    if written:
        rows.append(Annotation("text", "\n".join(written), "ocr", source=SOURCE))
    for thing, rle in zip(things, rles, strict=True):
        region = Annotation("region", thing.kind, "phrase", box=thing.box, source=SOURCE)
        words = " ".join(word for word in (thing.size, thing.colour, thing.kind) if word)
        rows += [
            region,
            Annotation("region", words, "brief", parent=region, box=thing.box, source=SOURCE),
            Annotation("region", parent=region, box=thing.box, mask=rle, source=SOURCE),
        ]
    for placed in layout.things:
        for line in placed.lines:
            quad = line.quad + (placed.x, placed.y)
            low, high = quad.min(axis=0), quad.max(axis=0)
            rows.append(
                Annotation(
                    "region",
                    line.text,
                    "ocr",
                    box=(*_rounded(low), *_rounded(high)),
                    quad=_rounded(quad.reshape(-1)),
                    source=SOURCE,
                )
            )
    for caption, text in zip(told, texts, strict=True):
        for phrase in caption.phrases:
            start, end = phrase.span
            for index in phrase.things:
                row = Annotation(
                    "phrase",
                    caption.text[start:end],
                    parent=text,
                    span=phrase.span,
                    box=things[index].box,
                    source=SOURCE,
                )
                rows += [
                    row,
                    Annotation("phrase", parent=row, box=row.box, mask=rles[index], source=SOURCE),
                ]
    return rows


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """Hundredths of a pixel: more would be noise, and text files would be longer for it."""
    return tuple(round(float(v), 2) for v in values)
