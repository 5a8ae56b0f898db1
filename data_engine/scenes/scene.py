"""One scene: its pixels, and everything that is true of it as annotations.

The truth of a scene holds, in this order, so that parents stand before their children:
- three texts (brief, detailed, more_detailed) and, where there is writing, all of it (ocr);
- for each thing a region with its kind as text (`phrase`), a second region row with a description
  ("small striped red star", `brief`) whose parent is the first, and a mask row whose parent is the first;
- for each line of text a region (`ocr`) with its quad;
- for each phrase of each caption and each thing it stands for, a phrase row with the thing's box, and
  a mask row whose parent is that phrase row.

Boxes and masks are of what is seen: neither what another thing hides nor what lies beyond the edge.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import pycocotools.mask

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError
from data_engine.scenes.backgrounds import paint_background
from data_engine.scenes.draw import lay
from data_engine.scenes.language import Caption, Described, Told, captions, description
from data_engine.scenes.layout import Layout, random_layout
from data_engine.scenes.optics import Optics, random_optics, taken
from data_engine.scenes.world import PRETRAINING, World

SOURCE = "truth"

MIN_SIDE, MAX_SIDE = 96, 4096

TRAINING_SEED = 1_000_000
"""Models are trained on scenes of this seed and those above, so every seed below it is unseen."""

UNSEEN_SEED = 0
"""Scenes of this seed measure them."""


@dataclass(frozen=True, eq=False)
class Scene:
    """`pixels` is (height, width, 3) uint8, before compression: `jpeg` gives the stored file."""

    pixels: np.ndarray
    world: World
    layout: Layout
    optics: Optics
    captions: tuple[Caption, ...]
    annotations: tuple[Annotation, ...]

    def jpeg(self) -> bytes:
        """The picture as it is stored, in the scene's own quality."""
        buffer = io.BytesIO()
        PIL.Image.fromarray(self.pixels).save(buffer, "JPEG", quality=self.optics.quality)
        return buffer.getvalue()


def check_scenes(seed: int, index: int, size: tuple[int, int]) -> None:
    """Raises RecipeError where `make_scene` would."""
    width, height = size
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise RecipeError(
            f"scenes cannot be {width} x {height} pixels",
            f"choose a width and a height from {MIN_SIDE} to {MAX_SIDE}",
        )
    if seed < 0 or index < 0:
        raise RecipeError(f"there is no scene {index} of seed {seed}", "seed and index start at 0")


def training_seed(seed: int) -> int:
    """The seed of the scenes that a training with `seed` sees. Raises RecipeError for a negative one."""
    if seed < 0:
        raise RecipeError(f"there is no training of seed {seed}", "seeds start at 0")
    return TRAINING_SEED + seed


def make_scene(
    seed: int, index: int, size: tuple[int, int] = (320, 240), world: World = PRETRAINING
) -> Scene:
    """Scene `index` of the seed `seed` in a world; `size` is (width, height) in pixels.

    The same arguments give the same scene whatever else is made. Raises RecipeError for a size
    outside of `MIN_SIDE`..`MAX_SIDE`, or a negative seed or index.
    """
    check_scenes(seed, index, size)
    width, height = size
    # Worlds share no scene: the name is part of what chance starts from.
    rng = np.random.default_rng([seed, index, zlib.crc32(world.name.encode())])
    optics = random_optics(width, height, rng)
    layout = random_layout(world, rng, width, height)
    canvas = paint_background(layout.background, world, width, height, rng)
    lay(canvas, layout.extras)
    lay(canvas, [(thing.stamp, thing.x, thing.y) for thing in layout.things], optics.shadow)
    pixels = taken(canvas, optics, rng)

    masks = np.zeros((height, width, len(layout.things)), dtype=np.uint8, order="F")
    things = []
    for i, thing in enumerate(layout.things):
        seen = layout.owner[thing.window] == i
        masks[(*thing.window, i)] = seen
        columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
        things.append(
            Described(
                thing.kind,
                thing.colour,
                thing.size,
                thing.surface,
                # In pixel edges: x1 and y1 are one past the last pixel.
                (
                    float(thing.x + columns[0]),
                    float(thing.y + rows[0]),
                    float(thing.x + columns[-1] + 1),
                    float(thing.y + rows[-1] + 1),
                ),
                int(seen.sum()),
                tuple(line.text for line in thing.lines),
                thing.facing,
                thing.cut,
            )
        )
    told = captions(
        Told(world, things, layout.hides, layout.acts, layout.rows, layout.background, optics, width, height),
        rng,
    )
    truth = tuple(_truth(world, layout, things, masks, told))
    return Scene(pixels, world, layout, optics, tuple(told), truth)


def _encoded(masks: np.ndarray) -> list[dict[str, Any]]:
    """COCO RLE of masks (h, w, n), uint8 in Fortran's order."""
    return [
        {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}
        for rle in pycocotools.mask.encode(masks)
    ]


def _truth(
    world: World, layout: Layout, things: list[Described], masks: np.ndarray, told: list[Caption]
) -> list[Annotation]:
    rles = _encoded(masks)
    texts = [Annotation("text", c.text, c.granularity, source=SOURCE) for c in told]
    rows = [*texts]
    written = _in_reading_order(layout)
    if written:
        rows.append(Annotation("text", "\n".join(text for text, _ in written), "ocr", source=SOURCE))
    for thing, rle in zip(things, rles, strict=True):
        region = Annotation("region", thing.kind, "phrase", box=thing.box, source=SOURCE)
        words = description(world, thing)
        rows += [
            region,
            Annotation("region", words, "brief", parent=region, box=thing.box, source=SOURCE),
            Annotation("region", parent=region, box=thing.box, mask=rle, source=SOURCE),
        ]
    for words, quad in written:
        low, high = quad.min(axis=0), quad.max(axis=0)
        rows.append(
            Annotation(
                "region",
                words,
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


def _in_reading_order(layout: Layout) -> list[tuple[str, np.ndarray]]:
    """Each line with its quad (4, 2) in the picture: panel by panel from the top, lines as they are read."""
    bearers = sorted((thing for thing in layout.things if thing.lines), key=lambda thing: (thing.y, thing.x))
    return [(line.text, line.quad + (thing.x, thing.y)) for thing in bearers for line in thing.lines]


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """Hundredths of a pixel: more would be noise, and text files would be longer for it."""
    return tuple(round(float(v), 2) for v in values)
