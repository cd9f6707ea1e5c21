"""Shows a finished run in Prefect's UI, cached steps or not, and tells of the gate's decision."""

import os
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from cnn.report import html, markdown, page, trend, ui
from cnn.store import runs, tables
from cnn.store.runs import RunRecord

PAGES = "FILTERSCOPE_PAGES_URL"  # address at which the folder of runs is served


def show(record: RunRecord, folder: Path, report: Path) -> None:
    """Create the run's artifacts in the UI; report: folder of the report's artifact."""
    pages = os.environ.get(PAGES, "")
    create_table_artifact(
        table=ui.metric_rows(record.headline), key="metrics", description=page.title(record)
    )
    create_table_artifact(
        table=ui.step_rows(record),
        key="why-each-step-ran",
        description="What ran, what was cached, and why",
    )
    pictures = (report / html.PICTURES_NAME).read_text(encoding="utf-8")
    create_markdown_artifact(
        ui.pictures_page(record, folder, pages, pictures),
        key="pictures",
        description="The run in pictures",
    )
    create_markdown_artifact(
        ui.links(record, folder, pages), key="links", description="Report and promoted model"
    )
    _show_trend(record, folder.parent)
    if record.gate:
        create_table_artifact(
            table=ui.gate_rows(record.gate),
            key="gate",
            description=markdown.escaped(ui.gate_words(record.gate)),
        )


def tell(record: RunRecord, folder: Path) -> None:
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
            "report": f"{report}/{runs.REPORT_NAME}",
        },
    )


def _show_trend(record: RunRecord, folder: Path) -> None:
    index = tables.read(folder / runs.INDEX_NAME).to_pylist()
    rows = trend.last(index, record.deployment, record.data)
    create_markdown_artifact(
        trend.page(rows, record.deployment or f"{record.data}, from the command line"),
        key="trend",
        description="The last runs",
    )
