"""Task: put a run's folder in place and show the run in the Prefect UI."""

import time
from pathlib import Path
from typing import Any

from prefect import runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from cnn.report import html, page
from cnn.store import runs, tables
from cnn.store.refs import Ref
from cnn.store.runs import RunRecord, StepOutcome
from tasks.run import Run


@task(name="publish_run", task_run_name="publish_run", cache_policy=NO_CACHE, persist_result=False)
def publish_run(run: Run, *refs: Ref) -> Path:
    """Return the run's folder, in place, with the run's pages in the UI."""
    folders = {ref.kind: run.store.open(ref) for ref in refs}
    record = run.record({ref.kind: ref for ref in refs}, flow_run_id=_flow_run_id())
    text = (folders["report"] / html.BODY_NAME).read_text(encoding="utf-8")
    record, folder = runs.publish(run.store.runs, record, folders, page.compose(record, text))
    _show(record, folders["report"])
    accuracy = html.percent(record.headline["test_accuracy"])
    get_run_logger().info("test accuracy %s; report: %s", accuracy, folder / runs.REPORT_NAME)
    return folder


def keep_failed(run: Run, history: list[dict[str, Any]], error: Exception, started: float) -> None:
    """Put a folder in place for a run whose training diverged, with its history."""
    seconds = time.monotonic() - started
    run.add(StepOutcome(step="train_model", state="failed", why=str(error), seconds=seconds))
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
    pictures = (report / html.PICTURES_NAME).read_text(encoding="utf-8")
    create_markdown_artifact(
        "\n\n".join([page.headline(record), pictures]),
        key="pictures",
        description="The run in pictures",
    )


def _flow_run_id() -> str | None:
    return str(runtime.flow_run.id) if runtime.flow_run.id else None
