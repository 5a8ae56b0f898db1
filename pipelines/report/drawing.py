"""Altair charts as SVG that stands in a page: in its text colour, without style attributes, without a network."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

from data_engine.errors import MissingPackageError, QueryError

try:
    import vl_convert
except ImportError as error:
    raise MissingPackageError.of(error.name or "vl-convert-python", "report") from error

if TYPE_CHECKING:
    import altair as alt

_SVG = "http://www.w3.org/2000/svg"

_KEPT = frozenset(
    {"viewBox", "width", "height", "transform", "display", "id", "clip-path"}
    | {"d", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "points"}
    | {
        "fill",
        "fill-opacity",
        "stroke",
        "stroke-width",
        "stroke-opacity",
        "stroke-dasharray",
        "stroke-linecap",
    }
    | {
        "stroke-linejoin",
        "stroke-miterlimit",
        "opacity",
        "text-anchor",
        "font-size",
        "font-weight",
        "font-style",
    }
)
"""Attributes that draw something. What else Vega writes is for its own scripts and styles."""


def svg(chart: alt.TopLevelMixin, name: str, label: str) -> str:
    """A chart as an <svg> element that screen readers call `label`; `name` keeps its ids apart from other charts'.

    Text and axes are in the colour of the text around (`currentColor`). Raises QueryError for one that cannot be drawn.
    """
    try:
        drawn = vl_convert.vegalite_to_svg(chart.to_dict(), config=_config(), allowed_base_urls=[])
    except ValueError as error:
        first = str(error).strip().splitlines()
        raise QueryError(
            f"the chart cannot be drawn: {' '.join(first[:2])}", "its figures are a table"
        ) from error
    root = ET.fromstring(drawn)  # noqa: S314 - written here, with no entities of others
    for element in root.iter():
        for key in list(element.attrib):
            if key not in _KEPT:
                del element.attrib[key]
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
        if "clip-path" in element.attrib:
            element.set("clip-path", (element.get("clip-path") or "").replace("url(#", f"url(#{name}-"))
    root.set("role", "img")
    root.set("aria-label", label)
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")


def _config() -> dict[str, Any]:
    ink, faint = "currentColor", {"domainOpacity": 0.35, "tickOpacity": 0.35, "gridOpacity": 0.12}
    lines = {"domainColor": ink, "tickColor": ink, "gridColor": ink, "labelColor": ink, "titleColor": ink}
    return {
        "background": "transparent",
        "view": {"stroke": "currentColor", "strokeOpacity": 0.15},
        "axis": {**lines, **faint, "titleFontWeight": "normal"},
        "header": {"labelColor": ink, "titleColor": ink, "labelFontSize": 11},
        "legend": {"labelColor": ink, "titleColor": ink},
        "text": {"color": ink},
        "title": {"color": ink, "subtitleColor": ink},
    }
