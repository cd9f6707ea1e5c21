"""The pictures of one search."""

from pathlib import Path

import numpy as np
import pandas as pd

from cnn.report import figures, theme


def draw(folder: Path, layer: str, kernels: Path) -> None:
    """Draw the patches and projections that lie in a folder, beside the layer's kernels, if any.

    kernels: array of (filters, h, w, channels), in a file that may not be there.
    """
    rows = pd.read_parquet(folder / "patches.parquet")
    pixels = np.load(folder / f"patches-{layer}.npy", allow_pickle=False)
    known = np.load(kernels, allow_pickle=False) if kernels.exists() else None
    theme.save(figures.patches(pixels, rows, known, layer), folder / f"patches-{layer}.png")
    projected = folder / f"projections-{layer}.npy"
    if projected.exists():
        made = figures.projections(pixels, np.load(projected, allow_pickle=False), rows, layer)
        theme.save(made, folder / f"projections-{layer}.png")
