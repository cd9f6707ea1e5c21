"""Task: mine the patches that most activate each filter."""

import numpy as np

from cnn.data import dataset as datasets
from cnn.store import exports, tables
from cnn.store.manifests import Headline
from cnn.store.steps import MINE_PATCHES
from tasks.step import Work, step_task


@step_task(MINE_PATCHES)
def mine_patches(work: Work) -> Headline:
    """Write each layer's patches as arrays, and the table of them."""
    from cnn.explain import patches

    model = exports.load_model(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    mined = [
        patches.mine(model, layer, dataset, work.settings, work.report) for layer in patches.LAYERS
    ]
    for item in mined:
        np.save(work.folder / f"patches-{item.layer}.npy", item.pixels, allow_pickle=False)
    rows = [row for item in mined for row in item.rows]
    tables.write_rows(work.folder / "patches.parquet", "patches", rows)
    return {"n_patches": len(rows)}
