"""All that somebody who watches a run is shown, while it trains and when it is over."""

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

from tests.services.servers import BIN, Run, Server, wait_until
from tests.services.watching import (
    SECONDS,
    Environment,
    artifacts,
    open_artifact,
    pages_of,
    picture_widths,
)

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(900),  # two processes import TensorFlow, on a busy machine
    pytest.mark.parametrize("server", ["sqlite"], indirect=True),
]

RUN = (BIN / "filterscope", "run", "--data.source", "digits")
# A network so small that its training takes some 15 s.
TINY = {"steps": 8000, "batch_size": 16, "conv1_filters": 2, "conv2_filters": 3, "dense1_units": 8}
SHOWN = {"metrics", "why-each-step-ran", "gate", "trend", "pictures", "links"}
CHECKS = {"accuracy", "class recall", "answers in a fresh process"}
PICTURES = 13


@dataclass(frozen=True)
class Watched:
    """Two identical runs, the first of which made everything and was promoted."""

    server: Server
    environment: Environment
    folders: tuple[Path, ...]

    def flow_run(self, number: int) -> str:
        """Return the id under which the server knows a run."""
        return str(json.loads((self.folders[number] / "run.json").read_text())["flow_run_id"])

    def open(self, page: Page, number: int, key: str) -> None:
        """Open one of a run's artifacts in the UI."""
        open_artifact(page, self.server, artifacts(self.server, self.flow_run(number))[key])


@pytest.fixture(scope="module")
def watched(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run of digits and the same once more, with a page server for both."""
    store = tmp_path_factory.mktemp("store")
    with pages_of(server, store) as environment:
        for _ in range(2):
            subprocess.run([*RUN, "--train.steps", "60"], env=environment, check=True)
        yield Watched(server, environment, tuple(sorted((store / "runs").glob("2*"))))


def rows(page: Page) -> list[list[str]]:
    """Return the cells of the only table of a page."""
    page.locator("tbody tr").first.wait_for(timeout=SECONDS)
    assert page.locator("table").count() == 1
    found = page.locator("tbody tr").all()
    return [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in found]


def test_the_dashboard_leads_to_both_runs(watched: Watched, page: Page) -> None:
    """It counts them, and the list of runs is a click away."""
    page.goto(f"{watched.server.address}/dashboard")
    n_runs = watched.server.post("flow_runs/count")
    page.get_by_text(re.compile(rf"^\s*{n_runs}\s*total\s*$")).first.wait_for(timeout=SECONDS)
    page.get_by_text("Runs", exact=True).first.click()
    for number in (0, 1):
        link = page.locator(f"a[href$='/runs/flow-run/{watched.flow_run(number)}']").first
        link.wait_for(timeout=SECONDS)


@pytest.mark.parametrize("number", [0, 1])
def test_a_run_leads_to_its_artifacts(watched: Watched, page: Page, number: int) -> None:
    """Its tab shows each of them, and a click opens it."""
    page.goto(f"{watched.server.address}/runs/flow-run/{watched.flow_run(number)}")
    page.get_by_text("Completed").first.wait_for(timeout=SECONDS)
    page.get_by_text("Artifacts", exact=True).last.click()
    made = artifacts(watched.server, watched.flow_run(number))
    assert set(made) >= SHOWN
    for key in SHOWN:
        page.get_by_text(key, exact=True).first.wait_for(timeout=SECONDS)
    page.get_by_text("gate", exact=True).first.click()
    page.wait_for_url(f"**/artifact/{made['gate']['id']}", timeout=SECONDS)


@pytest.mark.parametrize("number", [0, 1])
def test_the_metrics_have_a_row_for_each_split(watched: Watched, page: Page, number: int) -> None:
    """Accuracy, interval and number of images, those of the run's own record."""
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
    """The first run made everything, the second nothing; each step says why."""
    watched.open(page, number, "why-each-step-ran")
    found = rows(page)
    assert [row[1] for row in found] == [outcome] * 6
    why = {"ran": "in the store yet", "cached": "verified"}[outcome]
    assert [row[0] for row in found if why not in row[2]] == []


def test_the_gate_shows_the_promotion_and_every_check(watched: Watched, page: Page) -> None:
    """The checks of the run's record, in order, all of them passed."""
    watched.open(page, 0, "gate")
    page.get_by_text("Promoted on track digits").wait_for(timeout=SECONDS)
    recorded = json.loads((watched.folders[0] / "run.json").read_text())["gate"]["checks"]
    expected = [[c["name"], "passed", c["found"], c["wanted"]] for c in recorded]
    assert {check["name"] for check in recorded} >= CHECKS
    assert rows(page) == expected


def test_the_gate_shows_that_the_second_was_kept(watched: Watched, page: Page) -> None:
    """It names the run whose model stays."""
    watched.open(page, 1, "gate")
    page.get_by_text("Kept on track digits").wait_for(timeout=SECONDS)
    assert watched.folders[0].name in page.inner_text("body")


@pytest.mark.parametrize("number", [0, 1])
def test_the_trend_has_a_picture_and_a_row_a_run(watched: Watched, page: Page, number: int) -> None:
    """The runs until then, the newest first."""
    watched.open(page, number, "trend")
    names = [folder.name for folder in reversed(watched.folders[: number + 1])]
    assert [row[0] for row in rows(page)] == names
    (width,) = picture_widths(page)
    assert width > 0


@pytest.mark.parametrize("number", [0, 1])
def test_all_pictures_are_shown(watched: Watched, page: Page, number: int) -> None:
    """All, decoded, 600 pixels wide."""
    watched.open(page, number, "pictures")
    page.wait_for_function(f"document.images.length >= {PICTURES}", timeout=SECONDS)
    assert picture_widths(page) == [600] * PICTURES


@pytest.mark.parametrize("number", [0, 1])
def test_the_links_lead_to_report_and_model(watched: Watched, page: Page, number: int) -> None:
    """The page server answers with the run's report, and with the promoted model's bytes."""
    watched.open(page, number, "links")
    with page.expect_popup(timeout=SECONDS) as opened:
        page.get_by_text("Report of this run").click(timeout=SECONDS)
    report = opened.value
    report.wait_for_load_state()
    base = watched.environment["FILTERSCOPE_PAGES_URL"]
    assert report.url == f"{base}/{watched.folders[number].name}/report.html"
    assert "digits, recipe fast, seed 0" in report.title()
    widths = picture_widths(report)
    assert len(widths) >= PICTURES
    assert min(widths) > 0
    model = page.get_by_text("Promoted model of track digits").get_attribute("href")
    answer = httpx.get(str(model), timeout=60)
    assert answer.status_code == httpx.codes.OK
    assert answer.content == (watched.folders[0] / "model/model.keras").read_bytes()


def test_a_training_shows_how_far_it_is(watched: Watched, page: Page) -> None:
    """Percentage, accuracy and time left are seen to move, with a change in 2 s at most."""
    known = {run["id"] for run in watched.server.post("flow_runs/filter")}
    words = [word for name, n in TINY.items() for word in (f"--train.{name}", str(n))]
    training = subprocess.Popen([*RUN, *words], env=watched.environment)
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
    under_way = [(percent, words) for percent, words in seen if percent < 100]
    percents = [percent for percent, _ in under_way]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 3, seen
    told = [words for percent, words in under_way if percent > percents[0]]  # a pace is known
    assert all("accuracy" in words and "left" in words for words in told), told
    assert len(changes) <= seconds / 2 + 2, (changes, seconds)


def _progress(server: Server, known: set[str]) -> Run:
    """Return the progress of the training of the run that is new, once it is there."""
    found: list[Run] = []

    def look() -> bool:
        new = {run["id"] for run in server.post("flow_runs/filter")} - known
        for identity in new:
            made = artifacts(server, identity).get("train-model-progress")
            found.extend([made] if made else [])
        return bool(found)

    wait_until(look, "the progress of the training")
    return found[0]


def _seen(page: Page, server: Server, progress: Run) -> tuple[float, str]:
    """Return the percentage and the words that the UI shows now."""
    open_artifact(page, server, progress)
    for shown in (r"Progress: [\d.]+\s*%", "images/s"):  # either may be drawn first
        page.get_by_text(re.compile(shown)).first.wait_for(timeout=SECONDS)
    words = page.inner_text("body")
    percent = re.search(r"Progress: ([\d.]+)", words)
    assert percent
    return float(percent[1]), words
