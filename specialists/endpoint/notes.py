"""What is already said of an image, as the fields of a prompt.

Each statement is one line and a JSON string between tags, so that a model can tell data from words that
are meant for it: a string cannot end its line, its quotes or its tag. That marks where data begins and
ends; it cannot make a model ignore what the data says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence

from specialists.endpoint.characters import one_line
from specialists.said import Statement

FIELDS = ("brief", "detailed", "classes", "regions", "ocr", "width", "height")
"""Names that a prompt may have."""

_REGION_TEXTS = ("brief", "noun_chunk", "phrase")
"""Of several texts of one region the first of these is shown: the one that says most."""


def notes(
    fields: Collection[str],
    said: Sequence[Statement],
    size: tuple[int, int],
    most: int,
    longest: int,
) -> tuple[dict[str, str], int]:
    """The value of each of `fields`, and how many statements are in them.

    `size` is the image's width and height. A field shows at most `most` statements, each cut to
    `longest` characters. Of more regions the largest are shown, of everything else the first.
    """
    lines: dict[str, Callable[[], list[str]]] = {
        "brief": lambda: _quoted(_texts(said, "brief"), longest),
        "detailed": lambda: _quoted(_texts(said, "detailed"), longest),
        "classes": lambda: _quoted(_texts(said, "class"), longest),
        "regions": lambda: _regions(said, size, longest),
        "ocr": lambda: _quoted(_writing(said), longest),
    }
    values = {"width": str(size[0]), "height": str(size[1])}
    shown = 0
    for name in lines.keys() & fields:
        found = lines[name]()
        shown += min(len(found), most)
        values[name] = _section(name, found, most)
    return values, shown


def _section(name: str, lines: Sequence[str], most: int) -> str:
    inside = list(lines[:most]) or ["none"]
    if len(lines) > most:
        inside.append(f"and {len(lines) - most} more")
    return "\n".join([f"<{name}>", *inside, f"</{name}>"])


def _texts(said: Iterable[Statement], granularity: str) -> list[str]:
    return [s.text or "" for s in said if (s.kind, s.granularity) == ("text", granularity)]


def _writing(said: Sequence[Statement]) -> list[str]:
    """Lines of text in the image; where nobody read lines, all of it as one string."""
    lines = [s.text or "" for s in said if (s.kind, s.granularity) == ("region", "ocr")]
    return lines or _texts(said, "ocr")


def _quoted(texts: Iterable[str], longest: int) -> list[str]:
    """Each text once, as a JSON string; the order is kept."""
    cut = dict.fromkeys(one_line(text, longest) for text in texts)
    return [_string(text) for text in cut if text]


def _string(text: str) -> str:
    """JSON in which no tag can be read, by escapes that JSON itself has."""
    return json.dumps(text, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def _regions(said: Sequence[Statement], size: tuple[int, int], longest: int) -> list[str]:
    """One line per region, the largest first: its text, roughly where, and its box in percent."""
    texts: dict[str, dict[str, str]] = {}
    boxes: dict[str, tuple[float, float, float, float]] = {}
    roots = {str(s.reference) for s in said if s.kind == "region" and s.parent is None}
    for s in said:
        if s.kind != "region" or s.granularity not in _REGION_TEXTS or s.box is None:
            continue
        text = one_line(s.text or "", longest)
        if text:
            # A further text for the same region names that region's row as its parent.
            region = str(s.parent) if str(s.parent) in roots else str(s.reference)
            texts.setdefault(region, {}).setdefault(s.granularity, text)
            boxes.setdefault(region, s.box)
    found: dict[str, float] = {}
    for region, said_of_it in texts.items():
        box = boxes[region]
        text = next(said_of_it[g] for g in _REGION_TEXTS if g in said_of_it)
        found.setdefault(f"{_string(text)} {_place(box, size)}", (box[2] - box[0]) * (box[3] - box[1]))
    return sorted(found, key=lambda line: -found[line])


def _place(box: tuple[float, float, float, float], size: tuple[int, int]) -> str:
    """`top left, x 12-30%, y 8-41%`: percents, since a model may be shown another size than the box's."""
    x0, y0, x1, y1 = (
        round(100 * min(max(value / side, 0.0), 1.0)) for value, side in zip(box, (*size, *size), strict=True)
    )
    across = ("left", "", "right")[min((x0 + x1) * 3 // 200, 2)]
    down = ("top", "", "bottom")[min((y0 + y1) * 3 // 200, 2)]
    return f"({' '.join(filter(None, (down, across))) or 'centre'}; x {x0}-{x1}%, y {y0}-{y1}%)"
