"""The source `folder`: the user's own IDX files, or image files in one folder per class."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from cnn.config.run import DataConfig
from cnn.data import checks, idx, idx_folder, image_decoding, image_folder, published, splits
from cnn.data.base import TEST_FRACTION, Parts, Source, refuse_options
from cnn.data.dataset import Split
from cnn.data.idx_files import IdxFiles
from cnn.data.image_folder import ImageFolder
from cnn.errors import ConfigError
from cnn.io.digest_cache import DigestCache

log = logging.getLogger(__name__)

NAME = "folder"
_OF_IMAGES, _OF_IDX = ("image_size", "channels"), ("label_column",)


def identify(config: DataConfig, downloads: Path) -> Source:
    """Return the source found in `data.path`; raise DataError or ConfigError."""
    path = _path(config)
    if image_folder.holds_classes(path) and not idx_folder.holds_idx(path):
        return OwnImages.identify(config, downloads)
    return OwnIdxFiles.identify(config, downloads)


@dataclass(frozen=True)
class OwnIdxFiles(Source):
    """Four IDX files; named after a published set if they are its files."""

    files: IdxFiles

    @classmethod
    def identify(cls, config: DataConfig, downloads: Path) -> Self:
        """Return the source; hash every file that may have changed since it was last hashed."""
        path = _path(config)
        refuse_options(config, _OF_IMAGES, "image files, but this folder has IDX files")
        found = idx_folder.find(path)
        cache = DigestCache(
            downloads.with_name("store") / ".verified" / f"folder-{_short(path)}.json"
        )
        digests = {
            role: cache.digest(file, str(file), idx.digest) for role, file in found.paths.items()
        }
        cache.keep()
        transposed = found.transposed if config.transpose is None else config.transpose
        name = NAME if transposed else _known(digests)
        files = IdxFiles(found.paths, digests, transposed, config.label_column, found.class_names)
        return cls(name, digests, files)

    def load(self, split_seed: int) -> Parts:
        """Return the training and test images of the files."""
        return self.files.load(self.name)

    def identity(self) -> dict[str, Any]:
        """Return what decides the loaded arrays, for a key."""
        files = self.files
        names = {str(label): name for label, name in sorted(files.class_names.items())}
        column = files.label_column
        return {
            **super().identity(),
            "transposed": files.transposed,
            **({} if column is None else {"label_column": column}),
            **({"class_names": names} if names else {}),
        }


@dataclass(frozen=True)
class OwnImages(Source):
    """Image files, one folder per class; a seventh is for testing if no folder says which."""

    found: ImageFolder
    transposed: bool
    size: image_decoding.Size | None
    channels: int

    @classmethod
    def identify(cls, config: DataConfig, downloads: Path) -> Self:
        """Return the source; hash every file."""
        refuse_options(config, _OF_IDX, "IDX files, but this folder has image files")
        found = image_folder.find(_path(config))
        digests = {"pictures": found.digest}
        channels, transposed = config.channels or 1, bool(config.transpose)
        return cls(NAME, digests, found, transposed, config.image_size, channels)

    def load(self, split_seed: int) -> Parts:
        """Return the decoded images, all of one size."""
        found = self.found
        if found.left_out:
            shown = ", ".join(found.left_out[:5]) + (", ..." if len(found.left_out) > 5 else "")
            log.warning(
                "%s: skipped %d files that are not images, or are links out of the folder (%s)",
                found.root,
                len(found.left_out),
                shown,
            )
        images = image_decoding.read(found, self.size, self.channels)
        if self.transposed:
            images = checks.transposed(images)
        labels = np.array([file.label for file in found.pictures], np.int64)
        every = Split(images, labels, np.arange(len(labels)))
        if found.n_train:
            train, test = every.cut(found.n_train)
        else:
            train, test = every.divide(*splits.stratified(labels, TEST_FRACTION, split_seed))
        return Parts(train, test, found.class_names, tuple(file.name for file in found.pictures))

    def identity(self) -> dict[str, Any]:
        """Return what decides the loaded arrays, for a key."""
        size = {} if self.size is None else {"image_size": list(self.size)}
        options = {"transposed": self.transposed, "channels": self.channels, **size}
        return super().identity() | options


def _path(config: DataConfig) -> Path:
    if config.path is None:
        raise ConfigError("data.path is missing; data.source folder needs it")
    return config.path


def _known(digests: dict[str, str]) -> str:
    """Return the name of the published set with these digests, or that of a folder."""
    for name, known in published.SETS.items():
        if known.sha256 == digests:
            return name
    return NAME


def _short(path: Path) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]
