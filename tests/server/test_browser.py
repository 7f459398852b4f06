"""The page in a real browser: what a person does, by mouse, by keyboard, on a phone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from mcip.data import read_table
from mcip.server.settings import Settings
from tests.browser import CHROMIUM, MISSING, PHONE
from tests.server.conftest import png
from tests.server.live import TOKEN, running
from tests.server.page import ids, search, settled

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
expect.set_options(timeout=20_000)


def api(page: Page, query: str) -> list[dict[str, Any]]:
    return list(page.request.get(f"{page.url.split('?')[0].rstrip('/')}/search?{query}").json()["hits"])


def test_text_search_stands_in_the_address_and_shows_scores(page: Page, url: str, browser: Browser) -> None:
    search(page, "a red mug")
    assert page.url == f"{url}/?text=a+red+mug"
    expected = api(page, "text=a+red+mug&k=32")
    assert ids(page) == [hit["id"] for hit in expected]
    assert page.locator(".score").all_inner_texts() == [f"{hit['score']:.2f}" for hit in expected]
    expect(page.locator("#status")).to_have_text("32 images, that is all.")
    first = page.locator("#results img").first
    assert first.get_attribute("alt") == expected[0]["metadata"]["captions"][0]
    assert first.evaluate("async image => { await image.decode(); return image.naturalWidth }") > 0
    # Somebody else who opens the address sees the same.
    other = browser.new_page()
    other.goto(page.url)
    settled(other)
    expect(other.locator("#text")).to_have_value("a red mug")
    assert ids(other) == ids(page)
    other.close()


def test_back_and_forth(page: Page) -> None:
    search(page, "a fish")
    fish = ids(page)
    search(page, "a gear")
    assert ids(page) != fish
    page.go_back()
    expect(page.locator("#text")).to_have_value("a fish")
    settled(page)
    assert ids(page) == fish


def test_more_like_this_mixed_with_text_by_the_slider(page: Page, url: str) -> None:
    search(page, "a red mug")
    id = ids(page)[3]
    page.locator("#results .tile").nth(3).click()
    settled(page)
    assert page.url == f"{url}/?id={id}"
    assert ids(page) == [hit["id"] for hit in api(page, f"id={id}&k=32") if hit["id"] != id]
    expect(page.locator("#mix")).to_be_hidden()
    expect(page.locator("#results .tile").first).to_be_focused()
    search(page, "in the snow")
    expect(page.locator("#mix")).to_be_visible()
    middle = ids(page)
    page.locator("#balance").fill("0.9")
    settled(page)
    assert page.url == f"{url}/?text=in+the+snow&id={id}&balance=0.9"
    expect(page.locator("#balance")).to_have_attribute("aria-valuetext", "10 % image, 90 % text")
    assert ids(page) == [hit["id"] for hit in api(page, page.url.split("?")[1] + "&k=32") if hit["id"] != id]
    assert ids(page) != middle


def test_an_upload_finds_the_image(page: Page, train: Path, tmp_path: Path) -> None:
    table = read_table(str(train))
    file = tmp_path / "mine.jpg"
    file.write_bytes(bytes(table.image_source(9)))
    with page.expect_file_chooser() as chooser:
        page.locator("#choose").click()
    chooser.value.set_files(file)
    expect(page.locator("#parts img")).to_have_attribute("alt", "mine.jpg")
    expect(page.locator(".score").first).to_have_text("1.00")
    assert ids(page)[0] == table.ids[9]
    expect(page.locator("#unshared")).to_be_visible()
    search(page, "a fish")
    page.go_back()
    settled(page)
    expect(page.locator("#parts img")).to_have_count(1)
    expect(page.locator("#text")).to_have_value("")
    page.get_by_role("button", name="Remove mine.jpg").click()
    expect(page.locator("#unshared")).to_be_hidden()


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted_images(page: Page, event: str) -> None:
    page.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "red.png", { type: "image/png" }));
            const init = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(event === "drop"
                ? new DragEvent("drop", { ...init, dataTransfer: data })
                : new ClipboardEvent("paste", { ...init, clipboardData: data }));
        }""",
        [event, list(png("red"))],
    )
    expect(page.locator("#parts img")).to_have_attribute("alt", "red.png")
    expect(page.locator(".score").first).not_to_be_empty()
    expect(page.locator("#results li[data-id]")).to_have_count(32)


def test_a_wrong_file_is_explained(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    page.locator("#file").set_input_files(file)
    expect(page.get_by_role("alert")).to_contain_text("The image cannot be used: not an image")
    expect(page.locator("#results li[data-id]")).to_have_count(0)
    page.get_by_role("button", name="Remove notes.txt").click()
    expect(page.locator("#results li[data-id]")).to_have_count(32)
    expect(page.locator("#problem")).to_be_hidden()
    file.write_bytes(bytes(20_000_001))
    page.locator("#file").set_input_files(file)
    expect(page.get_by_role("alert")).to_contain_text("at most 20 MB")


def test_negatives_filters_and_empty_results(page: Page) -> None:
    page.locator("summary").click()
    page.locator("#where").fill("width > 5000")
    page.locator("#where").press("Enter")
    expect(page.locator("#status")).to_have_text("No image fulfils the filter.")
    page.locator("#where").fill("widht > 5000")
    page.locator("#where").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("did you mean 'width'?")
    expect(page.locator("#problem pre")).to_have_text("  widht > 5000\n  ^", use_inner_text=True)
    page.locator("#where").fill("(" * 40 + "width > 5")
    page.locator("#where").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("levels deep")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#where").fill("")
    page.locator("#negative").fill("striped")
    page.locator("#negative").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Say what to look for as well")
    search(page, "a fish")
    assert ids(page) == [hit["id"] for hit in api(page, "text=a+fish&negative=striped&k=32")]
    away = ids(page)[0]
    page.locator('#results [data-act="away"]').first.click()
    settled(page)
    assert away not in ids(page)
    assert f"negative_id={away}" in page.url
    expect(page.locator("#parts .away")).to_have_count(1)


def test_by_keyboard_alone(page: Page) -> None:
    page.locator("body").click(position={"x": 5, "y": 400})
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("a/b")
    expect(page.locator("#text")).to_have_value("a/b")
    page.keyboard.press("Enter")
    settled(page)
    shown = ids(page)
    page.keyboard.press("ArrowDown")
    tiles = page.locator("#results .tile")
    expect(tiles.nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(tiles.nth(1)).to_be_focused()
    assert tiles.nth(1).evaluate("tile => getComputedStyle(tile).outlineStyle") == "solid"
    across = page.evaluate("getComputedStyle(document.getElementById('results')).gridTemplateColumns.split(' ').length")
    page.keyboard.press("ArrowDown")
    expect(tiles.nth(1 + across)).to_be_focused()
    page.keyboard.press("End")
    expect(tiles.nth(31)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("o")
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#viewer dd").first).to_have_text(shown[0])
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(tiles.nth(0)).to_be_focused()
    page.keyboard.press("+")
    expect(page.locator("#parts img")).to_have_attribute("alt", shown[0])
    settled(page)
    expect(tiles.first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Browser, url: str, scheme: Literal["light", "dark"]) -> None:
    page = browser.new_page(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme=scheme)
    page.goto(f"{url}/?text=a+red+mug&negative=striped")
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    sizes = page.locator("#results button:visible").evaluate_all("all => all.map(b => b.getBoundingClientRect())")
    assert min(min(size["width"], size["height"]) for size in sizes) >= 24
    page.locator("#results .tile").first.tap()
    settled(page)
    assert "id=" in page.url
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    dark = [sum(map(int, re.findall(r"\d+", colour)[:3])) < 384 for colour in colours]
    assert dark == [scheme == "light", scheme == "dark"]
    page.close()


def test_the_page_requests_the_token(browser: Browser, served: Path) -> None:
    with running(served, Settings(token=TOKEN)) as url:
        page = browser.new_page()
        page.goto(f"{url}/?text=a+mug")
        page.locator("#token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#refused")).to_have_text("This is not the token.")
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#results li[data-id]")).to_have_count(32, timeout=20_000)
        expect(page.locator("#text")).to_have_value("a mug")
        assert page.locator("#results img").first.evaluate("async image => { await image.decode(); return true }")
        page.close()


def test_a_line_stands_where_images_no_longer_match(page: Page, url: str) -> None:
    page.get_by_role("searchbox").fill("a red mug")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?text=*")
    settled(page)
    answer = page.request.get(f"{url}/search", params={"text": "a red mug", "k": 32}).json()
    above = sum(hit["score"] >= answer["line"] for hit in answer["hits"])
    assert above < 32
    items = page.locator("#results > li").all()
    lines = [at for at, item in enumerate(items) if "line" in str(item.get_attribute("class"))]
    assert lines == [above]
    assert "one in 1,000 unrelated queries" in items[above].inner_text()
    page.locator("#results .tile").first.focus()
    page.keyboard.press("End")
    expect(page.locator("#results .tile").last).to_be_focused()
    page.locator("summary").click()
    page.get_by_label("Only what matches").check()
    page.wait_for_url("**min_score=1%2F1000*")
    expect(page.locator("#results li")).to_have_count(above)
