"""What the UI shows of a run, while it trains and when it has ended."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

from tests.commands import NET, wait_for
from tests.services.servers import BIN, Run, Server
from tests.services.watching import (
    SECONDS,
    Environment,
    artifacts,
    image_widths,
    open_artifact,
    pages_of,
)

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(900),  # two processes import TensorFlow, on a busy machine
    pytest.mark.parametrize("server", ["sqlite"], indirect=True),
]

RUN = (BIN / "filterscope", "run", "--data.source", "digits")
SHOWN = {"metrics", "why-each-step-ran", "gate", "trend", "pictures", "links"}
CHECKS = {"accuracy", "class recall", "answers in a fresh process"}
FIGURES = 13
both = pytest.mark.parametrize("number", [0, 1])


@dataclass(frozen=True)
class Watched:
    """Two identical runs: in the first, every step ran and the model was promoted."""

    server: Server
    environment: Environment
    folders: tuple[Path, ...]

    def flow_run(self, number: int) -> str:
        """Return the id of a run's flow run."""
        return str(json.loads((self.folders[number] / "run.json").read_text())["flow_run_id"])

    def open(self, page: Page, number: int, key: str) -> None:
        """Open one of a run's artifacts in the UI."""
        open_artifact(page, self.server, artifacts(self.server, self.flow_run(number))[key])


@pytest.fixture(scope="module")
def watched(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run on digits, twice, with a report server for both."""
    store = tmp_path_factory.mktemp("store")
    with pages_of(server, store) as environment:
        for _ in range(2):
            subprocess.run([*RUN, "--train.steps", "60"], env=environment, check=True)
        yield Watched(server, environment, tuple(sorted((store / "runs").glob("2*"))))


def rows(page: Page) -> list[list[str]]:
    """Return the cells of a page's only table."""
    page.locator("tbody tr").first.wait_for(timeout=SECONDS)
    assert page.locator("table").count() == 1
    found = page.locator("tbody tr").all()
    return [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in found]


def test_the_dashboard_leads_to_both_runs(watched: Watched, page: Page) -> None:
    """It counts them, and one click leads to the list of runs."""
    page.goto(f"{watched.server.address}/dashboard")
    n_runs = watched.server.post("flow_runs/count")
    page.get_by_text(re.compile(rf"^\s*{n_runs}\s*total\s*$")).first.wait_for(timeout=SECONDS)
    page.get_by_text("Runs", exact=True).first.click()
    for number in (0, 1):
        link = page.locator(f"a[href$='/runs/flow-run/{watched.flow_run(number)}']").first
        link.wait_for(timeout=SECONDS)


@both
def test_a_run_leads_to_its_artifacts(watched: Watched, page: Page, number: int) -> None:
    """A tab of its page lists them, and a click opens one."""
    page.goto(f"{watched.server.address}/runs/flow-run/{watched.flow_run(number)}")
    page.get_by_text("Completed").first.wait_for(timeout=SECONDS)
    page.get_by_text("Artifacts", exact=True).last.click()
    found = artifacts(watched.server, watched.flow_run(number))
    assert set(found) >= SHOWN
    for key in SHOWN:
        page.get_by_text(key, exact=True).first.wait_for(timeout=SECONDS)
    page.get_by_text("gate", exact=True).first.click()
    page.wait_for_url(f"**/artifact/{found['gate']['id']}", timeout=SECONDS)


@both
def test_the_metrics_have_a_row_for_each_split(watched: Watched, page: Page, number: int) -> None:
    """Accuracy and number of images are those of the run's record."""
    watched.open(page, number, "metrics")
    headline = json.loads((watched.folders[number] / "run.json").read_text())["headline"]
    test, validation = rows(page)
    for split, row in (("test", test), ("validation", validation)):
        name, accuracy, interval, n_images = row
        assert (name, n_images) == (split, str(headline[f"n_{split}"]))
        assert accuracy == f"{100 * headline[f'{split}_accuracy']:.2f} %"
        assert re.fullmatch(r"\d+\.\d\d % to \d+\.\d\d %", interval)


@pytest.mark.parametrize(("number", "outcome"), [(0, "ran"), (1, "cached")])
def test_the_reasons_name_all_six_steps(
    watched: Watched, page: Page, number: int, outcome: str
) -> None:
    """In the first run every step ran, in the second none; each step has its reason."""
    watched.open(page, number, "why-each-step-ran")
    found = rows(page)
    assert [row[1] for row in found] == [outcome] * 6
    why = {"ran": "in the store yet", "cached": "verified"}[outcome]
    assert [row[0] for row in found if why not in row[2]] == []


def test_the_gate_shows_the_promotion_and_every_check(watched: Watched, page: Page) -> None:
    """It has the checks of the run's record, in order, all passed."""
    watched.open(page, 0, "gate")
    page.get_by_text("Promoted on track digits").wait_for(timeout=SECONDS)
    recorded = json.loads((watched.folders[0] / "run.json").read_text())["gate"]["checks"]
    expected = [[c["name"], "passed", c["found"], c["wanted"]] for c in recorded]
    assert {check["name"] for check in recorded} >= CHECKS
    assert rows(page) == expected


def test_the_gate_of_the_second_run_kept_the_promoted_model(watched: Watched, page: Page) -> None:
    """It names the run whose model stays promoted."""
    watched.open(page, 1, "gate")
    page.get_by_text("Kept on track digits").wait_for(timeout=SECONDS)
    assert watched.folders[0].name in page.inner_text("body")


@both
def test_the_trend_has_a_figure_and_a_row_per_run(
    watched: Watched, page: Page, number: int
) -> None:
    """It has the runs until then, the newest first."""
    watched.open(page, number, "trend")
    names = [folder.name for folder in reversed(watched.folders[: number + 1])]
    assert [row[0] for row in rows(page)] == names
    (width,) = image_widths(page)
    assert width > 0


@both
def test_all_figures_are_shown(watched: Watched, page: Page, number: int) -> None:
    """They are 600 pixels wide."""
    watched.open(page, number, "pictures")
    page.wait_for_function(f"document.images.length >= {FIGURES}", timeout=SECONDS)
    assert image_widths(page) == [600] * FIGURES


@both
def test_the_links_lead_to_report_and_model(watched: Watched, page: Page, number: int) -> None:
    """The report server responds with the run's report and with the promoted model's bytes."""
    watched.open(page, number, "links")
    with page.expect_popup(timeout=SECONDS) as opened:
        page.get_by_text("Report of this run").click(timeout=SECONDS)
    report = opened.value
    report.wait_for_load_state()
    base = watched.environment["FILTERSCOPE_PAGES_URL"]
    assert report.url == f"{base}/{watched.folders[number].name}/report.html"
    assert "digits, recipe fast, seed 0" in report.title()
    widths = image_widths(report)
    assert len(widths) >= FIGURES
    assert min(widths) > 0
    model = page.get_by_text("Promoted model of track digits").get_attribute("href")
    answer = httpx.get(str(model), timeout=60)
    assert answer.status_code == httpx.codes.OK
    assert answer.content == (watched.folders[0] / "model/model.keras").read_bytes()


def test_the_progress_of_a_training_is_shown(watched: Watched, page: Page) -> None:
    """Percentage, accuracy and time left change, at most every 2 s."""
    known = {run["id"] for run in watched.server.post("flow_runs/filter")}
    words = (*RUN, *NET, "--train.steps", "8000")  # takes about 15 s
    training = subprocess.Popen(words, env=watched.environment)
    try:
        progress = _progress(watched.server, known)
        started, seen = time.monotonic(), [_seen(page, watched.server, progress)]
        changes = {progress["updated"]}
        while seen[-1][0] < 100 and training.poll() is None:
            changes.add(watched.server.get(f"artifacts/{progress['id']}")["updated"])
            seen.append(_seen(page, watched.server, progress))
        seconds = time.monotonic() - started
    finally:
        assert training.wait(300) == 0
    running = [(percent, text) for percent, text in seen if percent < 100]
    percents = [percent for percent, _ in running]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 3, seen
    texts = [text for percent, text in running if percent > percents[0]]  # the pace is known
    assert all("accuracy" in text and "left" in text for text in texts), texts
    assert len(changes) <= seconds / 2 + 2, (changes, seconds)


def _progress(server: Server, known: set[str]) -> Run:
    """Wait for the progress artifact of a new run and return it."""

    def find() -> Run | None:
        new = {run["id"] for run in server.post("flow_runs/filter")} - known
        found = (artifacts(server, flow_run).get("train-model-progress") for flow_run in new)
        return next((item for item in found if item), None)

    progress: Run = wait_for(find)
    return progress


def _seen(page: Page, server: Server, progress: Run) -> tuple[float, str]:
    """Return the percentage and the text that the UI shows now."""
    open_artifact(page, server, progress)
    for shown in (r"Progress: [\d.]+\s*%", "images/s"):  # either may be drawn first
        page.get_by_text(re.compile(shown)).first.wait_for(timeout=SECONDS)
    text = page.inner_text("body")
    percent = re.search(r"Progress: ([\d.]+)", text)
    assert percent
    return float(percent[1]), text
