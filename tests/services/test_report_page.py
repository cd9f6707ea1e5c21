"""report.html as a person sees it, in a real browser without a network."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

pytestmark = pytest.mark.service

FIGURES = 7


@pytest.mark.parametrize("width", [400, 700, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_and_shows_every_picture(
    browser: Browser, run_folder: Path, width: int, scheme: str
) -> None:
    """Nothing is wider than the window, all pictures are there, nothing is asked of a network."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"file://{run_folder / 'report.html'}")
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths == [1040] * FIGURES
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert said == []
    context.close()


def test_the_report_says_what_matters(browser: Browser, run_folder: Path) -> None:
    """Accuracy with its interval, data, recipe, what ran and why can be read on the page."""
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
    for link in page.query_selector_all("section a"):
        assert (run_folder / str(link.get_attribute("href"))).is_file()
    page.close()
