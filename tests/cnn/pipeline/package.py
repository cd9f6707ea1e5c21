"""A package `cnn` in a folder, edited freely, of which fingerprints are made."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnn.pipeline import fingerprints


class Package:
    """The package's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        forget()

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert text.count(old) >= 1, f"{name} has no {old!r}"
        self.put(name, text.replace(old, new, 1))

    def fill(self) -> None:
        """Copy the real package here."""
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(fingerprints.__file__).parents[1], self.root, ignore=ignored)


@contextmanager
def in_place(root: Path) -> Iterator[Package]:
    """Yield an empty package in the place of `cnn`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "_ROOT", root)
        forget()
        yield Package(root)
    forget()


def forget() -> None:
    fingerprints.of.cache_clear()
    fingerprints._read.cache_clear()
