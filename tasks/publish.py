"""Task: let the gate decide, publish a run's folder, and show the run in the Prefect UI."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from cnn import formatting
from cnn.errors import ArtifactError, GateError
from cnn.promotion import candidate as candidates
from cnn.promotion import registry
from cnn.promotion.candidate import Candidate
from cnn.report.pages import html, page
from cnn.runs import folders, records
from cnn.runs.records import GateDecision, RunRecord, StepOutcome
from cnn.store.refs import Kind, Ref
from tasks.runtime import flow_run, ui_artifacts
from tasks.runtime.context import RunContext


def publish_run(run: RunContext, *refs: Ref) -> Path:
    """Publish the run's folder, show the run in the UI, and return the folder.

    The model is promoted if it passes the gate. Raises GateError if it does not pass and the
    settings make a rejection fail the run.
    """
    state: Any = _publish(run, refs, return_state=True)
    folder: Path = state.result()
    return folder


@task(name="publish_run", task_run_name="publish_run", cache_policy=NO_CACHE, persist_result=False)
def _publish(run: RunContext, refs: tuple[Ref, ...]) -> State[Path]:
    artifacts = {ref.kind: run.store.open(ref) for ref in refs}
    by_kind: dict[Kind, Ref] = {ref.kind: ref for ref in refs}
    started = run.record(
        by_kind, flow_run_id=flow_run.flow_run_id(), deployment=flow_run.deployment()
    )
    track = registry.track_of(run.config.gate, started.data)
    candidate = Candidate(artifacts, by_kind["model"], started.data, started.headline)
    body = (artifacts["report"] / html.BODY_NAME).read_text(encoding="utf-8")
    section = (
        page.comparison_section(artifacts["comparison"]) if "comparison" in artifacts else None
    )

    def accept(record: RunRecord, folder: Path) -> None:
        if decision.outcome == "promoted":
            line = registry.promotion_of(record, decision.because, candidate.model.digest)
            registry.promote(run.store.root, track, folder, artifacts["dataset"], line)

    with registry.locked(run.store.root, track):
        decision = _decide(run, candidate, track)
        record = started.model_copy(update={"gate": decision})
        composed = page.compose(record, body, artifacts, section)
        record, folder = folders.publish(run.store.runs, record, artifacts, composed, accept)
    ui_artifacts.show_run(record, folder, artifacts["report"], section)
    ui_artifacts.emit_decision(record, folder)
    return _final_state(run, record, folder)


def keep_failed(
    run: RunContext, write_history: Callable[[Path], None], error: Exception, started: float
) -> None:
    """Publish a folder with the history of a run whose training diverged."""
    seconds = time.monotonic() - started
    run.add(StepOutcome(step="train_model", state="failed", why=str(error), seconds=seconds))
    record = run.record(
        {}, error=str(error), flow_run_id=flow_run.flow_run_id(), deployment=flow_run.deployment()
    )
    with run.scratch() as folder:
        write_history(folder)
        _, kept = folders.publish(run.store.runs, record, {"model": folder})
    history = kept / "tables" / "history.parquet"
    get_run_logger().info("history of the diverged training: %s", history)


def _decide(run: RunContext, candidate: Candidate, track: str) -> GateDecision:
    """Return the gate's decision: a rejection if the history of promotions cannot be read."""
    try:
        incumbent = registry.current(run.store.root, track)
    except ArtifactError as error:
        return GateDecision(outcome="rejected", track=track, because=str(error))
    return candidates.judge(candidate, incumbent, track, run.config.gate)


def _final_state(run: RunContext, record: RunRecord, folder: Path) -> State[Path]:
    """Log the outcome and return the final state; raises GateError if a rejection fails the run."""
    log, decision = get_run_logger(), record.gate
    accuracy = formatting.percent(record.headline["test_accuracy"])
    log.info("test accuracy %s; report: %s", accuracy, folder / records.REPORT_NAME)
    message = (
        f"{decision.outcome} on track {decision.track}: {decision.because}" if decision else ""
    )
    if decision and decision.outcome == "rejected":
        if run.config.gate.fail:
            raise GateError(f"{message}; report: {folder / records.REPORT_NAME}")
        log.warning("%s", message)
    else:
        log.info("%s", message)
    return Completed(message=message, data=folder)
