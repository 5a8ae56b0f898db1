"""One image's story laid out as a card of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.errors import ImageError
from data_engine.query_output import printable
from data_engine.schema import CHANGE, ELEMENTS, MEMBER
from pipelines.report.card import Card, Line, Regions, Shape, Text
from pipelines.report.mask_path import mask_path
from pipelines.report.words import cut

SHOWN_CHARACTERS = 2_000
"""Of one text. A longer one is cut, with a note that says how long it is."""

MOST_TEXTS, MOST_SHAPES, MOST_MASKS, MOST_MEASURES = 12, 300, 80, 24
"""Of one image. What is left out is counted in a note."""

HUES = 8

_TEXT_ORDER = ("brief", "detailed", "more_detailed", "class", "ocr")
_REGION_ORDER = ("phrase", "brief", "noun_chunk", "ocr", "proposal")
_TEXT_NAMES = {
    "brief": "Brief", "detailed": "Detailed", "more_detailed": "More detailed", "class": "Label",
    "ocr": "Text in the picture",
}  # fmt: skip
_ABOUT_OTHERS = (MEMBER, ELEMENTS, CHANGE)

Statement = dict[str, Any]


def lay_out(
    story: Mapping[str, Any], masks: Mapping[str, Any], round_: int | None, sources: Sequence[str]
) -> Card:
    """A card of a story (pipelines.viewer.story), with the masks by their annotation ids.

    Fates are those of `round_`, or where it is None of the last round that judged the statement. Of `sources`
    alone where some are given.
    """
    image = story["image"]
    key, *names = [printable(key) for key in image["keys"] or [image["image_id"]]]
    facts = [f"{image['width']} × {image['height']}", image["format"], image["image_id"]]
    facts += [f"also {', '.join(names[:5])}"] if names else []
    made = Card(
        key[:200], image["image_id"], image["width"], image["height"], " · ".join(facts), key[:200],
        notes=[*story["missing"], *(f"{f['stage']} could not use it: {f['reason']}, {f['message'][:300]}" for f in story["failures"])],
    )  # fmt: skip
    said = [s for s in story["statements"] if not sources or s["source"] in sources]
    _Layout(made, said, masks, round_).lay()
    return made


class _Layout:
    """The state of laying out one card: what hangs on what, and the numbers given so far."""

    def __init__(self, made: Card, said: list[Statement], masks: Mapping[str, Any], round_: int | None):
        self.card, self.said, self.masks, self.round = made, said, masks, round_
        self.children: dict[str, list[Statement]] = {}
        for statement in said:
            if statement["parent"]:
                self.children.setdefault(statement["parent"], []).append(statement)
        self.masks_left = MOST_MASKS
        self.shapes_left_out = 0
        self.damaged = 0
        self.hues: dict[str, int] = {}
        self.names: dict[str, str] = {}

    def lay(self) -> None:
        texts = sorted((s for s in self.said if _is_text(s)), key=self._place)
        for layer, statement in enumerate(texts[:MOST_TEXTS]):
            self.card.texts.append(self._text(statement, layer))
        alt = next((s["text"] for s in texts if s["text"] and not self._dropped(s)), None)
        if alt:
            self.card.alt = printable(alt[:300])
        by_source: dict[str, list[Statement]] = {}
        for statement in self.said:
            if _is_region(statement):
                by_source.setdefault(_voice(statement), []).append(statement)
        for layer, (source, regions) in enumerate(by_source.items(), len(texts)):
            regions.sort(key=lambda statement: _order(_REGION_ORDER, statement["granularity"]))
            lines = [self._region(statement, layer) for statement in regions if self._room()]
            self.card.regions.append(Regions(source, layer, lines))
        measures = [s for s in self.said if s["kind"] == "image" and not s["parent"]]
        self.card.measures = [_measure(statement) for statement in measures[:MOST_MEASURES]]
        self._tell_of_left_out(len(texts))

    def _place(self, statement: Statement) -> tuple[bool, int, bool, str]:
        granularity = statement["granularity"]
        order = _order(_TEXT_ORDER, granularity)
        alone = not self.children.get(statement["id"])
        return self._dropped(statement), order, alone, _voice(statement)

    def _text(self, statement: Statement, layer: int) -> Text:
        groups: dict[tuple[int, int] | str, list[Statement]] = {}
        for child in self.children.get(statement["id"], []):
            if child["kind"] == "phrase" and child["box"] and not child["mask"] and self._room():
                key = tuple(child["span"]) if child["span"] else child["text"] or ""
                groups.setdefault(key, []).append(child)
        lines = [self._phrase(group, layer, number) for number, group in enumerate(groups.values())]
        shown = (statement["text"] or "")[:SHOWN_CHARACTERS]
        pieces, placed = cut(shown, [key if isinstance(key, tuple) else (0, 0) for key in groups])
        length = statement["length"] or 0
        note = "" if length <= len(shown) else f"cut: {length:,} characters, of which the first {len(shown):,} are shown"  # fmt: skip
        name = _TEXT_NAMES.get(statement["granularity"], statement["granularity"] or "Text")
        loose = [line for number, line in enumerate(lines) if number not in placed]
        fate, dropped = self._fate(statement), self._dropped(statement)
        return Text(
            name, self._facts(statement), fate, dropped, layer if lines else None, pieces, lines, loose, note
        )

    def _phrase(self, group: list[Statement], layer: int, number: int) -> Line:
        hue = number % HUES
        shapes = [self._shape(phrase, layer, hue) for phrase in group]
        first = group[0]
        dropped = all(self._dropped(phrase) for phrase in group)
        boxes = "1 box" if len(group) == 1 else f"{len(group)} boxes"
        facts = f"{boxes}, {self._facts(first)}"
        return Line(_short(first["text"]), facts, self._fate(first), dropped, hue, shapes)

    def _region(self, statement: Statement, layer: int) -> Line:
        text = _short(statement["text"]) or f"({statement['granularity'] or statement['kind']})"
        # A further text of a region has the region's colour.
        of = self.names.get(statement["parent"] or "", text.lower())
        self.names[statement["id"]] = of
        hue = self.hues.setdefault(of, len(self.hues) % HUES)
        number = self._shape(statement, layer, hue)
        facts = self._facts(statement, with_source=False)
        if statement["granularity"] not in (None, "phrase"):
            facts = f"{statement['granularity']} {facts}".rstrip()
        return Line(text, facts, self._fate(statement), self._dropped(statement), hue, [number])

    def _shape(self, statement: Statement, layer: int, hue: int) -> int:
        number = len(self.card.shapes)
        box, quad = _finite(statement["box"]), _finite(statement["quad"])
        if box:
            # A box whose corners are out of order is drawn all the same: a check says that it is wrong.
            box = [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]
        corners = (
            " ".join(f"{x:g},{y:g}" for x, y in zip(quad[::2], quad[1::2], strict=True)) if quad else None
        )
        told = " · ".join(
            filter(None, [_short(statement["text"]), self._facts(statement), self._fate(statement)])
        )
        mask = next((c["id"] for c in self.children.get(statement["id"], []) if c["mask"]), None)
        path = self._mask(mask or (statement["id"] if statement["mask"] else ""))
        self.card.shapes.append(Shape(number, layer, hue, told, self._dropped(statement), box, corners, path))
        return number

    def _mask(self, id_: str) -> str:
        if id_ not in self.masks or not self.masks_left:
            return ""
        self.masks_left -= 1
        try:
            return mask_path(self.masks[id_])
        except ImageError:
            self.damaged += 1
            return ""

    def _facts(self, statement: Statement, with_source: bool = True) -> str:
        given = [
            f"{child['source']} {_score(child['score'])}"
            for child in self.children.get(statement["id"], [])
            if _is_score(child)
        ]
        # Why a merge, or the noise model, has it so.
        changes = [
            _short(child["text"])
            for child in self.children.get(statement["id"], [])
            if child["granularity"] == CHANGE
        ]
        own = [_voice(statement)] if with_source else []
        return " · ".join([*own, *filter(None, [_score(statement["score"])]), *given[:3], *changes[:3]])

    def _verdict(self, statement: Statement) -> dict[str, Any] | None:
        verdicts: list[dict[str, Any]] = statement["verdicts"]
        own = [v for v in verdicts if v["round"] == self.round]
        return own[-1] if own else verdicts[-1] if verdicts else None

    def _dropped(self, statement: Statement) -> bool:
        verdict = self._verdict(statement)
        return verdict is not None and not verdict["kept"]

    def _fate(self, statement: Statement) -> str | None:
        """Which filter dropped it, and what that measured; None where it was kept or nobody judged it."""
        verdict = self._verdict(statement)
        if verdict is None or verdict["kept"]:
            return None
        value = "" if verdict["value"] is None else f" ({_score(verdict['value'])})"
        return f"dropped by {printable(verdict['dropped_by'])[:60]}{value}"

    def _room(self) -> bool:
        if len(self.card.shapes) < MOST_SHAPES:
            return True
        self.shapes_left_out += 1
        return False

    def _tell_of_left_out(self, texts: int) -> None:
        if texts > MOST_TEXTS:
            self.card.notes.append(f"{texts - MOST_TEXTS:,} more texts are left out of this page")
        if self.shapes_left_out:
            self.card.notes.append(f"{self.shapes_left_out:,} more boxes are left out of this page")
        if self.damaged:
            self.card.notes.append(f"{self.damaged:,} masks are damaged and not drawn")
        if not self.said:
            self.card.notes.append("nothing was said of this image")


def _order(names: Sequence[str], granularity: str | None) -> int:
    return names.index(granularity) if granularity in names else len(names)


def _is_text(s: Statement) -> bool:
    return s["kind"] == "text" and s["text"] is not None and s["granularity"] not in _ABOUT_OTHERS


def _is_region(s: Statement) -> bool:
    return (
        s["kind"] == "region"
        and bool(s["box"])
        and s["granularity"] not in _ABOUT_OTHERS
        and not (s["mask"] and s["parent"])
    )


def _is_score(s: Statement) -> bool:
    return s["text"] is None and not s["box"] and s["score"] is not None


def _measure(s: Statement) -> str:
    """What was measured of the picture itself: a score, or a number that is a text as it is beyond 0..1."""
    value = _score(s["score"]) or _short(s["text"])
    return f"{printable(s['granularity'] or 'measure')[:60]} {value} · {_voice(s)}"


def _voice(s: Statement) -> str:
    return f"{s['source']} · round {s['round']}" if s["round"] else str(s["source"])


def _score(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if 0 < value < 0.1 else f"{value:.2f}"


def _short(text: str | None) -> str:
    text = printable((text or "")[:121])
    return text if len(text) <= 120 else text[:120] + "…"


def _finite(values: list[float] | None) -> list[float] | None:
    """Coordinates as they can stand in an SVG; None for those that are no numbers."""
    if not values or any(v is None or not abs(v) < 1e9 for v in values):
        return None
    return [round(v, 1) for v in values]
