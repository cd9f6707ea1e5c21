"""Projections of activations back to the pixels, by a deconvolutional network.

Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1:
one activation is kept and goes down through the layers; at a max-pool to the place that won,
at a ReLU only what is positive, at a convolution through its kernels, transposed. Biases and
the scaling of the pixels have no part in it. What comes out is a projection of the activation
through the kernels: it shows structure that they respond to, it does not explain the unit.
Where no pool lies below a layer, nothing but the activation's size and the border differs from
one image to the next: a filter's projections are one pattern.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import ConfigError
from cnn.explain import receptive_field
from cnn.explain.receptive_field import Window

Array = NDArray[np.float32]
_CHUNK = 64  # seeds that go down together


@dataclass(frozen=True)
class Seed:
    """One activation: of an image's unit (y, x, filter), above 0."""

    image: int
    y: int
    x: int
    filter: int
    activation: float


def project(model: Any, layer: str, images: NDArray[Any], seeds: Sequence[Seed]) -> Array:
    """Return the projection of each seed into the space of its image, (n, h, w, c).

    images: (m, h, w, c), pixels 0..255, which the seeds' `image` counts in. Raises ConfigError
    as `way_back` does.
    """
    layers = way_back(model, layer)
    found = np.zeros((len(seeds), *images.shape[1:]), np.float32)
    for start in range(0, len(seeds), _CHUNK):
        chunk = seeds[start : start + _CHUNK]
        inputs = _pool_inputs(model, layers, images[[seed.image for seed in chunk]])
        found[start : start + _CHUNK] = _down(layers, inputs, chunk)
    return found


def way_back(model: Any, name: str) -> list[Any]:
    """Return a model's layers from the pixels up to the convolution or pool of that name.

    Raises ConfigError as receptive.chain does, and for a layer on the way that is no
    convolution without groups, pool, ReLU, scaling or dropout: nothing comes back through it.
    """
    layers = receptive_field.chain(model, name)
    for layer in layers:
        config = layer.get_config()
        function = config.get("activation", "linear")
        if type(layer).__name__ not in _BACK or function not in ("relu", "linear"):
            raise ConfigError(
                f"layer {name}: projections are not defined through {layer.name} "
                f"({type(layer).__name__}, {function})"
            )
        if config.get("groups", 1) != 1:
            raise ConfigError(f"layer {name}: projections through groups are not defined")
    return layers


def _pool_inputs(model: Any, layers: Sequence[Any], images: NDArray[Any]) -> dict[str, Array]:
    """Return what each max-pool among the layers reads of these images, by its name."""
    import keras

    pools = [layer for layer in layers if type(layer).__name__ == "MaxPooling2D"]
    if not pools:
        return {}
    head = keras.Model(model.inputs[0], [pool.input for pool in pools])
    values = head(images.astype(np.float32), training=False)
    values = values if isinstance(values, list) else [values]
    return {pool.name: value.numpy() for pool, value in zip(pools, values, strict=True)}


def _down(layers: Sequence[Any], inputs: dict[str, Array], seeds: Sequence[Seed]) -> Array:
    signal = np.zeros((len(seeds), *layers[-1].output.shape[1:]), np.float32)
    for i, seed in enumerate(seeds):
        signal[i, seed.y, seed.x, seed.filter] = seed.activation
    for layer in reversed(layers):
        if _rectifies(layer):
            signal = np.maximum(signal, 0)
        signal = _BACK[type(layer).__name__](layer, signal, inputs.get(layer.name))
    return signal


def _rectifies(layer: Any) -> bool:
    return type(layer).__name__ == "ReLU" or layer.get_config().get("activation") == "relu"


def _same(layer: Any, signal: Array, values: Array | None) -> Array:
    return signal


def _through_kernels(layer: Any, signal: Array, values: Array | None) -> Array:
    """Return the transposed convolution of a signal."""
    kernel = np.asarray(layer.kernel)
    below = np.zeros((len(signal), *layer.input.shape[1:]), np.float32)
    for tap in _taps(layer):
        below[tap.inputs] += signal[tap.outputs] @ kernel[tap.place].T
    return below


def _through_depth(layer: Any, signal: Array, values: Array | None) -> Array:
    """Return the transposed depthwise convolution of a signal."""
    kernel = np.asarray(layer.kernel)
    below = np.zeros((len(signal), *layer.input.shape[1:]), np.float32)
    split = signal.reshape(*signal.shape[:3], *kernel.shape[2:])
    for tap in _taps(layer):
        below[tap.inputs] += (split[tap.outputs] * kernel[tap.place]).sum(axis=-1)
    return below


def _to_the_places_that_won(layer: Any, signal: Array, values: Array | None) -> Array:
    """Return a signal put where each maximum came from: the first of equal ones."""
    assert values is not None
    largest, won = np.full(signal.shape, -np.inf, np.float32), np.zeros(signal.shape, np.int64)
    taps = _taps(layer)
    for i, tap in enumerate(taps):
        wins = values[tap.inputs] > largest[tap.outputs]
        won[tap.outputs][wins] = i
        np.maximum(largest[tap.outputs], values[tap.inputs], out=largest[tap.outputs])
    below = np.zeros_like(values)
    for i, tap in enumerate(taps):
        below[tap.inputs] += np.where(won[tap.outputs] == i, signal[tap.outputs], 0)
    return below


def _to_all_alike(layer: Any, signal: Array, values: Array | None) -> Array:
    """Return the transposed mean of a signal: padding was not counted."""
    below = np.zeros((len(signal), *layer.input.shape[1:]), np.float32)
    n_averaged = np.zeros(signal.shape[1:], np.float32)[None]
    for tap in _taps(layer):
        n_averaged[tap.outputs] += 1
    for tap in _taps(layer):
        below[tap.inputs] += (signal / np.maximum(n_averaged, 1))[tap.outputs]
    return below


_BACK = {
    "Rescaling": _same,
    "Dropout": _same,
    "Activation": _same,
    "ReLU": _same,
    "Conv2D": _through_kernels,
    "DepthwiseConv2D": _through_depth,
    "MaxPooling2D": _to_the_places_that_won,
    "AveragePooling2D": _to_all_alike,
}


@dataclass(frozen=True)
class _Tap:
    """One place of a window, and which outputs read which inputs there: indices of (n, y, x)."""

    place: tuple[int, int]
    outputs: tuple[slice, slice, slice]
    inputs: tuple[slice, slice, slice]


def _taps(layer: Any) -> list[_Tap]:
    """Return the taps of a layer's window, row by row; what lies in the padding is left out."""
    along_y, along_x = receptive_field.window(layer, 0), receptive_field.window(layer, 1)
    n_y, n_x = layer.output.shape[1:3]
    return [
        _Tap((i, j), (slice(None), out_y, out_x), (slice(None), in_y, in_x))
        for i in range(along_y.kernel)
        for j in range(along_x.kernel)
        for out_y, in_y in [_reads(along_y, i, n_y)]
        for out_x, in_x in [_reads(along_x, j, n_x)]
    ]


def _reads(window: Window, tap: int, n_outputs: int) -> tuple[slice, slice]:
    """Return which outputs read, with one tap, an input that is there, and which one."""
    offset = window.dilation * tap - window.padding
    first = max(0, -(offset // window.stride))
    last = min(n_outputs - 1, (window.n_inputs - 1 - offset) // window.stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    begin, end = first * window.stride + offset, last * window.stride + offset + 1
    return slice(first, last + 1), slice(begin, end, window.stride)
