"""Mining by brute force, in NumPy float64 and sharing no code with the library."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

TOLERANCE = 1e-4


def convolve(
    images: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any] | float, stride: int
) -> NDArray[np.float64]:
    """Return the activations (n, y, x, filters) of a convolution with ReLU and no padding.

    images: (n, h, w, c), pixels 0..255. kernel: (h, w, c, filters), as Keras stores it.
    """
    return np.maximum(_linear(images / 255, kernel, bias, stride), 0)


def activations(
    model: Any, layer: str, images: NDArray[Any], *, rectified: bool = True
) -> NDArray[np.float64]:
    """Return what conv1, conv2 or the pool make of images, from the raw weights.

    rectified: whether the layer's own ReLU is applied.
    """
    first, first_bias = _weights(model, "conv1")
    found = _linear(images / 255, first, first_bias, 2)
    if layer != "conv1":
        second, second_bias = _weights(model, "conv2")
        assert second.shape[:2] == (5, 5)
        padded = np.pad(np.maximum(found, 0), [(0, 0), (2, 2), (2, 2), (0, 0)])
        found = _linear(padded, second, second_bias, 1)
    if layer == "pool":
        return _pool(np.maximum(found, 0))
    return np.maximum(found, 0) if rectified else found


def _weights(model: Any, layer: str) -> tuple[NDArray[Any], NDArray[Any] | float]:
    kernel, *bias = model.get_layer(layer).get_weights()
    return kernel, bias[0] if bias else 0.0


def _linear(
    values: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any] | float, stride: int
) -> NDArray[np.float64]:
    flat = np.float64(kernel).reshape(-1, kernel.shape[-1])
    parts = []
    for chunk in np.array_split(values, max(1, len(values) // 250)):
        windows = sliding_window_view(chunk, kernel.shape[:2], axis=(1, 2))
        patches = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
        parts.append(patches.reshape(*patches.shape[:3], -1) @ flat + bias)
    return np.concatenate(parts)


def _pool(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest of 2 x 2; the last row and column of odd ones are left out."""
    n, height, width, n_filters = values.shape
    n_y, n_x = height // 2, width // 2
    even = values[:, : 2 * n_y, : 2 * n_x]
    return even.reshape(n, n_y, 2, n_x, 2, n_filters).max(axis=(2, 4))


@dataclass(frozen=True)
class Position:
    """One place where a filter fires."""

    activation: float
    image: int
    y: int
    x: int


def strongest(activations: NDArray[np.float64], f: int, k: int) -> list[Position]:
    """Return the k strongest positions of filter f: a full sort of all of them."""
    values = activations[..., f]
    image, y, x = (axis.ravel() for axis in np.indices(values.shape))
    order = np.lexsort((x, y, image, -values.ravel()))[:k]
    flat = values.ravel()
    return [
        Position(float(flat[i]), int(image[i]), int(y[i]), int(x[i])) for i in order if flat[i] > 0
    ]


def n_agreeing_ranks(
    rows: list[dict[str, Any]], activations: NDArray[np.float64], f: int, k: int
) -> int:
    """Assert that a filter's mined rows are those of a full sort; return how many ranks are sure.

    Every activation must agree within TOLERANCE, at its rank and at its position; and the
    position too, where the oracle's activation differs by more than that from those of
    the ranks before and behind.
    """
    expected = strongest(activations, f, k + 1)
    assert [row["rank"] for row in rows] == list(range(1, min(k, len(expected)) + 1))
    values = np.array([np.inf, *(item.activation for item in expected), -np.inf])
    n_sure = 0
    for i, (row, wanted) in enumerate(zip(rows, expected, strict=False)):
        place = (row["image"], row["y"], row["x"])
        assert abs(row["activation"] - wanted.activation) <= TOLERANCE
        assert abs(row["activation"] - activations[(*place, f)]) <= TOLERANCE
        if np.abs(np.diff(values[i : i + 3])).min() > TOLERANCE:
            assert place == (wanted.image, wanted.y, wanted.x)
            n_sure += 1
    return n_sure


def mined(
    activations: NDArray[np.float64],
    k: int,
    *,
    floor: float = 0.0,
    one_per_image: bool = False,
    radius: int = 0,
) -> tuple[list[Position], int]:
    """Return the k strongest positions (n, y, x) of one filter, and how many more are tied.

    All that are stronger than the floor are sorted; then one after the other is taken that no
    stronger one of its image keeps away.
    """
    image, y, x = np.nonzero(activations > floor)
    values = activations[image, y, x]
    taken: list[Position] = []
    of_image: dict[int, list[Position]] = {}
    for i in np.lexsort((x, y, image, -values)):
        place = Position(float(values[i]), int(image[i]), int(y[i]), int(x[i]))
        others = of_image.setdefault(place.image, [])
        near = [max(abs(place.y - other.y), abs(place.x - other.x)) <= radius for other in others]
        if others if one_per_image else radius and any(near):
            continue
        others.append(place)
        taken.append(place)
    kept, dropped = taken[:k], taken[k:]
    return kept, sum(place.activation == kept[-1].activation for place in dropped)


def box(layer: str, unit: int, size: int = 28) -> tuple[int, int, int, int]:
    """Return where the pixels that a unit sees begin and end, and both within the image.

    conv1 sees 12 pixels every 2; each of conv2's 5 taps, of which 2 come before, sees one of
    conv1's units; the pool sees two of conv2's.
    """
    first, last = {
        "conv1": (unit, unit),
        "conv2": (unit - 2, unit + 2),
        "pool": (2 * unit - 2, 2 * unit + 3),
    }[layer]
    start, stop = 2 * first, 2 * last + 12
    return start, stop, max(start, 0), min(stop, size)


def check_that_boxes_hold_all_that_counts(
    model: Any, images: NDArray[Any], rows: list[dict[str, Any]]
) -> None:
    """Assert of each row that noise outside of its clipped box does not move its activation.

    Two images are computed for each, with the model's own layers: one keeps its pixels in the
    box, and has noise in their place everywhere else; the other has noise in the box.
    rows: with `image`, its index among the images, or with its `image_id`.
    """
    import keras

    rng = np.random.default_rng(0)
    head = keras.Model(model.inputs[0], model.get_layer(rows[0]["layer"]).output)
    for start in range(0, len(rows), 500):
        chunk = rows[start : start + 500]
        own = np.float32(images[[row.get("image", row["image_id"]) for row in chunk]])
        kept, lost = rng.uniform(0, 255, (2, *own.shape)).astype(np.float32)
        for i, row in enumerate(chunk):
            y0, x0, y1, x1 = (row[f"clipped_{name}"] for name in ("y0", "x0", "y1", "x1"))
            kept[i, y0:y1, x0:x1] = own[i, y0:y1, x0:x1]
        at = [range(len(chunk)), *([row[name] for row in chunk] for name in ("y", "x", "filter"))]
        computed, moved = (np.asarray(head(part))[tuple(at)] for part in (kept, lost))
        activations = np.array([row["activation"] for row in chunk])
        np.testing.assert_allclose(computed, activations, rtol=1e-5, atol=1e-6)  # on a GPU too
        assert (moved != activations).mean() > 0.9, "what lies in the box decides nothing"
