"""Projections equal a transposed network that is written out unit by unit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.errors import ConfigError
from cnn.explain import receptive_field
from cnn.explain.views import projections
from cnn.explain.views.base import Unit

pytestmark = pytest.mark.usefixtures("prepared")


def _padding(n: int, kernel: int, stride: int, dilation: int, how: str) -> tuple[int, int]:
    """Return the padding before, and the number of outputs, as TensorFlow documents them."""
    reach = dilation * (kernel - 1) + 1
    if how == "valid":
        return 0, -(-(n - reach + 1) // stride)
    n_outputs = -(-n // stride)
    return max(0, (n_outputs - 1) * stride + reach - n) // 2, n_outputs


def _reads(shape: tuple[int, ...], layer: dict[str, Any]) -> dict[tuple[int, int], list[Any]]:
    """Return for each output (y, x) the taps (i, j) and inputs (y, x) that it reads."""
    kernel, stride = layer["kernel"], layer["stride"]
    dilation, how = layer.get("dilation", 1), layer["padding"]
    (pad_y, n_y), (pad_x, n_x) = (_padding(n, kernel, stride, dilation, how) for n in shape[:2])
    found: dict[tuple[int, int], list[Any]] = {}
    for y, x in np.ndindex(n_y, n_x):
        found[y, x] = [
            ((i, j), (y * stride - pad_y + i * dilation, x * stride - pad_x + j * dilation))
            for i, j in np.ndindex(kernel, kernel)
            if 0 <= y * stride - pad_y + i * dilation < shape[0]
            and 0 <= x * stride - pad_x + j * dilation < shape[1]
        ]
    return found


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


_CONV = st.fixed_dictionaries(
    {
        "kind": st.just("conv"),
        "kernel": st.integers(1, 4),
        "stride": st.integers(1, 2),
        "padding": st.sampled_from(["valid", "same"]),
        "relu": st.booleans(),
        "n": st.integers(1, 3),
    }
)
_DILATED = st.fixed_dictionaries(
    {
        "kind": st.just("conv"),
        "kernel": st.integers(2, 3),
        "stride": st.just(1),
        "dilation": st.integers(2, 6),  # beyond the image too
        "padding": st.sampled_from(["valid", "same"]),
        "relu": st.booleans(),
        "n": st.integers(1, 3),
    }
)
_POOL = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["max", "mean"]),
        "kernel": st.integers(1, 3),
        "stride": st.integers(1, 3),
        "padding": st.sampled_from(["valid", "same"]),
    }
)


def _network(layers: list[dict[str, Any]], shape: tuple[int, int, int], rng: Any) -> Any:
    """Return the Keras model of these layers, and give them its weights."""
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
        sizes = [
            _padding(
                n, layer["kernel"], layer["stride"], layer.get("dilation", 1), layer["padding"]
            )
            for n in left
        ]
        if min(n for _, n in sizes) >= 1:
            kept.append(dict(layer))
            left = (sizes[0][1], sizes[1][1])
    if not kept:
        return
    network = _network(kept, shape, rng)
    # float32 that are exact, so that both ways see the same maxima
    images = rng.integers(0, 256, (2, *shape)).astype(np.float32)
    units, expected = [], []
    for image in (0, 1):
        for f in range(network.output_shape[-1]):
            y, x = int(rng.integers(left[0])), int(rng.integers(left[1]))
            activation, projection = _projected(np.float64(images[image]), kept, (y, x, f))
            units.append(Unit(image, y, x, f, activation))
            expected.append(projection)
    found = projections.project(network, f"layer{len(kept) - 1}", images, units)
    for one, wanted, unit in zip(found, expected, units, strict=True):
        np.testing.assert_allclose(one, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
        assert _outside(network, len(kept) - 1, unit, one) == 0


def _outside(network: Any, last: int, unit: Unit, projection: NDArray[Any]) -> float:
    """Return the largest value of a projection outside of the unit's clipped box."""
    along_y, along_x = receptive_field.windows(network, f"layer{last}")
    box_y, box_x = receptive_field.span(along_y, unit.y), receptive_field.span(along_x, unit.x)
    rest = projection.copy()
    rest[box_y.clipped_start : box_y.clipped_stop, box_x.clipped_start : box_x.clipped_stop] = 0
    return float(np.abs(rest).max())


def test_a_convolution_on_the_pixels_gives_the_kernel_times_the_activation(
    trained: Any, digits: Any
) -> None:
    """Unflipped, at the unit's place, for every filter; black pixels around it."""
    layer = trained.model.get_layer("conv1")
    kernel = layer.get_weights()[0]
    images = digits.splits["test"].images[:3]
    units = [Unit(f % 3, f % 9, (2 * f) % 9, f, 1 + f / 7) for f in range(25)]
    found = projections.project(trained.model, "conv1", images, units)
    for unit, projection in zip(units, found, strict=True):
        wanted = np.zeros((28, 28, 1))
        box = slice(2 * unit.y, 2 * unit.y + 12), slice(2 * unit.x, 2 * unit.x + 12)
        wanted[box] = unit.activation * kernel[..., unit.filter]
        np.testing.assert_allclose(projection, wanted, atol=1e-5)


def test_of_equal_maxima_the_first_wins_as_tensorflow_has_it(rng: np.random.Generator) -> None:
    """Overlapping SAME pools over few different values; the places are TensorFlow's own."""
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


def test_a_depthwise_filter_goes_back_to_its_own_channel(rng: np.random.Generator) -> None:
    """Two filters for each of three channels: its kernel times the activation, and no other's."""
    import keras

    layer = keras.layers.DepthwiseConv2D(3, 2, depth_multiplier=2, name="depth")
    network = keras.Sequential([keras.Input((7, 7, 3)), layer])
    kernel = rng.normal(0, 1, (3, 3, 3, 2))
    layer.set_weights([kernel, np.zeros(6)])
    units = [Unit(0, 2, 1, f, 1.5) for f in range(6)]
    found = projections.project(network, "depth", np.zeros((1, 7, 7, 3)), units)
    for f, projection in enumerate(found):
        wanted = np.zeros((7, 7, 3))
        wanted[4:7, 2:5, f // 2] = 1.5 * kernel[:, :, f // 2, f % 2]
        np.testing.assert_allclose(projection, wanted, atol=1e-6)


def test_a_grouped_filter_goes_back_to_the_channels_of_its_group(rng: np.random.Generator) -> None:
    """Two groups of two channels: its kernel times the activation in its own, zero in the other."""
    import keras

    layer = keras.layers.Conv2D(4, 3, groups=2, name="grouped")
    network = keras.Sequential([keras.Input((6, 6, 4)), layer])
    kernel = rng.normal(0, 1, (3, 3, 2, 4))
    layer.set_weights([kernel, np.zeros(4)])
    units = [Unit(0, 1, 2, f, 1.5) for f in range(4)]
    found = projections.project(network, "grouped", np.zeros((1, 6, 6, 4)), units)
    for f, projection in enumerate(found):
        wanted = np.zeros((6, 6, 4))
        wanted[1:4, 2:5, 2 * (f // 2) : 2 * (f // 2) + 2] = 1.5 * kernel[..., f]
        np.testing.assert_allclose(projection, wanted, atol=1e-6)


def test_dropout_drops_nothing_on_the_way(rng: np.random.Generator) -> None:
    """The places that won are those of a network that predicts, not of one that learns."""
    import keras

    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Dropout(0.9), layers.MaxPooling2D(6, name="pool")]
    )
    image = rng.permutation(36).astype(np.float32).reshape(1, 6, 6, 1)
    (found,) = projections.project(network, "pool", image, [Unit(0, 0, 0, 0, 35.0)])
    np.testing.assert_array_equal(found, np.where(image[0] == 35, 35, 0))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Conv2D", {"activation": "tanh"}, r"not defined through first \(Conv2D, tanh\)"),
        ("BatchNormalization", {}, r"not defined through first \(BatchNormalization"),
    ],
)
def test_layers_without_a_way_back_are_refused_by_name(
    name: str, changes: dict[str, Any], words: str
) -> None:
    """Before anything is computed."""
    import keras

    layers = keras.layers
    given = {"filters": 2, "kernel_size": 3} if name == "Conv2D" else {}
    first = getattr(layers, name)(name="first", **given, **changes)
    last = layers.Conv2D(2, 3, name="last")
    network = keras.Sequential([keras.Input((8, 8, 2)), first, last])
    with pytest.raises(ConfigError, match=words):
        projections.project(network, "last", np.zeros((1, 8, 8, 2)), [Unit(0, 0, 0, 0, 1.0)])
