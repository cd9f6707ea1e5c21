"""Folders of searches: the results of the flow `mine`, for people."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cnn.errors import ArtifactError
from cnn.io import atomic, strict_json
from cnn.store import layout
from cnn.store.manifests import UtcTime
from cnn.store.refs import Ref

RECORD_NAME = "mined.json"


class SearchRecord(BaseModel):
    """Everything about one search, as stored in its folder's mined.json."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    run: str
    layer: str
    data: str
    created: UtcTime
    config: dict[str, Any]
    model: Ref
    dataset: Ref
    patches: Ref
    n_patches: int

    @property
    def folder_name(self) -> str:
        """Name of the folder: run, layer and the first eight characters of the key."""
        return f"{self.run}-{self.layer}-{self.patches.key[:8]}"


def publish(root: Path, record: SearchRecord, fill: Callable[[Path], None]) -> Path:
    """Publish the folder of a search, replacing an earlier one, and return it.

    fill: writes the tables, arrays and figures into the folder it is given. Raises
    StoreUnwritableError if the disk is full.
    """
    folder = root / layout.MINED / record.folder_name
    text = record.model_dump_json(indent=2)
    with (
        atomic.disk_faults("the folder of the search", folder.parent),
        atomic.replacing_folder(folder) as temporary,
    ):
        fill(temporary)
        (temporary / RECORD_NAME).write_text(text, encoding="utf-8")
    return folder


def read(folder: Path) -> SearchRecord:
    """Return the record in a search's folder; raises ArtifactError."""
    path = folder / RECORD_NAME
    try:
        return SearchRecord.model_validate(strict_json.read(path))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from None


def record_of(**fields: Any) -> SearchRecord:
    """Return the record of a search that has just ended."""
    return SearchRecord(created=datetime.now(UTC), **fields)
