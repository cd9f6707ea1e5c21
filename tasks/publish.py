"""Task: let the gate decide, put a run's folder in place, and show the run in the Prefect UI."""

import time
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from cnn.errors import ArtifactError, GateError
from cnn.evaluate import judging
from cnn.evaluate.gate import Verdict
from cnn.evaluate.judging import Candidate
from cnn.report import compared, html, page
from cnn.store import promoted, runs, tables
from cnn.store.refs import Kind, Ref
from cnn.store.runs import RunRecord, StepOutcome
from tasks import origin, shown
from tasks.run import Run


def publish_run(run: Run, *refs: Ref) -> Path:
    """Return the run's folder, in place, with the run's pages in the UI.

    The model is promoted if it passes the gate. Raises GateError where it does not and the
    settings say that a rejection fails the run.
    """
    state: Any = _publish(run, refs, return_state=True)
    folder: Path = state.result()
    return folder


@task(name="publish_run", task_run_name="publish_run", cache_policy=NO_CACHE, persist_result=False)
def _publish(run: Run, refs: tuple[Ref, ...]) -> State[Path]:
    folders = {ref.kind: run.store.open(ref) for ref in refs}
    by_kind: dict[Kind, Ref] = {ref.kind: ref for ref in refs}
    started = run.record(by_kind, flow_run_id=origin.flow_run_id(), deployment=origin.deployment())
    track = promoted.track_of(run.config.gate, started.data)
    candidate = Candidate(folders, by_kind["model"], started.data, started.headline)
    text = (folders["report"] / html.BODY_NAME).read_text(encoding="utf-8")
    section = compared.section(folders["comparison"]) if "comparison" in folders else None

    def accept(record: RunRecord, folder: Path) -> None:
        if verdict.outcome == "promoted":
            line = promoted.now(record, verdict.because, candidate.model.digest)
            promoted.promote(run.store.root, track, folder, folders["dataset"], line)

    with promoted.deciding(run.store.root, track):
        verdict = _verdict(run, candidate, track)
        record = started.model_copy(update={"gate": verdict})
        composed = page.compose(record, text, folders, section)
        record, folder = runs.publish(run.store.runs, record, folders, composed, accept)
    shown.show(record, folder, folders["report"], section)
    shown.tell(record, folder)
    return _said(run, record, folder)


def keep_failed(run: Run, history: list[dict[str, Any]], error: Exception, started: float) -> None:
    """Put a folder in place for a run whose training diverged, with its history."""
    seconds = time.monotonic() - started
    run.add(StepOutcome(step="train_model", state="failed", why=str(error), seconds=seconds))
    flow_run, deployment = origin.flow_run_id(), origin.deployment()
    record = run.record({}, error=str(error), flow_run_id=flow_run, deployment=deployment)
    with run.scratch() as folder:
        tables.write_rows(folder / "history.parquet", "history", history)
        _, kept = runs.publish(run.store.runs, record, {"model": folder})
    get_run_logger().info("history up to there: %s", kept / "tables" / "history.parquet")


def _verdict(run: Run, candidate: Candidate, track: str) -> Verdict:
    """Return what the gate decides; a history that cannot be read promotes nothing."""
    try:
        incumbent = promoted.current(run.store.root, track)
    except ArtifactError as error:
        return Verdict(outcome="rejected", track=track, because=str(error))
    return judging.judge(candidate, incumbent, track, run.config.gate)


def _said(run: Run, record: RunRecord, folder: Path) -> State[Path]:
    """Return the state that says how the run went; raises GateError if it is to fail."""
    log, verdict = get_run_logger(), record.gate
    accuracy = html.percent(record.headline["test_accuracy"])
    log.info("test accuracy %s; report: %s", accuracy, folder / runs.REPORT_NAME)
    words = f"{verdict.outcome} on track {verdict.track}: {verdict.because}" if verdict else ""
    if verdict and verdict.outcome == "rejected":
        if run.config.gate.fail:
            raise GateError(f"{words}; report: {folder / runs.REPORT_NAME}")
        log.warning("%s", words)
    else:
        log.info("%s", words)
    return Completed(message=words, data=folder)
