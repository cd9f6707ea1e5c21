"""Projections equal those of a transposed network that is written out unit by unit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.explain.views import projections
from cnn.explain.views.base import Unit
from tests.cnn.explain import oracle

pytestmark = pytest.mark.usefixtures("prepared")


def _reads(shape: tuple[int, ...], layer: dict[str, Any]) -> dict[tuple[int, int], list[Any]]:
    """Return the taps (i, j) and inputs (y, x) that each output (y, x) reads."""
    kernel, stride, dilation, _ = window = _window(layer)
    (pad_y, n_y), (pad_x, n_x) = (oracle.padding(n, *window) for n in shape[:2])
    found: dict[tuple[int, int], list[Any]] = {}
    for y, x in np.ndindex(n_y, n_x):
        top, left = y * stride - pad_y, x * stride - pad_x
        found[y, x] = [
            ((i, j), (top + i * dilation, left + j * dilation))
            for i, j in np.ndindex(kernel, kernel)
            if 0 <= top + i * dilation < shape[0] and 0 <= left + j * dilation < shape[1]
        ]
    return found


def _window(layer: dict[str, Any]) -> tuple[int, int, int, str]:
    return layer["kernel"], layer["stride"], layer.get("dilation", 1), layer["padding"]


def _forward(values: NDArray[np.float64], layer: dict[str, Any]) -> NDArray[np.float64]:
    reads = _reads(values.shape, layer)
    n_y, n_x = 1 + max(y for y, _ in reads), 1 + max(x for _, x in reads)
    n_filters = layer["weights"].shape[-1] if layer["kind"] == "conv" else values.shape[-1]
    out = np.zeros((n_y, n_x, n_filters))
    for (y, x), taps in reads.items():
        if layer["kind"] == "conv":
            out[y, x] = layer["bias"] + sum(
                values[place] @ layer["weights"][tap] for tap, place in taps
            )
        elif layer["kind"] == "max":
            out[y, x] = np.max([values[place] for _, place in taps], axis=0)
        else:
            out[y, x] = np.mean([values[place] for _, place in taps], axis=0)
    return np.maximum(out, 0) if layer.get("relu") else out


def _projected(
    image: NDArray[np.float64], layers: list[dict[str, Any]], unit: tuple[int, int, int]
) -> tuple[float, NDArray[np.float64]]:
    """Return a unit's activation and its projection."""
    inputs = [image]
    for layer in layers:
        inputs.append(_forward(inputs[-1], layer))
    signal = np.zeros_like(inputs[-1])
    signal[unit] = inputs[-1][unit]
    for layer, values in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
        signal = np.maximum(signal, 0) if layer.get("relu") else signal
        below = np.zeros_like(values)
        for (y, x), taps in _reads(values.shape, layer).items():
            for c in range(signal.shape[-1]):
                if layer["kind"] == "conv":
                    for tap, place in taps:
                        below[place] += signal[y, x, c] * layer["weights"][tap][:, c]
                elif layer["kind"] == "max":
                    best = max(taps, key=lambda item: values[item[1]][c])[1]
                    below[best][c] += signal[y, x, c]
                else:
                    for _, place in taps:
                        below[place][c] += signal[y, x, c] / len(taps)
        signal = below
    return float(inputs[-1][unit]), signal


_PADDINGS = st.sampled_from(["valid", "same"])


def _convolutions(**window: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    filters = {"kind": st.just("conv"), "relu": st.booleans(), "n": st.integers(1, 3)}
    return st.fixed_dictionaries({**filters, "padding": _PADDINGS, **window})


_CONV = _convolutions(kernel=st.integers(1, 4), stride=st.integers(1, 2))
_DILATED = _convolutions(  # beyond the image too
    kernel=st.integers(2, 3), stride=st.just(1), dilation=st.integers(2, 6)
)
_POOL = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["max", "mean"]),
        "kernel": st.integers(1, 3),
        "stride": st.integers(1, 3),
        "padding": _PADDINGS,
    }
)


def _network(layers: list[dict[str, Any]], shape: tuple[int, int, int], rng: Any) -> Any:
    """Return a Keras model of these layers, and put its random weights into them."""
    import keras

    stacked: list[Any] = [keras.Input(shape)]
    for i, layer in enumerate(layers):
        common = {"strides": layer["stride"], "padding": layer["padding"], "name": f"layer{i}"}
        if layer["kind"] == "conv":
            stacked.append(
                keras.layers.Conv2D(
                    layer["n"],
                    layer["kernel"],
                    dilation_rate=layer.get("dilation", 1),
                    activation="relu" if layer["relu"] else None,
                    **common,
                )
            )
        else:
            kind = "MaxPooling2D" if layer["kind"] == "max" else "AveragePooling2D"
            stacked.append(getattr(keras.layers, kind)(layer["kernel"], **common))
    network = keras.Sequential(stacked)
    for layer, built in zip(layers, network.layers, strict=True):
        if layer["kind"] == "conv":
            weights = rng.normal(0, 1, built.kernel.shape)
            bias = rng.normal(0, 0.1, built.bias.shape)
            built.set_weights([weights, bias])
            layer["weights"], layer["bias"] = weights, bias
    return network


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(_CONV, _DILATED, _POOL), min_size=1, max_size=3), st.integers(0, 2**31))
def test_projections_equal_a_reference_in_float64(layers: list[dict[str, Any]], seed: int) -> None:
    """Convolutions, dilated and strided, and overlapping pools, VALID and SAME; every filter."""
    rng = np.random.default_rng(seed)
    shape, left = (9, 8, 2), (9, 8)
    kept = []
    for layer in layers:
        n_y, n_x = (oracle.padding(n, *_window(layer))[1] for n in left)
        if min(n_y, n_x) >= 1:
            kept.append(dict(layer))
            left = (n_y, n_x)
    if not kept:
        return
    network = _network(kept, shape, rng)
    # integers are exact in float32, so that both sides find the same maxima
    images = rng.integers(0, 256, (2, *shape)).astype(np.float32)
    units, expected = [], []
    for image in (0, 1):
        for f in range(network.output_shape[-1]):
            y, x = int(rng.integers(left[0])), int(rng.integers(left[1]))
            activation, projection = _projected(np.float64(images[image]), kept, (y, x, f))
            units.append(Unit(image, y, x, f, activation))
            expected.append(projection)
    found = projections.project(network, f"layer{len(kept) - 1}", images, units)
    for projection, reference in zip(found, expected, strict=True):
        atol = 1e-4 * max(1, np.abs(reference).max())
        np.testing.assert_allclose(projection, reference, atol=atol)


def test_of_equal_maxima_the_same_wins_as_in_tensorflow(rng: np.random.Generator) -> None:
    """Overlapping SAME pools over few different values."""
    import keras
    import tensorflow as tf

    pool = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool")
    network = keras.Sequential([keras.Input((7, 6, 2)), pool])
    image = rng.integers(0, 3, (1, 7, 6, 2)).astype(np.float32)
    values, places = tf.nn.max_pool_with_argmax(image, 3, 2, "SAME")
    for y, x, c in np.ndindex(*values.shape[1:]):
        (found,) = projections.project(network, "pool", image, [Unit(0, y, x, c, 2.0)])
        assert found.ravel()[int(places[0, y, x, c])] == 2
        assert np.count_nonzero(found) == 1


@pytest.mark.parametrize(
    ("kind", "arguments", "n_read"),
    [
        ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, 1),
        ("Conv2D", {"filters": 8, "kernel_size": 3, "groups": 2}, 2),
    ],
)
def test_a_filter_projects_only_to_the_channels_that_it_reads(
    rng: np.random.Generator, kind: str, arguments: dict[str, int], n_read: int
) -> None:
    """Depthwise and grouped: its kernel times the activation there, zero in other channels."""
    import keras

    layer = getattr(keras.layers, kind)(name="layer", strides=2, **arguments)
    network = keras.Sequential([keras.Input((7, 7, 4)), layer])
    kernel = rng.normal(0, 1, layer.get_weights()[0].shape)
    layer.set_weights([kernel, np.zeros(8)])
    per_filter, n_groups = kernel.reshape(3, 3, n_read, 8), 4 // n_read
    units = [Unit(0, 2, 1, f, 1.5) for f in range(8)]
    projected = projections.project(network, "layer", np.zeros((1, 7, 7, 4)), units)
    for f, projection in enumerate(projected):
        first = f // (8 // n_groups) * n_read
        expected = np.zeros((7, 7, 4))
        expected[4:7, 2:5, first : first + n_read] = 1.5 * per_filter[..., f]
        np.testing.assert_allclose(projection, expected, atol=1e-6)


def test_dropout_drops_nothing(rng: np.random.Generator) -> None:
    """The positions that won are those at inference, not in training."""
    import keras

    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Dropout(0.9), layers.MaxPooling2D(6, name="pool")]
    )
    image = rng.permutation(36).astype(np.float32).reshape(1, 6, 6, 1)
    (found,) = projections.project(network, "pool", image, [Unit(0, 0, 0, 0, 35.0)])
    np.testing.assert_array_equal(found, np.where(image[0] == 35, 35, 0))
