"""Starts a flow from the command line, in this process."""

import os
import signal
import sys
from pathlib import Path
from subprocess import Popen
from typing import Any

from cnn.config import RunConfig, StepName
from cnn.errors import ServerError
from flows import prefect_settings

# Ends a server when the process that holds the other end of standard input is gone.
_WATCH = """
import signal, sys
sys.stdin.read()
try:
    signal.pidfd_send_signal(3, signal.SIGTERM)
except ProcessLookupError:
    pass
"""


def train_and_explain(config: RunConfig, store: Path, refresh: list[StepName], note: str) -> Path:
    """Run the main job and return its run folder; Prefect is imported here, with our defaults."""
    prefect_settings.apply()
    from flows.train_and_explain import train_and_explain as job

    _reach_server()
    folder: Path = job(config, store=store, refresh=refresh, note=note)
    return folder


def _reach_server() -> None:
    """Check the API that is configured, or start the server that Prefect would start itself.

    That server inherits a blocked SIGINT: Ctrl-C then ends the run but not the server, to which the
    run still has to say that it ended. It does not outlive a run that is killed.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        reached, detail = prefect_settings.api_state()
        if not reached:
            raise ServerError(f"Prefect's API cannot be reached: {detail}")
        return
    from prefect.server.api.server import SubprocessASGIServer  # a second and a half

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    server = SubprocessASGIServer()
    try:
        server.start(settings.server.ephemeral.startup_timeout_seconds)
    except RuntimeError as error:
        raise ServerError(f"Prefect's temporary server did not start: {error}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_this_process(server.server_process)


def _end_with_this_process(server: Popen[Any] | None) -> None:
    """Start a process that ends the server when this one is gone, even by SIGKILL."""
    if server is None or not hasattr(os, "pidfd_open"):
        return
    try:
        watched = os.pidfd_open(server.pid)
    except OSError:  # a kernel before Linux 5.3
        return
    ours, _ = os.pipe()  # the end that is written to closes with this process
    command = [sys.executable, "-I", "-S", "-c", _WATCH]
    actions = [(os.POSIX_SPAWN_DUP2, ours, 0), (os.POSIX_SPAWN_DUP2, watched, 3)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsid=True)
    os.close(ours)
    os.close(watched)
