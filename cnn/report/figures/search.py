"""The figures of one search."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn.explain.views import VIEWS
from cnn.report.figures import layers, theme
from cnn.report.figures.layers import ExplainedLayer
from cnn.tables import parquet


def draw(folder: Path, name: str, filters: Sequence[int] | None, kernels: Path) -> None:
    """Write the figures of the patches and views that a search left in a folder.

    name: the layer. filters: the filters searched; None for all. kernels: path of an array
    (filters, h, w, channels); a pool has no such file. A search for the lowest activations has
    no views.
    """
    arrays = {view.name: folder / f"{view.name}-{name}.npy" for view in VIEWS}
    views = {
        view: np.load(path, allow_pickle=False) for view, path in arrays.items() if path.exists()
    }
    layer = ExplainedLayer(
        name,
        rows=(),
        kernels=(
            np.load(kernels, allow_pickle=False)
            if kernels.exists()
            else np.empty((0, 0, 0, 0), np.float32)
        ),
        pixels=np.load(folder / f"patches-{name}.npy", allow_pickle=False),
        views=views,
        patches=parquet.read(folder / "patches.parquet").to_pylist(),
        class_names=(),
        only=filters,
        lowest=not views,
    )
    theme.save(layers.patches(layer), folder / f"patches-{name}.png")
    for view in VIEWS:
        if view.name in views:
            theme.save(layers.view(layer, view), folder / f"{view.name}-{name}.png")
