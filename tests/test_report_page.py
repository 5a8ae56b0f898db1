"""The report in a real headless browser: pointing, the keyboard, themes, a phone's width, print, and nothing loaded."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_engine.qa.scope import find_scope
from pipelines.report.write import write_report
from tests.browser import browser, opened  # noqa: F401 - a fixture
from tests.viewed import HOSTILE, scenes

LIT = "[...document.querySelectorAll('.stage g.lit')].map((g) => g.dataset.s)"
SHOWN = "(card) => [...card.querySelectorAll('.stage g')].filter((g) => getComputedStyle(g).display !== 'none').length"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    """Its address: 12 scenes with their truth, a source half of which a filter dropped, and a hostile caption."""
    folder = tmp_path_factory.mktemp("report")
    dataset = scenes(folder, count=12, shard_size=12)
    write_report(dataset, folder / "report.html", find_scope(dataset))
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser: Any, report: str) -> Iterator[Any]:  # noqa: F811
    with opened(browser, report, viewport={"width": 1280, "height": 860}) as page:
        yield page


def card_with(page: Any, what: str) -> Any:
    return page.locator(f".card:has({what})").first


def test_it_loads_nothing_and_says_nothing_on_the_console(browser, report):  # noqa: F811
    made = browser.new_context(offline=True)
    page = made.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
    page.goto(report)
    assert page.locator(".card").count() == 12
    # `naturalWidth` of an <img> that has the same bytes: the pictures are whole.
    assert page.evaluate(
        """async () => {
            const all = [...document.querySelectorAll("image")];
            for (const one of all) if (!(await fetchless(one.getAttribute("href")))) return false;
            return all.length;
            function fetchless(href) {
                return new Promise((done) => {
                    const probe = new Image();
                    probe.onload = () => done(probe.naturalWidth);
                    probe.onerror = () => done(0);
                    probe.src = href;
                });
            }
        }"""
    ) == 12  # fmt: skip
    made.close()
    assert (said, asked) == ([], [report])


def test_pointing_at_a_phrase_lets_its_boxes_stand_out(page):
    phrase = page.locator(".phrase").first
    numbers = phrase.get_attribute("data-for").split()
    assert page.evaluate(LIT) == []
    phrase.hover()
    assert sorted(page.evaluate(LIT)) == sorted(numbers)
    card = page.locator(".card").first
    hue = "(node) => getComputedStyle(node).getPropertyValue('--hue')"
    shape = card.locator(f".stage g[data-s='{numbers[0]}']")
    assert shape.evaluate(hue) == phrase.evaluate(hue) != ""
    assert phrase.inner_text() in card.locator(".told").inner_text()
    page.mouse.move(2, 2)
    assert page.evaluate(LIT) == [] and "boxes" in card.locator(".told").inner_text()
    # And from the picture to the words.
    card.locator(".stage g:not(.off) .edge").last.hover()
    assert card.locator(".phrase.lit").count() >= 1


def test_the_keyboard_does_what_the_pointer_does(page):
    text = page.locator(".text:has(.phrase ~ .phrase)").first
    phrases = text.locator(".phrase")
    phrases.first.focus()
    assert sorted(page.evaluate(LIT)) == sorted(phrases.first.get_attribute("data-for").split())
    page.keyboard.press("ArrowRight")
    second = phrases.nth(1).get_attribute("data-for").split()
    assert sorted(page.evaluate(LIT)) == sorted(second)
    # Enter keeps it so, wherever the pointer goes; Escape ends that.
    page.keyboard.press("Enter")
    page.mouse.move(2, 2)
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    assert sorted(page.evaluate(LIT)) == sorted(second)
    assert phrases.nth(1).get_attribute("aria-pressed") == "true"
    phrases.nth(1).focus()
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    assert page.evaluate(LIT) == []


def test_which_list_is_drawn(page):
    card = card_with(page, ".line.out")
    before = card.evaluate(SHOWN)
    detector = card.get_by_label("Draw the regions by detector")
    detector.click()
    assert detector.get_attribute("aria-pressed") == "true"
    lines = (
        card.locator(".regions", has=page.get_by_label("Draw the regions by detector"))
        .locator(".line")
        .count()
    )
    assert card.evaluate(SHOWN) == lines and before > 0
    # A region's mask has its colour and place.
    card.get_by_label("Draw the regions by truth").click()
    mask = card.locator(".mask:not(.off)").first
    box = card.locator(f".stage g[data-s='{mask.get_attribute('data-s')}'] .edge")
    inner, outer = mask.bounding_box(), box.bounding_box()
    assert abs(inner["x"] - outer["x"]) < 8 and abs(inner["width"] - outer["width"]) < 16


def test_kept_and_dropped(page):
    card = card_with(page, ".line.out")
    card.get_by_label("Draw the regions by detector").click()
    kept, out = card.locator(".line.in").count(), card.locator(".line.out").count()
    visible = card.locator(".line:visible")
    assert "dropped by low-score (0.30)" in card.locator(".line.out").first.inner_text()
    assert visible.count() == kept + out
    page.get_by_role("button", name="Kept").click()
    assert visible.count() == kept and card.locator(".stage g.out:visible").count() == 0
    page.get_by_role("button", name="Dropped").click()
    assert visible.count() == out == card.evaluate(SHOWN)
    page.get_by_role("button", name="All", exact=True).click()
    assert visible.count() == kept + out


def test_a_hostile_caption_is_words(page):
    words = card_with(page, ".phrase:text('red dog')").locator(".words")
    assert HOSTILE in words.all_inner_texts()
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0
    assert page.locator("bdi", has_text="<b>bold</b>").count() >= 1


def ground(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_themes(browser, report):  # noqa: F811
    for scheme, other in (("light", "Dark"), ("dark", "Light")):
        with opened(browser, report, color_scheme=scheme) as page:
            first = ground(page)
            ink = page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill")
            page.get_by_role("button", name=other).click()
            assert ground(page) != first
            # The plots' text is that of the page.
            assert page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill") != ink
            page.get_by_role("button", name="Auto").click()
            assert ground(page) == first


CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d");
    const rgb = (colour, over) => {
        canvas.fillStyle = over; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (c) => c.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (node) => {
        const own = getComputedStyle(node).backgroundColor;
        const below = node.parentElement ? ground(node.parentElement) : "rgb(255, 255, 255)";
        return `rgb(${rgb(own, below).join()})`;
    };
    const poor = [];
    for (const node of document.querySelectorAll("p, h1, h2, h3, h4, td, th, dt, dd, li, a, button, span, em, code, caption")) {
        if (!node.checkVisibility() || !node.textContent.trim()) continue;
        const behind = ground(node);
        const [a, b] = [light(rgb(getComputedStyle(node).color, behind)), light(rgb(behind, behind))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push(`${node.tagName}.${node.className}: ${ratio.toFixed(2)}`);
    }
    return [...new Set(poor)];
}"""


def test_accessible(browser, report):  # noqa: F811
    for scheme in ("light", "dark"):
        with opened(browser, report, color_scheme=scheme) as page:
            assert page.evaluate(CONTRAST) == []
    with opened(browser, report) as page:
        assert page.locator("h1").count() == 1
        levels = page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))"
        )
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert page.locator("table:not(:has(caption))").count() == 0
        assert page.locator("figure:not(:has(figcaption))").count() == 0
        assert page.evaluate(
            "[...document.querySelectorAll('svg[role=img]')].every((s) => s.getAttribute('aria-label').trim())"
        )
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((n) => n.id)")
        assert len(ids) == len(set(ids))
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"


def test_a_phone_s_width(browser, report):  # noqa: F811
    with opened(browser, report, viewport={"width": 360, "height": 740}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        # Wide tables scroll by themselves.
        table = page.locator("#table-table2 .scroll")
        assert table.evaluate("(node) => node.scrollWidth > node.clientWidth && node.clientWidth < 360")


def test_print(browser, report, tmp_path):  # noqa: F811
    with opened(browser, report, color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert ground(page) == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 29, 32)"
        assert page.locator(".bar:visible, .fates:visible, .draw:visible").count() == 0
        pdf = page.pdf(format="A4")
    Path(tmp_path / "report.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF") and 4 < len(re.findall(rb"/Type /Page\b", pdf)) < 60
