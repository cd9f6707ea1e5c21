"""Where data sets come from: identified cheaply for a key, then loaded and checked."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.config import DataConfig
from cnn.data import checks, digits, download, folder, idx, splits
from cnn.data.dataset import Dataset, Split
from cnn.errors import ConfigError, DataError, UnreachableError

log = logging.getLogger(__name__)

FETCH_SECONDS = 100.0
AUTO_SECONDS = 20.0

# SHA-256 of the unpacked bytes; only of files that were really fetched and hashed.
KNOWN: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "test-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "test-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
}
ADDRESSES: dict[str, tuple[str, ...]] = {
    "mnist": (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://azureopendatastorage.blob.core.windows.net/mnist/",
    )
}
_FILE_NAMES = {
    "train-images": "train-images-idx3-ubyte.gz",
    "train-labels": "train-labels-idx1-ubyte.gz",
    "test-images": "t10k-images-idx3-ubyte.gz",
    "test-labels": "t10k-labels-idx1-ubyte.gz",
}
SMALLEST_FILE = _FILE_NAMES["test-labels"]
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


def identify(config: DataConfig) -> Source:
    """Return the source that a config names, without a network.

    Files of a folder are hashed. Raises DataError for a folder that is missing or does
    not hold four readable IDX files, ConfigError for `auto`.
    """
    match config.source:
        case "mnist":
            return Source("mnist", KNOWN["mnist"])
        case "digits":
            return Source("digits", {"digits": digits.digest()})
        case "folder" if config.path is not None:
            return _identify_folder(config.path)
    raise ConfigError(
        "data.source auto is resolved by the command before a flow starts; "
        "name mnist, digits or folder here"
    )


def resolve_auto(config: DataConfig, downloads: Path) -> tuple[DataConfig, str]:
    """Return a config without `auto`, and what a person should know about the choice.

    `auto` becomes mnist where its files are there or can be fetched within
    AUTO_SECONDS, else digits. Any other config is returned as it is, with "".
    """
    if config.source != "auto":
        return config, ""
    try:
        fetch_known("mnist", downloads, AUTO_SECONDS)
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
    if is_fetched("mnist", downloads):
        return config.model_copy(update={"source": "mnist"}), ""
    note = "MNIST is not fetched yet; the plan is for digits, a run will try MNIST first"
    return config.model_copy(update={"source": "digits"}), note


def is_fetched(name: str, downloads: Path) -> bool:
    """Return whether a known data set lies in the downloads, verified."""
    by_file = {_FILE_NAMES[role]: digest for role, digest in KNOWN[name].items()}
    return download.present(by_file, downloads / name)


def fetch_known(name: str, downloads: Path, seconds: float = FETCH_SECONDS) -> dict[str, Path]:
    """Return the verified files of a known data set by role, fetched where missing."""
    by_file = {_FILE_NAMES[role]: digest for role, digest in KNOWN[name].items()}
    deadline = download.Deadline.after(seconds)
    paths = download.fetch(by_file, ADDRESSES[name], downloads / name, deadline)
    return {role: paths[_FILE_NAMES[role]] for role in folder.ROLES}


def load(source: Source, config: DataConfig, downloads: Path) -> Dataset:
    """Return the data set of an identified source, checked and split.

    Raises DataError naming the file where anything is not as it should be, or where a
    file changed since it was identified.
    """
    if source.name == "digits":
        train, test = _load_digits(config.split_seed)
    else:
        paths = dict(source.paths) or fetch_known(source.name, downloads)
        train, test = _load_files(source, paths)
    n_classes = int(max(train.labels.max(), test.labels.max())) + 1
    if n_classes < 2:
        raise DataError(
            f"{source.name}: all images have the label 0; at least 2 classes are needed"
        )
    kept, held_out = splits.stratified(train.labels, config.validation_fraction, config.split_seed)
    parts = {"train": train.take(kept), "validation": train.take(held_out), "test": test}
    class_names = tuple(str(label) for label in range(n_classes))
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
