"""Where a flow run comes from: its deployment, and the time that it was scheduled for."""

import logging

from prefect import runtime

from cnn.config import run as settings
from cnn.config.run import MineConfig, RunConfig

log = logging.getLogger("cnn.run")


def dated(config: RunConfig) -> RunConfig:
    """Return the settings with the seed `date` as the UTC date that the run is scheduled for."""
    return settings.dated(config, runtime.flow_run.scheduled_start_time)


def flow_run_name() -> str:
    """Return the name of the flow run under way: its data, its recipe, its seed."""
    config = runtime.flow_run.parameters["config"]
    if not isinstance(config, RunConfig):  # refused settings; the run is about to fail
        return str(runtime.flow_run.name)
    train = dated(config).train
    return f"{config.data.source}-{train.recipe}-seed{train.seed}"


def search_name() -> str:
    """Return the name of the search under way: its run and its layer."""
    config = runtime.flow_run.parameters["config"]
    if not isinstance(config, MineConfig):  # refused settings; the search is about to fail
        return str(runtime.flow_run.name)
    return f"{config.run}-{config.layer}"


def flow_run_id() -> str | None:
    """Return the id under which Prefect's API knows the run."""
    return str(runtime.flow_run.id) if runtime.flow_run.id else None


def deployment() -> str:
    """Return the name of the run's deployment; "" where it has none, or the API is silent."""
    try:
        return str(runtime.deployment.name or "")
    except Exception as error:  # of the API's client
        log.warning("the name of the deployment is not known: %s", error)
        return ""
