"""Rules for flow runs of a deployment only, which no person waits for at a terminal."""

import ctypes
import logging
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.states import Cancelled

from cnn.config.run import RunConfig
from cnn.errors import ConfigError, UnreachableError
from cnn.store.store import default_root
from tasks.runtime import logs

log = logging.getLogger("cnn.run")

RETRY_SECONDS = [60, 300]  # between download attempts
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_NOT_DONE = (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED, StateType.CANCELLING)
_DONE_OR_DUE = [state for state in StateType if state not in _NOT_DONE]
_N_LATER = 20  # how many later runs are checked


def flow_run() -> FlowRun | None:
    """Return the current flow run if it belongs to a deployment, else None."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run if run and run.deployment_id else None


def should_fetch_again(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether to retry a failed step: in a deployment, if the host was unreachable."""
    return flow_run() is not None and isinstance(state.data, UnreachableError)


def superseded() -> State[None] | None:
    """Return state Cancelled if a later scheduled run does the work of this one, else None.

    After an outage every scheduled run that was missed is started. Of those with the same
    parameters only the latest trains. Runs that a person started are never cancelled.
    """
    run = flow_run()
    if run is None or not run.auto_scheduled or run.expected_start_time is None:
        return None
    try:
        later = _later(run)
    except Exception as error:
        log.warning("cannot check whether a later scheduled run is due: %s", error)
        return None
    if later is None:
        return None
    message = f"a later scheduled run is due: {later.name} of {later.expected_start_time:%F %T} UTC"
    return Cancelled(message=message)


def _later(run: FlowRun) -> FlowRun | None:
    """Return the latest scheduled run of the same deployment and parameters that is due by now.

    Runs that failed, crashed or were cancelled do not count.
    """
    due = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[run.deployment_id]),
        expected_start_time=filters.FlowRunFilterExpectedStartTime(
            after_=run.expected_start_time, before_=datetime.now(UTC)
        ),
        state=filters.FlowRunFilterState(
            type=filters.FlowRunFilterStateType(any_=_DONE_OR_DUE),
        ),
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=due, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=_N_LATER
        )
    for other in found:
        is_later = (other.expected_start_time, str(other.id)) > (
            run.expected_start_time,
            str(run.id),
        )
        if other.auto_scheduled and other.parameters == run.parameters and is_later:
            return other
    return None


def prepare(config: RunConfig, store: Path | None) -> None:
    """Make a deployed run end with its worker; raise ConfigError where its output would be lost."""
    if flow_run() is not None:
        _refuse_lost_folders(config, store)
        logs.outlive_the_console()
        _end_with_the_worker()


def _end_with_the_worker() -> None:
    """Have Linux send SIGTERM when the parent process ends, even by SIGKILL.

    Without its worker the run could not be cancelled. On other systems it runs to its end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _refuse_lost_folders(config: RunConfig, store: Path | None) -> None:
    """Raise ConfigError for a folder inside the worker's temporary folder.

    A process worker starts a flow run in a folder that it removes afterwards, unless the job
    variable `working_dir` names another one.
    """
    here = Path.cwd()
    if here.parent != Path(tempfile.gettempdir()) or not here.name.endswith("prefect"):
        return
    folders = {"store": store or default_root(), "data.path": config.data.path}
    for name, path in folders.items():
        if path is not None and path.absolute().is_relative_to(here):
            raise ConfigError(
                f"{name}: {path} lies in {here}, which the worker removes after the run; use an "
                "absolute path, or set the deployment's job variable working_dir"
            )
