"""What a view is: signed values in the space of the image, made for single units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.model_io.keras_types import Model

MAX_RANKS = 12  # patches of a filter that have viewsfrom cnn.model_io.keras_types import Model


@dataclass(frozen=True)
class Unit:
    """One unit of a layer that fires on an image: its place, its filter, its activation."""

    image: int
    y: int
    x: int
    filter: int
    activation: float


@dataclass(frozen=True)
class View:
    """A way of showing what a unit sees in an image, beside its patch.

    name: of its arrays, `<name>-<layer>.npy`, and figures. compute: returns the view of each unit,
    (n, h, w, c) float32, for a keras.Model, a layer's name, images (m, h, w, c) with pixels
    0..255, and the units, which count in these images. refuse: raises ConfigError for a model and
    a layer that it is not defined for. The other fields are texts: `title` and `note` of the
    figure, `summary` above it, `caption` on a filter's page, `array` and `figure` in the list of
    files; "{layer}" stands for the layer's name.
    """

    name: str
    compute: Callable[[Model, str, NDArray[Any], Sequence[Unit]], NDArray[np.float32]]
    refuse: Callable[[Model, str], None]
    title: str
    note: str
    summary: str
    caption: str
    array: str
    figure: str
