"""Receptive fields: which pixels a unit of a layer sees, for chains of conv and pool layers.

Arithmetic: Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional
neural networks". TensorFlow's SAME padding puts the odd pixel at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnn.errors import ConfigError
from cnn.model_io.keras_types import Layer, Model

_WINDOWS = ("Conv2D", "DepthwiseConv2D", "MaxPooling2D", "AveragePooling2D")
_POINTWISE = ("Rescaling", "Activation", "ReLU", "Dropout", "BatchNormalization")


@dataclass(frozen=True)
class Window:
    """One layer along one axis: kernel, stride, dilation, padding at the start, input size."""

    kernel: int
    stride: int
    dilation: int
    padding: int
    n_inputs: int


@dataclass(frozen=True)
class Span:
    """The pixels [start, stop) that a unit sees along one axis; clipped: those in the image."""

    start: int
    stop: int
    clipped_start: int
    clipped_stop: int


def span(windows: Sequence[Window], unit: int) -> Span:
    """Return the pixels that a unit of the last window's output sees along one axis.

    The clipped span excludes the padding of every layer on the way.
    """
    first = last = unit
    seen = {unit}
    for window in reversed(windows):
        first = first * window.stride - window.padding
        last = last * window.stride - window.padding + window.dilation * (window.kernel - 1)
        seen = {tap for one in seen for tap in _taps(window, one)}
    return Span(first, last + 1, min(seen, default=0), max(seen, default=-1) + 1)


def _taps(window: Window, unit: int) -> range:
    """Return the inputs that a unit of a window reads, without those in the padding."""
    start = unit * window.stride - window.padding
    first = start if start >= 0 else start % window.dilation
    stop = min(start + window.dilation * (window.kernel - 1) + 1, window.n_inputs)
    return range(first, stop, window.dilation)


def windows(model: Model, layer: str) -> tuple[list[Window], list[Window]]:
    """Return the windows from the pixels up to a layer, along y and along x.

    Raises ConfigError as `chain` does.
    """
    layers = [item for item in chain(model, layer) if type(item).__name__ in _WINDOWS]
    return [window(item, 0) for item in layers], [window(item, 1) for item in layers]


def chain(model: Model, layer: str) -> list[Layer]:
    """Return a model's layers from the pixels up to the named convolution or pool.

    Raises ConfigError if the layer does not exist or is not a convolution or pool, if the model
    is not a single chain (keras.Sequential), or if receptive fields are unknown for a layer on
    the way: one that is not a convolution, pool or pointwise layer, or has its channels first.
    """
    named = {item.name: type(item).__name__ for item in model.layers}
    refuse_unknown(layer, named)
    if type(model).__name__ != "Sequential":
        raise ConfigError(
            f"layer {layer}: the model must be a single chain of layers (keras.Sequential), "
            f"found a {type(model).__name__} model"
        )
    layers = list(model.layers[: list(named).index(layer) + 1])
    for item in layers:
        kind = named[item.name]
        if item.get_config().get("data_format") == "channels_first":
            kind += ", channels_first"
        if kind not in (*_WINDOWS, *_POINTWISE):
            raise ConfigError(
                f"layer {layer}: receptive fields are not defined through {item.name} ({kind})"
            )
    return layers


def refuse_unknown(layer: str, named: Mapping[str, str]) -> None:
    """Raise ConfigError for a layer that is not a convolution or pool; named: kinds, by name."""
    if named.get(layer) not in _WINDOWS:
        legal = [name for name, kind in named.items() if kind in _WINDOWS]
        problem = "not a convolution or pool" if layer in named else "not found"
        raise ConfigError(
            f"layer {layer}: {problem}; the model's convolutions and pools are {', '.join(legal)}"
        )


def window(layer: Layer, axis: int) -> Window:
    """Return the window of a convolution or pool along an axis, 0 for y and 1 for x."""
    config = layer.get_config()
    kernel = config["kernel_size" if "kernel_size" in config else "pool_size"][axis]
    stride = config["strides"][axis]
    dilation = config.get("dilation_rate", (1, 1))[axis]
    n_inputs = layer.input.shape[1 + axis]
    padding = 0
    if config["padding"] == "same":
        reach = dilation * (kernel - 1)
        n_outputs = -(-n_inputs // stride)
        padding = max(0, (n_outputs - 1) * stride + reach + 1 - n_inputs) // 2
    return Window(kernel, stride, dilation, padding, n_inputs)
