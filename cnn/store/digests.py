"""Digests of the content of files.

For most files the content is the bytes. A `.keras` archive also holds its save date and memory
addresses, so its digest covers only its weights and its normalised config.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from cnn.model_io import archives

_CHUNK = 1 << 20


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, the same each time a model is saved."""
    return _keras_digest(path) if path.suffix == ".keras" else file_digest(path)


def _keras_digest(path: Path) -> str:
    archive = archives.read(path)
    config = json.dumps(_without_addresses(archive.config), sort_keys=True)
    sha256 = hashlib.sha256(config.encode())
    for name, array in sorted(archive.arrays(), key=lambda item: item[0]):
        sha256.update(f"{name} {array.dtype} {array.shape}".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def _without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_addresses(v) for k, v in value.items() if k != "shared_object_id"}
    if isinstance(value, list):
        return [_without_addresses(item) for item in value]
    return value
