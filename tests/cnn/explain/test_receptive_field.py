"""Receptive fields equal the pixels that a unit really depends on."""

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.explain import receptive_field
from cnn.explain.receptive_field import Span
from tests.cnn.explain import oracle, planted


@dataclass(frozen=True)
class Step:
    """One layer of a chain along one axis."""

    kind: str
    kernel: int
    stride: int
    dilation: int
    padding: str


Plane = tuple[tuple[int, int], list[tuple[Step, Step]]]  # an image's sides, layers by axis


class _Layer:
    """Those parts of a Keras layer that the code under test reads."""

    def __init__(self, name: str, along_y: Step, along_x: Step, shape: tuple[int, int]) -> None:
        self.name = name
        window = "pool_size" if along_y.kind.endswith("Pooling2D") else "kernel_size"
        self._config: dict[str, Any] = {
            window: (along_y.kernel, along_x.kernel),
            "strides": (along_y.stride, along_x.stride),
            "padding": along_y.padding,
        }
        if window == "kernel_size":
            self._config["dilation_rate"] = (along_y.dilation, along_x.dilation)
        self.input = type("Tensor", (), {"shape": (None, *shape, 1)})

    def get_config(self) -> dict[str, Any]:
        return self._config


@dataclass(frozen=True)
class Sequential:
    """A chain of layers; their classes and its own have the names of Keras's classes."""

    layers: list[Any]

    @classmethod
    def of(cls, pairs: list[tuple[Step, Step]], shape: tuple[int, int]) -> "Sequential":
        layers = []
        for i, (along_y, along_x) in enumerate(pairs):
            kind = type(along_y.kind, (_Layer,), {})
            layers.append(kind(f"layer{i}", along_y, along_x, shape))
            shape = (_n_outputs(shape[0], along_y), _n_outputs(shape[1], along_x))
        return cls(layers)


def _padding(n: int, step: Step) -> tuple[int, int]:
    """Return a layer's padding at the start and its output size."""
    return oracle.padding(n, step.kernel, step.stride, step.dilation, step.padding)


def _n_outputs(n: int, step: Step) -> int:
    return _padding(n, step)[1]


def _depends_on(n: int, steps: list[Step]) -> NDArray[np.bool_]:
    """Return which pixels (columns) each unit of the last layer (rows) depends on.

    Masks are pushed through the layers tap by tap; taps in the padding depend on nothing.
    """
    masks = np.eye(n, dtype=bool)
    for step in steps:
        size = len(masks)
        padding, n_outputs = _padding(size, step)
        units = np.arange(n_outputs)
        below = np.zeros((n_outputs, n), bool)
        for tap in range(step.kernel):
            places = units * step.stride - padding + step.dilation * tap
            inside = (places >= 0) & (places < size)
            below[inside] |= masks[places[inside]]
        masks = below
    return masks


PADDINGS, KERNELS, STRIDES = (
    st.sampled_from(["valid", "same"]),
    st.integers(1, 7),
    st.integers(1, 4),
)
CONVOLUTIONS = st.sampled_from(["Conv2D", "DepthwiseConv2D"])
WINDOWS = st.one_of(CONVOLUTIONS, st.sampled_from(["MaxPooling2D", "AveragePooling2D"]))
STEPS = st.one_of(
    st.builds(Step, WINDOWS, KERNELS, STRIDES, st.just(1), PADDINGS),
    st.builds(Step, CONVOLUTIONS, KERNELS, st.just(1), st.integers(1, 4), PADDINGS),
)


@st.composite
def _planes(draw: st.DrawFn) -> Plane:
    """Return an image's sides and up to four layers that leave at least one unit.

    Their kernel, stride and dilation differ by axis.
    """
    n_y, n_x = sides = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pairs: list[tuple[Step, Step]] = []
    for along_y, other in draw(st.lists(st.tuples(STEPS, STEPS), min_size=1, max_size=4)):
        dilation = 1 if along_y.kind.endswith("Pooling2D") else other.dilation
        along_x = Step(along_y.kind, other.kernel, other.stride, dilation, along_y.padding)
        left = _n_outputs(n_y, along_y), _n_outputs(n_x, along_x)
        if min(left) >= 1:
            pairs.append((along_y, along_x))
            n_y, n_x = left
    assume(pairs)
    return sides, pairs


def _check_spans(n: int, steps: list[Step], spans: list[Span]) -> None:
    """Assert that spans are those of the pixels that count, by axis of n pixels.

    The size and stride of whole spans follow the closed formulas of Araujo et al.
    """
    seen = [np.flatnonzero(mask) for mask in _depends_on(n, steps)]
    ends = [(pixels[0], pixels[-1] + 1) if len(pixels) else (0, 0) for pixels in seen]
    assert [(span.clipped_start, span.clipped_stop) for span in spans] == ends
    size, jump = 1, 1
    for step in steps:
        size += step.dilation * (step.kernel - 1) * jump
        jump *= step.stride
    assert {span.stop - span.start for span in spans} == {size}
    assert {b.start - a.start for a, b in pairwise(spans)} <= {jump}
    for span, pixels in zip(spans, seen, strict=True):
        if len(pixels):  # otherwise it sees only padding
            assert max(span.start, 0) <= span.clipped_start
            assert span.clipped_stop <= min(span.stop, n)


def _check_both_axes(sides: tuple[int, int], pairs: list[tuple[Step, Step]]) -> None:
    found = receptive_field.windows(Sequential.of(pairs, sides), f"layer{len(pairs) - 1}")
    for axis, windows in enumerate(found):
        steps = [pair[axis] for pair in pairs]
        n_units = functools.reduce(_n_outputs, steps, sides[axis])
        spans = [receptive_field.span(windows, unit) for unit in range(n_units)]
        _check_spans(sides[axis], steps, spans)


@settings(max_examples=500, deadline=None)
@given(_planes())
def test_spans_are_those_of_the_pixels_that_count(plane: Plane) -> None:
    """Every unit of the last layer, with kernels, strides and dilations that differ by axis."""
    _check_both_axes(*plane)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=10_000, deadline=None)
@given(_planes())
def test_spans_are_right_for_ten_thousand_stacks(plane: Plane) -> None:
    """The same for many more."""
    _check_both_axes(*plane)


@pytest.mark.parametrize(
    ("layer", "spans"),
    [
        ("conv1", {0: Span(0, 12, 0, 12), 1: Span(2, 14, 2, 14), 8: Span(16, 28, 16, 28)}),
        ("conv2", {0: Span(-4, 16, 0, 16), 1: Span(-2, 18, 0, 18), 8: Span(12, 32, 12, 28)}),
        ("pool", {0: Span(-4, 18, 0, 18), 3: Span(8, 30, 8, 28)}),
    ],
)
def test_this_network_sees_12_then_20_then_22_pixels(
    prepared: object, layer: str, spans: dict[int, Span]
) -> None:
    """conv1: 12 pixels every 2 from 0; conv2: 20 every 2 from -4; the pool: 22 every 4."""
    for windows in receptive_field.windows(planted.build(), layer):
        assert {unit: receptive_field.span(windows, unit) for unit in spans} == spans


KERAS_CHAINS = [
    [Step("Conv2D", 5, 2, 1, "same"), Step("MaxPooling2D", 3, 2, 1, "same")],
    [Step("Conv2D", 4, 1, 1, "same"), Step("AveragePooling2D", 2, 2, 1, "valid")],
    [Step("Conv2D", 3, 1, 3, "same"), Step("Conv2D", 2, 3, 1, "same")],
    [Step("DepthwiseConv2D", 6, 4, 1, "same"), Step("Conv2D", 3, 1, 1, "same")],
    [Step("MaxPooling2D", 2, 3, 1, "same"), Step("Conv2D", 3, 1, 2, "valid")],
    [Step("Conv2D", 2, 1, 2, "same"), Step("MaxPooling2D", 2, 2, 1, "valid")],
]


@pytest.mark.parametrize("steps", KERAS_CHAINS, ids=lambda steps: "-".join(s.kind for s in steps))
@pytest.mark.parametrize("n", [16, 19])
def test_spans_are_those_of_what_tensorflow_computes(
    prepared: object, steps: list[Step], n: int
) -> None:
    """Each pixel in turn is lit: exactly the units that see it, in real Keras layers, react."""
    import keras

    layers = [keras.Input((n, n, 1))]
    for i, step in enumerate(steps):
        common = {"strides": step.stride, "padding": step.padding, "name": f"layer{i}"}
        kind = getattr(keras.layers, step.kind)
        if step.kind.endswith("Pooling2D"):
            layers.append(kind(step.kernel, **common))
        else:
            first = [1] if step.kind == "Conv2D" else []
            ones = {f"{'depthwise' if not first else 'kernel'}_initializer": "ones"}
            layers.append(kind(*first, step.kernel, dilation_rate=step.dilation, **common, **ones))
    network = keras.Sequential(layers)
    lit = np.zeros((n, n, n, 1), np.float32)
    lit[np.arange(n), np.arange(n), :, 0] = 1  # one row of pixels each
    reacts = np.asarray(network(lit))[..., 0].max(axis=2) > 0  # (row, unit)
    along_y, _ = receptive_field.windows(network, f"layer{len(steps) - 1}")
    for unit, pixels in enumerate(map(np.flatnonzero, reacts.T)):
        found = receptive_field.span(along_y, unit)
        assert (found.clipped_start, found.clipped_stop) == (pixels[0], pixels[-1] + 1)
