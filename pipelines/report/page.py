"""The page of a report, from what it holds: a template whose values are all escaped, with its style and script."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from data_engine.errors import MissingPackageError

try:
    import jinja2
    from markupsafe import Markup, escape
except ImportError as error:
    raise MissingPackageError.of(error.name or "jinja2", "report") from error


def render(**holds: Any) -> str:
    """The HTML of a report. Its Content-Security-Policy allows this style and this script, pictures that are in
    the page, and nothing else."""
    folder = files("pipelines.report")
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["ticks"] = ticks
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(style=Markup(style), script=Markup(script), policy=policy, **holds)  # noqa: S704 - both are files of this package


def trusted(html: str) -> str:
    """HTML that was made here, which the template is not to escape."""
    return Markup(html)  # noqa: S704 - it is what the name says


def ticks(text: str) -> str:
    """Text in which `words like these` are code, escaped."""
    parts = [
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
