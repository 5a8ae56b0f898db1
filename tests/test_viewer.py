"""The viewer in a real browser: what a person does there, and what hostile or missing data does not do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.query import sql
from pipelines.viewer.serve import serving
from tests.browser import browser, opened  # noqa: F401 - a fixture
from tests.viewed import HOSTILE, scenes

SUBMIT = "#side button[type=submit]"
STATIC = Path(__file__).resolve().parents[1] / "pipelines" / "viewer" / "static"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes(tmp_path_factory.mktemp("looked"), 60, 20)


@pytest.fixture(scope="module")
def url(dataset: Dataset) -> Iterator[str]:
    with serving(dataset) as (address, _):
        yield address.url


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:  # noqa: F811
    with opened(browser, url, viewport={"width": 1280, "height": 860}) as page:
        page.wait_for_selector(".card")
        yield page


def keys_shown(page: Any) -> list[str]:
    return [text.split(" and ")[0] for text in page.locator(".card .key").all_inner_texts()]


def settled(page: Any) -> None:
    """The page has all that it asked for."""
    expect(page.locator(".status")).not_to_contain_text(re.compile("Searching|so far"))
    page.wait_for_load_state("networkidle")


def story_of(page: Any, key: str) -> None:
    """Find one image by its key and open it."""
    page.fill("[name=image]", key)
    page.click(SUBMIT)
    expect(page.locator(".card")).to_have_count(1)
    page.click(".card")
    page.wait_for_selector(".stage img")


def test_searching_and_paging(page, dataset):
    settled(page)
    assert page.locator(".card").count() == 48
    expect(page.locator(".total")).to_contain_text("statements on 60 images")
    page.click("text=Next →")
    expect(page.locator(".card")).to_have_count(12)
    assert keys_shown(page)[0] == "images/000048.jpg"
    page.click("text=← Before")
    expect(page.locator(".card")).to_have_count(48)
    page.keyboard.press("/")
    page.keyboard.type("red dog")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("text=red"))
    expected = sql(
        dataset,
        r"SELECT DISTINCT image_id FROM annotations WHERE regexp_matches(text, '(?i)\bred') AND regexp_matches(text, '(?i)\bdog')",
    )
    expect(page.locator(".card")).to_have_count(expected.num_rows)
    page.go_back()
    expect(page.locator(".card")).to_have_count(48)
    assert page.input_value("[name=text]") == ""


def test_a_sql_condition_and_what_is_wrong_with_one(page, dataset):
    page.fill("[name=condition]", "source = 'detector' AND score < 0.5")
    page.press("[name=condition]", "Control+Enter")
    page.wait_for_selector(".card .by >> text=dropped: low-score")
    page.fill("[name=condition]", "EXISTS (FROM read_text('/etc/passwd'))")
    page.click(SUBMIT)
    page.wait_for_selector(".refusal")
    said = page.locator(".refusal p").first.inner_text()
    assert "/etc/passwd" in said and "disabled" in said and "\n" not in said


def test_pointing_at_a_phrase_lets_its_box_stand_out(page):
    story_of(page, "images/000003")
    phrase = page.locator(".phrase").first
    ids = phrase.get_attribute("data-phrase").split()
    lit = "[...document.querySelectorAll('.boxes g.lit')].map((g) => g.dataset.of)"
    assert page.evaluate(lit) == []
    phrase.hover()
    assert sorted(page.evaluate(lit)) == sorted(ids)
    colour = "(node) => getComputedStyle(node).getPropertyValue('--hue')"
    box = page.locator(f"[data-of='{ids[0]}'] .shape")
    assert box.evaluate(colour) == phrase.evaluate(colour) != ""
    page.mouse.move(2, 2)
    assert page.evaluate(lit) == []
    # The keyboard does what the pointer does, and a click stays.
    phrase.focus()
    assert sorted(page.evaluate(lit)) == sorted(ids)
    page.keyboard.press("Enter")
    page.locator("#compare").focus()
    assert sorted(page.evaluate(lit)) == sorted(ids)
    # And from the picture to the words.
    page.locator(".boxes .shape").last.hover()
    assert page.locator(".phrase.lit").count() >= 1


def test_the_story_tells_the_filter_and_its_value(page, dataset):
    page.select_option("[name=kept]", "no")
    page.click(SUBMIT)
    page.wait_for_url(re.compile("kept=no"))
    page.click(".card >> nth=0")
    row = page.locator(".statement", has_text="dropped: low-score (0.30)").first
    row.locator(".open").click()
    assert "dropped by low-score, which measured 0.300" in row.locator(".more").inner_text()
    page.locator("section", has_text="Regions by detector").locator(".show").first.click()
    assert page.locator(".boxes .dropped").count() > 0


def test_two_sources_side_by_side(page, dataset):
    story_of(page, "images/000004")
    page.keyboard.press("c")
    page.wait_for_selector(".sides")
    page.select_option("[name=left]", "truth")
    page.wait_for_url(re.compile("left=truth"))
    page.select_option("[name=right]", "detector")
    page.wait_for_url(re.compile("right=detector"))
    image_id = page.url.split("show=")[1].split("&")[0].split("%2F")[1]
    count = "SELECT count(*) AS n, count_if(score < 0.5) AS off FROM regions WHERE source = 'detector' AND image_id"
    row = sql(dataset, f"{count} = '{image_id}'").to_pylist()[0]
    page.wait_for_selector("#agreement")
    same = row["n"] - row["off"]
    expect(page.locator("#agreement")).to_contain_text(f"{same} region")
    expect(page.locator("#agreement")).to_contain_text(f"{row['off']} only on the right")
    page.select_option("[name=right]", "detector (kept in round 0)")
    page.wait_for_url(re.compile("kept"))
    expect(page.locator("#agreement")).to_contain_text("0 only on the right")


def test_a_mark_is_made_by_mouse_or_key_found_in_sql_and_taken_back(page, dataset):
    story_of(page, "images/000005")
    section = page.locator("section", has_text="Regions by detector").last
    row = section.locator(".statement").first
    id_ = row.get_attribute("data-id")
    row.locator(".mark.bad").click()
    page.wait_for_selector(".said-last >> text=marked bad")
    marks = "SELECT parent_id, score, source FROM scores WHERE source = 'human-review'"
    assert sql(dataset, marks).to_pylist() == [{"parent_id": id_, "score": 0.0, "source": "human-review"}]
    row.locator(".open").focus()
    page.keyboard.press("g")
    page.wait_for_selector(".said-last >> text=marked good")
    assert sql(dataset, marks)["score"].to_pylist() == [1.0]
    page.reload()
    page.wait_for_selector(f"[data-id='{id_}'] .mark.good[aria-pressed=true]")
    page.keyboard.press("Escape")
    page.fill("[name=image]", "")
    page.select_option("[name=mark]", "good")
    page.click(SUBMIT)
    page.wait_for_url(re.compile("mark=good"))
    expect(page.locator(".card")).to_have_count(1)
    page.click(".card")
    page.click(f"[data-id='{id_}'] .mark.good")
    page.wait_for_selector(".said-last >> text=taken back")
    assert sql(dataset, marks).num_rows == 0


def test_arrows_go_from_image_to_image_of_the_search(page):
    settled(page)
    page.click(".card >> nth=1")
    title = page.locator("h1")
    title.wait_for()
    assert title.inner_text() == "images/000001.jpg"
    for key, wanted in (("ArrowRight", "2"), ("ArrowRight", "3"), ("ArrowLeft", "2")):
        page.keyboard.press(key)
        expect(title).to_have_text(f"images/00000{wanted}.jpg")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.className").startswith(("open", "phrase"))
    page.keyboard.press("Escape")
    page.wait_for_selector(".card")


def test_html_and_scripts_in_data_are_shown_as_text(page):
    page.fill(
        "[name=source]" if page.locator("input[name=source]").count() else "[name=image]", "images/000000"
    )
    page.click(SUBMIT)
    expect(page.locator(".card")).to_have_count(1)
    page.click(".card")
    page.wait_for_selector(".stage img")
    assert HOSTILE in page.locator(".caption .words").all_inner_texts()
    assert page.locator(".statement .said", has_text="<b>bold</b>").count() == 1
    # Spans count code points: the emoji before it must not shift the phrase.
    assert page.locator(".phrase", has_text=re.compile("^red dog$")).count() >= 1
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script, main b, img[src=x]").count() == 0
    page.goto(page.url.split("?")[0] + "?label=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    page.wait_for_selector("text=No image matches.")
    assert page.locator("img[src=x]").count() == 0


def test_a_deleted_picture_leaves_the_rest_standing(browser, tmp_path):  # noqa: F811
    dataset = scenes(tmp_path, 2, 2)
    row = sql(dataset, "SELECT uri FROM images ORDER BY uri").to_pylist()[0]
    Path(row["uri"]).unlink()
    with serving(dataset) as (address, _), opened(browser, address.url) as page:
        page.wait_for_selector(".card .gone >> text=The picture is gone")
        assert page.locator(".card img").count() == 1
        page.click(".card >> nth=0")
        page.wait_for_selector(".stage .gone >> text=The picture is gone")
        assert page.locator(".stage .because").inner_text().endswith("images/000000.jpg")
        assert page.locator(".caption").count() >= 3 and page.locator(".boxes .shape").count() > 0


def test_nothing_and_half_of_something_open(browser, tmp_path):  # noqa: F811
    info = DatasetInfo("0" * 16, "nothing", "folder", "0" * 32, 0, 0, 1000, False, [], "0")
    empty = Dataset.create(str(tmp_path / "empty"), info)
    with serving(empty) as (address, _), opened(browser, address.url) as page:
        page.wait_for_selector("text=There are no images.")
        assert "the data set has no images" in page.inner_text("#notices")
    half = scenes(tmp_path, 4, 2)
    (Path(half.url) / "annotations/detector/00001.parquet").write_bytes(b"PAR1")
    (Path(half.url) / "verdicts/0/00000.parquet").unlink()
    with serving(half) as (address, _), opened(browser, address.url) as page:
        expect(page.locator(".card")).to_have_count(4)
        assert "round 0: 1 of 2 shards are not there yet" in page.inner_text("#notices")
        page.click(".card >> nth=3")
        page.wait_for_selector(".missing >> text=annotations/detector/00001.parquet is left out")
        assert page.locator(".caption").count() >= 3


def test_read_only_shows_marks_and_offers_none(browser, dataset):  # noqa: F811
    with (
        serving(dataset, read_only=True, token="only-for-us") as (address, _),
        opened(browser, address.url) as page,
    ):
        page.click(".card >> nth=0")
        page.wait_for_selector(".statement")
        assert page.locator("button.mark").count() == 0
        assert "token" not in page.url and "read-only" in page.inner_text("#facts")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(browser, url, scheme):  # noqa: F811
    with opened(
        browser, url, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True
    ) as page:
        page.wait_for_selector(".card")
        narrow = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(narrow)
        page.click("summary:has-text('Search')")
        assert page.locator("[name=condition]").is_visible() and page.evaluate(narrow)
        page.click(".card >> nth=0")
        page.wait_for_selector(".stage img")
        assert page.evaluate(narrow)
        page.click("#compare")
        page.wait_for_selector(".sides")
        assert page.evaluate(narrow)


def test_everything_that_can_be_pressed_or_seen_has_a_name(page):
    story_of(page, "images/000006")
    unnamed = """[...document.querySelectorAll('button, a, select, input, textarea, img')].filter((node) => {
        const named = node.textContent.trim() || node.ariaLabel || node.alt || node.closest('label')?.textContent.trim();
        return node.checkVisibility() && !named;
    }).map((node) => node.outerHTML)"""
    assert page.evaluate(unnamed) == []
    page.keyboard.press("Escape")
    page.wait_for_selector(".card")
    assert page.evaluate(unnamed) == []


def test_no_script_makes_elements_of_text():
    for path in STATIC.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", path.read_text()
        )


def test_words_stand_out_from_their_ground_in_both_themes():
    css = (STATIC / "base.css").read_text()

    def luminance(colour: str) -> float:
        full = "".join(c * 2 for c in colour) if len(colour) == 3 else colour
        parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for theme in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        of = {name: luminance(value) for name, value in re.findall(r"--([\w-]+): #(\w+);", theme)}
        for ink in ("ink", "muted", "accent", "good", "bad"):
            for ground in ("ground", "panel", "hover"):
                low, high = sorted((of[ink], of[ground]))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)  # WCAG 2.2, AA
