"""An operator's machine: a Prefect server, a process work pool, deployments and a worker."""

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from deployments.settings import complete
from tests import ROOT
from tests.commands import processes_with
from tests.services.asking import asked
from tests.services.databases import Database, database, free_port

BIN = Path(sys.executable).parent
POOL = "machine"
LONGEST = 180.0  # seconds to wait for anything
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
Run = dict[str, Any]  # a flow run as the API gives it

logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request


class Server:
    """A Prefect server with its own database; environment: the variables for its clients."""

    def __init__(self, folder: Path, **settings: str) -> None:
        given = {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_PORT": str(free_port()),
            "PREFECT_SERVER_LOG_RETRYABLE_ERRORS": "true",
            "FILTERSCOPE_STORE": str(folder / "artifacts"),
        }
        self.environment = dict(complete({**_clean(), **given, **settings}).environment)
        self.address = self.environment["PREFECT_API_URL"].removesuffix("/api")
        self.log = folder / "server.log"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "prefect", "server", "start"], env=self.environment, stdout=log, stderr=log
            )
        wait_until(self._answers, f"the Prefect server at {self.address}")

    def stop(self) -> None:
        """Stop it as an operator would."""
        self.process.terminate()
        self.process.wait(60)

    def post(self, path: str, /, **body: Any) -> Any:
        return self._ask("POST", path, json=body)

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def n_busy(self) -> int:
        """Return how many requests the server refused because its database was busy."""
        return self.log.read_text().count("Encountered retryable exception")

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = asked(method, f"{self.address}/api/{path}", **more)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
        try:
            return httpx.get(f"{self.address}/api/health").is_success
        except httpx.HTTPError:
            return False

    # What an operator does:

    def deploy(
        self,
        name: str,
        store: Path,
        config: Run,
        limit: int = 1,
        working_dir: Path | None = ROOT,
        **more: Any,
    ) -> str:
        """Create a deployment with these settings and return its id."""
        pull = {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
        variables = {"env": {"FILTERSCOPE_STORE": str(store)}}
        if working_dir:
            variables["working_dir"] = str(working_dir)
        values = {
            "name": name,
            "flow_id": self.post("flows/", name="train-and-explain")["id"],
            "entrypoint": "flows/train_and_explain.py:train_and_explain",
            "pull_steps": [pull],
            "work_pool_name": POOL,
            "job_variables": variables,
            "parameters": {"config": config},
            "concurrency_limit": limit,
            "concurrency_options": {"collision_strategy": "ENQUEUE"},
        }
        return str(self.post("deployments/", **{**values, **more})["id"])

    def submit(self, deployment: str, **body: Any) -> str:
        """Create a flow run of a deployment, due now, and return its id."""
        created = self.post(
            f"deployments/{deployment}/create_flow_run", idempotency_key=uuid.uuid4().hex, **body
        )
        return str(created["id"])

    def run(self, flow_run: str) -> Run:
        found: Run = self.get(f"flow_runs/{flow_run}")
        return found

    def state(self, flow_run: str) -> str:
        return str(self.run(flow_run)["state"]["type"])

    def wait_for(self, flow_run: str, *types: str, longest: float = LONGEST) -> Run:
        """Wait until a flow run is in one of these states (default: any final one); return it."""
        wanted = types or FINAL
        wait_until(
            lambda: self.state(flow_run) in wanted, f"{wanted} of {flow_run}", longest=longest
        )
        return self.run(flow_run)

    def cancel(self, flow_run: str) -> None:
        """Do what the UI's button does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.post(f"flow_runs/{flow_run}/set_state", state=state)

    def slots_taken(self, deployment: str) -> int:
        """Return how many of a deployment's slots are in use."""
        limit = self.get(f"deployments/{deployment}")["global_concurrency_limit"]
        return int(limit["active_slots"])

    def logs(self, flow_run: str) -> list[str]:
        wanted = {"flow_run_id": {"any_": [flow_run]}}
        found = self.post("logs/filter", logs=wanted, sort="TIMESTAMP_ASC")
        return [str(item["message"]) for item in found]


class Worker:
    """A process worker of the pool, in a separate process."""

    def __init__(self, server: Server, log: Path) -> None:
        self.log = log
        command = [BIN / "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        environment = server.environment | {
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                command, env=environment, stdout=stream, stderr=stream, cwd=log.parent
            )

    def kill(self) -> None:
        """Kill it, as the kernel does when memory runs out; its child processes stay."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop it as systemd would."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def server_with(kind: Database, folder: Path, **settings: str) -> Iterator[Server]:
    """Yield a server with an empty database of this kind and with the work pool."""
    with database(kind) as connection:
        server = Server(folder, **connection, **settings)
        try:
            server.post("work_pools/", name=POOL, type="process", base_job_template=_template())
            yield server
        finally:
            server.stop()


@contextmanager
def working(server: Server, folder: Path) -> Iterator[Worker]:
    """Yield a running worker, which is stopped afterwards."""
    worker = Worker(server, folder / "worker.log")
    try:
        yield worker
    finally:
        worker.stop()


def wait_until(
    condition: Callable[[], object], what: str, longest: float = LONGEST, pause: float = 0.2
) -> float:
    """Wait until a condition is true and return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < longest, f"{what} did not come in {longest:.0f} s"
        time.sleep(pause)
    return time.monotonic() - started


def processes(flow_run: str) -> list[int]:
    """Return the ids of a flow run's processes, without the worker's own."""
    return list(processes_with(f"PREFECT__FLOW_RUN_ID={flow_run}"))


def kill(flow_run: str) -> None:
    for pid in processes(flow_run):
        os.kill(pid, signal.SIGKILL)


def _clean() -> dict[str, str]:
    """Return the environment without variables of another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def _template() -> Any:
    from prefect.workers.process import ProcessWorker

    return ProcessWorker.get_default_base_job_template()
