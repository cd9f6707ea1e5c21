"""Task: mine the patches that most activate each filter."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn.config import MiningConfig
from cnn.data import dataset as datasets
from cnn.store import exports, tables
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from cnn.store.steps import MINE_LAYER, MINE_PATCHES
from tasks import shards
from tasks.run import Run
from tasks.step import Work, step_task

if TYPE_CHECKING:
    from cnn.explain.patches import Patches


def refuse_unfit(run: Run, dataset: Ref) -> None:
    """Raise ConfigError, before a network is trained, where its patches could not be mined."""
    from cnn.explain import patches
    from cnn.train import model, recipes

    images, settings = datasets.read(run.store.open(dataset)), run.config.explain
    sides = model.map_size(recipes.resolve(run.config.train), images.image_shape)
    n_images = len(images.splits[settings.split])
    for layer in patches.LAYERS:
        patches.refuse_too_many(settings, layer, n_images, sides, "explain.")


@step_task(MINE_PATCHES)
def mine_patches(work: Work) -> Headline:
    """Write the patches and projections of every layer that the main job explains."""
    from cnn.explain import patches

    of_layers = work.settings.model_dump()
    wanted = [MiningConfig(layer=layer, **of_layers) for layer in patches.LAYERS]
    return _mine(work, wanted, "explain.")


@step_task(MINE_LAYER)
def mine_layer(work: Work) -> Headline:
    """Write the patches and projections of one layer."""
    return _mine(work, [work.settings], "")


def _mine(work: Work, wanted: Sequence[MiningConfig], section: str) -> Headline:
    from cnn.explain import activations, patches

    model = exports.load_model(work.inputs["model"])
    names = exports.class_names(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    for settings in wanted:
        patches.check(model, dataset.splits[settings.split], settings, section)
    mined = []
    for settings in wanted:
        n_images = len(dataset.splits[settings.split])
        n_at_once = activations.batch_size(model, settings.layer)
        best = shards.search(work, settings, n_images, n_at_once)
        mined.append(patches.describe(model, dataset, settings, best, names))
    return _write(work.folder, mined)


def _write(folder: Path, mined: Sequence["Patches"]) -> Headline:
    """Write some layers' patches and projections as arrays, and one table of all patches."""
    for item in mined:
        np.save(folder / f"patches-{item.layer}.npy", item.pixels, allow_pickle=False)
        if item.projections is not None:
            path = folder / f"projections-{item.layer}.npy"
            np.save(path, item.projections, allow_pickle=False)
    rows = [row for item in mined for row in item.rows]
    tables.write_rows(folder / "patches.parquet", "patches", rows)
    return {"n_patches": len(rows)}
