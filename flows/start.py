"""Starts a flow from the command line, in this process."""

import signal
from pathlib import Path

from cnn.config import RunConfig, StepName
from flows import prefect_settings


def train_and_explain(config: RunConfig, store: Path, refresh: list[StepName], note: str) -> Path:
    """Run the main job and return its run folder; Prefect is imported here, with our defaults."""
    prefect_settings.apply()
    from flows.train_and_explain import train_and_explain as job

    _start_temporary_server()
    folder: Path = job(config, store=store, refresh=refresh, note=note)
    return folder


def _start_temporary_server() -> None:
    """Start the server that Prefect would start by itself, where no API is configured.

    It inherits a blocked SIGINT: Ctrl-C then ends the run but not the server, to which the
    run still has to say that it ended.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start(settings.server.ephemeral.startup_timeout_seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
