"""Task: publish a search's results in a folder for people and show them in the Prefect UI."""

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
from cnn.report.figures import search as figures
from cnn.runs import records, searches
from cnn.store.keys import Key
from cnn.store.refs import Ref
from tasks.runtime import ui_artifacts
from tasks.runtime.context import RunContext


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run: its name, its folder, and the refs of its model and its data set."""

    run: str
    folder: Path
    model: Ref
    dataset: Ref


def find_run(run: RunContext, name: str, layer: str) -> EarlierRun:
    """Return an earlier run whose model has the given layer.

    Raises ConfigError if there is no such run, if the run has no model, or if the layer is not
    one of the model's convolution or pooling layers.
    """
    record, folder = records.find(run.store.runs, name)
    refs = {step.ref.kind: step.ref for step in record.steps if step.ref}
    if "model" not in refs or "dataset" not in refs:
        raise ConfigError(f"run {record.run}: it failed before it had a model; name another run")
    for ref in (refs["model"], refs["dataset"]):
        run.uses(Key(ref.kind, run.store.manifest(ref).components))
    receptive_field.refuse_unknown(layer, exports.layer_kinds(run.store.open(refs["model"])))
    return EarlierRun(record.run, folder, refs["model"], refs["dataset"])


def publish_search(
    run: RunContext, config: MineConfig, earlier: EarlierRun, dataset: Ref, patches: Ref
) -> Path:
    """Publish the folder of a search, show its figures in the UI, and return the folder."""
    state: Any = _publish(run, config, earlier, dataset, patches, return_state=True)
    folder: Path = state.result()
    return folder


@task(
    name="publish_mined", task_run_name="publish_mined", cache_policy=NO_CACHE, persist_result=False
)
def _publish(
    run: RunContext, config: MineConfig, earlier: EarlierRun, dataset: Ref, patches: Ref
) -> State[Path]:
    artifact = run.store.open(patches)
    record = searches.record_of(
        run=earlier.run,
        layer=config.layer,
        data=run.store.manifest(dataset).headline["name"],
        config=config.model_dump(mode="json"),
        model=earlier.model,
        dataset=dataset,
        patches=patches,
        n_patches=run.store.manifest(patches).headline["n_patches"],
    )

    def fill(folder: Path) -> None:
        for path in (*artifact.glob("*.parquet"), *artifact.glob("*.npy")):
            shutil.copyfile(path, folder / path.name)
        kernels = earlier.folder / "arrays" / f"filters-{config.layer}.npy"
        figures.draw(folder, config.layer, config.filters, kernels)

    folder = searches.publish(run.store.root, record, fill)
    ui_artifacts.show_search(record, folder)
    get_run_logger().info("%d patches of %s: %s", record.n_patches, config.layer, folder)
    return Completed(message=f"{record.n_patches:,} patches of {config.layer}", data=folder)
