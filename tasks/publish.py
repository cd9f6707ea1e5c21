"""Task: put a run's folder in place and show the run in the Prefect UI."""

import io
from pathlib import Path
from typing import Any

from PIL import Image
from prefect import runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from cnn.report import html, page
from cnn.store import runs, tables
from cnn.store.refs import Ref
from cnn.store.runs import RunRecord
from tasks.run import Run

UI_WIDTH = 600  # pixels
_SHOWN = ("history", "confusion", "mistakes", "filters-", "patches-", "samples", "calibration")


@task(name="publish_run", task_run_name="publish_run", cache_policy=NO_CACHE)
def publish_run(run: Run, *refs: Ref) -> Path:
    """Return the run's folder, in place, with the run's pages in the UI."""
    folders = {ref.kind: run.store.open(ref) for ref in refs}
    record = run.record({ref.kind: ref for ref in refs}, flow_run_id=_flow_run_id())
    body = (folders["report"] / "body.html").read_text(encoding="utf-8")
    record, folder = runs.publish(run.store.runs, record, folders, page.compose(record, body))
    _show(record, folders["report"])
    accuracy = html.percent(record.headline["test_accuracy"])
    get_run_logger().info("test accuracy %s; report: %s", accuracy, folder / runs.REPORT_NAME)
    return folder


def keep_failed(run: Run, history: list[dict[str, Any]], error: Exception) -> None:
    """Put a folder in place for a run whose training diverged, with its history."""
    record = run.record({}, error=str(error), flow_run_id=_flow_run_id())
    with run.scratch() as folder:
        tables.write_rows(folder / "history.parquet", "history", history)
        _, kept = runs.publish(run.store.runs, record, {"model": folder})
    get_run_logger().info("history up to there: %s", kept / "tables" / "history.parquet")


def _show(record: RunRecord, report: Path) -> None:
    """Create the run's artifacts in the Prefect UI."""
    create_table_artifact(
        table=page.metric_rows(record.headline), key="metrics", description=page.title(record)
    )
    create_table_artifact(
        table=[
            {
                "step": step.step,
                "outcome": step.state,
                "why": step.why,
                "time": html.seconds(step.seconds),
            }
            for step in record.steps
        ],
        key="why-each-step-ran",
        description="What ran, what was cached, and why",
    )
    pictures = sorted(report.glob("*.png"), key=lambda path: _place(path.stem))
    lines = [f"# {page.title(record)}", record.note]
    lines += [f"![{path.stem}]({_small(path.read_bytes())})" for path in pictures]
    create_markdown_artifact(
        "\n\n".join(filter(None, lines)), key="pictures", description=page.title(record)
    )


def _place(name: str) -> int:
    return next((i for i, start in enumerate(_SHOWN) if name.startswith(start)), len(_SHOWN))


def _small(png: bytes) -> str:
    """Return a picture as a data URI, no wider than the page shows it."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(picture.height * UI_WIDTH / picture.width)
    small = picture.resize((UI_WIDTH, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.quantize(128).save(stream, "PNG", optimize=True)
    return html.data_uri(stream.getvalue())


def _flow_run_id() -> str | None:
    return str(runtime.flow_run.id) if runtime.flow_run.id else None
