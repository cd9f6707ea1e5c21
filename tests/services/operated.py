"""An installation as `make up` creates it, in a separate folder; and a receiver of messages."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from deployments.processes import MARK
from deployments.settings import ROOT
from tests.commands import processes_with, wait_for
from tests.services.asking import asked
from tests.services.databases import free_port


class Operated:
    """One installation, with its settings in a file."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder, self.store = folder, folder / "artifacts"
        self.port, self.pages_port = free_port(), free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.pages = f"http://127.0.0.1:{self.pages_port}"
        self.auth: tuple[str, str] | None = None
        values = {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "FILTERSCOPE_PAGES_PORT": str(self.pages_port),
            "FILTERSCOPE_STORE": str(self.store),
            **more,
        }
        self.file = folder / "settings"
        self.file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def do(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run one of the operator's commands."""
        return subprocess.run(
            [sys.executable, "-m", "deployments.operate", *words],
            env=self.environment(**more),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of its commands, in which only the settings file is set."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("PREFECT", "FILTERSCOPE"))}
        return {**kept, "FILTERSCOPE_SETTINGS": str(self.file), **more}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it during the block; afterwards none of its processes is left."""
        try:
            self.up()
            yield
        finally:
            self.do("down")
        assert self.processes() == []

    def up(self, **more: str) -> str:
        """Start everything and return the output."""
        done = self.do("up", **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pid(self, part: str) -> int:
        """Return the process id of a part, from its file."""
        return int((self.folder / "prefect/filterscope" / f"{part}.pid").read_text().split()[0])

    def log(self, part: str) -> str:
        return (self.folder / "prefect/filterscope" / f"{part}.log").read_text()

    def processes(self) -> list[str]:
        """Return the command lines of all processes that were started, directly or not."""
        return [line for line in processes_with(f"{MARK}={self.folder}").values() if line]

    def ask(self, path: str, values: Any = None, method: str = "POST") -> Any:
        answer = asked(method, f"{self.api}{path}", json=values, auth=self.auth)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def deployment(self, name: str, flow: str = "train-and-explain") -> dict[str, Any]:
        """Return a deployment by name."""
        found: dict[str, Any] = self.ask(f"/deployments/name/{flow}/{name}", method="GET")
        return found

    def start_run(self, **config: Any) -> str:
        """Ask for a run of on-demand and return its id."""
        return self.create_run("on-demand", {"config": config})

    def start_search(self, **config: Any) -> str:
        """Start a search of mine-on-demand and return its id."""
        return self.create_run("mine-on-demand", {"config": config}, "mine")

    def create_run(
        self, name: str, parameters: dict[str, Any], flow: str = "train-and-explain"
    ) -> str:
        """Start a run of a deployment and return its id."""
        path = f"/deployments/{self.deployment(name, flow)['id']}/create_flow_run"
        return str(self.ask(path, {"parameters": parameters})["id"])

    def run(self, identity: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/flow_runs/{identity}", method="GET")
        return found

    def state(self, identity: str) -> str:
        return str(self.run(identity)["state"]["name"])

    def end(self, identity: str) -> str:
        """Wait for the end of a run and return its final state."""
        over = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait_for(lambda: self.run(identity)["state"]["type"] in over)
        return self.state(identity)


class Receiver:
    """A webhook that keeps the messages it gets."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                messages.append({"path": self.path, **json.loads(body)})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/geheim-7f3a"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def of(self, **wanted: str) -> dict[str, Any]:
        """Wait for a message with these fields and return the first one."""
        found: dict[str, Any] = wait_for(
            lambda: next((m for m in self.messages if wanted.items() <= m.items()), None), 60
        )
        return found

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
