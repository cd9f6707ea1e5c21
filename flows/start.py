"""Starts a flow from the command line, in this process."""

from pathlib import Path

from cnn.config import RunConfig, StepName
from cnn.store.runs import RunRecord
from flows import prefect_settings


def train_and_explain(
    config: RunConfig, store: Path, refresh: list[StepName], note: str
) -> RunRecord:
    """Run the main job and return its record; Prefect is imported here, with our defaults set."""
    prefect_settings.apply()
    from flows.train_and_explain import train_and_explain as job
    from tasks.quiet import hush

    hush()
    return job(config, store=store, refresh=refresh, note=note)
