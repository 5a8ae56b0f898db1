"""Errors of regions: invented, missed, merged, split, shifted, jittered, mislabelled.

A thing is a region that hangs on no other, without the lines of text in the image (granularity `ocr`).
Its descriptions and masks hang on it and follow it. A changed box lies in the image and has sides of one
pixel or more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import numpy as np

from data_engine.noise.edits import edited, exchanged
from data_engine.noise.masks import Mask, cut, stretched, united
from data_engine.noise.model import (
    SYSTEMATIC_MISLABELLED,
    SYSTEMATIC_MISSED,
    SYSTEMATIC_SHIFTED,
    NoiseModel,
)
from data_engine.noise.page import Box, Line, Page

MIN_SPLIT = 8.0
"""Longer side, in pixels, from which on a box can be split."""

MOST_OVERLAP = 0.1
"""Highest IoU of an invented box with any true one."""

_TRIES = 24
_LEAST_MOVE = 0.001


def is_thing(line: Line) -> bool:
    row = line.row
    return (
        row.kind == "region"
        and row.box is not None
        and row.mask is None
        and row.granularity != "ocr"
        and line.parent is None
        and row.parent is None
    )


def things(page: Page) -> list[Line]:
    """Those that were not invented and whose box lies in the image with one pixel or more of each side."""
    found = [line for line in page.lines() if is_thing(line) and "invented" not in line.changes]
    return [line for line in found if _least_side(_clipped(line.box, page)) >= 1]


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes that have an area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (_area(a) + _area(b) - width * height)


def miss(page: Page, model: NoiseModel) -> None:
    for thing in things(page):
        if math.sqrt(_area(thing.box)) < model.systematic.missed_below:
            page.remove(thing, SYSTEMATIC_MISSED)
        elif _hit(page, model, "missed", thing):
            page.remove(thing, "missed")


def neighbours(page: Page) -> list[tuple[Line, Line]]:
    """Pairs of things of one class that could be taken for one, no thing in two pairs; the nearest first.

    They lie no further apart than their sides are long (the mean of all four), and neither holds the other.
    """
    found = sorted(things(page), key=lambda thing: thing.key)
    pairs = []
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            if a.row.text is None or (a.row.text, a.row.granularity) != (b.row.text, b.row.granularity):
                continue
            gap, union = _gap(a.box, b.box), _union(a.box, b.box)
            if gap <= sum((*_sides(a.box), *_sides(b.box))) / 4 and union not in (a.box, b.box):
                pairs.append((gap, a.key, b.key, a, b))
    chosen: list[tuple[Line, Line]] = []
    taken: set[str] = set()
    for _, key_a, key_b, a, b in sorted(pairs, key=lambda pair: pair[:3]):
        if not taken & {key_a, key_b}:
            taken |= {key_a, key_b}
            chosen.append((a, b))
    return chosen


def merge(page: Page, model: NoiseModel) -> None:
    """The first of a pair takes the box of both, and their masks; the other goes."""
    for a, b in neighbours(page):
        if not _hit(page, model, "merged", a):
            continue
        others = [line.row.mask for line in b.family() if line.row.mask is not None]
        _place(page, a, _clipped(_union(a.box, b.box), page), "merged", partial(_with_next, others=others))
        page.remove(b, "merged")


def split(page: Page, model: NoiseModel) -> None:
    """One box becomes two that meet somewhere between 3 and 7 tenths of its longer side."""
    for thing in things(page):
        x0, y0, x1, y1 = _clipped(thing.box, page)
        if max(x1 - x0, y1 - y0) < MIN_SPLIT or not _hit(page, model, "split", thing):
            continue
        share = float(page.rng("split", thing).uniform(0.3, 0.7))
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        parts: tuple[Box, Box]
        if x1 - x0 >= y1 - y0:
            parts = (x0, y0, x, y1), (x, y0, x1, y1)
        else:
            parts = (x0, y0, x1, y), (x0, y, x1, y1)
        for one, part in zip((thing, page.duplicate(thing, "/2")), parts, strict=True):
            _place(page, one, part, "split", partial(cut, box=part))


def shift(page: Page, model: NoiseModel) -> None:
    """Every box's corner that the rule names moves; at the image's edge it may have nowhere to go."""
    corner = model.systematic.corner
    if corner is None:
        return
    for thing in things(page):
        x0, y0, x1, y1 = thing.box
        dx, dy = model.systematic.shift * (x1 - x0), model.systematic.shift * (y1 - y0)
        box = (
            x0 - dx if "left" in corner else x0,
            y0 - dy if "top" in corner else y0,
            x1 + dx if "right" in corner else x1,
            y1 + dy if "bottom" in corner else y1,
        )
        _move(page, thing, _fitted(box, page), SYSTEMATIC_SHIFTED)


def jitter(page: Page, model: NoiseModel) -> None:
    for thing in things(page):
        if _hit(page, model, "jittered", thing):
            shake(page, thing, model.sigma, "jittered")


def shake(page: Page, line: Line, sigma: float, change: str) -> None:
    """Move each edge of a box by a normal deviate of `sigma` times its side, with all that hangs on it."""
    rng = page.rng(change, line)
    width, height = _sides(line.box)
    # A box as large as the image may be clipped back to what it was: draw again.
    for _ in range(_TRIES):
        moves = rng.normal(0, sigma, 4) * (width, height, width, height)
        x0, y0, x1, y1 = (float(v) for v in np.array(line.box) + moves)
        box = _fitted((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), page)
        if _move(page, line, box, change):
            break


def mislabel(page: Page, model: NoiseModel) -> None:
    for thing in things(page):
        name = thing.row.text
        if not name:
            continue
        called = model.systematic.called.get(name)
        if called is not None:
            _rename(page, thing, called, SYSTEMATIC_MISLABELLED)
            continue
        names = model.confusions.get(name) or dict.fromkeys((c for c in model.classes if c != name), 1.0)
        if names and _hit(page, model, "mislabelled", thing):
            weights = np.array([*names.values()])
            drawn = page.rng("mislabelled", thing).choice(len(names), p=weights / weights.sum())
            _rename(page, thing, [*names][int(drawn)], "mislabelled")


def invent(page: Page, model: NoiseModel) -> None:
    """For some of the true things one more, of about their size, where nothing true is.

    It comes before all other changes, so that what it copies is still as true as it was. The others
    leave what it makes alone.
    """
    boxes = [line.box for line in page.lines() if line.row.kind == "region" and line.row.box is not None]
    for thing in things(page):
        made = _somewhere(page, thing, boxes) if _hit(page, model, "invented", thing) else None
        if made is None:
            continue
        one = page.duplicate(thing, "/invented")
        old, name = one.box, one.row.text
        if name and model.classes:
            name = model.classes[int(page.rng("invented name", thing).integers(len(model.classes)))]
            _call(one, name)
        _place(page, one, made, "invented", partial(stretched, old=old, new=made))


def _hit(page: Page, model: NoiseModel, change: str, thing: Line) -> bool:
    return page.chance(change, thing) < model.rate(change, thing.row.text)


def _somewhere(page: Page, thing: Line, boxes: list[Box]) -> Box | None:
    """A free place for a box like the thing's. The longer none is found, the smaller it gets."""
    rng = page.rng("invented", thing)
    width, height = _sides(thing.box)
    for attempt in range(_TRIES):
        size, stretch = rng.uniform(0.7, 1.4) * 0.85**attempt, rng.uniform(0.85, 1.18)
        w = min(max(2.0, width * size * stretch), page.width)
        h = min(max(2.0, height * size / stretch), page.height)
        x, y = float(rng.uniform(0, page.width - w)), float(rng.uniform(0, page.height - h))
        box = _fitted((x, y, x + w, y + h), page)
        if all(iou(box, other) <= MOST_OVERLAP for other in boxes):
            return box
    return None


def _move(page: Page, thing: Line, box: Box, change: str) -> bool:
    """Give a thing another box, with all that hangs on it. False where it is the same box."""
    old = thing.box
    if max(abs(a - b) for a, b in zip(old, box, strict=True)) < _LEAST_MOVE:
        return False
    _place(page, thing, box, change, lambda mask: stretched(mask, old, box))
    return True


def _with_next(mask: Mask, others: list[Mask]) -> Mask:
    """A mask with the first of the others, which is used up."""
    return united(mask, others.pop(0)) if others else mask


def _place(page: Page, thing: Line, box: Box, change: str, follow: Callable[[Mask], Mask | None]) -> None:
    """Put a thing's family where its new box is; `follow` says what becomes of its masks."""
    old = thing.box
    for line in list(thing.family()):
        if line.gone or line.is_score:
            continue
        row = line.row
        if row.mask is not None:
            row.mask = follow(row.mask)
            if row.mask is None:
                page.remove(line, change)
                continue
        if row.quad is not None:
            row.quad = _carried(row.quad, old, box)
        if row.box is not None:
            row.box = box if line.box == old else _fitted(_as_box(_carried(row.box, old, box)), page)
        page.touch(line, change)


def _rename(page: Page, thing: Line, name: str, change: str) -> None:
    """Call a thing by another name, also where its descriptions have the old one."""
    for line in _call(thing, name):
        page.touch(line, change)


def _call(thing: Line, name: str) -> list[Line]:
    """The lines whose text is another by that."""
    old = thing.row.text or ""
    changed = []
    for line in thing.family():
        text = line.row.text
        if text is not None and line.row.kind == "region":
            line.row.text = name if line is thing else _with_name(text, old, name)
            if line.row.text != text:
                changed.append(line)
    return changed


def _with_name(text: str, old: str, new: str) -> str:
    word = re.compile(rf"(?<!\w){re.escape(old)}(?!\w)", re.IGNORECASE)
    for match in reversed(list(word.finditer(text))):
        text = edited(text, exchanged(text, match.start(), match.end(), new))
    return text


def _carried(numbers: object, old: Box, new: Box) -> tuple[float, ...]:
    """Points x, y, x, y, ... that go with a box from its old place to its new one."""
    points = np.array(numbers, dtype=np.float64).reshape(-1, 2)
    scale = np.array(_sides(new)) / _sides(old)
    moved = np.array(new[:2]) + (points - old[:2]) * scale
    return tuple(float(v) for v in moved.reshape(-1))


def _as_box(numbers: tuple[float, ...]) -> Box:
    x0, y0, x1, y1 = numbers
    return x0, y0, x1, y1


def _fitted(box: Box, page: Page) -> Box:
    """The box in the image, each side one pixel or longer."""
    x0, x1 = _interval(box[0], box[2], page.width)
    y0, y1 = _interval(box[1], box[3], page.height)
    return x0, y0, x1, y1


def _interval(low: float, high: float, size: int) -> tuple[float, float]:
    low, high = min(max(low, 0.0), size), min(max(high, 0.0), size)
    if high - low < 1:
        low = min(max((low + high - 1) / 2, 0.0), size - 1)
        high = low + 1
    return float(low), float(high)


def _clipped(box: Box, page: Page) -> Box:
    x0, y0 = max(0.0, box[0]), max(0.0, box[1])
    return x0, y0, min(float(page.width), box[2]), min(float(page.height), box[3])


def _sides(box: Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _least_side(box: Box) -> float:
    return min(_sides(box))


def _area(box: Box) -> float:
    width, height = _sides(box)
    return width * height


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _gap(a: Box, b: Box) -> float:
    """The longer of the distances between two boxes along x and along y; 0 where they touch."""
    return max(0.0, max(a[0], b[0]) - min(a[2], b[2]), max(a[1], b[1]) - min(a[3], b[3]))
