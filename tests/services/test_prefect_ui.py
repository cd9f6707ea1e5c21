"""A run as the watcher sees it, in the UI of a real Prefect server."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.services.servers import Server
from tests.services.watching import SECONDS

pytestmark = pytest.mark.service


@pytest.fixture
def flow_run_id(run_folder: Path) -> str:
    """The id under which the server knows the run."""
    return str(json.loads((run_folder / "run.json").read_text())["flow_run_id"])


def _artifact(server: Server, flow_run_id: str, key: str) -> str:
    wanted: dict[str, Any] = {
        "artifacts": {"flow_run_id": {"any_": [flow_run_id]}, "key": {"any_": [key]}}
    }
    found = server.post("artifacts/filter", **wanted)
    return f"{server.address}/artifacts/artifact/{found[0]['id']}"


def test_the_run_has_its_name_its_state_and_its_steps(
    server: Server, flow_run_id: str, page: Page
) -> None:
    """The page of the flow run shows name and state, and the log names every step."""
    page.goto(f"{server.address}/runs/flow-run/{flow_run_id}")
    page.get_by_text("digits-fast-seed0").first.wait_for(timeout=SECONDS)
    page.get_by_text("Completed").first.wait_for(timeout=SECONDS)
    for step in ("load_dataset", "train_model", "mine_patches"):
        page.get_by_text(f"{step} runs: no ").first.wait_for(timeout=SECONDS)
    page.get_by_text("step 60: batch accuracy").first.wait_for(timeout=SECONDS)


def test_the_metrics_table_shows_both_splits(server: Server, flow_run_id: str, page: Page) -> None:
    """Two rows, with accuracy, interval and number of images."""
    page.goto(_artifact(server, flow_run_id, "metrics"))
    page.get_by_text("257", exact=True).wait_for(timeout=SECONDS)
    for shown in ("test", "validation", "128", "accuracy", "95 % interval"):
        assert page.get_by_text(shown, exact=True).count() == 1


def test_the_reasons_table_names_every_step(server: Server, flow_run_id: str, page: Page) -> None:
    """Six rows: what ran, and why."""
    page.goto(_artifact(server, flow_run_id, "why-each-step-ran"))
    page.get_by_text("write_report", exact=True).wait_for(timeout=SECONDS)
    assert page.get_by_text("ran", exact=True).count() == 6


def test_the_pictures_page_shows_all_pictures(server: Server, flow_run_id: str, page: Page) -> None:
    """Five of the run and four of each layer, 600 pixels wide."""
    page.goto(_artifact(server, flow_run_id, "pictures"))
    page.get_by_text("Test accuracy").first.wait_for(timeout=SECONDS)
    page.wait_for_function("document.images.length >= 13", timeout=SECONDS)
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths == [600] * 13


def test_the_progress_ends_at_100_percent(server: Server, flow_run_id: str, page: Page) -> None:
    """The progress of the training is shown with its figures."""
    page.goto(_artifact(server, flow_run_id, "train-model-progress"))
    page.get_by_text("100%").first.wait_for(timeout=SECONDS)
    page.get_by_text("images/s").first.wait_for(timeout=SECONDS)
