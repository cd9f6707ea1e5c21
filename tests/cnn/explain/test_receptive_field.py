"""Receptive fields equal the pixels that a unit really depends on."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.errors import ConfigError
from cnn.explain import receptive_field
from cnn.explain.receptive_field import Span
from cnn.train import networks, recipes


@dataclass(frozen=True)
class Step:
    """One layer of a chain along one axis, as it is declared."""

    kind: str
    kernel: int
    stride: int
    dilation: int
    padding: str


class _Layer:
    """What the code under test reads of a Keras layer."""

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
    """Layers in a chain; they and it are of classes that are named like Keras's."""

    layers: list[Any]

    @classmethod
    def of(cls, pairs: list[tuple[Step, Step]], shape: tuple[int, int]) -> "Sequential":
        layers = []
        for i, (along_y, along_x) in enumerate(pairs):
            kind = type(along_y.kind, (_Layer,), {})
            layers.append(kind(f"layer{i}", along_y, along_x, shape))
            shape = (_n_outputs(shape[0], along_y), _n_outputs(shape[1], along_x))
        return cls(layers)


def _reach(step: Step) -> int:
    return step.dilation * (step.kernel - 1)


def _n_outputs(n: int, step: Step) -> int:
    """Return a layer's output size, as TensorFlow documents it."""
    usable = n if step.padding == "same" else n - _reach(step)
    return -(-usable // step.stride)


def _depends_on(n: int, steps: list[Step]) -> NDArray[np.bool_]:
    """Return which pixels (columns) each unit of the last layer (rows) depends on.

    Masks are pushed through the layers tap by tap; taps in the padding depend on nothing.
    """
    masks = np.eye(n, dtype=bool)
    for step in steps:
        size, n_outputs = len(masks), _n_outputs(len(masks), step)
        padding = 0
        if step.padding == "same":
            padding = max(0, (n_outputs - 1) * step.stride + _reach(step) + 1 - size) // 2
        units = np.arange(n_outputs)
        below = np.zeros((n_outputs, n), bool)
        for tap in range(step.kernel):
            places = units * step.stride - padding + step.dilation * tap
            inside = (places >= 0) & (places < size)
            below[inside] |= masks[places[inside]]
        masks = below
    return masks


def _steps(dilations: st.SearchStrategy[int]) -> st.SearchStrategy[Step]:
    paddings, kernels, strides = (
        st.sampled_from(["valid", "same"]),
        st.integers(1, 7),
        st.integers(1, 4),
    )
    pools = st.sampled_from(["MaxPooling2D", "AveragePooling2D"])
    convolutions = st.sampled_from(["Conv2D", "DepthwiseConv2D"])
    dilated = st.builds(Step, convolutions, kernels, st.just(1), dilations, paddings)
    plain = st.builds(Step, st.one_of(convolutions, pools), kernels, strides, st.just(1), paddings)
    return st.one_of(plain, dilated)


def _draw_chain(draw: st.DrawFn, n: int, dilations: st.SearchStrategy[int]) -> list[Step]:
    """Return up to four layers that leave at least one unit of n pixels."""
    steps: list[Step] = []
    for step in draw(st.lists(_steps(dilations), min_size=1, max_size=4)):
        left = _n_outputs(n, step)
        if left >= 1:
            steps.append(step)
            n = left
    return steps


@st.composite
def _chains(draw: st.DrawFn, dilations: st.SearchStrategy[int]) -> tuple[int, list[Step]]:
    n = draw(st.integers(1, 40))
    steps = _draw_chain(draw, n, dilations)
    assume(steps)
    return n, steps


@st.composite
def _planes(draw: st.DrawFn) -> tuple[tuple[int, int], list[tuple[Step, Step]]]:
    """Return an image's sides and layers whose kernel, stride and dilation differ by axis."""
    height, width = sides = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pairs: list[tuple[Step, Step]] = []
    for along_y in _draw_chain(draw, height, st.integers(1, 4)):
        other = draw(_steps(st.integers(1, 4)))
        dilation = 1 if along_y.kind.endswith("Pooling2D") else other.dilation
        along_x = Step(along_y.kind, other.kernel, other.stride, dilation, along_y.padding)
        if _n_outputs(width, along_x) < 1:
            break
        pairs.append((along_y, along_x))
        width = _n_outputs(width, along_x)
    assume(pairs)
    return sides, pairs


def _spans(n: int, steps: list[Step]) -> list[Span]:
    """Return the span of every unit, through `windows` on a square image."""
    chain = Sequential.of([(step, step) for step in steps], (n, n))
    along_y, along_x = receptive_field.windows(chain, f"layer{len(steps) - 1}")
    assert along_y == along_x
    n_units = len(_depends_on(n, steps))
    return [receptive_field.span(along_y, unit) for unit in range(n_units)]


def _check_clipped(n: int, steps: list[Step], spans: list[Span]) -> None:
    for found, mask in zip(spans, _depends_on(n, steps), strict=True):
        pixels = np.flatnonzero(mask)
        wanted = (pixels[0], pixels[-1] + 1) if len(pixels) else (0, 0)  # padding alone is seen
        assert (found.clipped_start, found.clipped_stop) == wanted


def _check_both_axes(sides: tuple[int, int], pairs: list[tuple[Step, Step]]) -> None:
    found = receptive_field.windows(Sequential.of(pairs, sides), f"layer{len(pairs) - 1}")
    for axis, windows in enumerate(found):
        steps = [pair[axis] for pair in pairs]
        n_units = len(_depends_on(sides[axis], steps))
        spans = [receptive_field.span(windows, unit) for unit in range(n_units)]
        _check_clipped(sides[axis], steps, spans)


@settings(max_examples=500, deadline=None)
@given(_chains(st.just(1)))
def test_the_clipped_span_reaches_from_the_first_to_the_last_pixel_that_counts(
    chain: tuple[int, list[Step]],
) -> None:
    """Chains of convolutions and pools without dilation, every unit of the last layer."""
    _check_clipped(*chain, _spans(*chain))


@settings(max_examples=500, deadline=None)
@given(_chains(st.integers(1, 4)))
def test_the_clipped_span_is_right_for_dilated_convolutions_too(
    chain: tuple[int, list[Step]],
) -> None:
    """With dilation the first tap inside of the image may lie behind its edge."""
    _check_clipped(*chain, _spans(*chain))


@settings(max_examples=500, deadline=None)
@given(_chains(st.integers(1, 4)))
def test_the_whole_span_is_what_the_unit_would_see_in_an_endless_image(
    chain: tuple[int, list[Step]],
) -> None:
    """Its size and stride follow the closed formulas of Araujo et al.; it holds the clipped one."""
    n, steps = chain
    size, jump = 1, 1
    for step in steps:
        size += _reach(step) * jump
        jump *= step.stride
    assume(_depends_on(n, steps).any(axis=1).all())
    found = _spans(n, steps)
    assert {span.stop - span.start for span in found} == {size}
    assert {b.start - a.start for a, b in pairwise(found)} <= {jump}
    for span in found:
        assert max(span.start, 0) <= span.clipped_start
        assert span.clipped_stop <= min(span.stop, n)


@settings(max_examples=200, deadline=None)
@given(_planes())
def test_both_axes_are_kept_apart(plane: tuple[tuple[int, int], list[tuple[Step, Step]]]) -> None:
    """Kernels, strides and dilations that differ along y and x give each axis its own windows."""
    _check_both_axes(*plane)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=10_000, deadline=None)
@given(_planes())
def test_the_clipped_span_is_right_for_ten_thousand_stacks(
    plane: tuple[tuple[int, int], list[tuple[Step, Step]]],
) -> None:
    """The same once more, for many: every unit of the last layer, along both axes."""
    _check_both_axes(*plane)


@pytest.fixture(scope="module")
def network(prepared: object) -> Any:
    """The network of the recipe `spec`, untrained."""
    return networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)


@pytest.mark.parametrize(
    ("layer", "spans"),
    [
        ("conv1", {0: Span(0, 12, 0, 12), 1: Span(2, 14, 2, 14), 8: Span(16, 28, 16, 28)}),
        ("conv2", {0: Span(-4, 16, 0, 16), 1: Span(-2, 18, 0, 18), 8: Span(12, 32, 12, 28)}),
        ("pool", {0: Span(-4, 18, 0, 18), 3: Span(8, 30, 8, 28)}),
    ],
)
def test_this_network_sees_12_then_20_then_22_pixels(
    network: Any, layer: str, spans: dict[int, Span]
) -> None:
    """conv1: 12 pixels every 2 from 0; conv2: 20 every 2 from -4; the pool: 22 every 4."""
    for windows in receptive_field.windows(network, layer):
        assert {unit: receptive_field.span(windows, unit) for unit in spans} == spans


def test_layers_without_filters_and_layers_that_are_not_there_are_refused(network: Any) -> None:
    """The message lists those that can be asked for."""
    listed = r"; the model's convolutions and pools are conv1, conv2, pool$"
    for layer in ("scale", "flatten", "dense1", "logits"):
        with pytest.raises(ConfigError, match=f"^layer {layer}: has no filters{listed}"):
            receptive_field.windows(network, layer)
    with pytest.raises(ConfigError, match=f"^layer conv3: is not there{listed}"):
        receptive_field.windows(network, "conv3")


def test_what_lies_behind_an_unknown_layer_is_refused_by_its_name(prepared: object) -> None:
    """Its units may see anything."""
    import keras

    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.UpSampling2D(name="up"), layers.Conv2D(1, 3, name="conv")]
    )
    with pytest.raises(ConfigError, match=r"not known behind up \(UpSampling2D\)"):
        receptive_field.windows(network, "conv")


def test_a_model_that_is_no_chain_is_refused(prepared: object) -> None:
    """With two ways to the pixels, a list of layers says nothing of what is seen."""
    import keras

    pixels = keras.Input((8, 8, 1))
    first = keras.layers.Conv2D(1, 3, padding="same", name="first")(pixels)
    branched = keras.Model(pixels, keras.layers.Add()([pixels, first]))
    with pytest.raises(ConfigError, match=r"no chain of layers, .* but a Functional"):
        receptive_field.windows(branched, "first")


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
