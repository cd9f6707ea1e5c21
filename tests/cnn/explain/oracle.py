"""Mining and statistics by brute force, in NumPy float64, sharing no code with the library."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

TOLERANCE = 1e-4


def activations(
    model: Any, layer: str, images: NDArray[Any], *, rectified: bool = True
) -> NDArray[np.float64]:
    """Return the activations (n, y, x, filters) of conv1, conv2 or the pool from the raw weights.

    images: (n, h, w, c), pixels 0..255. rectified: whether to apply the layer's own ReLU.
    """
    first, first_bias = _weights(model, "conv1")
    values = _linear(images / 255, first, first_bias, 2)
    if layer != "conv1":
        second, second_bias = _weights(model, "conv2")
        assert second.shape[:2] == (5, 5)
        padded = np.pad(np.maximum(values, 0), [(0, 0), (2, 2), (2, 2), (0, 0)])
        values = _linear(padded, second, second_bias, 1)
    if layer == "pool":
        return _pool(np.maximum(values, 0))
    return np.maximum(values, 0) if rectified else values


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
    """Return the maximum of every 2 x 2 positions, without the last row or column of odd maps."""
    n, height, width, n_filters = values.shape
    n_y, n_x = height // 2, width // 2
    even = values[:, : 2 * n_y, : 2 * n_x]
    return even.reshape(n, n_y, 2, n_x, 2, n_filters).max(axis=(2, 4))


@dataclass(frozen=True)
class Position:
    """One position where a filter fires."""

    activation: float
    image: int
    y: int
    x: int


def n_agreeing_ranks(
    rows: list[dict[str, Any]],
    activations: NDArray[np.float64],
    k: int,
    ids: NDArray[np.int64] | None = None,
) -> int:
    """Assert that mined rows are those of a full sort; return how many of them are certain.

    Every activation must agree within TOLERANCE, at its rank and at its position. The position
    must agree too where the row is certain: the oracle's activations one rank higher and one
    rank lower differ by more than TOLERANCE. ids: of the images, where not their indices.
    """
    index = indices(ids, len(activations))
    n_certain = 0
    for f in range(activations.shape[-1]):
        expected, _ = mined(activations[..., f], k + 1)
        of_filter = [row for row in rows if row["filter"] == f]
        assert [row["rank"] for row in of_filter] == list(range(1, min(k, len(expected)) + 1))
        values = np.array([np.inf, *(item.activation for item in expected), -np.inf])
        for i, (row, position) in enumerate(zip(of_filter, expected, strict=False)):
            at = (index[row["image_id"]], row["y"], row["x"])
            assert abs(row["activation"] - position.activation) <= TOLERANCE
            assert abs(row["activation"] - activations[(*at, f)]) <= TOLERANCE
            if np.abs(np.diff(values[i : i + 3])).min() > TOLERANCE:
                assert at == (position.image, position.y, position.x)
                n_certain += 1
    return n_certain


def indices(ids: NDArray[np.int64] | None, n: int) -> dict[int, int]:
    """Return the index of each of n images by its id; without ids, they are the same."""
    return {int(image_id): i for i, image_id in enumerate(range(n) if ids is None else ids)}


def mined(
    activations: NDArray[Any],
    k: int,
    *,
    floor: float = 0.0,
    one_per_image: bool = False,
    radius: int = 0,
) -> tuple[list[Position], int]:
    """Return the k strongest positions (n, y, x) of one filter, and how many more are tied.

    All that are stronger than the floor are sorted, and then taken one after the other unless a
    stronger one of the same image suppresses them.
    """
    image, y, x = np.nonzero(activations > floor)
    values = activations[image, y, x]
    order = np.lexsort((x, y, image, -values))
    if one_per_image or radius:
        taken: dict[int, list[int]] = {}
        for i in order:
            others = taken.setdefault(int(image[i]), [])
            near = [max(abs(y[i] - y[j]), abs(x[i] - x[j])) <= radius for j in others]
            if not (others if one_per_image else any(near)):
                others.append(int(i))
        order = np.array([i for i in order if i in taken[int(image[i])]], np.int64)
    kept, dropped = order[:k], order[k:]
    places = [Position(float(values[i]), int(image[i]), int(y[i]), int(x[i])) for i in kept]
    return places, int((values[dropped] == values[kept[-1:]]).sum()) if len(dropped) else 0


def box(layer: str, unit: int, size: int = 28) -> tuple[int, int, int, int]:
    """Return the start and stop of the pixels that a unit sees along one axis, then both clipped.

    conv1 sees 12 pixels every 2; conv2 sees 5 units of conv1, 2 of them before its own position;
    the pool sees 2 units of conv2.
    """
    first, last = {
        "conv1": (unit, unit),
        "conv2": (unit - 2, unit + 2),
        "pool": (2 * unit - 2, 2 * unit + 3),
    }[layer]
    start, stop = 2 * first, 2 * last + 12
    return start, stop, max(start, 0), min(stop, size)


def check_box_and_pixels(image: NDArray[Any], row: dict[str, Any], pixels: NDArray[Any]) -> None:
    """Assert that a row's box is that of `box`, and that its patch is cropped there, 0 outside."""
    box_y, box_x = box(row["layer"], row["y"]), box(row["layer"], row["x"])
    assert [row[name] for name in ("y0", "y1", "clipped_y0", "clipped_y1")] == [*box_y]
    assert [row[name] for name in ("x0", "x1", "clipped_x0", "clipped_x1")] == [*box_x]
    padded = np.pad(image, [(8, 8), (8, 8), (0, 0)])
    crop = padded[8 + box_y[0] : 8 + box_y[1], 8 + box_x[0] : 8 + box_x[1]]
    np.testing.assert_array_equal(pixels[row["filter"], row["rank"] - 1], crop)


def check_that_boxes_hold_all_that_counts(
    model: Any,
    images: NDArray[Any],
    rows: list[dict[str, Any]],
    ids: NDArray[np.int64] | None = None,
) -> None:
    """Assert of each row that noise outside its clipped box leaves its activation unchanged.

    The model's own layers compute two images for each row: one keeps its pixels in the box and
    is noise everywhere else, the other is noise in the box. ids: as in `n_agreeing_ranks`.
    """
    import keras

    rng, index = np.random.default_rng(0), indices(ids, len(images))
    head = keras.Model(model.inputs[0], model.get_layer(rows[0]["layer"]).output)
    for start in range(0, len(rows), 500):
        chunk = rows[start : start + 500]
        own = np.float32(images[[index[row["image_id"]] for row in chunk]])
        kept, lost = rng.uniform(0, 255, (2, *own.shape)).astype(np.float32)
        for i, row in enumerate(chunk):
            y0, x0, y1, x1 = (row[f"clipped_{name}"] for name in ("y0", "x0", "y1", "x1"))
            kept[i, y0:y1, x0:x1] = own[i, y0:y1, x0:x1]
        at = [range(len(chunk)), *([row[name] for row in chunk] for name in ("y", "x", "filter"))]
        computed, moved = (np.asarray(head(part))[tuple(at)] for part in (kept, lost))
        activations = np.array([row["activation"] for row in chunk])
        np.testing.assert_allclose(computed, activations, rtol=1e-5, atol=1e-6)  # on a GPU too
        assert (moved != activations).mean() > 0.9, "the pixels in the box do not count"


def sparseness(responses: NDArray[np.float64]) -> float:
    """Return (1 - (sum r/n)^2 / sum(r^2/n)) / (1 - 1/n), Vinje and Gallant 2000."""
    n = len(responses)
    return float((1 - (responses.sum() / n) ** 2 / (responses**2 / n).sum()) / (1 - 1 / n))


def padding(n: int, kernel: int, stride: int, dilation: int, how: str) -> tuple[int, int]:
    """Return the padding at the start and the number of outputs, as TensorFlow documents them."""
    reach = dilation * (kernel - 1) + 1
    if how == "valid":
        return 0, -(-(n - reach + 1) // stride)
    n_outputs = -(-n // stride)
    return max(0, (n_outputs - 1) * stride + reach - n) // 2, n_outputs
