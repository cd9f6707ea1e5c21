"""Task: export the filters and what they do."""

import numpy as np

from cnn.data import dataset as datasets
from cnn.store import exports, tables
from cnn.store.manifests import Headline
from cnn.store.steps import EXPORT_FILTERS
from tasks.step import Work, step_task


@step_task(EXPORT_FILTERS)
def export_filters(work: Work) -> Headline:
    """Write each layer's kernels, and the table of its filters."""
    from cnn.explain import filters

    model = exports.load_model(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    described = [filters.describe(model, layer, dataset, work.report) for layer in filters.LAYERS]
    for item in described:
        np.save(work.folder / f"filters-{item.layer}.npy", item.kernels, allow_pickle=False)
    rows = [row for item in described for row in item.rows]
    tables.write_rows(work.folder / "filters.parquet", "filters", rows)
    return {"n_filters": len(rows), "n_dead": sum(row["dead"] for row in rows)}
