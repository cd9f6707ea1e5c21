"""Partial results of unfinished work: files of arrays in the folder of the work's key."""

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
    """Write the arrays of a partial result; raises StoreUnwritableError."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    with atomic.disk_faults("a partial result", path.parent):
        atomic.replace(path, content.getvalue())


def read(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a partial result, or None without one; a damaged file is removed."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as loaded:
            return dict(loaded)
    except FileNotFoundError:
        return None
    except Exception as error:  # damaged content can raise almost anything
        log.warning("%s: incomplete or damaged (%s); computing it again", path, error)
        with suppress(OSError):
            path.unlink()
        return None
