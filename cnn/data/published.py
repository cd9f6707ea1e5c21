"""Published data sets in MNIST's format: their addresses, how to verify and fetch them.

A set with pinned digests is verified by these alone. The other sets have no pinned digests,
because their files could not be hashed here: they must have exactly the expected shape and
type, they are fetched over HTTPS only, and the digests of the fetched files enter the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from cnn.config.run import DataConfig
from cnn.data import download, idx, idx_folder
from cnn.data.base import Parts, Source
from cnn.data.download import Deadline, Wanted
from cnn.data.idx_files import IdxFiles
from cnn.errors import DataError
from cnn.io.digest_cache import DigestCache

FETCH_SECONDS = 90.0  # the whole run must fail within 120 s if no host works


@dataclass(frozen=True)
class PublishedSet:
    """A published data set: addresses, class names, and digests of its files.

    sha256: of the unpacked bytes, by role; only for files that were really fetched and hashed.
    """

    addresses: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)


# HTTPS only: nothing else vouches for a set without pinned digests. Do not add the older
# edition of KMNIST (storage.googleapis.com/kuzushiji-mnist): same shapes, different images.
SETS: dict[str, PublishedSet] = {
    "mnist": PublishedSet(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://azureopendatastorage.blob.core.windows.net/mnist/",
        ),
        sha256={
            "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "test-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "test-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": PublishedSet(
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "kmnist": PublishedSet(
        (
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "https://huggingface.co/datasets/tanganke/kmnist/resolve/"
            "756d43e894032ce8838db8b32e7500c9c3b5d050/raw/",
        ),
        # Romanized: the font of the figures has no Japanese characters.
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}
SHAPES: dict[str, tuple[int, ...]] = {
    "train-images": (60_000, 28, 28),
    "train-labels": (60_000,),
    "test-images": (10_000, 28, 28),
    "test-labels": (10_000,),
}
FILE_NAMES = {
    "train-images": "train-images-idx3-ubyte.gz",
    "train-labels": "train-labels-idx1-ubyte.gz",
    "test-images": "t10k-images-idx3-ubyte.gz",
    "test-labels": "t10k-labels-idx1-ubyte.gz",
}
_N_CLASSES = 10


@dataclass(frozen=True)
class Published(Source):
    """One of SETS, fetched into the downloads folder."""

    downloads: Path

    @classmethod
    def identify(cls, config: DataConfig, downloads: Path) -> Self:
        """Return the source; it has no digests if none are pinned and nothing is fetched yet."""
        name = config.source
        return cls(name, digests(name, downloads), downloads)

    def load(self, split_seed: int) -> Parts:
        """Return the images, fetched if necessary; also raises UnreachableError."""
        fetched = fetch(self.name, self.downloads, FETCH_SECONDS)
        return IdxFiles(fetched, self.digests, class_names=self._class_names).load(self.name)

    def identity(self) -> dict[str, Any]:
        """Return what decides the loaded arrays, for a key."""
        names = {str(label): name for label, name in self._class_names.items()}
        return super().identity() | ({"class_names": names} if names else {})

    @property
    def _class_names(self) -> dict[int, str]:
        return dict(enumerate(SETS[self.name].class_names))


def fetch(name: str, downloads: Path, seconds: float) -> dict[str, Path]:
    """Return the verified files of a set by role; fetch those that are missing or damaged.

    Raises UnreachableError, or StoreUnwritableError if the disk fails.
    """
    deadline = Deadline.after(seconds)
    download.fetch(_wanted(name), SETS[name].addresses, downloads / name, deadline)
    return paths(name, downloads)


def fetch_unpinned(name: str, downloads: Path) -> None:
    """Fetch a set whose key depends on its files; do nothing for any other name."""
    if name in SETS and not SETS[name].sha256:
        fetch(name, downloads, FETCH_SECONDS)


def is_fetched(name: str, downloads: Path) -> bool:
    """Return whether all files of a set are downloaded and verified; change nothing."""
    wanted = _wanted(name).items()
    return not any(download.problem(downloads / name / file, item) for file, item in wanted)


def digests(name: str, downloads: Path) -> dict[str, str]:
    """Return the digests of a set's files by role: the pinned ones, or those of fetched files.

    Empty if none are pinned and a file is missing or damaged.
    """
    if SETS[name].sha256:
        return dict(SETS[name].sha256)
    cache = DigestCache(downloads.with_name("store") / ".verified" / f"downloads-{name}.json")
    try:
        by_role = {
            role: cache.digest(path, role, partial(_verify, name, role))
            for role, path in paths(name, downloads).items()
        }
    except (DataError, OSError):
        return {}
    cache.keep()
    return by_role


def paths(name: str, downloads: Path) -> dict[str, Path]:
    """Return the paths of a set's files by role, whether fetched or not."""
    return {role: downloads / name / FILE_NAMES[role] for role in idx_folder.ROLES}


def _wanted(name: str) -> dict[str, Wanted]:
    return {
        file: Wanted(partial(_verify, name, role), _most_bytes(role))
        for role, file in FILE_NAMES.items()
    }


def _most_bytes(role: str) -> int:
    """Return an upper bound of a file's size in bytes, packed by any tool or not at all."""
    n_elements = int(np.prod(SHAPES[role]))
    return n_elements + n_elements // 50 + 4096


def _verify(name: str, role: str, path: Path) -> str:
    """Return the digest of a file; raise DataError if the file is not this set's."""
    if SETS[name].sha256:
        return download.verify(path, SETS[name].sha256[role])
    dtype, shape = idx.header(path)
    if (dtype, shape) != (np.dtype(np.uint8), SHAPES[role]):
        raise DataError(
            f"{path}: found {dtype} of shape {shape}; the {role} of {name} are uint8 of shape "
            f"{SHAPES[role]}"
        )
    if "labels" in role and (largest := int(idx.read(path).max())) >= _N_CLASSES:
        raise DataError(f"{path}: found the label {largest}; {name} has 0 to {_N_CLASSES - 1}")
    digest = idx.digest(path)
    for other, known in SETS.items():
        if digest in known.sha256.values():
            raise DataError(f"{path}: this is a file of {other}, not of {name}")
    return digest
