"""The image patches that most activate each filter: the work of the step mine_patches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.config.run import ExplainConfig, MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.errors import ConfigError
from cnn.explain import activations, mining, projections, receptive_field
from cnn.explain.activations import Batch, Forward
from cnn.explain.mining import MiningOptions, TopK
from cnn.explain.projections import Seed
from cnn.explain.receptive_field import Span
from cnn.formatting import size_words
from cnn.model_io import weight_checks
from cnn.tables import parquet

LAYERS = ("conv1", "conv2")
_MOST_PROJECTED = 12  # ranks of a filter


@dataclass(frozen=True)
class Patches:
    """One layer's patches: a row each, ranks from 1, and their pixels (filters, k, h, w, channels).

    Pixels are those of the image, 0..255; outside of it, and for ranks without a patch, 0.
    projections: of the first ranks, at most 12, (filters, ranks, h, w, channels); None where
    the lowest activations were mined.
    """

    layer: str
    rows: list[dict[str, Any]]
    pixels: NDArray[Any]
    projections: NDArray[np.float32] | None


def check(model: Any, split: Split, settings: MiningConfig, section: str = "") -> None:
    """Refuse, before anything is computed, what cannot be mined.

    section: with its dot, of the settings that are named.

    Raises ConfigError: for a layer that is not there, layers that nothing comes back through
    (the lowest are not projected), images of another size than the model's, a split without
    images, more patches than positions. Raises ArtifactError for weights that are not finite.
    """
    weight_checks.refuse_damaged(model)
    layer = settings.layer
    layers = (receptive_field.chain if settings.lowest else projections.way_back)(model, layer)
    shape = layers[-1].output.shape[1:]
    wanted, found = tuple(model.inputs[0].shape[1:]), tuple(split.images.shape[1:])
    if found != wanted:
        raise ConfigError(
            f"images of {size_words(found)} pixels are refused; "
            f"the model reads {size_words(wanted)}"
        )
    refuse_too_many(settings, layer, len(split), (shape[0], shape[1]), section)
    if settings.filters and max(settings.filters) >= shape[-1]:
        raise ConfigError(
            f"filters: {max(settings.filters)} is refused; {layer} has the filters 0 to "
            f"{shape[-1] - 1}"
        )


def refuse_too_many(
    settings: ExplainConfig, layer: str, n_images: int, sides: tuple[int, int], section: str
) -> None:
    """Raise ConfigError where there are no images, or fewer positions than patches to be kept.

    sides: height and width of the layer's maps. section: as of `check`.
    """
    if not n_images:
        raise ConfigError(f"{section}split: {settings.split} is refused, it has no images here")
    k = settings.patches_per_filter
    n_places = n_images * (1 if settings.one_per_image else sides[0] * sides[1])
    if k > n_places:
        raise ConfigError(
            f"{section}patches_per_filter: {k:,} is refused; a filter of {layer} has "
            f"{n_places:,} positions in the {n_images:,} {settings.split} images"
        )


def mine(
    model: Any,
    dataset: Dataset,
    settings: MiningConfig,
    predicted_names: Sequence[str],
    report: progress.Report = progress.ignore,
) -> Patches:
    """Return the strongest patches of every filter of a layer over the images of a split.

    Fewer where fewer positions fire; none for a filter that never fires. predicted_names: of
    the model's classes; those of the data set may be others. Raises ConfigError as `check`
    does.
    """
    images = dataset.splits[settings.split].images
    check(model, dataset.splits[settings.split], settings)
    best = search(
        Forward(model, settings.layer, negated=settings.lowest),
        images,
        settings,
        report=lambda n: report(progress.Progress(n, len(images))),
    )
    return describe(model, dataset, settings, best, predicted_names)


def search(
    forward: Forward,
    images: NDArray[Any],
    settings: MiningConfig,
    start: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> TopK:
    """Return the strongest positions of every filter over the images from `start` on.

    forward: of the settings' layer, negated where the lowest are wanted. images: (n, h, w, c),
    pixels 0..255. start: a multiple of forward.n_at_once. report: is told the index of the
    image behind each batch.
    """

    def batches() -> Iterator[Batch]:
        for batch in forward.stream(images, start):
            yield batch
            report(batch.stop)

    return mining.mine(batches(), _rule(settings, forward.n_filters))


def describe(
    model: Any,
    dataset: Dataset,
    settings: MiningConfig,
    best: TopK,
    predicted_names: Sequence[str],
) -> Patches:
    """Return the rows, the pixels and the projections of what was found.

    predicted_names: of the model's classes; those of the data set may be others.
    """
    layer, split = settings.layer, dataset.splits[settings.split]
    _, height, width, n_filters = model.get_layer(layer).output.shape
    boxes_y, boxes_x = _boxes(model, layer)
    found = _positions(best, (height, width), settings.lowest)
    predicted = _predicted(model, split.images, [place.image for place in found])
    fields = (boxes_y[0].stop - boxes_y[0].start, boxes_x[0].stop - boxes_x[0].start)
    shape = (n_filters, settings.patches_per_filter, *fields, split.images.shape[-1])
    pixels = np.zeros(shape, split.images.dtype)
    rows = []
    for place in found:
        box_y, box_x = boxes_y[place.y], boxes_x[place.x]
        _crop(split.images[place.image], box_y, box_x, pixels[place.filter, place.rank - 1])
        label, prediction = int(split.labels[place.image]), predicted[place.image]
        rows.append(
            {
                "layer": layer,
                "filter": place.filter,
                "rank": place.rank,
                "split": settings.split,
                "image_id": int(split.ids[place.image]),
                "y": place.y,
                "x": place.x,
                "activation": place.activation,
                **_box_columns(box_y, box_x),
                "label": label,
                "prediction": prediction,
                "label_name": dataset.class_names[label],
                "prediction_name": predicted_names[prediction],
                "n_tied": int(best.n_tied[place.filter]),
            }
        )
    projected = None
    if not settings.lowest:
        projected = _projected(model, layer, split, found, (boxes_y, boxes_x), pixels.shape)
    return Patches(layer, rows, pixels, projected)


def write(folder: Path, mined: Sequence[Patches]) -> int:
    """Write some layers' patches and projections as arrays, and one table of all patches.

    Returns the number of patches.
    """
    for item in mined:
        np.save(folder / f"patches-{item.layer}.npy", item.pixels, allow_pickle=False)
        if item.projections is not None:
            path = folder / f"projections-{item.layer}.npy"
            np.save(path, item.projections, allow_pickle=False)
    rows = [row for item in mined for row in item.rows]
    parquet.write_rows(folder / "patches.parquet", "patches", rows)
    return len(rows)


@dataclass(frozen=True)
class _Position:
    """One mined position."""

    filter: int
    rank: int
    image: int
    y: int
    x: int
    activation: float


def _positions(best: TopK, sides: tuple[int, int], lowest: bool) -> list[_Position]:
    height, width = sides
    firsts = np.searchsorted(best.filters, best.filters)
    ranks = np.arange(len(firsts)) - firsts + 1
    values = 0.0 - best.activations if lowest else best.activations
    rest, x = np.divmod(best.positions, width)
    image, y = np.divmod(rest, height)
    columns = (best.filters, ranks, image, y, x, values)
    return [_Position(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _boxes(model: Any, layer: str) -> tuple[list[Span], list[Span]]:
    """Return the pixels that each row, and each column, of a layer's map sees."""
    along_y, along_x = receptive_field.windows(model, layer)
    _, height, width, _ = model.get_layer(layer).output.shape
    return (
        [receptive_field.span(along_y, y) for y in range(height)],
        [receptive_field.span(along_x, x) for x in range(width)],
    )


def _predicted(model: Any, images: NDArray[Any], chosen: Iterable[int]) -> dict[int, int]:
    """Return the predicted class of each chosen image, by its index."""
    indices = np.unique(np.fromiter(chosen, np.int64))
    classes = activations.predict(model, images[indices])
    return dict(zip(indices.tolist(), classes.tolist(), strict=True))


def _projected(
    model: Any,
    layer: str,
    split: Split,
    found: Sequence[_Position],
    boxes: tuple[list[Span], list[Span]],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Return the projections of the first ranks, cropped as the patches are."""
    n_filters, k, *rest = shape
    cropped = np.zeros((n_filters, min(k, _MOST_PROJECTED), *rest), np.float32)
    first = [place for place in found if place.rank <= _MOST_PROJECTED]
    indices = np.unique(np.array([place.image for place in first], np.int64))
    seeds = [
        Seed(int(np.searchsorted(indices, p.image)), p.y, p.x, p.filter, p.activation)
        for p in first
    ]
    whole = projections.project(model, layer, split.images[indices], seeds)
    for place, projection in zip(first, whole, strict=True):
        target = cropped[place.filter, place.rank - 1]
        _crop(projection, boxes[0][place.y], boxes[1][place.x], target)
    return cropped


def _crop(image: NDArray[Any], box_y: Span, box_x: Span, target: NDArray[Any]) -> None:
    """Copy a box of an image into the target; what lies outside of the image stays 0."""
    height, width = image.shape[:2]
    top, bottom = max(box_y.start, 0), min(box_y.stop, height)
    left, right = max(box_x.start, 0), min(box_x.stop, width)
    target[top - box_y.start : bottom - box_y.start, left - box_x.start : right - box_x.start] = (
        image[top:bottom, left:right]
    )


def _box_columns(box_y: Span, box_x: Span) -> dict[str, int]:
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


def _rule(settings: MiningConfig, n_filters: int) -> MiningOptions:
    searched = np.ones(n_filters, bool)
    if settings.filters:
        searched[:] = False
        searched[list(settings.filters)] = True
    return MiningOptions(
        settings.patches_per_filter,
        searched,
        -np.inf if settings.lowest else 0.0,
        settings.one_per_image,
        settings.suppression_radius,
    )
