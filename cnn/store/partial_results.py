"""Parts of work under way that are kept: arrays in one file each, in the folder of a key."""

import io
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.io import atomic

log = logging.getLogger(__name__)


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a part's arrays; raises StoreUnwritableError."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    with atomic.disk_faults("a part of the work", path.parent):
        atomic.replace(path, content.getvalue())


def read(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return a part's arrays, if it was kept and is whole; one that is damaged is removed."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as loaded:
            return dict(loaded)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever damaged content leads to
        log.warning("%s: not complete or damaged (%s); done again", path, error)
        with suppress(OSError):
            path.unlink()
        return None
