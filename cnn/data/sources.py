"""Where data sets come from: identified cheaply for a key, then loaded and checked."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.config.run import DataConfig
from cnn.data import (
    checks,
    digits,
    idx,
    idx_folder,
    image_decoding,
    image_folder,
    published,
    splits,
)
from cnn.data.dataset import Dataset, Split
from cnn.data.image_folder import ImageFolder
from cnn.data.published import KNOWN
from cnn.errors import ConfigError, DataError, UnreachableError
from cnn.io.digest_cache import DigestCache

log = logging.getLogger(__name__)

OUT_OF_REACH = "MNIST could not be reached"  # begins the note of a run on digits in its place

AUTO_SECONDS = 20.0
_TEST_FRACTION = 1 / 7  # where a source does not say which images are for testing


@dataclass(frozen=True)
class Source:
    """A data set that was identified but not loaded: its name and its payloads' digests.

    options: further choices that decide the arrays, by the name of their setting.
    """

    name: str
    digests: Mapping[str, str]
    paths: Mapping[str, Path] = field(default_factory=dict)
    transposed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    class_names: Mapping[int, str] = field(default_factory=dict)
    pictures: ImageFolder | None = None

    def identity(self) -> dict[str, Any]:
        """Return what decides the loaded arrays, for a key."""
        named = {str(label): name for label, name in sorted(self.class_names.items())}
        return {
            "name": self.name,
            "transposed": self.transposed,
            "payloads": dict(self.digests),
            **self.options,
            **({"class_names": named} if named else {}),
        }


def identify(config: DataConfig, downloads: Path) -> Source:
    """Return the source that a config names, without a network.

    Files of a folder are hashed, and fetched ones whose digests are not pinned; where those
    are not fetched yet, the source has no digests. Raises DataError for a folder that is
    missing or does not hold four readable IDX files, ConfigError for `auto`.
    """
    match config.source:
        case "mnist" | "fashion-mnist" | "kmnist" as name:
            class_names = dict(enumerate(published.CLASS_NAMES.get(name, ())))
            return Source(name, published.digests(name, downloads), class_names=class_names)
        case "digits":
            return Source("digits", {"digits": digits.digest()})
        case "folder" if config.path is not None:
            return _identify_folder(config, config.path, downloads)
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
            f"{OUT_OF_REACH}, so this run uses digits: 1,797 scans that ship with "
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
    files: tuple[str, ...] = ()
    if source.name == "digits":
        train, test = _load_digits(config.split_seed)
    elif source.pictures is not None:
        train, test = _load_pictures(source, source.pictures, config.split_seed)
        files = tuple(picture.name for picture in source.pictures.pictures)
    else:
        paths = dict(source.paths) or published.fetch(
            source.name, downloads, published.FETCH_SECONDS
        )
        train, test = _load_files(source, paths)
    if config.source == "folder" and checks.look_inverted(train.images):
        log.warning(
            "%s: most images have bright borders, so the set looks inverted: ink is expected to be "
            "bright on a dark background. It is used as it is",
            config.path,
        )
    train, test, class_names = _with_classes(source, train, test)
    kept, held_out = splits.stratified(train.labels, config.validation_fraction, config.split_seed)
    train, validation = train.divide(kept, held_out)
    parts = {"train": train, "validation": validation, "test": test}
    return Dataset(source.name, class_names, parts, source.identity(), files)


def _identify_folder(config: DataConfig, path: Path, downloads: Path) -> Source:
    if image_folder.holds_classes(path) and not idx_folder.holds_idx(path):
        return _identify_pictures(config, path)
    _refuse_options(config, "image_size", "channels", "pictures, and this folder has IDX files")
    found = idx_folder.find(path)
    memory = DigestCache(downloads.with_name("store") / ".verified" / f"folder-{_short(path)}.json")
    digests = {
        role: memory.digest(file, str(file), idx.digest) for role, file in found.paths.items()
    }
    memory.keep()
    name = next((name for name, known in KNOWN.items() if known == digests), "folder")
    transposed = found.transposed if config.transpose is None else config.transpose
    name = "folder" if transposed else name
    options = {} if config.label_column is None else {"label_column": config.label_column}
    return Source(name, digests, found.paths, transposed, options, found.class_names)


def _identify_pictures(config: DataConfig, path: Path) -> Source:
    _refuse_options(config, "label_column", "IDX files, and this folder has pictures")
    found = image_folder.find(path)
    options: dict[str, Any] = {"channels": config.channels or 1}
    if config.image_size is not None:
        options["image_size"] = list(config.image_size)
    digests = {"pictures": found.digest}
    return Source("folder", digests, {}, bool(config.transpose), options, pictures=found)


def _short(path: Path) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _refuse_options(config: DataConfig, *names_and_kind: str) -> None:
    """Refuse settings that mean nothing for what lies in the folder."""
    *names, kind = names_and_kind
    for name in names:
        if getattr(config, name) is not None:
            raise ConfigError(f"data.{name} is for {kind}: {config.path}; leave it empty")


def _load_pictures(source: Source, found: ImageFolder, seed: int) -> tuple[Split, Split]:
    if found.left_out:
        shown = ", ".join(found.left_out[:5]) + (", ..." if len(found.left_out) > 5 else "")
        log.warning(
            "%s: left out as no pictures, or as links that lead out of the folder: %d (%s)",
            found.root,
            len(found.left_out),
            shown,
        )
    images = image_decoding.read(
        found, source.options.get("image_size"), source.options["channels"]
    )
    if source.transposed:
        images = checks.transposed(images)
    labels = np.array([picture.label for picture in found.pictures], np.int64)
    everything = Split(images, labels, np.arange(len(labels)))
    if not found.n_train:
        return everything.divide(*splits.stratified(labels, _TEST_FRACTION, seed))
    return everything.cut(found.n_train)


def _with_classes(
    source: Source, train: Split, test: Split
) -> tuple[Split, Split, tuple[str, ...]]:
    """Return the parts with labels from 0 on without gaps, and the names of these classes.

    A class is a label that occurs; its name is the label, or what the source calls it.
    """
    if source.pictures is not None:
        return train, test, source.pictures.class_names
    found = np.union1d(train.labels, test.labels)
    if len(found) < 2:
        raise DataError(
            f"{source.name}: all images have the label {found[0]}; at least 2 classes are needed"
        )
    unnamed = [label for label in found.tolist() if label not in source.class_names]
    if source.class_names and unnamed:
        raise DataError(
            f"{source.paths['train-labels'].parent}: the file of class names, *mapping.txt, has no "
            f"line for the label {unnamed[0]}; mend the file or remove it"
        )
    train, test = (
        replace(part, labels=np.searchsorted(found, part.labels)) for part in (train, test)
    )
    names = tuple(source.class_names.get(label, str(label)) for label in found.tolist())
    return train, test, names


def _load_digits(seed: int) -> tuple[Split, Split]:
    images, labels = digits.read()
    everything = Split(images, labels, np.arange(len(labels)))
    return everything.divide(*splits.stratified(labels, _TEST_FRACTION, seed))


def _load_files(source: Source, paths: Mapping[str, Path]) -> tuple[Split, Split]:
    images = {}
    for part in ("train", "test"):
        path = paths[f"{part}-images"]
        images[path] = checks.images(_load_file(f"{part}-images", source, paths), path)
    (train_path, train), (test_path, test) = images.items()
    checks.same_shape(train, train_path, test, test_path)
    train, test = checks.on_one_scale(images)
    return (
        _with_labels(train, "train", source, paths),
        _with_labels(test, "test", source, paths),
    )


def _with_labels(
    images: NDArray[Any], part: str, source: Source, paths: Mapping[str, Path]
) -> Split:
    path = paths[f"{part}-labels"]
    array = _load_file(f"{part}-labels", source, paths)
    labels = checks.labels(array, path, source.options.get("label_column"))
    checks.same_count(len(images), paths[f"{part}-images"], len(labels), path)
    if source.transposed:
        images = checks.transposed(images)
    return Split(images, labels, np.arange(len(labels)))


def _load_file(role: str, source: Source, paths: Mapping[str, Path]) -> NDArray[Any]:
    payload = idx.load(paths[role])
    if payload.sha256 != source.digests[role]:
        raise DataError(
            f"{paths[role]}: the file changed while the run was starting: its SHA-256 is "
            f"{payload.sha256}, expected {source.digests[role]}; start the run again"
        )
    return payload.array
