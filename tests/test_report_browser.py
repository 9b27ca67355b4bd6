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
    assert {one.partition("#")[0] for one in asked} == {address}


def card(page: "Page", section: str, title: str) -> Any:
    task, mode = title.split()
    return page.locator(f"#{section} .card[data-task='{task}'][data-mode='{mode}']")


def test_cell_shows_its_numbers_to_pointer_and_keyboard(opened: Callable[..., "Page"]) -> None:
    page = opened()
    of_map = card(page, "maps", "sub executor")
    of_map.scroll_into_view_if_needed()
    canvas, readout = of_map.locator("canvas"), of_map.locator(".readout")
    canvas.wait_for()
    assert re.match(r"run B, all: " + COUNTS.pattern, readout.inner_text())  # as many problems as A, and newer
    of_map.get_by_role("button", name="A 47.9%").click()
    sync_api.expect(readout).to_have_text(re.compile(r"run A, all: 47.9% right \(23 of 48; .*\)"))
    of_map.locator("canvas").wait_for()
    page.wait_for_function("one => one.getBoundingClientRect().width > 100", arg=canvas.element_handle())
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] - 25, "y": 25})  # the upper right corner: the longest operands
    sync_api.expect(readout).to_have_text(re.compile(r"run A, 4 digits and 4 digits: " + COUNTS.pattern))

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


def test_charts_are_reached_and_read_with_the_keyboard_before_they_are_drawn(opened: Callable[..., "Page"]) -> None:
    page = opened()
    assert page.locator(".chart").count() == page.locator(".chart[tabindex='0'][role][aria-label]").count() > 10
    for section, first, second in (
        ("lengths", "run A, 1 digit: ", "run A, 2 digits: "),
        ("steps", "run A, 0 to 10% of the calls right before: ", "run A, 10 to 20% of the calls right before: "),
    ):
        of_chart = card(page, section, "sub executor")
        assert of_chart.locator("svg").count() == 0
        of_chart.locator(".chart").focus()
        readout = sync_api.expect(of_chart.locator(".readout"))
        readout.to_have_text(re.compile("^" + first))
        page.keyboard.press("ArrowRight")
        readout.to_have_text(re.compile("^" + second))


def test_lines_have_letters_ends_and_whole_digits(opened: Callable[..., "Page"]) -> None:
    page = opened()
    of_chart = card(page, "lengths", "add process")
    of_chart.scroll_into_view_if_needed()
    texts = of_chart.locator("svg text")
    texts.first.wait_for()
    shown = [one for one in texts.all_text_contents() if one]
    assert [one for one in shown if one.isdigit()] == ["1", "2", "3", "4"]
    assert {"A", "B", "D"} <= set(shown)  # the base model, D, beside the processes
    letters = [one for one in texts.all() if one.text_content() in "ABD"]
    tops = sorted(one.bounding_box()["y"] for one in letters)
    assert all(after - before > 10 for before, after in zip(tops, tops[1:], strict=False))


def test_difference_of_runs_is_a_map(opened: Callable[..., "Page"]) -> None:
    page = opened()
    of_map = card(page, "maps", "sub executor")
    assert page.locator(".legend > div").count() == 1
    of_map.get_by_role("button", name="B − A").click()
    assert page.locator(".legend > div").count() == 2
    of_map.get_by_text("Numbers").click()
    of_map.locator("td").first.wait_for()
    cells = of_map.locator("td").all_inner_texts()
    assert len(cells) == 16 and any(one.startswith("+") for one in cells) and "" in cells
    process = card(page, "maps", "add process")
    process.get_by_role("button", name="A − D").click()  # the whole process and the base model alone
    process.get_by_text("Numbers").click()
    process.locator("td").first.wait_for()
    assert any(one.startswith("+") for one in process.locator("td").all_inner_texts())


def test_choice_holds_for_every_section_and_stays_in_the_address(opened: Callable[..., "Page"]) -> None:
    page = opened()

    def check() -> None:
        for parts, wanted in (
            ("#summary .part", 4),  # one_step and executor in A and B
            ("#comparison .part", 2),
            ("#maps .card", 1),  # one_step is right throughout: folded
            ("#maps summary .part", 1),
            ("#lengths .card", 1),
        ):
            found = page.locator(f"{parts}:visible")
            sync_api.expect(found).to_have_count(wanted)
            assert {one.get_attribute("data-task") for one in found.all()} == {"sub"}
        for parts in ("#steps tr.part", "#failures .where .part"):
            assert {one.get_attribute("data-task") for one in page.locator(f"{parts}:visible").all()} == {"sub"}
        assert page.locator(".empty:visible").count() == 0

    page.locator("select[name=task]").select_option("sub")
    check()
    assert page.url.endswith("#task=sub")
    page.get_by_role("link", name="Failures").click()
    page.wait_for_url("**#failures&task=sub")
    page.reload()
    page.locator("#no-charts").wait_for(state="detached")
    check()
    sync_api.expect(page.locator("#failures h2")).to_be_in_viewport()

    page.locator("select[name=task]").select_option("")
    page.locator("select[name=run]").select_option("D")
    assert page.locator("#maps .card:visible").count() == 1
    assert page.locator("#summary .part:visible").inner_text().startswith("D ")
    page.locator("select[name=task]").select_option("sub")
    assert page.locator(".empty:visible").count() == 6
    assert page.locator("#failures .failure:visible").count() == page.locator("tbody tr.some:visible").count() == 0
    page.locator("#maps .empty button").click()
    assert page.locator(".empty:visible").count() == 0 and page.locator("#maps .card:visible").count() == 5
    assert "=" not in page.url


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
    on_dark, on_light = "rgb(255, 202, 194)", "rgb(107, 13, 30)"  # red, and what fails stands out on either
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
