"""The image patches that most activate each filter: the work of the step mine_patches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.config import ExplainConfig
from cnn.data.dataset import Dataset, Split
from cnn.errors import ConfigError
from cnn.explain import activations, mining, receptive

LAYERS = ("conv1",)


@dataclass(frozen=True)
class Patches:
    """One layer's patches: a row each, ranks from 1, and their pixels (filters, k, h, w, channels).

    Pixels are those of the image, 0..255; outside of it, and for ranks without a patch, 0.
    """

    layer: str
    rows: list[dict[str, Any]]
    pixels: NDArray[Any]


def mine(
    model: Any,
    layer: str,
    dataset: Dataset,
    settings: ExplainConfig,
    report: progress.Report = progress.ignore,
) -> Patches:
    """Return the strongest patches of every filter of a layer over the images of a split.

    Fewer where fewer positions fire; none for a filter that never fires. Raises
    ConfigError for a split without images.
    """
    split, k = dataset.splits[settings.split], settings.patches_per_filter
    if not len(split):
        raise ConfigError(f"explain.split: {settings.split} is refused, it has no images here")
    along_y, along_x = receptive.windows(model, layer)
    n_filters = model.get_layer(layer).output.shape[-1]
    best = mining.mine(_reported(model, layer, split, report), n_filters, k)
    images = np.unique(np.concatenate([item.positions[:, 0] for item in best]))
    predicted = _predict(model, split, images)
    rows: list[dict[str, Any]] = []
    height, width = _sides(along_y), _sides(along_x)
    pixels = np.zeros((n_filters, k, height, width, split.images.shape[-1]), split.images.dtype)
    for f, item in enumerate(best):
        for rank, (activation, (i, y, x)) in enumerate(
            zip(item.activations, item.positions, strict=True), start=1
        ):
            box_y, box_x = receptive.span(along_y, int(y)), receptive.span(along_x, int(x))
            _crop(split.images[i], box_y, box_x, pixels[f, rank - 1])
            label, prediction = int(split.labels[i]), predicted[int(i)]
            rows.append(
                {
                    "layer": layer,
                    "filter": f,
                    "rank": rank,
                    "split": settings.split,
                    "image_id": int(split.ids[i]),
                    "y": int(y),
                    "x": int(x),
                    "activation": float(activation),
                    **_box_columns(box_y, box_x),
                    "label": label,
                    "prediction": prediction,
                    "label_name": dataset.class_names[label],
                    "prediction_name": dataset.class_names[prediction],
                    "n_tied": item.n_tied,
                }
            )
    return Patches(layer, rows, pixels)


def _reported(model: Any, layer: str, split: Split, report: progress.Report) -> Any:
    for batch in activations.stream(model, layer, split.images):
        yield batch
        report(progress.Progress(batch.start + len(batch.values), len(split)))


def _predict(model: Any, split: Split, images: NDArray[np.int64]) -> dict[int, int]:
    """Return the predicted class of each image, by its index in the split."""
    batches = activations.stream(model, "logits", split.images[images])
    classes = [batch.values.argmax(axis=1) for batch in batches]
    predicted = np.concatenate([np.empty(0, np.int64), *classes])
    return dict(zip(images.tolist(), predicted.tolist(), strict=True))


def _sides(windows: list[receptive.Window]) -> int:
    """Return the number of pixels along one axis of a receptive field."""
    field = receptive.span(windows, 0)
    return field.stop - field.start


def _crop(
    image: NDArray[Any], box_y: receptive.Span, box_x: receptive.Span, target: NDArray[Any]
) -> None:
    """Copy a box of an image into the target; what lies outside of the image stays 0."""
    height, width = image.shape[:2]
    top, bottom = max(box_y.start, 0), min(box_y.stop, height)
    left, right = max(box_x.start, 0), min(box_x.stop, width)
    target[top - box_y.start : bottom - box_y.start, left - box_x.start : right - box_x.start] = (
        image[top:bottom, left:right]
    )


def _box_columns(box_y: receptive.Span, box_x: receptive.Span) -> dict[str, int]:
    return {
        "y0": box_y.start,
        "x0": box_x.start,
        "y1": box_y.stop,
        "x1": box_x.stop,
        "clipped_y0": box_y.clipped_start,
        "clipped_x0": box_x.clipped_start,
        "clipped_y1": box_y.clipped_stop,
        "clipped_x1": box_x.clipped_stop,
    }
