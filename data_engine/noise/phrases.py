"""Errors of the links between phrases and boxes: one that is not there, one to another thing, one that is out of place."""

from __future__ import annotations

from data_engine.noise.boxes import iou, is_thing, shake
from data_engine.noise.masks import Mask
from data_engine.noise.model import NoiseModel
from data_engine.noise.page import Box, Line, Page

OTHER = 0.5
"""Highest IoU with its own box at which a box counts as another thing's."""

Target = tuple[Box, Mask | None]


def links(page: Page) -> list[Line]:
    """Rows that give a phrase its box."""
    return [line for line in page.lines() if is_link(line)]


def is_link(line: Line) -> bool:
    row = line.row
    return row.kind == "phrase" and row.text is not None and row.box is not None and row.mask is None


def targets(page: Page) -> list[Target]:
    """What a phrase can be linked to: boxes of things and of phrases, each once, with a mask if it has one."""
    found: dict[Box, Mask | None] = {}
    for line in (*filter(is_thing, page.lines()), *links(page)):
        masks = (child.row.mask for child in line.children if child.row.mask is not None)
        if found.get(line.box) is None:
            found[line.box] = next(masks, None)
    return sorted(found.items(), key=lambda target: target[0])


def wrong_targets(link: Line, all_links: list[Line], everything: list[Target]) -> list[Target]:
    """Boxes of things that the phrase does not name: neither its own nor that of a row of the same phrase."""
    own = [one.box for one in all_links if one.parent is link.parent and one.row.span == link.row.span]
    own.append(link.box)
    return [target for target in everything if all(iou(target[0], box) < OTHER for box in own)]


def relink(page: Page, model: NoiseModel) -> None:
    """Drop links, lead others astray, and shift others. It comes before boxes are changed: a wrong box is a true
    thing's."""
    everything, all_links = targets(page), links(page)
    chosen: list[tuple[Line, Target]] = []
    shifted: list[Line] = []
    for link in all_links:
        if page.chance("dropped_link", link) < model.rate("dropped_link"):
            page.remove(link, "dropped_link")
        elif page.chance("wrong_link", link) < model.rate("wrong_link"):
            wrong = wrong_targets(link, all_links, everything)
            if wrong:
                drawn = int(page.rng("wrong_link", link).integers(len(wrong)))
                chosen.append((link, wrong[drawn]))
        elif page.chance("jittered_link", link) < model.rate("jittered_link"):
            shifted.append(link)
    for link in shifted:
        shake(page, link, model.sigma, "jittered_link")
    for link, (box, mask) in chosen:
        link.row.box = box
        page.touch(link, "wrong_link")
        for child in link.children:
            if child.gone or child.row.mask is None:
                continue
            if mask is None:
                page.remove(child, "wrong_link")
            else:
                child.row.mask, child.row.box = mask, box
                page.touch(child, "wrong_link")
