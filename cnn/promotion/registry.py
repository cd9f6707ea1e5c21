"""The promoted run of each track: its model, tables and report, and the track's history.

`promoted/<track>` is a link to a folder in `promoted/.versions`, which holds copies of the run's
files and the history, promoted.json, whose last entry is the promoted run. Such a folder never
changes: a promotion replaces the link in one rename, so that model and history change together.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from cnn.config.run import GateConfig
from cnn.data import dataset as datasets
from cnn.data import image_hashes
from cnn.errors import ArtifactError
from cnn.io import atomic
from cnn.model_io import exports
from cnn.model_io.exports import MODEL_NAME
from cnn.runs import folders, records
from cnn.store import in_use, layout

HISTORY_NAME, VERSIONS_NAME = "promoted.json", ".versions"
_N_VERSIONS = 2  # the promoted one, and the one before, which may still be read
_SPLITS = ("train", "validation")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Promotion(BaseModel):
    """One entry of the history; fields that this version does not know are ignored."""

    run: str
    at: str = ""
    because: str = ""
    model: str = ""
    data: str = ""
    validation_accuracy: float | None = None
    test_accuracy: float | None = None


_HISTORY = TypeAdapter(list[Promotion])


@dataclass(frozen=True)
class Incumbent:
    """What is promoted on a track now: its folder, and the last entry of the history."""

    folder: Path
    promotion: Promotion

    @property
    def run(self) -> str:
        """Name of the promoted run."""
        return self.promotion.run

    @property
    def model(self) -> str:
        """Digest of the promoted model."""
        return self.promotion.model

    @property
    def data(self) -> str:
        """Name of the data set that the model was trained on."""
        return self.promotion.data

    @property
    def model_folder(self) -> Path:
        """Folder of model.keras."""
        return self.folder / "model"

    @property
    def tables(self) -> Path:
        """Folder of the run's tables."""
        return self.folder / "tables"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the model's classes; raises ArtifactError."""
        return exports.class_names(self.model_folder)

    def image_hashes(self, split: str) -> NDArray[Any]:
        """Return the hashes of a split's images, (n,), see image_hashes; raises ArtifactError."""
        path = self.folder / "arrays" / f"{split}-image-hashes.npy"
        older = path.with_name(f"{split}-imprints.npy")  # its name in older stores
        try:
            path = older if older.exists() else path
            values: NDArray[Any] = np.load(path, allow_pickle=False)
            return values
        except (OSError, EOFError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read ({error})") from None


def tracks(root: Path) -> Iterator[Path]:
    """Yield the folder of every track that has a promoted run."""
    for path in layout.entries(root / layout.PROMOTED):
        if layout.is_folder(path) or _is_ours(path):
            yield path


def runs_named(track: Path) -> list[str]:
    """Return the names of the runs promoted on a track, oldest first; raises ArtifactError."""
    return [item.run for item in history(track)]


def history(track: Path) -> list[Promotion]:
    """Return the promotions of a track, oldest first; raises ArtifactError."""
    path = track / HISTORY_NAME
    try:
        return _HISTORY.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise ArtifactError(
            f'{path} cannot be read; expected a JSON list of objects with "run"; repair it, or '
            "remove the track's folder"
        ) from None


def current(root: Path, track: str) -> Incumbent | None:
    """Return what is promoted on a track, or None if nothing is; raises ArtifactError."""
    link = root / layout.PROMOTED / track
    folder = link.resolve() if link.is_symlink() else link  # later promotions do not change it
    promotions = history(folder)
    return Incumbent(folder, promotions[-1]) if promotions else None


def track_of(limits: GateConfig, data: str) -> str:
    """Return the track that a run competes on: `gate.track`, or the name of its data."""
    return limits.track or track_name(data)


def track_name(name: str) -> str:
    """Return a data set's name converted to a legal track name."""
    safe = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:64]
    return safe if _NAME.fullmatch(safe) else "data"


@contextmanager
def locked(root: Path, track: str) -> Iterator[None]:
    """Hold the lock of a track, so that no other process decides on it while the block runs."""
    folder = root / layout.PROMOTED
    with atomic.disk_faults("the promoted run", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.exclusive_lock(folder / f".{track}.lock"):
            yield


def promote(root: Path, track: str, run: Path, dataset: Path, promotion: Promotion) -> Path:
    """Promote a run on a track and extend the history; return the track's folder.

    run: its run folder. dataset: folder of the data set it was trained on. The caller holds the
    track's lock, see `locked`. If this fails or is killed, the run promoted before stays. Raises
    StoreUnwritableError, and ArtifactError for a run without a model.
    """
    folder = root / layout.PROMOTED
    with atomic.disk_faults("the promoted run", folder), in_use.shared_lock(root):
        promotions = [*history(folder / track), promotion]
        with atomic.temporary_folder(folder, track) as temporary:
            _fill(temporary / "version", run, dataset, promotions)
            version = _put(folder, track, temporary / "version")
            link = temporary / "link"
            link.symlink_to(version.relative_to(folder))
            _make_way(folder, track)
            link.replace(folder / track)
        atomic.flush(folder)
        _sweep(folder, track, version)
    return folder / track


def _is_ours(path: Path) -> bool:
    """Return whether a path is a link into `.versions`."""
    return path.is_symlink() and path.readlink().parent == Path(VERSIONS_NAME) and path.is_dir()


def _fill(version: Path, run: Path, dataset: Path, promotions: list[Promotion]) -> None:
    """Write a version: copies of the run's files, the history and the image hashes."""
    shutil.copytree(run, version, ignore=shutil.ignore_patterns(folders.PIN_NAME))
    if not (version / "model" / MODEL_NAME).is_file():
        raise ArtifactError(f"{run}: has no model; run it again")
    splits = datasets.read(dataset).splits
    (version / "arrays").mkdir(exist_ok=True)
    for name in _SPLITS:
        values = image_hashes.of(splits[name].images)
        np.save(version / "arrays" / f"{name}-image-hashes.npy", values, allow_pickle=False)
    (version / HISTORY_NAME).write_bytes(_HISTORY.dump_json(promotions, indent=2))
    for path in (*version.rglob("*"), version):
        atomic.flush(path)


def _put(folder: Path, track: str, version: Path) -> Path:
    """Move a complete version into `.versions` under the next free number."""
    (folder / VERSIONS_NAME).mkdir(exist_ok=True)
    numbers = [number for number, _ in _versions(folder, track)]
    name = f"{track}.{max(numbers, default=0) + 1:06d}"
    atomic.flush(version)
    return version.rename(folder / VERSIONS_NAME / name)


def _make_way(folder: Path, track: str) -> None:
    """Move a plain folder that stands in place of a track's link into `.versions`.

    Copies of a store may have one. It gets number 0, because it is the oldest version.
    """
    if layout.is_folder(folder / track):
        (folder / track).rename(folder / VERSIONS_NAME / f"{track}.{0:06d}")


def _versions(folder: Path, track: str) -> list[tuple[int, Path]]:
    """Return the numbers and folders of a track's versions, oldest first."""
    found = []
    for path in (folder / VERSIONS_NAME).glob(f"{track}.*"):
        number = path.name.removeprefix(f"{track}.")
        if number.isdecimal():
            found.append((int(number), path))
    return sorted(found)


def _sweep(folder: Path, track: str, version: Path) -> None:
    """Remove all but the newest versions, and leftovers of killed processes."""
    for _, path in _versions(folder, track)[:-_N_VERSIONS]:
        if path != version:
            atomic.discard(path, folder)
    atomic.sweep(folder)


def promotion_of(run: records.RunRecord, because: str, model: str) -> Promotion:
    """Return the history entry for a run that is promoted now."""
    return Promotion(
        run=run.run,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        because=because,
        model=model,
        data=run.data,
        validation_accuracy=records.number(run.headline, "validation_accuracy"),
        test_accuracy=records.number(run.headline, "test_accuracy"),
    )


def decision_holds(root: Path, record: records.RunRecord, limits: GateConfig) -> bool:
    """Return whether the gate would repeat its decision on a run; raises ArtifactError."""
    decision = record.gate
    if decision is None or record.config.get("gate") != limits.model_dump(mode="json"):
        return False
    incumbent = current(root, decision.track)
    failing = limits.fail and decision.outcome == "rejected"
    return not failing and decision.model_in_force == (incumbent.model if incumbent else "")
