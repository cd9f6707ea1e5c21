"""Task: put what a search found into a folder for people, and show it in the Prefect UI."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from cnn.config.run import MineConfig
from cnn.errors import ConfigError
from cnn.explain import receptive_field
from cnn.model_io import exports
from cnn.report.figures import search as pictures
from cnn.runs import records, searches
from cnn.store.keys import Key
from cnn.store.refs import Ref
from tasks.runtime import ui_artifacts
from tasks.runtime.context import RunContext


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run: its name, its folder, the model and the data set that it made."""

    run: str
    folder: Path
    model: Ref
    dataset: Ref


def find_run(run: RunContext, name: str, layer: str) -> EarlierRun:
    """Return what an earlier run made, whose model has that layer.

    Raises ConfigError where there is no such run, it came to no model, or the layer is none of
    its convolutions and pools.
    """
    record, folder = records.find(run.store.runs, name)
    refs = {step.ref.kind: step.ref for step in record.steps if step.ref}
    if "model" not in refs or "dataset" not in refs:
        raise ConfigError(f"run {record.run}: it failed before there was a model; name another")
    for ref in (refs["model"], refs["dataset"]):
        run.uses(Key(ref.kind, run.store.manifest(ref).components))
    receptive_field.refuse_unknown(layer, exports.layer_kinds(run.store.open(refs["model"])))
    return EarlierRun(record.run, folder, refs["model"], refs["dataset"])


def publish_search(
    run: RunContext, config: MineConfig, made: EarlierRun, dataset: Ref, patches: Ref
) -> Path:
    """Return the folder of a search, in place, with its pictures in the UI."""
    state: Any = _publish(run, config, made, dataset, patches, return_state=True)
    folder: Path = state.result()
    return folder


@task(
    name="publish_mined", task_run_name="publish_mined", cache_policy=NO_CACHE, persist_result=False
)
def _publish(
    run: RunContext, config: MineConfig, made: EarlierRun, dataset: Ref, patches: Ref
) -> State[Path]:
    found = run.store.open(patches)
    record = searches.record_of(
        run=made.run,
        layer=config.layer,
        data=run.store.manifest(dataset).headline["name"],
        config=config.model_dump(mode="json"),
        model=made.model,
        dataset=dataset,
        patches=patches,
        n_patches=run.store.manifest(patches).headline["n_patches"],
    )

    def fill(folder: Path) -> None:
        for path in (*found.glob("*.parquet"), *found.glob("*.npy")):
            shutil.copyfile(path, folder / path.name)
        kernels = made.folder / "arrays" / f"filters-{config.layer}.npy"
        pictures.draw(folder, config.layer, config.filters, kernels)

    folder = searches.publish(run.store.root, record, fill)
    ui_artifacts.show_search(record, folder)
    get_run_logger().info("%d patches of %s: %s", record.n_patches, config.layer, folder)
    return Completed(message=f"{record.n_patches:,} patches of {config.layer}", data=folder)
