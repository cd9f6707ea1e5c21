"""Starts a flow from the command line, in this process."""

import signal
from pathlib import Path

from cnn.config import RunConfig, StepName
from cnn.errors import ServerError
from flows import prefect_settings


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
    run still has to say that it ended.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        reached, detail = prefect_settings.api_state()
        if not reached:
            raise ServerError(f"Prefect's API cannot be reached: {detail}")
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start(settings.server.ephemeral.startup_timeout_seconds)
    except RuntimeError as error:
        raise ServerError(f"Prefect's temporary server did not start: {error}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
