"""Receptive fields: which pixels a unit of a layer sees, for chains of conv and pool layers.

Arithmetic: Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional
neural networks". TensorFlow's SAME padding puts the odd pixel at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnn.errors import ConfigError

_WINDOWS = ("Conv2D", "DepthwiseConv2D", "MaxPooling2D", "AveragePooling2D")
_POINTWISE = ("InputLayer", "Rescaling", "Activation", "ReLU", "Dropout", "BatchNormalization")


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


def windows(model: Any, layer: str) -> tuple[list[Window], list[Window]]:
    """Return the windows from the pixels up to a layer, along y and along x.

    model: a keras.Model that is one chain. Raises ConfigError for a layer that is not
    there, or whose unit has no receptive field because a layer before it is neither
    convolution nor pooling nor pointwise.
    """
    names = [item.name for item in model.layers]
    if layer not in names:
        raise ConfigError(f"layer {layer}: the model has no such layer; it has {', '.join(names)}")
    along_y, along_x = [], []
    for item in model.layers[: names.index(layer) + 1]:
        kind = type(item).__name__
        if kind in _WINDOWS:
            along_y.append(_window(item, 0))
            along_x.append(_window(item, 1))
        elif kind not in _POINTWISE:
            raise ConfigError(
                f"layer {layer}: receptive fields are not defined behind {item.name} ({kind})"
            )
    return along_y, along_x


def _window(layer: Any, axis: int) -> Window:
    config = layer.get_config()
    kernel = config.get("kernel_size", config.get("pool_size"))[axis]
    stride = config["strides"][axis]
    dilation = config.get("dilation_rate", (1, 1))[axis]
    n_inputs = layer.input.shape[1 + axis]
    padding = 0
    if config["padding"] == "same":
        reach = dilation * (kernel - 1)
        n_outputs = -(-n_inputs // stride)
        padding = max(0, (n_outputs - 1) * stride + reach + 1 - n_inputs) // 2
    return Window(kernel, stride, dilation, padding, n_inputs)
