"""Cancels the runs in progress on a worker, as the UI's cancel button would."""

import time
from collections.abc import Callable

import httpx

from deployments import processes
from deployments.api import ask
from deployments.processes import Process
from deployments.settings import Settings

_FLOW_RUN = "PREFECT__FLOW_RUN_ID"
_SECONDS = 30.0
_OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def cancel_runs(settings: Settings, worker: Process, tell: Callable[[str], object]) -> None:
    """Cancel the runs of a worker and wait for their end; the caller kills those still running."""
    for run in sorted(_runs_of(worker)):
        try:
            _cancel(settings, run)
            tell(f"run {run}: {_end_of(settings, run)}")
        except httpx.HTTPError as error:
            tell(
                f"run {run}: Prefect's API does not answer ({error}); the run is stopped anyway, "
                "but stays in state Running until its heartbeats are missed"
            )


def _runs_of(worker: Process) -> set[str]:
    found = (processes.variable(pid, _FLOW_RUN) for pid in worker.tree())
    return {run for run in found if run}


def _cancel(settings: Settings, run: str) -> None:
    state = {"type": "CANCELLING", "name": "Cancelling", "message": "The worker is stopped."}
    ask(settings, "POST", f"/flow_runs/{run}/set_state", {"state": state}, 10).raise_for_status()


def _end_of(settings: Settings, run: str) -> str:
    """Return the name of a run's final state, or of its current one if it does not end in time."""
    deadline = time.monotonic() + _SECONDS
    while True:
        answer = ask(settings, "GET", f"/flow_runs/{run}", seconds=10)
        state = answer.raise_for_status().json()["state"]
        if state["type"] in _OVER or time.monotonic() > deadline:
            return str(state["name"])
        time.sleep(0.5)
