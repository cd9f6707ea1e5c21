"""Names and a note that look like markup are shown as text, wherever a run is shown."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Page

from tests.commands import TINY
from tests.services import hostile
from tests.services.servers import ROOT, Server
from tests.services.watching import SECONDS, artifacts, open_artifact, pages_of

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(900),  # two processes import TensorFlow, on a busy machine
    pytest.mark.parametrize("server", ["sqlite"], indirect=True),
]

RUN = """
import json, sys
from cnn.config.run import RunConfig
from flows import prefect_settings
prefect_settings.apply()
from flows.train_and_explain import train_and_explain
config, note = json.loads(sys.stdin.read())
train_and_explain(RunConfig.model_validate(config), note=note)
"""
NOTE = " ".join(hostile.NOTE.split())
# Elements that the data would create as markup. Prefect's own pages have scripts.
ELEMENTS = "img[src=x], a[href^='javascript:'], a[href*='evil.example'], del, s, article script"
IN_OURS = f"{ELEMENTS}, script"
MARKED = "strong, b, em, i, code, h1, h2, li, a"
MARKED_TEXT = re.compile(r"^\s*(b|i|c|h|heading|item|press|p)\s*$")


@dataclass(frozen=True)
class Shown:
    """The run with hostile names, and the address of the report server."""

    server: Server
    folder: Path
    flow_run: str
    pages: str


@dataclass
class Caught:
    """What a page did, to check that it did nothing forbidden."""

    dialogs: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Record what the page does from now on."""
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.requested.append(request.url))

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def check(self, page: Page, forbidden: str = ELEMENTS) -> None:
        """Fail if the data made the page run a script, send a request or create an element."""
        assert self.dialogs == []
        assert page.title() != "owned"
        assert [url for url in self.requested if "evil.example" in url] == []
        assert page.locator(forbidden).all_text_contents() == []
        assert page.locator(MARKED).filter(has_text=MARKED_TEXT).all_text_contents() == []


@pytest.fixture(scope="module")
def shown(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A run on hostile image files with a hostile note."""
    images = hostile.write(tmp_path_factory.mktemp("images"))
    store = tmp_path_factory.mktemp("store")
    config = {"data": {"source": "folder", "path": str(images)}, "train": {"steps": 60, **TINY}}
    with pages_of(server, store) as environment:
        subprocess.run(
            [sys.executable, "-c", RUN],
            input=json.dumps([config, hostile.NOTE]),
            env=environment,
            cwd=ROOT,
            text=True,
            check=True,
        )
        folder = next((store / "runs").glob("2*"))
        flow_run = str(json.loads((folder / "run.json").read_text())["flow_run_id"])
        yield Shown(server, folder, flow_run, environment["FILTERSCOPE_PAGES_URL"])


def test_every_artifact_shows_the_data_as_text(shown: Shown, page: Page) -> None:
    """No page of the UI interprets a name or the note; the page of figures shows the note."""
    caught = Caught()
    caught.watch(page)
    found = artifacts(shown.server, shown.flow_run)
    assert {"metrics", "why-each-step-ran", "pictures", "links", "trend", "gate"} <= set(found)
    texts = {}
    for key, artifact in found.items():
        open_artifact(page, shown.server, artifact)
        page.wait_for_timeout(500)  # a failed request for an image takes a moment
        caught.check(page)
        texts[key] = _plain(page.inner_text("body"))
    assert NOTE in texts["pictures"]
    assert any(_plain(name) in texts["gate"] for name in hostile.CLASSES)


def test_the_page_of_the_flow_run_shows_no_markup(shown: Shown, page: Page) -> None:
    """Its parameters, including the note, are shown as text."""
    caught = Caught()
    caught.watch(page)
    page.goto(f"{shown.server.address}/runs/flow-run/{shown.flow_run}")
    for tab in ("Artifacts", "Parameters"):
        page.get_by_text(tab, exact=True).last.click(timeout=SECONDS)
        page.wait_for_timeout(1000)
        caught.check(page)
    page.get_by_text("[press](javascript:").first.wait_for(timeout=SECONDS)
    caught.check(page)


@pytest.mark.parametrize("served", [True, False], ids=["report server", "file"])
def test_the_report_shows_names_and_note_as_text(shown: Shown, page: Page, served: bool) -> None:
    """All names and the note are readable text, with or without the server's headers."""
    caught = Caught()
    caught.watch(page)
    address = f"{shown.pages}/{shown.folder.name}" if served else f"file://{shown.folder}"
    page.goto(f"{address}/report.html")
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    caught.check(page, IN_OURS)
    text = _plain(page.inner_text("body"))
    assert NOTE in text
    for name in hostile.CLASSES:
        assert _plain(name) in text


def test_the_list_of_runs_shows_no_markup(shown: Shown, page: Page) -> None:
    """It links to the report and to nothing else."""
    caught = Caught()
    caught.watch(page)
    page.goto(shown.pages)
    caught.check(page, IN_OURS)
    links = [link.get_attribute("href") for link in page.locator("a").all()]
    assert links == [f"{shown.folder.name}/report.html"]


def _plain(text: str) -> str:
    """Return a page's text on one line, without the characters that only break addresses."""
    return " ".join(text.replace("\N{WORD JOINER}", "").split())
