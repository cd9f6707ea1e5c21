"""Shows a finished run in Prefect's UI, cached steps or not, and tells of the gate's decision."""

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
WAITS = (2.0, 8.0, 20.0, 30.0)  # seconds; a server that was only restarted is back by then
Section = Mapping[str, Any] | None
PAGES = "FILTERSCOPE_PAGES_URL"  # address at which the folder of runs is served


def show_run(record: RunRecord, folder: Path, report: Path, section: Section) -> None:
    """Create the run's artifacts in the UI; report: folder of the report's artifact.

    section: as page.comparison_section returns it, None where there is no comparison. The run is
    over by then: a server that stays away does not fail it.
    """
    try:
        _show(record, folder, report, section)
    except httpx.HTTPError as error:  # Prefect's own errors are among them
        log.warning("the run's pages cannot be shown in Prefect: %s", error)


def show_search(record: SearchRecord, folder: Path) -> None:
    """Create the artifact of a search in the UI; a server that stays away does not fail it."""
    try:
        _create(
            create_markdown_artifact,
            prefect_ui.mined_page(record, folder),
            key="mined",
            description=f"What most activates each filter of {record.layer}",
        )
    except httpx.HTTPError as error:
        log.warning("the pictures cannot be shown in Prefect: %s", error)


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
        description="The run in pictures",
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
    """Create one artifact, waiting for a server that is away for a moment."""
    for wait in WAITS:
        try:
            create(*content, **more)
            return
        except httpx.HTTPError:
            time.sleep(wait)
    create(*content, **more)


def emit_decision(record: RunRecord, folder: Path) -> None:
    """Emit the event of a promotion or a rejection, with its figures, for automations."""
    verdict = record.gate
    if verdict is None or verdict.outcome == "kept":
        return
    pages = os.environ.get(PAGES, "").rstrip("/")
    report = f"{pages}/{record.run}" if pages else str(folder)
    emit_event(
        event=f"filterscope.{verdict.outcome}",
        resource={
            "prefect.resource.id": f"filterscope.track.{verdict.track}",
            "prefect.resource.name": verdict.track,
        },
        payload={
            "track": verdict.track,
            "run": record.run,
            "outcome": verdict.outcome,
            "because": verdict.because,
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
