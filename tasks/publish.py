"""Task: let the gate decide, put a run's folder in place, and show the run in the Prefect UI."""

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
    """Return the run's folder, in place, with the run's pages in the UI.

    The model is promoted if it passes the gate. Raises GateError where it does not and the
    settings say that a rejection fails the run.
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
    text = (artifacts["report"] / html.BODY_NAME).read_text(encoding="utf-8")
    section = (
        page.comparison_section(artifacts["comparison"]) if "comparison" in artifacts else None
    )

    def accept(record: RunRecord, folder: Path) -> None:
        if verdict.outcome == "promoted":
            line = registry.promotion_of(record, verdict.because, candidate.model.digest)
            registry.promote(run.store.root, track, folder, artifacts["dataset"], line)

    with registry.locked(run.store.root, track):
        verdict = _verdict(run, candidate, track)
        record = started.model_copy(update={"gate": verdict})
        composed = page.compose(record, text, artifacts, section)
        record, folder = folders.publish(run.store.runs, record, artifacts, composed, accept)
    ui_artifacts.show_run(record, folder, artifacts["report"], section)
    ui_artifacts.emit_decision(record, folder)
    return _said(run, record, folder)


def keep_failed(
    run: RunContext, write_history: Callable[[Path], None], error: Exception, started: float
) -> None:
    """Put a folder in place for a run whose training diverged, with its history."""
    seconds = time.monotonic() - started
    run.add(StepOutcome(step="train_model", state="failed", why=str(error), seconds=seconds))
    record = run.record(
        {}, error=str(error), flow_run_id=flow_run.flow_run_id(), deployment=flow_run.deployment()
    )
    with run.scratch() as folder:
        write_history(folder)
        _, kept = folders.publish(run.store.runs, record, {"model": folder})
    get_run_logger().info("history up to there: %s", kept / "tables" / "history.parquet")


def _verdict(run: RunContext, candidate: Candidate, track: str) -> GateDecision:
    """Return what the gate decides; a history that cannot be read promotes nothing."""
    try:
        incumbent = registry.current(run.store.root, track)
    except ArtifactError as error:
        return GateDecision(outcome="rejected", track=track, because=str(error))
    return candidates.judge(candidate, incumbent, track, run.config.gate)


def _said(run: RunContext, record: RunRecord, folder: Path) -> State[Path]:
    """Return the state that says how the run went; raises GateError if it is to fail."""
    log, verdict = get_run_logger(), record.gate
    accuracy = formatting.percent(record.headline["test_accuracy"])
    log.info("test accuracy %s; report: %s", accuracy, folder / records.REPORT_NAME)
    words = f"{verdict.outcome} on track {verdict.track}: {verdict.because}" if verdict else ""
    if verdict and verdict.outcome == "rejected":
        if run.config.gate.fail:
            raise GateError(f"{words}; report: {folder / records.REPORT_NAME}")
        log.warning("%s", words)
    else:
        log.info("%s", words)
    return Completed(message=words, data=folder)
