"""What a source of images is: identified without reading more than it must, then loaded."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cnn.config.run import DataConfig
from cnn.data.dataset import Split
from cnn.errors import ConfigError

TEST_FRACTION = 1 / 7  # where a source does not say which images are for testing


@dataclass(frozen=True)
class Parts:
    """What a source holds, before validation images are held out.

    files: names below the data folder, by image id; empty where an image is no file of its own.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source(ABC):
    """A data set that was identified but not loaded.

    title: what it is, for people. digests: of its payloads; empty where they must be fetched first.
    """

    name: str
    title: str
    digests: Mapping[str, str]

    @classmethod
    @abstractmethod
    def identify(cls, config: DataConfig, downloads: Path) -> Self:
        """Return the source that a config names, without a network.

        Raises DataError where it is missing or unreadable, ConfigError for settings that mean
        nothing for it.
        """

    @abstractmethod
    def load(self, split_seed: int) -> Parts:
        """Return the images, checked; raises DataError naming the file that is not as it should be.

        split_seed: of the split into training and test images, where the source has none.
        """

    def identity(self) -> dict[str, Any]:
        """Return what decides the loaded arrays, for a key."""
        return {"name": self.name, "transposed": False, "payloads": dict(self.digests)}


def refuse_options(config: DataConfig, names: tuple[str, ...], kind: str) -> None:
    """Raise ConfigError for settings that mean nothing for what lies in the folder."""
    for name in names:
        if getattr(config, name) is not None:
            raise ConfigError(f"data.{name} is for {kind}: {config.path}; leave it empty")
