"""Checkpoints: a training between two of its blocks as a file, and the newest that opens.

A file holds everything that decides how the training goes on, and its own digest. It is
written in one rename; the newest two of each kind of device and number of threads are kept.
"""

import hashlib
import io
import logging
import re
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cnn.errors import ArtifactError, StoreUnwritableError
from cnn.io import atomic
from cnn.train.device import Device
from cnn.train.fit import LogPoint, TrainingState

log = logging.getLogger(__name__)

LARGEST_SHARE = 0.02  # of the training's time that is spent on checkpoints
_N_KEPT = 2
_BYTES_PER_SECOND = 200e6  # expected of a disk until the first checkpoint has shown it
_ABOUT = "about"
_ANY_SUFFIX = r"-[a-z]+-\d+\.npz"


class _About(BaseModel):
    """What a file says beside the arrays; `training` is the name of its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    training: str
    step: int
    sums: tuple[float, int, int]
    history: list[LogPoint]
    device: Device
    digest: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that opened: the training's state, and what computed it."""

    path: Path
    state: TrainingState
    device: Device


class CheckpointWriter:
    """Writes a training's checkpoints into its folder, every so many seconds.

    Fewer are written where they would take more than LARGEST_SHARE of the time.
    """

    def __init__(self, folder: Path, device: Device, seconds: float) -> None:
        """Name the folder; nothing is written yet."""
        self._folder, self._device, self._seconds = folder, device, seconds
        self._started = self._last = time.monotonic()
        self._spent, self._cost = 0.0, 0.0
        self._broken = False

    def offer(self, capture: Callable[[], TrainingState]) -> None:
        """Write the state that `capture` returns, if a checkpoint is due.

        A disk that takes none ends no training: it is said once.
        """
        now = time.monotonic()
        allowed = LARGEST_SHARE * (now - self._started) - self._spent
        if self._broken or now - self._last < self._seconds or self._cost > allowed:
            return
        state = capture()
        if not self._cost:  # the first one: wait until its likely cost is allowed
            self._cost = sum(array.nbytes for array in state.arrays) / _BYTES_PER_SECOND
            if self._cost > allowed:
                return
        try:
            write(self._folder, state, self._device)
        except (OSError, StoreUnwritableError) as error:
            self._broken = True
            log.warning("no checkpoints of this training are kept: %s", error)
        self._last = time.monotonic()
        self._cost = self._last - now
        self._spent += self._cost


def write(folder: Path, state: TrainingState, device: Device) -> Path:
    """Write a state as the folder's newest checkpoint; all but the newest two of its device go."""
    about = _About(
        training=folder.name,
        step=state.step,
        sums=state.sums,
        history=state.history,
        device=device,
    )
    text = about.model_copy(update={"digest": _digest(about, state.arrays)}).model_dump_json()
    arrays = {f"array-{i:03d}": array for i, array in enumerate(state.arrays)}
    content = io.BytesIO()
    np.savez(content, **{_ABOUT: np.frombuffer(text.encode(), np.uint8)}, **arrays)  # type: ignore[arg-type]
    path = folder / _name(state.step, device)
    with atomic.disk_faults("a checkpoint", folder):
        atomic.replace(path, content.getvalue())
        for old in _newest_first(folder, _suffix(device))[_N_KEPT:]:
            old.unlink(missing_ok=True)
    return path


def newest(
    folder: Path, unsuited: Callable[[Checkpoint], str] = lambda found: ""
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that opens and suits, and why newer ones were skipped.

    Those that do not open are removed; `unsuited` says what speaks against one that does.
    """
    skipped: list[str] = []
    for path in _newest_first(folder):
        try:
            found = read(path)
        except ArtifactError as error:
            skipped.append(f"{error}; skipped")
            with suppress(OSError):
                path.unlink()
            continue
        if not (problem := unsuited(found)):
            return found, skipped
        skipped.append(problem)
    return None, skipped


def read(path: Path) -> Checkpoint:
    """Return a checkpoint; raises ArtifactError where it is not whole or not as written."""
    try:
        about, arrays = _unpacked(path)
        if about.digest != _digest(about, arrays):
            raise ValueError("its digest is wrong")
        if (about.training, _name(about.step, about.device)) != (path.parent.name, path.name):
            raise ValueError("it belongs to another training or step")
        state = TrainingState(about.step, arrays, about.sums, about.history)
        return Checkpoint(path, state, about.device)
    except Exception as error:  # whatever damaged content leads to
        raise ArtifactError(f"checkpoint {path}: not complete or damaged ({error})") from None


def _name(step: int, device: Device) -> str:
    return f"step-{step:09d}{_suffix(device)}"


def _suffix(device: Device) -> str:
    """Return the end of the names of what a kind of device makes with a number of threads."""
    return f"-{device.kind}-{device.threads}.npz"


def _newest_first(folder: Path, suffix: str = "") -> list[Path]:
    """Return a folder's checkpoints, or those whose names end so; links and others are left out."""
    name = re.compile(rf"step-\d{{9}}{re.escape(suffix) or _ANY_SUFFIX}")
    found = (path for path in folder.glob("step-*") if name.fullmatch(path.name))
    return sorted(
        (path for path in found if path.is_file() and not path.is_symlink()), reverse=True
    )


def _unpacked(path: Path) -> tuple[_About, list[NDArray[Any]]]:
    """Return what stands in a file, which is not larger when it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("it is compressed")
        if sum(item.file_size for item in archive.infolist()) > path.stat().st_size:
            raise ValueError("its sizes are wrong")
    with np.load(path, allow_pickle=False) as loaded:
        about = _About.model_validate_json(loaded[_ABOUT].tobytes())
        return about, [loaded[name] for name in sorted(loaded.files) if name != _ABOUT]


def _digest(about: _About, arrays: list[NDArray[Any]]) -> str:
    sha256 = hashlib.sha256(about.model_dump_json(exclude={"digest"}).encode())
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape}".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
