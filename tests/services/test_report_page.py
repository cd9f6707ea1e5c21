"""report.html as a person sees it, in a real browser without a network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.service

FIGURES = 5 + 2 * 4


@pytest.fixture
def offline(browser: Browser, width: int, scheme: str) -> Iterator[Page]:
    """A window of a given width and color scheme, without a network."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("width", [400, 700, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_and_shows_every_figure(
    offline: Page, run_folder: Path, width: int, scheme: str
) -> None:
    """Nothing is wider than the window, and nothing is requested from a network."""
    page = offline
    requested: list[str] = []
    logged: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: logged.append(message.text))
    page.goto(f"file://{run_folder / 'report.html'}")
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    figures = "[...document.querySelectorAll('section > figure > img')]"
    widths = page.evaluate(f"{figures}.map(image => image.naturalWidth)")
    assert widths == [1040] * FIGURES
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert {url.partition(":")[0] for url in requested} <= {"file", "data"}
    assert logged == []


def test_the_report_has_the_main_results(browser: Browser, run_folder: Path) -> None:
    """The page shows accuracy with its interval, data, recipe, what ran, and why."""
    page = browser.new_page()
    page.goto(f"file://{run_folder / 'report.html'}")
    text = page.inner_text("body")
    for words in (
        "digits, recipe fast, seed 0",
        "test accuracy",
        "95 % interval",
        "60 steps of 64 images",
        "What conv1 looks at",
        "no model in the store yet",
    ):
        assert words in text
    links = [str(link.get_attribute("href")) for link in page.query_selector_all("section a")]
    files = [link for link in links if not link.startswith("#")]
    assert "arrays/projections-conv2.npy" in files
    for link in files:
        assert (run_folder / link).is_file()
    page.close()


@pytest.mark.parametrize("width", [400, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_on_a_filter_opens_its_page(
    offline: Page, run_folder: Path, width: int, scheme: str
) -> None:
    """Only this page is shown, and it fits; one click leads to the next filter, or back."""
    page = offline
    page.goto(f"file://{run_folder / 'report.html'}")
    shown = page.locator("section:visible")
    n_sections = shown.count()
    assert page.locator(".filter:visible").count() == 0
    page.locator("#layer-conv2 .index a", has_text="7").first.click()
    page.wait_for_url("**#filter-conv2-7")
    assert shown.count() == 1
    assert "Filter 7 of conv2" in shown.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tiles = shown.locator(".tiles img")
    assert tiles.count() > 1
    for box in tiles.evaluate_all("images => images.map(i => i.getBoundingClientRect().right)"):
        assert box <= width
    colours = shown.evaluate(
        "s => [getComputedStyle(s).color, getComputedStyle(s).backgroundColor]"
    )
    assert colours == (
        ["rgb(31, 36, 48)", "rgb(255, 255, 255)"]
        if scheme == "light"
        else ["rgb(230, 233, 239)", "rgb(30, 34, 43)"]
    )
    page.get_by_role("link", name="next").click()
    page.wait_for_url("**#filter-conv2-8")
    assert "Filter 8 of conv2" in shown.inner_text()
    page.get_by_role("link", name="all filters of conv2").click()
    assert shown.count() == n_sections
