"""The interface of a data source: identify it, reading no more than necessary, then load it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cnn.config.run import DataConfig
from cnn.data.dataset import Split
from cnn.errors import ConfigError

TEST_FRACTION = 1 / 7  # for sources that do not say which images are for testing


@dataclass(frozen=True)
class Parts:
    """The images of a source, before validation images are held out.

    files: paths below the data folder, by image id; empty unless each image is its own file.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source(ABC):
    """A data set that is identified but not loaded.

    digests: of its payloads; empty until they are fetched.
    """

    name: str
    digests: Mapping[str, str]

    @classmethod
    @abstractmethod
    def identify(cls, config: DataConfig, downloads: Path) -> Self:
        """Return the source that a config names, without using the network.

        Raises DataError if it is missing or unreadable, ConfigError for settings that do not
        apply to it.
        """

    @abstractmethod
    def load(self, split_seed: int) -> Parts:
        """Return the images, checked; raise DataError naming the file that is wrong.

        split_seed: for the split into training and test images, if the source has none.
        """

    def identity(self) -> dict[str, Any]:
        """Return what decides the loaded arrays, for a key."""
        return {"name": self.name, "transposed": False, "payloads": dict(self.digests)}


def refuse_options(config: DataConfig, names: tuple[str, ...], kind: str) -> None:
    """Raise ConfigError for settings that do not apply to the contents of the folder."""
    for name in names:
        if getattr(config, name) is not None:
            raise ConfigError(f"data.{name} is for {kind}: {config.path}; leave it empty")
