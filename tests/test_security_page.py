"""docs/security.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/security.md"


def test_every_test_that_the_page_names_is_there() -> None:
    there = {
        node.name
        for path in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef)
    }
    named = re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 40
    assert sorted(set(named) - there) == []


def test_every_test_of_security_is_named_or_stands_beside_one() -> None:
    """Each file of such tests shows something on the page."""
    text = PAGE.read_text(encoding="utf-8")
    for path in TESTS.glob("test_security_*.py"):
        if path.name == Path(__file__).name:
            continue
        names = [node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef)]
        assert any(f"`{name}`" in text for name in names), path.name
