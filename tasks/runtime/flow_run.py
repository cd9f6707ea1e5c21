"""What Prefect knows of the current flow run: name, id, deployment and scheduled time."""

import logging

from prefect import runtime

from cnn.config import run as settings
from cnn.config.run import MineConfig, RunConfig

log = logging.getLogger("cnn.run")


def dated(config: RunConfig) -> RunConfig:
    """Return the settings with the seed `date` replaced by the run's scheduled UTC date."""
    return settings.dated(config, runtime.flow_run.scheduled_start_time)


def flow_run_name() -> str:
    """Return the name of the current flow run, from its data, recipe and seed."""
    config = runtime.flow_run.parameters["config"]
    if not isinstance(config, RunConfig):  # invalid settings: the run is about to fail
        return str(runtime.flow_run.name)
    train = dated(config).train
    return f"{config.data.source}-{train.recipe}-seed{train.seed}"


def search_name() -> str:
    """Return the name of the current search, from its run and its layer."""
    config = runtime.flow_run.parameters["config"]
    if not isinstance(config, MineConfig):  # invalid settings: the search is about to fail
        return str(runtime.flow_run.name)
    return f"{config.run}-{config.layer}"


def flow_run_id() -> str | None:
    """Return the id of the current flow run in Prefect's API, None if there is no run."""
    return str(runtime.flow_run.id) if runtime.flow_run.id else None


def deployment() -> str:
    """Return the name of the run's deployment; "" if it has none or the API does not answer."""
    try:
        return str(runtime.deployment.name or "")
    except Exception as error:  # from the API client
        log.warning("cannot read the name of the deployment: %s", error)
        return ""
