"""A run in the UI of a real Prefect server, with each kind of database."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.services.servers import Server
from tests.services.watching import SECONDS, artifacts, image_widths

pytestmark = pytest.mark.service


def test_a_runs_page_shows_name_state_and_log(server: Server, run_folder: Path, page: Page) -> None:
    """The log names every step and has the progress of the training."""
    record = json.loads((run_folder / "run.json").read_text())
    page.goto(f"{server.address}/runs/flow-run/{record['flow_run_id']}")
    steps = ("load_dataset", "train_model", "mine_patches")
    for text in ("digits-fast-seed0", "Completed", *(f"{step} runs: no " for step in steps)):
        page.get_by_text(text).first.wait_for(timeout=SECONDS)
    page.get_by_text("step 60: batch accuracy").first.wait_for(timeout=SECONDS)


def test_the_artifacts_show_metrics_reasons_figures_and_progress(
    server: Server, run_folder: Path, page: Page
) -> None:
    """Two splits, six steps, 13 figures of 600 pixels width, and 100 %."""
    record = json.loads((run_folder / "run.json").read_text())
    found = artifacts(server, record["flow_run_id"])

    def show(key: str) -> None:
        page.goto(f"{server.address}/artifacts/artifact/{found[key]['id']}")

    show("metrics")
    page.get_by_text("257", exact=True).wait_for(timeout=SECONDS)
    for text in ("test", "validation", "128", "accuracy", "95 % interval"):
        assert page.get_by_text(text, exact=True).count() == 1
    show("why-each-step-ran")
    page.get_by_text("write_report", exact=True).wait_for(timeout=SECONDS)
    assert page.get_by_text("ran", exact=True).count() == 6
    show("pictures")
    page.get_by_text("Test accuracy").first.wait_for(timeout=SECONDS)
    page.wait_for_function("document.images.length >= 13", timeout=SECONDS)
    assert image_widths(page) == [600] * 13
    show("train-model-progress")
    page.get_by_text("100%").first.wait_for(timeout=SECONDS)
    page.get_by_text("images/s").first.wait_for(timeout=SECONDS)
