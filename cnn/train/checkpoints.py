"""Checkpoints: a training between two of its blocks as a file, and the newest that opens.

A file holds everything that decides how the training goes on, and its own digest. It is
written in one rename; the newest two are kept.
"""

import hashlib
import io
import json
import logging
import re
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import files
from cnn.errors import ArtifactError, StoreUnwritableError
from cnn.train.device import Device
from cnn.train.fit import LogPoint, State

log = logging.getLogger(__name__)

LARGEST_SHARE = 0.02  # of the training's time that is spent on checkpoints
_N_KEPT = 2
_BYTES_PER_SECOND = 50e6  # expected of a disk until the first checkpoint has shown it
_NAME = re.compile(r"step-(\d{9})\.npz")
_ABOUT = "about"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that opened: the training's state, and what computed it."""

    path: Path
    state: State
    device: Device


class Keeper:
    """Writes a training's checkpoints into its folder, every so many seconds.

    Fewer are written where they would take more than LARGEST_SHARE of the time.
    """

    def __init__(self, folder: Path, device: Device, seconds: float) -> None:
        """Name the folder; nothing is written yet."""
        self._folder, self._device, self._seconds = folder, device, seconds
        self._started = self._last = time.monotonic()
        self._spent, self._cost = 0.0, 0.0
        self._broken = False

    def offer(self, capture: Callable[[], State]) -> None:
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


def write(folder: Path, state: State, device: Device) -> Path:
    """Write a state as the folder's newest checkpoint and remove all but the newest two."""
    arrays = {f"array-{i:03d}": array for i, array in enumerate(state.arrays)}
    about = {
        "step": state.step,
        "sums": state.sums,
        "history": [asdict(point) for point in state.history],
        "device": device.describe(),
    }
    text = json.dumps({**about, "digest": _digest(about, state.arrays)}).encode()
    content = io.BytesIO()
    np.savez(content, **{_ABOUT: np.frombuffer(text, np.uint8)}, **arrays)  # type: ignore[arg-type]
    path = folder / f"step-{state.step:09d}.npz"
    with files.disk_faults("a checkpoint", folder):
        files.replace(path, content.getvalue())
        for old in _newest_first(folder)[_N_KEPT:]:
            old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that opens, and what was wrong with newer ones.

    Those that do not open are removed.
    """
    problems: list[str] = []
    for path in _newest_first(folder):
        try:
            return read(path), problems
        except ArtifactError as error:
            problems.append(str(error))
            path.unlink(missing_ok=True)
    return None, problems


def read(path: Path) -> Checkpoint:
    """Return a checkpoint; raises ArtifactError where it is not whole or not as written."""
    try:
        about, arrays = _unpacked(path)
        digest = about.pop("digest")
        if digest != _digest(about, arrays):
            raise ValueError("its digest is wrong")
        history = [LogPoint(**point) for point in about["history"]]
        loss, n_correct, n_steps = about["sums"]
        state = State(about["step"], arrays, (loss, n_correct, n_steps), history)
        return Checkpoint(path, state, Device(**about["device"]))
    except Exception as error:  # whatever damaged content leads to
        raise ArtifactError(f"checkpoint {path}: not complete or damaged ({error})") from None


def _newest_first(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if _NAME.fullmatch(path.name)), reverse=True)


def _unpacked(path: Path) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what stands in a file, which is not larger when it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("it is compressed")
        if sum(item.file_size for item in archive.infolist()) > path.stat().st_size:
            raise ValueError("its sizes are wrong")
    with np.load(path, allow_pickle=False) as loaded:
        about = json.loads(loaded[_ABOUT].tobytes())
        return about, [loaded[name] for name in sorted(loaded.files) if name != _ABOUT]


def _digest(about: dict[str, Any], arrays: list[NDArray[Any]]) -> str:
    sha256 = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape}".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
