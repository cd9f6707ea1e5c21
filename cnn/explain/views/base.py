"""The interface of a view: signed values in pixel space, computed for single units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.model_io.keras_types import Model

MAX_RANKS = 12  # only this many patches of a filter have views


@dataclass(frozen=True)
class Unit:
    """One unit of a layer that fires on an image: its position, filter and activation."""

    image: int
    y: int
    x: int
    filter: int
    activation: float


@dataclass(frozen=True)
class View:
    """A way to show what a unit sees in an image, beside its patch.

    name: of its arrays, `<name>-<layer>.npy`, and figures. compute: returns one view per unit,
    (n, h, w, c) float32, given a keras.Model, a layer's name, images (m, h, w, c) with pixels
    0..255, and units whose `image` is an index into those images. refuse: raises ConfigError if
    the view is not defined for a model and a layer. The other fields are texts: `title` and
    `note` in the figure, `summary` above it, `caption` on a filter's page, `array` and `figure`
    in the list of files; "{layer}" stands for the layer's name.
    """

    name: str
    compute: Callable[[Model, str, NDArray[Any], Sequence[Unit]], NDArray[np.float32]]
    refuse: Callable[[Model, str], object]
    title: str
    note: str
    summary: str
    caption: str
    array: str
    figure: str
