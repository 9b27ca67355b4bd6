"""The report in a real browser: it loads offline and without complaint, its charts answer pointer and keyboard."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from caef_data.tests.commands import call

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test installs it")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
COUNTS = re.compile(r"[\d.<>]+% right \(\d+ of \d+; interval [\d.]+–[\d.]+%\)")
NO_OVERFLOW = "document.documentElement.scrollWidth <= 390"  # innerWidth grows with what does not fit


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert call("report", "--results", results, "--out", out)[0] == 0
    return out.as_uri()


@pytest.fixture
def opened(browser: "Browser", address: str) -> Iterator[Callable[..., "Page"]]:
    """Give what opens the report; afterwards it must have loaded nothing else and complained of nothing."""
    complaints: list[str] = []
    asked: list[str] = []
    contexts = []

    def opens(**settings: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.locator("#no-charts").wait_for(state="detached")  # the charts are ready
        return page

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []
    assert set(asked) == {address}


def card(page: "Page", section: str, title: str) -> Any:
    return page.locator(f"#{section} .card").filter(has=page.get_by_role("heading", name=title, exact=True))


def test_cell_shows_its_numbers_to_pointer_and_keyboard(opened: Callable[..., "Page"]) -> None:
    page = opened()
    of_map = card(page, "maps", "sub executor")
    of_map.scroll_into_view_if_needed()
    canvas, readout = of_map.locator("canvas"), of_map.locator(".readout")
    canvas.wait_for()
    assert re.fullmatch(r"run A, all: 47.9% right \(23 of 48; .*\)", readout.inner_text())
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] - 25, "y": 25})  # the upper right corner: the longest operands
    assert re.match(r"run A, 4 digits and 4 digits: " + COUNTS.pattern, readout.inner_text())

    chart = of_map.locator(".chart")
    assert "Arrow keys" in chart.get_attribute("aria-label")
    page.mouse.move(0, 0)
    chart.focus()
    page.keyboard.press("ArrowLeft")
    assert readout.inner_text().startswith("run A, 3 digits and 3 digits: 0% right (0 of 4; ")  # a < b: no such class
    page.keyboard.press("ArrowDown")
    assert readout.inner_text().startswith("run A, 3 digits and 2 digits: ")
    outline = chart.evaluate("one => getComputedStyle(one).outlineStyle")
    assert outline == "solid"


def test_charts_of_length_and_steps_are_read_with_the_keyboard(opened: Callable[..., "Page"]) -> None:
    page = opened()
    for section, first, second in (
        ("lengths", "run A, 1 digit: ", "run A, 2 digits: "),
        ("steps", "run A, 0 to 10% of the calls: ", "run A, 10 to 20% of the calls: "),
    ):
        of_chart = card(page, section, "sub executor")
        of_chart.scroll_into_view_if_needed()
        of_chart.locator("svg").wait_for()
        of_chart.locator(".chart").focus()
        assert of_chart.locator(".readout").inner_text().startswith(first)
        page.keyboard.press("ArrowRight")
        assert of_chart.locator(".readout").inner_text().startswith(second)


def test_run_and_task_are_chosen(opened: Callable[..., "Page"]) -> None:
    page = opened()
    page.locator("select[name=task]").select_option("sub")
    assert page.locator("#maps .card:visible h3").all_inner_texts() == ["sub one_step", "sub executor"]
    page.locator("select[name=run]").select_option("B-A")
    of_map = card(page, "maps", "sub executor")
    of_map.scroll_into_view_if_needed()
    of_map.locator("canvas").wait_for()
    of_map.get_by_text("Numbers").click()
    of_map.locator("td").first.wait_for()
    cells = of_map.locator("td").all_inner_texts()
    assert len(cells) == 16 and any(one.startswith("+") for one in cells) and "" in cells
    page.locator("select[name=run]").select_option("D")  # the baseline: it has no such map
    assert page.locator("#maps .card:visible").count() == 0
    page.locator("select[name=task]").select_option("")
    assert page.locator("#maps .card:visible h3").all_inner_texts() == ["add raw"]


def test_phone_scrolls_in_one_direction(opened: Callable[..., "Page"]) -> None:
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate(NO_OVERFLOW)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    for section in ("lengths", "steps", "failures", "provenance"):
        page.locator(f"#{section}").scroll_into_view_if_needed()
        assert page.evaluate(NO_OVERFLOW)
    page.locator("#maps .card").first.scroll_into_view_if_needed()
    canvas = page.locator("#maps canvas").first
    canvas.tap()
    assert "digit" in page.locator("#maps .readout").first.inner_text()
    assert canvas.bounding_box()["width"] <= 390


def test_dark_light_and_paper(opened: Callable[..., "Page"]) -> None:
    page = opened(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    lowest = sync_api.expect(page.locator(".legend i").first)
    on_dark, on_light = "rgb(222, 245, 229)", "rgb(43, 28, 53)"  # what fails stands out on either
    lowest.to_have_css("background-color", on_dark)
    assert page.evaluate(ground) == "rgb(18, 19, 23)"
    page.emulate_media(color_scheme="light")
    lowest.to_have_css("background-color", on_light)
    assert page.evaluate(ground) == "rgb(246, 247, 249)"
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark", media="screen")
    lowest.to_have_css("background-color", on_dark)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    lowest.to_have_css("background-color", on_light)
    page.locator("#steps .card svg").last.wait_for()  # charts that were never in view are drawn
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    lowest.to_have_css("background-color", on_dark)
