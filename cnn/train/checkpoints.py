"""Checkpoints: files that hold the state of a training between two blocks.

A checkpoint holds everything that is needed to resume exactly, and its own SHA-256. It appears
in one rename, so no reader sees half of it. For each kind of device and number of threads, the
newest two are kept.
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

LARGEST_SHARE = 0.02  # of the training time may go into checkpoints
_N_KEPT = 2
_BYTES_PER_SECOND = 200e6  # assumed until the first checkpoint has been timed
_ABOUT = "about"
_ANY_SUFFIX = r"-[a-z]+-\d+\.npz"


class _About(BaseModel):
    """The metadata stored beside the arrays; `training` is the name of the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    training: str
    step: int
    sums: tuple[float, int, int]
    history: list[LogPoint]
    device: Device
    digest: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read from its file: the training's state, and the device that computed it."""

    path: Path
    state: TrainingState
    device: Device


class CheckpointWriter:
    """Write a training's checkpoints into its folder, one every so many seconds.

    The interval grows where checkpoints would take more than LARGEST_SHARE of the time.
    """

    def __init__(self, folder: Path, device: Device, seconds: float) -> None:
        """Set folder, device and interval; write nothing yet."""
        self._folder, self._device, self._seconds = folder, device, seconds
        self._started = self._last = time.monotonic()
        self._spent, self._cost = 0.0, 0.0
        self._broken = False

    def offer(self, capture: Callable[[], TrainingState]) -> None:
        """Write the state that `capture` returns, if a checkpoint is due.

        If writing fails, the training goes on without checkpoints, after one warning.
        """
        now = time.monotonic()
        allowed = LARGEST_SHARE * (now - self._started) - self._spent
        if self._broken or now - self._last < self._seconds or self._cost > allowed:
            return
        state = capture()
        if not self._cost:  # the first one: wait until its estimated cost is allowed
            self._cost = sum(array.nbytes for array in state.arrays) / _BYTES_PER_SECOND
            if self._cost > allowed:
                return
        try:
            write(self._folder, state, self._device)
        except (OSError, StoreUnwritableError) as error:
            self._broken = True
            log.warning("training goes on without further checkpoints: %s", error)
        self._last = time.monotonic()
        self._cost = self._last - now
        self._spent += self._cost


def write(folder: Path, state: TrainingState, device: Device) -> Path:
    """Write a state as a checkpoint, and delete all but the newest two of its device."""
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
    """Return the newest usable checkpoint, if any, and why newer ones were skipped.

    Checkpoints that do not open are deleted. `unsuited` returns why one that opens cannot be
    used, or an empty string.
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
    """Return a checkpoint. Raises ArtifactError if the file is incomplete, damaged or misplaced."""
    try:
        about, arrays = _unpacked(path)
        if about.digest != _digest(about, arrays):
            raise ValueError("its digest does not match its content")
        if (about.training, _name(about.step, about.device)) != (path.parent.name, path.name):
            raise ValueError("it belongs to another training or step")
        state = TrainingState(about.step, arrays, about.sums, about.history)
        return Checkpoint(path, state, about.device)
    except Exception as error:  # damaged content can raise anything
        raise ArtifactError(f"checkpoint {path}: incomplete or damaged ({error})") from None


def _name(step: int, device: Device) -> str:
    return f"step-{step:09d}{_suffix(device)}"


def _suffix(device: Device) -> str:
    """Return how checkpoint names end for this kind of device and number of threads."""
    return f"-{device.kind}-{device.threads}.npz"


def _newest_first(folder: Path, suffix: str = "") -> list[Path]:
    """Return a folder's checkpoints, or those with a suffix; links and other files are ignored."""
    name = re.compile(rf"step-\d{{9}}{re.escape(suffix) or _ANY_SUFFIX}")
    paths = (path for path in folder.glob("step-*") if name.fullmatch(path.name))
    return sorted(
        (path for path in paths if path.is_file() and not path.is_symlink()), reverse=True
    )


def _unpacked(path: Path) -> tuple[_About, list[NDArray[Any]]]:
    """Return metadata and arrays of a file. Raises ValueError if it would unpack to more."""
    with zipfile.ZipFile(path) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("it is compressed")
        if sum(item.file_size for item in archive.infolist()) > path.stat().st_size:
            raise ValueError("it claims more bytes than it has")
    with np.load(path, allow_pickle=False) as loaded:
        about = _About.model_validate_json(loaded[_ABOUT].tobytes())
        return about, [loaded[name] for name in sorted(loaded.files) if name != _ABOUT]


def _digest(about: _About, arrays: list[NDArray[Any]]) -> str:
    sha256 = hashlib.sha256(about.model_dump_json(exclude={"digest"}).encode())
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape}".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
