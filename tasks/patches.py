"""Task: mine the patches that most activate each filter."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn.config import MiningConfig
from cnn.data import dataset as datasets
from cnn.store import exports, tables
from cnn.store.manifests import Headline
from cnn.store.steps import MINE_PATCHES
from tasks.step import Work, step_task

if TYPE_CHECKING:
    from cnn.explain.patches import Patches


@step_task(MINE_PATCHES)
def mine_patches(work: Work) -> Headline:
    """Write each layer's patches and projections as arrays, and the table of the patches."""
    from cnn.explain import patches

    model = exports.load_model(work.inputs["model"])
    names = exports.class_names(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    mined = []
    for layer in patches.LAYERS:
        settings = MiningConfig(layer=layer, **work.settings.model_dump())
        mined.append(patches.mine(model, dataset, settings, names, work.report))
    return write(work.folder, mined)


def write(folder: Path, mined: Sequence["Patches"]) -> Headline:
    """Write some layers' patches and projections as arrays, and one table of all patches."""
    for item in mined:
        np.save(folder / f"patches-{item.layer}.npy", item.pixels, allow_pickle=False)
        if item.projections is not None:
            path = folder / f"projections-{item.layer}.npy"
            np.save(path, item.projections, allow_pickle=False)
    rows = [row for item in mined for row in item.rows]
    tables.write_rows(folder / "patches.parquet", "patches", rows)
    return {"n_patches": len(rows)}
