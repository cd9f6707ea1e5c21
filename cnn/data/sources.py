"""Where data sets come from: identified cheaply for a key, then loaded and checked."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.config import DataConfig
from cnn.data import checks, digits, folder, idx, published, splits
from cnn.data.dataset import Dataset, Split
from cnn.data.published import KNOWN
from cnn.errors import ConfigError, DataError, UnreachableError

log = logging.getLogger(__name__)

AUTO_SECONDS = 20.0
_DIGITS_TEST_FRACTION = 1 / 7


@dataclass(frozen=True)
class Source:
    """A data set that was identified but not loaded: its name and its payloads' digests."""

    name: str
    digests: Mapping[str, str]
    paths: Mapping[str, Path] = field(default_factory=dict)
    transposed: bool = False

    def identity(self) -> dict[str, Any]:
        """Return what decides the loaded arrays, for a key."""
        return {"name": self.name, "transposed": self.transposed, "payloads": dict(self.digests)}


def identify(config: DataConfig, downloads: Path) -> Source:
    """Return the source that a config names, without a network.

    Files of a folder are hashed, and fetched ones whose digests are not pinned; where those
    are not fetched yet, the source has no digests. Raises DataError for a folder that is
    missing or does not hold four readable IDX files, ConfigError for `auto`.
    """
    match config.source:
        case "mnist" | "fashion-mnist" | "kmnist" as name:
            return Source(name, published.digests(name, downloads))
        case "digits":
            return Source("digits", {"digits": digits.digest()})
        case "folder" if config.path is not None:
            return _identify_folder(config.path)
    raise ConfigError(
        "data.source auto is resolved by the command before a flow starts; name another source here"
    )


def resolve_auto(config: DataConfig, downloads: Path) -> tuple[DataConfig, str]:
    """Return a config without `auto`, and what a person should know about the choice.

    `auto` becomes mnist where its files are there or can be fetched within
    AUTO_SECONDS, else digits. Any other config is returned as it is, with "".
    """
    if config.source != "auto":
        return config, ""
    try:
        published.fetch("mnist", downloads, AUTO_SECONDS)
    except UnreachableError as error:
        log.info("%s", error)
        note = (
            "MNIST could not be reached, so this run uses digits: 1,797 scans that ship with "
            "scikit-learn. Its figures are not MNIST's."
        )
        return config.model_copy(update={"source": "digits"}), note
    return config.model_copy(update={"source": "mnist"}), ""


def guess_auto(config: DataConfig, downloads: Path) -> tuple[DataConfig, str]:
    """Return what `resolve_auto` would without a network, for a plan."""
    if config.source != "auto":
        return config, ""
    if published.is_fetched("mnist", downloads):
        return config.model_copy(update={"source": "mnist"}), ""
    note = "MNIST is not fetched yet; the plan is for digits, a run will try MNIST first"
    return config.model_copy(update={"source": "digits"}), note


def load(source: Source, config: DataConfig, downloads: Path) -> Dataset:
    """Return the data set of an identified source, checked and split.

    Raises DataError naming the file where anything is not as it should be, or where a
    file changed since it was identified.
    """
    if source.name == "digits":
        train, test = _load_digits(config.split_seed)
    else:
        paths = dict(source.paths) or published.fetch(
            source.name, downloads, published.FETCH_SECONDS
        )
        train, test = _load_files(source, paths)
    n_classes = int(max(train.labels.max(), test.labels.max())) + 1
    if n_classes < 2:
        raise DataError(
            f"{source.name}: all images have the label 0; at least 2 classes are needed"
        )
    kept, held_out = splits.stratified(train.labels, config.validation_fraction, config.split_seed)
    parts = {"train": train.take(kept), "validation": train.take(held_out), "test": test}
    class_names = published.CLASS_NAMES.get(source.name) or tuple(map(str, range(n_classes)))
    return Dataset(source.name, class_names, parts, source.identity())


def _identify_folder(path: Path) -> Source:
    found = folder.find(path)
    digests = {role: idx.digest(file) for role, file in found.paths.items()}
    name = next((name for name, known in KNOWN.items() if known == digests), "folder")
    return Source(name, digests, found.paths, found.transposed)


def _load_digits(seed: int) -> tuple[Split, Split]:
    images, labels = digits.read()
    everything = Split(images, labels, np.arange(len(labels)))
    kept, held_out = splits.stratified(labels, _DIGITS_TEST_FRACTION, seed)
    return everything.take(kept), everything.take(held_out)


def _load_files(source: Source, paths: Mapping[str, Path]) -> tuple[Split, Split]:
    train = _load_part("train", source, paths)
    test = _load_part("test", source, paths)
    checks.same_shape(train.images, paths["train-images"], test.images, paths["test-images"])
    return train, test


def _load_part(part: str, source: Source, paths: Mapping[str, Path]) -> Split:
    images_role, labels_role = f"{part}-images", f"{part}-labels"
    images = checks.images(_load_file(images_role, source, paths), paths[images_role])
    labels = checks.labels(_load_file(labels_role, source, paths), paths[labels_role])
    checks.same_count(len(images), paths[images_role], len(labels), paths[labels_role])
    if source.transposed:
        images = np.ascontiguousarray(images.swapaxes(1, 2))
    return Split(images, labels, np.arange(len(labels)))


def _load_file(role: str, source: Source, paths: Mapping[str, Path]) -> NDArray[Any]:
    payload = idx.load(paths[role])
    if payload.sha256 != source.digests[role]:
        raise DataError(
            f"{paths[role]}: the file changed while the run was starting: its SHA-256 is "
            f"{payload.sha256}, expected {source.digests[role]}; start the run again"
        )
    return payload.array
