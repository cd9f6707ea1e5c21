"""The pictures of one search."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.report.figures import layers, theme
from cnn.report.figures.layers import ExplainedLayer
from cnn.tables import parquet


def draw(folder: Path, name: str, filters: Sequence[int] | None, kernels: Path) -> None:
    """Draw the patches and projections of a layer that lie in a folder.

    filters: those that were searched; None for all. kernels: array of (filters, h, w,
    channels), in a file that is not there for a pool. The lowest have no projections.
    """
    pixels = np.load(folder / f"patches-{name}.npy", allow_pickle=False)
    projected = folder / f"projections-{name}.npy"
    layer = ExplainedLayer(
        name,
        rows=(),
        kernels=_loaded(kernels, (0, 0, 0, 0)),
        pixels=pixels,
        projected=_loaded(projected, (0, *pixels.shape[1:])),
        patches=parquet.read(folder / "patches.parquet").to_pylist(),
        class_names=(),
        only=filters,
        lowest=not projected.exists(),
    )
    theme.save(layers.patches(layer), folder / f"patches-{name}.png")
    if not layer.lowest:
        theme.save(layers.projections(layer), folder / f"projections-{name}.png")


def _loaded(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the array in a file, or one of that shape where there is none."""
    if not path.exists():
        return np.empty(shape, np.float32)
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array
