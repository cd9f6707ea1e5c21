"""What the command settles and refuses before a flow starts, without Prefect."""

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
    store: Store, chosen: RunConfig, planned: Sequence[Planned]
) -> tuple[records.RunRecord, Path] | None:
    """Return the run that made all that a plan asks for, unless a new one is to be recorded.

    One is where the gate may decide otherwise now. Its steps are given as they are: cached.
    """
    refs = [item.ref for item in planned if item.ref]
    if len(refs) < len(planned) or prefect_settings.api_is_configured():
        return None
    found = records.latest_of(store.runs, refs)
    if found is None or not registry.decision_holds(store.root, found[0], chosen.gate):
        return None
    index.complete(store.runs)
    steps = tuple(
        records.StepOutcome(
            step=item.step.name, state="cached", why=item.why, seconds=0, ref=item.ref
        )
        for item in planned
    )
    return found[0].model_copy(update={"steps": steps}), found[1]


def refuse_bad_data(chosen: RunConfig, planned: Sequence[Planned], store: Store) -> None:
    """Load own data that no step has loaded yet: bad ones end the command here, at once."""
    if chosen.data.source == "folder" and planned[0].state != "cached":
        source = sources.identify(chosen.data, store.downloads)
        sources.load(source, chosen.data)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep the data's warnings out of the log while the block runs."""
    logger = logging.getLogger("cnn.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def refuse_missing_gpu(runtime: RuntimeConfig) -> None:
    """Raise ConfigError where a GPU is asked for and there is none, before anything is fetched."""
    if runtime.device == "gpu":
        from cnn.train import device

        device.prepare(runtime)


def resolve_auto(wanted: DataConfig, store: Store) -> tuple[DataConfig, str]:
    """Return the data with `auto` resolved, and what a person should know about it."""
    if wanted.source == "auto":
        console.tell(f"looking for MNIST, for {sources.AUTO_SECONDS:.0f} s at most")
    data, note = sources.resolve_auto(wanted, store.downloads)
    if note:
        console.tell(note)
    return data, note
