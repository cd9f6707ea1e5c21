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
    """One layer along one axis: kernel, stride and dilation, padding before, size of its input."""

    kernel: int
    stride: int
    dilation: int
    padding: int
    n_inputs: int


@dataclass(frozen=True)
class Span:
    """The pixels [start, stop) along one axis, with and without those outside of the image."""

    start: int
    stop: int
    clipped_start: int
    clipped_stop: int


def span(windows: Sequence[Window], unit: int) -> Span:
    """Return the pixels that a unit of the last window's output sees along one axis.

    The clipped span leaves out, at every layer, what lies in the padding.
    """
    first = last = unit
    seen = {unit}
    for window in reversed(windows):
        first = first * window.stride - window.padding
        last = last * window.stride - window.padding + window.dilation * (window.kernel - 1)
        seen = {tap for one in seen for tap in _taps(window, one)}
    return Span(first, last + 1, min(seen, default=0), max(seen, default=-1) + 1)


def _taps(window: Window, unit: int) -> range:
    """Return the inputs that a unit of a window reads, those in the padding left out."""
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
    """Return a model's layers from the pixels up to the convolution or pool of that name.

    Raises ConfigError for a layer that is not there or has no filters, a model that is not
    one chain (keras.Sequential), or a layer on the way that is neither convolution nor pool
    nor pointwise, or has its channels first: what is seen through it is not known.
    """
    named = {item.name: type(item).__name__ for item in model.layers}
    refuse_unknown(layer, named)
    if type(model).__name__ != "Sequential":
        raise ConfigError(
            f"layer {layer}: the model is no chain of layers, a keras.Sequential, but a "
            f"{type(model).__name__}"
        )
    layers = list(model.layers[: list(named).index(layer) + 1])
    for item in layers:
        kind = named[item.name]
        if item.get_config().get("data_format") == "channels_first":
            kind += ", channels_first"
        if kind not in (*_WINDOWS, *_POINTWISE):
            raise ConfigError(
                f"layer {layer}: receptive fields are not known behind {item.name} ({kind})"
            )
    return layers


def refuse_unknown(layer: str, named: Mapping[str, str]) -> None:
    """Raise ConfigError for a layer that is no convolution or pool; named: kinds, by name."""
    if named.get(layer) not in _WINDOWS:
        found = [name for name, kind in named.items() if kind in _WINDOWS]
        problem = "has no filters" if layer in named else "is not there"
        raise ConfigError(
            f"layer {layer}: {problem}; the model's convolutions and pools are {', '.join(found)}"
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
