"""Shows finished runs and searches in the Prefect UI, and emits the gate's decision as an event."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from cnn.report.pages import html, page, prefect_ui, trend
from cnn.runs import records
from cnn.runs.records import RunRecord
from cnn.runs.searches import SearchRecord
from cnn.store import layout
from cnn.tables import parquet

log = logging.getLogger("cnn.run")
WAITS = (2.0, 8.0, 20.0, 30.0)  # seconds between attempts; enough for a server to restart
Section = Mapping[str, Any] | None
PAGES = "FILTERSCOPE_PAGES_URL"  # address of the report server


def show_run(record: RunRecord, folder: Path, report: Path, section: Section) -> None:
    """Create the run's artifacts in the UI.

    report: folder of the report artifact. section: the result of page.comparison_section, None
    without a comparison. If the server stays unreachable, the run does not fail: its work is done.
    """
    try:
        _show(record, folder, report, section)
    except httpx.HTTPError as error:  # Prefect's own errors are among them
        log.warning("the run cannot be shown in the Prefect UI: %s", error)


def show_search(record: SearchRecord, folder: Path) -> None:
    """Create the artifact of a search in the UI; an unreachable server does not fail the search."""
    try:
        _create(
            create_markdown_artifact,
            prefect_ui.mined_page(record, folder),
            key="mined",
            description=f"What most activates each filter of {record.layer}",
        )
    except httpx.HTTPError as error:
        log.warning("the search cannot be shown in the Prefect UI: %s", error)


def _show(record: RunRecord, folder: Path, report: Path, section: Section) -> None:
    pages = os.environ.get(PAGES, "")
    _create(
        create_table_artifact,
        table=prefect_ui.metric_rows(record.headline),
        key="metrics",
        description=page.title(record),
    )
    _create(
        create_table_artifact,
        table=prefect_ui.step_rows(record),
        key="why-each-step-ran",
        description="What ran, what was cached, and why",
    )
    pictures = (report / html.PICTURES_NAME).read_text(encoding="utf-8")
    _create(
        create_markdown_artifact,
        prefect_ui.pictures_page(record, folder, pages, pictures),
        key="pictures",
        description="The figures of the run",
    )
    _create(
        create_markdown_artifact,
        prefect_ui.links(record, folder, pages),
        key="links",
        description="Report and promoted model",
    )
    _show_trend(record, folder.parent)
    if record.gate:
        _create(
            create_markdown_artifact,
            prefect_ui.gate_page(record.gate),
            key="gate",
            description="Whether the model was promoted, and every check",
        )
    if record.compared:
        _create(
            create_markdown_artifact,
            prefect_ui.comparison_page(record.compared, section, folder / "figures"),
            key="comparison",
            description="What differs from the promoted model",
        )


def _create(create: Callable[..., Any], /, *content: Any, **more: Any) -> None:
    """Create one artifact; try again while the server is briefly unreachable."""
    for wait in WAITS:
        try:
            create(*content, **more)
            return
        except httpx.HTTPError:
            time.sleep(wait)
    create(*content, **more)


def emit_decision(record: RunRecord, folder: Path) -> None:
    """Emit an event for a promotion or rejection, with its metrics, for automations."""
    decision = record.gate
    if decision is None or decision.outcome == "kept":
        return
    pages = os.environ.get(PAGES, "").rstrip("/")
    report = f"{pages}/{record.run}" if pages else str(folder)
    emit_event(
        event=f"filterscope.{decision.outcome}",
        resource={
            "prefect.resource.id": f"filterscope.track.{decision.track}",
            "prefect.resource.name": decision.track,
        },
        payload={
            "track": decision.track,
            "run": record.run,
            "outcome": decision.outcome,
            "because": decision.because,
            "data": record.data,
            "recipe": record.recipe,
            "seed": record.seed,
            "validation_accuracy": record.headline.get("validation_accuracy"),
            "test_accuracy": record.headline.get("test_accuracy"),
            "report": f"{report}/{records.REPORT_NAME}",
        },
    )


def _show_trend(record: RunRecord, folder: Path) -> None:
    index = parquet.read(folder / layout.INDEX_NAME).to_pylist()
    rows = trend.last(index, record.deployment, record.data)
    _create(
        create_markdown_artifact,
        trend.page(rows, record.deployment or f"{record.data}, from the command line"),
        key="trend",
        description="The last runs",
    )
