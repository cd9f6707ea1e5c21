"""Manifests: what an artifact is, what it was made from, and which files it has."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cnn.store import contents
from cnn.store.refs import Kind, Ref

NAME = "manifest.json"
Headline = dict[str, float | int | str | None]


class File(BaseModel):
    """One file of an artifact; `content` is the digest of what it says, see contents.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    bytes: int = Field(ge=0)
    sha256: str
    content: str


class Manifest(BaseModel):
    """Everything that is known of an artifact beside its files."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    kind: Kind
    key: str
    components: dict[str, Any]
    reads: tuple[Ref, ...]
    files: tuple[File, ...]
    environment: dict[str, Any]
    created: datetime
    seconds: float
    headline: Headline
    seal: str = ""

    def sealed(self) -> "Manifest":
        """Return the manifest with the digest of all its other fields, against edits."""
        return self.model_copy(update={"seal": self._digest()})

    def is_sealed(self) -> bool:
        """Return whether the manifest still says what it said when it was made."""
        return self.seal == self._digest()

    def _digest(self) -> str:
        text = json.dumps(self.model_dump(mode="json", exclude={"seal"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def ref(self) -> Ref:
        """The ref that names this artifact."""
        return Ref(kind=self.kind, key=self.key, digest=digest(self.files))


def describe(folder: Path) -> tuple[File, ...]:
    """Return the files of an artifact's folder, sorted by name, the manifest aside."""
    paths = sorted(path for path in folder.iterdir() if path.name != NAME)
    return tuple(
        File(
            path=path.name,
            bytes=path.stat().st_size,
            sha256=contents.file_digest(path),
            content=contents.content_digest(path),
        )
        for path in paths
    )


def digest(files: Sequence[File]) -> str:
    """Return the digest of an artifact: over its files' names and what they say."""
    listed = [[file.path, file.content] for file in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def problem(
    folder: Path, manifest: Manifest, file_digest: Callable[[Path], str] = contents.file_digest
) -> str:
    """Return what is wrong with an artifact's files, or "" if every one is as it was made."""
    return next(problems(folder, manifest, file_digest), "")


def problems(
    folder: Path, manifest: Manifest, file_digest: Callable[[Path], str] = contents.file_digest
) -> Iterator[str]:
    """Yield what is wrong with each of an artifact's files, and what does not belong there."""
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.is_symlink():
            yield f"{file.path} is missing"
        elif path.stat().st_size != file.bytes:
            yield f"{file.path} has {path.stat().st_size:,} bytes, not {file.bytes:,}"
        elif file_digest(path) != file.sha256:
            yield f"{file.path} was changed"
    known = {NAME, *(file.path for file in manifest.files)}
    added = sorted(path.name for path in folder.iterdir() if path.name not in known)
    yield from (f"{name} does not belong there" for name in added)


def environment(device: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the versions and the machine that made an artifact."""
    packages = ("tensorflow", "keras", "numpy", "pyarrow", "matplotlib")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "device": dict(device) if device else None,
        "precision": "float32",
    }
