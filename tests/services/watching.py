"""What a person who watches a run uses: the report server, and the run's pages in the UI."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Page

from tests.services.databases import free_port
from tests.services.servers import ROOT, Run, Server, wait_until

SECONDS = 60_000  # milliseconds that a page may take on a busy machine
Environment = dict[str, str]


@contextmanager
def pages_of(server: Server, store: Path) -> Iterator[Environment]:
    """Yield the environment of runs whose folders a report server serves."""
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    environment = {
        **server.environment,
        "FILTERSCOPE_STORE": str(store),
        "FILTERSCOPE_PAGES_PORT": port,
        "FILTERSCOPE_PAGES_URL": address,
    }
    serving = subprocess.Popen(
        [sys.executable, "-m", "flows.report_server"], env=environment, cwd=ROOT
    )
    try:
        wait_until(lambda: _answers(address), f"the report server at {address}")
        yield environment
    finally:
        serving.terminate()
        serving.wait(60)


def artifacts(server: Server, flow_run: str) -> dict[str, Run]:
    """Return the artifacts of a flow run by key."""
    wanted = {"flow_run_id": {"any_": [flow_run]}}
    return {item["key"]: item for item in server.post("artifacts/filter", artifacts=wanted)}


def open_artifact(page: Page, server: Server, artifact: Run) -> None:
    """Open an artifact's page in the UI and wait for its content."""
    page.goto(f"{server.address}/artifacts/artifact/{artifact['id']}")
    page.get_by_text("Show raw data").wait_for(timeout=SECONDS)


def image_widths(page: Page) -> list[int]:
    """Return the decoded width of each image of a page; raises for a broken one."""
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    widths: list[int] = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    return widths


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=60).is_success
    except httpx.HTTPError:
        return False
