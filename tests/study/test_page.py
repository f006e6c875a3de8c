"""The study's page in a real browser: from the consent to the end, with keys, fingers and interruptions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mtadiffusion.study.links import participants_links
from mtadiffusion.study.plan import make_plan
from mtadiffusion.study.store import Store
from mtadiffusion.study.study import ANSWERS, Study

DESK, PHONE = (1280, 800), (390, 844)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs a browser: install Debian's package chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser, study: Study, served: Callable[[Study], str]) -> Iterator[Callable[..., Page]]:
    """Opens the first participant's link as a new visitor would; faults of the page fail the test."""
    url, faults = served(study), []

    def open_link(size: tuple[int, int] = DESK, **options: object) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, has_touch=size == PHONE, **options
        )
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.on("request", lambda one: None if one.url.startswith(url) else faults.append(one.url))
        page.goto(participants_links(study.root, url)[0][0].link)
        return page

    yield open_link
    for context in browser.contexts:
        context.close()
    assert [fault for fault in faults if "503" not in fault] == []


def agree(page: Page) -> None:
    page.get_by_role("button", name="I agree").click()
    expect(page.locator("#judge")).to_be_visible()


def at(page: Page, picture: int, question: str) -> None:
    """Waits until this is asked."""
    expect(page.locator("#count")).to_have_text(f"Picture {picture} of 5")
    expect(page.locator("#tabs [aria-current]")).to_have_text(question)


def told(page: Page) -> str | None:
    """The key that an attention check asks for."""
    text = page.locator("#question").inner_text()
    return text.split("result ")[1].split(",")[0] if text.startswith("Please choose result") else None


def test_a_study_is_answered_with_keys_closed_resumed_and_finished(visit, study: Study) -> None:
    store = Store(study.root / ANSWERS)
    page = visit()
    expect(page.get_by_text("Taking part is up to you")).to_be_visible()
    agree(page)
    at(page, 1, "Text")
    page.keyboard.press("2")
    at(page, 1, "Style")
    page.keyboard.press("t")
    at(page, 2, "Text")
    page.context.close()

    page = visit()
    at(page, 2, "Text")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    at(page, 2, "Style")
    page.keyboard.press("Backspace")
    at(page, 2, "Text")
    expect(page.get_by_role("radio", name="Result 2")).to_be_checked()
    page.keyboard.press("3")
    for picture in (2, 3, 4, 5):
        for question in ("Text", "Style")[picture == 2 :]:
            at(page, picture, question)
            page.keyboard.press(told(page) or "1")
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("heading", name="Thank you!")).to_be_visible()
    page.context.close()

    expect(visit().get_by_role("heading", name="Thank you!")).to_be_visible()
    shown = make_plan(study, 1, store.secret).shown
    given = {(one.item_id, one.question): one.position for one in store.answers(1)}
    assert len(given) == study.answers_each
    assert store.participants()[0].finished
    first, second = (one.item.item_id for one in shown[:2])
    assert (given[first, "alignment"], given[first, "style"]) == (2, None)
    if shown[1].expected is None:
        assert given[second, "alignment"] == 3


def test_a_finger_on_a_result_answers_and_the_phone_shows_everything_at_once(visit, study: Study) -> None:
    page = visit(PHONE)
    agree(page)
    at(page, 1, "Text")
    cards, images = (
        page.locator(what).evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
        for what in (".card", ".card img")
    )
    assert len(cards) == len(images) == 4
    assert all(0 < card - image < 24 for card, image in zip(cards, images, strict=True))
    page.locator("#choices label img").nth(1).tap()
    at(page, 1, "Style")
    page.get_by_text("No difference").tap()
    at(page, 2, "Text")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    bottom = page.get_by_role("button", name="Next").bounding_box()
    assert bottom["y"] + bottom["height"] <= PHONE[1]
    answers = Store(study.root / ANSWERS).answers(1)
    assert sorted(one.position or 0 for one in answers) == [0, 2]


def test_nothing_is_skipped_while_the_server_is_away(visit, study: Study) -> None:
    page = visit()
    agree(page)
    at(page, 1, "Text")
    broken = []
    page.route("**/answers/**", lambda route: (broken.append(1), route.fulfill(status=503))[1])
    page.keyboard.press("1")
    expect(page.locator("#notice")).to_contain_text("No connection")
    page.keyboard.press("2")
    at(page, 1, "Text")
    assert Store(study.root / ANSWERS).answers() == []
    page.unroute("**/answers/**")
    at(page, 1, "Style")
    expect(page.locator("#notice")).to_be_empty()
    [answer] = Store(study.root / ANSWERS).answers()
    assert answer.position == 1


def test_everything_on_the_page_has_a_name_and_a_language(visit) -> None:
    page = visit()
    agree(page)
    at(page, 1, "Text")
    group = page.get_by_role("radiogroup", name=page.locator("#question").inner_text())
    expect(group.get_by_role("radio")).to_have_count(4)
    for name in ("Result 1", "Result 2", "Result 3", "No difference"):
        expect(group.get_by_role("radio", name=name)).to_have_count(1)
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("progressbar", name="Answers given")).to_have_count(1)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("alert")).to_have_text("Please choose a result, or “No difference”.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_light_and_dark(visit, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    agree(page)
    at(page, 1, "Text")
    for selector in ("#lead", "#prompt", "#question", "#next", ".tabs button", ".before .name", "kbd"):
        assert page.evaluate(_CONTRAST, selector) >= 4.5, selector


_CONTRAST = """(selector) => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const one = document.querySelector(selector);
  let under = one;
  while (rgb(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const [a, b] = [getComputedStyle(one).color, getComputedStyle(under).backgroundColor]
    .map((text) => light(rgb(text).slice(0, 3))).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""
"""WCAG's contrast of an element's text over the nearest background that is not transparent."""
