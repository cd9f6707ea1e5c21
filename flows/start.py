"""Starts a flow from the command line, in this process."""

from pathlib import Path

from cnn.config import RunConfig, StepName
from flows import prefect_settings


def train_and_explain(config: RunConfig, store: Path, refresh: list[StepName], note: str) -> Path:
    """Run the main job and return its run folder; Prefect is imported here, with our defaults."""
    prefect_settings.apply()
    from flows.train_and_explain import train_and_explain as job

    folder: Path = job(config, store=store, refresh=refresh, note=note)
    return folder
