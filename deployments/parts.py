"""The parts of an installation (server, worker, report server): how to start and check each."""

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from deployments.api import ask
from deployments.processes import Process
from deployments.settings import POOL, Settings

_BIN = Path(sys.executable).parent
_SECONDS = 5.0


@dataclass(frozen=True)
class Part:
    """One part: its process, its command, its address, and a check that it is ready."""

    process: Process
    command: tuple[str, ...]
    address: str
    port_setting: str  # "" if it does not listen
    ready: Callable[[], bool]

    @property
    def name(self) -> str:
        """Return its name."""
        return self.process.name


def all_parts(settings: Settings) -> list[Part]:
    """Return the parts in the order in which they start."""
    return [_server(settings), _worker(settings), _pages(settings)]


def worker_name() -> str:
    """Return the name of this machine's worker on the server."""
    return f"{POOL}-{socket.gethostname()}"


def _server(settings: Settings) -> Part:
    host, port = settings["PREFECT_SERVER_API_HOST"], settings["PREFECT_SERVER_API_PORT"]
    return Part(
        Process(settings.state, "server"),
        (str(_BIN / "prefect"), "server", "start", "--host", host, "--port", port),
        settings.server,
        "PREFECT_SERVER_API_PORT",
        lambda: _answers(f"{settings.server}/api/ready"),
    )


def _worker(settings: Settings) -> Part:
    words = ("worker", "start", "--pool", POOL, "--type", "process", "--name", worker_name())
    return Part(
        Process(settings.state, "worker"),
        (str(_BIN / "prefect"), *words, "--install-policy", "never"),
        f"work pool {POOL}",
        "",
        lambda: _is_online(settings),
    )


def _pages(settings: Settings) -> Part:
    return Part(
        Process(settings.state, "pages"),
        (sys.executable, "-m", "flows.report_server"),
        settings["FILTERSCOPE_PAGES_URL"],
        "FILTERSCOPE_PAGES_PORT",
        lambda: _answers(settings.pages, settings.credentials),
    )


def _answers(url: str, credentials: tuple[str, str] | None = None) -> bool:
    try:
        return httpx.get(url, auth=credentials, timeout=_SECONDS).is_success
    except httpx.HTTPError:
        return False


def _is_online(settings: Settings) -> bool:
    """Return whether the server lists this machine's worker as online."""
    try:
        answer = ask(
            settings,
            "POST",
            f"/work_pools/{POOL}/workers/filter",
            {"workers": {"status": {"any_": ["ONLINE"]}}},
            _SECONDS,
        )
    except httpx.HTTPError:
        return False
    names = [worker["name"] for worker in answer.json()] if answer.is_success else []
    return worker_name() in names
