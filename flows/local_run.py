"""Starts a flow in the process of the command, with a Prefect server if none is configured."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

from cnn.config.run import MineConfig, RunConfig, StepName
from cnn.errors import ServerError, StoreUnwritableError
from cnn.io import atomic
from flows import prefect_settings

_ROOM = 8 << 20  # bytes; a run's records take 1 or 2 MB, the database's log some more
_LAST_EVENTS = 10.0  # seconds; if sending takes longer, Prefect warns when the command ends

# Ends a server when the process at the other end of standard input has ended.
_WATCH = """
import signal, sys
sys.stdin.read()
try:
    signal.pidfd_send_signal(3, signal.SIGTERM)
except ProcessLookupError:
    pass
"""


def train_and_explain(config: RunConfig, store: Path, refresh: list[StepName], note: str) -> Path:
    """Run the main job and return its run folder."""
    with _prefect():
        from flows.train_and_explain import train_and_explain as job

        folder = job(config, store=store, refresh=refresh, note=note)
    assert isinstance(folder, Path)  # only a deployment's run is skipped
    return folder


def mine(config: MineConfig, store: Path) -> Path:
    """Run the search in one layer and return its folder."""
    with _prefect():
        from flows.mine import mine as job

        return job(config, store=store)


@contextmanager
def _prefect() -> Iterator[None]:
    """Provide a server while the block runs a flow; Prefect is imported here, with our defaults."""
    prefect_settings.apply()
    _reach_server()
    try:
        yield
    except httpx.HTTPError as error:  # Prefect's own errors are among them
        raise ServerError(
            f"Prefect's API failed during the run: {error}; "
            "finished steps are in the store: run again"
        ) from None
    finally:
        _send_last_events()


def _send_last_events() -> None:
    """Send Prefect's remaining events, so that it does not warn of them after the result."""
    from prefect.events.worker import EventsWorker

    log = logging.getLogger("EventsWorker")
    log.setLevel(logging.ERROR)
    EventsWorker.drain_all(timeout=_LAST_EVENTS)
    log.setLevel(logging.NOTSET)


def _reach_server() -> None:
    """Check the configured API, or start the temporary server that Prefect would start itself.

    The server inherits a blocked SIGINT: Ctrl-C ends the run but not the server, to which the
    run still reports its final state. If the run is killed, the server ends too.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        reached, detail = prefect_settings.api_state()
        if not reached:
            raise ServerError(f"Prefect's API cannot be reached: {detail}")
        return
    _check_home(settings.home)
    from prefect.server.api.server import SubprocessASGIServer  # takes 1.5 s

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    server = SubprocessASGIServer()
    try:
        server.start(settings.server.ephemeral.startup_timeout_seconds)
    except RuntimeError as error:
        raise ServerError(f"Prefect's temporary server did not start: {error}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_this_process(server.server_process)


def _check_home(home: Path) -> None:
    """Raise StoreUnwritableError if the temporary server could not write its records.

    The server itself would try for minutes and only print tracebacks. The space is allocated
    beyond the end of the existing database, so that a limit on the file size counts too.
    """
    database = home / "prefect.db"
    try:
        with atomic.disk_faults("Prefect's records", home):
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=home) as stream:
                n_bytes = database.stat().st_size if database.exists() else 0
                os.posix_fallocate(stream.fileno(), n_bytes, _ROOM)
    except StoreUnwritableError as error:
        raise StoreUnwritableError(
            f"{error}; {_ROOM:,} bytes are needed. Set PREFECT_HOME to another folder, or "
            "PREFECT_API_URL to a server"
        ) from None


def _end_with_this_process(server: Popen[Any] | None) -> None:
    """Start a process that ends the server when this process ends, even by SIGKILL."""
    if server is None or not hasattr(os, "pidfd_open"):
        return
    try:
        watched = os.pidfd_open(server.pid)
    except OSError:  # a kernel before Linux 5.3
        return
    ours, _ = os.pipe()  # the write end closes with this process
    command = [sys.executable, "-I", "-S", "-c", _WATCH]
    actions = [(os.POSIX_SPAWN_DUP2, ours, 0), (os.POSIX_SPAWN_DUP2, watched, 3)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsid=True)
    os.close(ours)
    os.close(watched)
