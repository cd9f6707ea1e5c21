"""Manifests: what an artifact is, what it was built from, and which files it has."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
)

from cnn.errors import ArtifactError
from cnn.io import strict_json
from cnn.store import digests
from cnn.store.refs import Digest, Kind, Ref

NAME = "manifest.json"
_PARTS = (
    "settings",
    "inputs",
    "code",
    "tables",
    "versions",
)  # the components of a key that are JSON objects


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the range of UTC times") from None


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # the range of an int64 table column
UtcTime = Annotated[AwareDatetime, AfterValidator(_utc)]
Headline = dict[str, float | Int64 | str | None]


class FileEntry(BaseModel):
    """One file of an artifact; `content` is its content digest, see cnn/store/digests.py."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)
    bytes: Int64 = Field(ge=0)
    sha256: Digest
    content: Digest


class Manifest(BaseModel):
    """What the store records about an artifact besides its files."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    kind: Kind
    key: Digest
    components: dict[str, Any]
    reads: tuple[Ref, ...]
    files: tuple[FileEntry, ...]
    environment: dict[str, Any]
    created: UtcTime
    seconds: float
    headline: Headline
    seal: str = ""

    @field_validator("components")
    @classmethod
    def _parts_are_objects(cls, components: dict[str, Any]) -> dict[str, Any]:
        for part in _PARTS:
            if not isinstance(components.get(part, {}), dict):
                raise ValueError(f"the key's {part} are not a JSON object")
        return components

    def sealed(self) -> "Manifest":
        """Return the manifest with its seal, a digest of all other fields that reveals edits."""
        return self.model_copy(update={"seal": _seal(json.loads(self.model_dump_json()))})

    @property
    def ref(self) -> Ref:
        """The ref that names this artifact."""
        return Ref(kind=self.kind, key=self.key, digest=digest(self.files))


def read(folder: Path) -> Manifest:
    """Return the manifest in an artifact's folder.

    The seal covers every field in the file, including fields unknown to this version. Raises
    ArtifactError if the manifest is missing, damaged or edited.
    """
    try:
        stored = strict_json.read(folder / NAME)
        manifest = Manifest.model_validate(stored)
    except (OSError, ValueError):
        raise ArtifactError(f"{NAME} is missing or damaged") from None
    if (manifest.kind, manifest.key) != (folder.parent.name, folder.name):
        raise ArtifactError(f"{NAME} belongs to another artifact")
    if manifest.seal != _seal(stored):
        raise ArtifactError(f"{NAME} was changed")
    return manifest


def _seal(stored: Mapping[str, Any]) -> str:
    """Return the digest of all fields of a stored manifest except the seal itself."""
    sealed = {name: value for name, value in stored.items() if name != "seal"}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def describe(folder: Path) -> tuple[FileEntry, ...]:
    """Return the files in an artifact's folder except the manifest, sorted by name."""
    paths = sorted(path for path in folder.iterdir() if path.name != NAME)
    return tuple(
        FileEntry(
            path=path.name,
            bytes=path.stat().st_size,
            sha256=digests.file_digest(path),
            content=digests.content_digest(path),
        )
        for path in paths
    )


def digest(files: Sequence[FileEntry]) -> str:
    """Return the digest of an artifact, over its files' names and content digests."""
    contents = [[file.path, file.content] for file in files]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def problem(
    folder: Path, manifest: Manifest, file_digest: Callable[[Path], str] = digests.file_digest
) -> str:
    """Return the first problem with an artifact's files, or "" if all are as published."""
    return next(problems(folder, manifest, file_digest), "")


def problems(
    folder: Path, manifest: Manifest, file_digest: Callable[[Path], str] = digests.file_digest
) -> Iterator[str]:
    """Yield each problem with an artifact's files, including files not in its manifest."""
    if folder.is_symlink():
        yield "its folder is a link, which is not followed"
        return
    try:
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
        yield from (f"{name} is not listed in {NAME}" for name in added)
    except OSError as error:
        yield f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"


def environment(device: Mapping[str, Any] | None, precision: str) -> dict[str, Any]:
    """Return the package versions, machine, device and precision that an artifact records."""
    packages = ("tensorflow", "keras", "numpy", "pyarrow", "matplotlib")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "device": dict(device) if device else None,
        "precision": precision,
    }
