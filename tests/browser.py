"""A real headless browser for tests of pages. Tests that use it skip where the machine has none."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 120_000
"""For whatever a page is to show: on a busy machine a click may take many seconds."""

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for a module's tests; FDE_CHROMIUM names another than the one on the path."""
    found = os.environ.get("FDE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium here (set FDE_CHROMIUM to one)")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield running
        running.close()


@contextlib.contextmanager
def opened(browser: Any, url: str, **context: Any) -> Iterator[Any]:
    """A page in a fresh context; `context` as Playwright's new_context has it (viewport, color_scheme, ...).

    Fails when a script of the page raised, or the page's Content-Security-Policy had to stop something.
    """
    complaints: list[str] = []
    made = browser.new_context(**context)
    try:
        page = made.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text) if "Content Security Policy" in message.text else None
            ),
        )
        page.goto(url)
        yield page
    finally:
        made.close()
    assert not complaints, complaints
