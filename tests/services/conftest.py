"""A real Prefect server with its UI, a real browser, and one finished run."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.services.databases import Database
from tests.services.servers import BIN, Server, Worker, server_with, working
from tests.services.watching import SECONDS

CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session", params=get_args(Database))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A Prefect server on a free port, once with each kind of database, which is empty."""
    with server_with(request.param, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")  # a second worker would take runs from one that is killed
def worker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of that server."""
    with working(server, tmp_path_factory.mktemp("worker")) as started:
        yield started


@pytest.fixture(scope="session")
def run_folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run from the command line, recorded by the server."""
    store = tmp_path_factory.mktemp("store")
    words = ["run", "--data.source", "digits", "--train.steps", "60", "--store", str(store)]
    subprocess.run([BIN / "filterscope", *words], env=server.environment, check=True)
    return next((store / "runs").glob("2*"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    path = shutil.which("chromium")
    assert path, "chromium is not installed; .ci/run installs it"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of a laptop's size; it is closed because an open one continues to draw."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(SECONDS)
    yield context.new_page()
    context.close()
