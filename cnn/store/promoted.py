"""What was promoted: `promoted/<track>/promoted.json` lists the runs, the last one in force."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from cnn.errors import ArtifactError
from cnn.store import layout

HISTORY_NAME = "promoted.json"


class Promotion(BaseModel):
    """One line of the history; fields that this version does not know are passed over."""

    run: str


_HISTORY = TypeAdapter(list[Promotion])


def tracks(root: Path) -> Iterator[Path]:
    """Yield the folder of every track on which runs were promoted."""
    yield from filter(layout.is_folder, layout.entries(root / layout.PROMOTED))


def runs_named(track: Path) -> list[str]:
    """Return the names of the runs promoted on a track, in order; raises ArtifactError."""
    path = track / HISTORY_NAME
    try:
        return [item.run for item in _HISTORY.validate_json(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise ArtifactError(
            f'{path} cannot be read; a list of objects with "run" is expected: mend it, or remove '
            "the track's folder"
        ) from None
