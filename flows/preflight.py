"""Checks and decisions that the command makes before a flow starts, without Prefect."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cnn.config.run import DataConfig, RunConfig, RuntimeConfig
from cnn.data import sources
from cnn.pipeline.planning import Planned
from cnn.promotion import registry
from cnn.runs import index, records
from cnn.store.store import Store
from flows import console, prefect_settings


def nothing_to_do(
    store: Store, config: RunConfig, planned: Sequence[Planned]
) -> tuple[records.RunRecord, Path] | None:
    """Return the run that made everything in a plan, and its folder; None if a new run is needed.

    A new run is needed if a step is not cached, if an API records runs, or if the gate might now
    decide differently. The returned record shows every step as cached.
    """
    refs = [item.ref for item in planned if item.ref]
    if len(refs) < len(planned) or prefect_settings.api_is_configured():
        return None
    found = records.latest_of(store.runs, refs)
    if found is None or not registry.decision_holds(store.root, found[0], config.gate):
        return None
    index.complete(store.runs)
    steps = tuple(
        records.StepOutcome(
            step=item.step.name, state="cached", why=item.why, seconds=0, ref=item.ref
        )
        for item in planned
    )
    return found[0].model_copy(update={"steps": steps}), found[1]


def refuse_bad_data(config: RunConfig, planned: Sequence[Planned], store: Store) -> None:
    """Load the user's own data unless it is cached, so that bad data ends the command at once."""
    if config.data.source == "folder" and planned[0].state != "cached":
        source = sources.identify(config.data, store.downloads)
        sources.load(source, config.data)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Suppress warnings about the data while the block runs."""
    logger = logging.getLogger("cnn.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def refuse_missing_gpu(runtime: RuntimeConfig) -> None:
    """Raise ConfigError if a GPU is selected but there is none, before anything is fetched."""
    if runtime.device == "gpu":
        from cnn.train import device

        device.prepare(runtime)


def resolve_auto(config: DataConfig, store: Store) -> tuple[DataConfig, str]:
    """Return the settings with source `auto` resolved, and a note for the user, "" if none."""
    if config.source == "auto":
        console.tell(f"looking for MNIST for at most {sources.AUTO_SECONDS:.0f} s")
    data, note = sources.resolve_auto(config, store.downloads)
    if note:
        console.tell(note)
    return data, note
