"""What was promoted: on each track the accepted run's model, tables and report, and the history.

`promoted/<track>` is a link to a folder below `promoted/.versions`, which holds copies of
everything and the history, promoted.json, the run in force last. Nothing in such a folder
is ever changed: the link is, in one rename, so that model and history change together.
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
_N_VERSIONS = 2  # the one in force, and the one before, which somebody may be reading
_SPLITS = ("train", "validation")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Promotion(BaseModel):
    """One line of the history; fields that this version does not know are passed over."""

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
    """What is promoted on a track now: its folder, and the last line of the history."""

    folder: Path
    promotion: Promotion

    @property
    def run(self) -> str:
        """The run that was promoted."""
        return self.promotion.run

    @property
    def model(self) -> str:
        """Digest of the promoted model."""
        return self.promotion.model

    @property
    def data(self) -> str:
        """Name of the data set that it was trained on."""
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
        """Names of the classes that the model tells apart; raises ArtifactError."""
        return exports.class_names(self.model_folder)

    def image_hashes(self, split: str) -> NDArray[Any]:
        """Return the hashes of a split's images, (n,), see image_hashes; raises ArtifactError."""
        path = self.folder / "arrays" / f"{split}-image-hashes.npy"
        if not path.exists():  # its name in older stores
            path = path.with_name(f"{split}-imprints.npy")
        try:
            values: NDArray[Any] = np.load(path, allow_pickle=False)
            return values
        except (OSError, EOFError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read ({error})") from None


def tracks(root: Path) -> Iterator[Path]:
    """Yield the folder of every track on which runs were promoted."""
    for path in layout.entries(root / layout.PROMOTED):
        if layout.is_folder(path) or _is_ours(path):
            yield path


def runs_named(track: Path) -> list[str]:
    """Return the names of the runs promoted on a track, in order; raises ArtifactError."""
    return [item.run for item in history(track)]


def history(track: Path) -> list[Promotion]:
    """Return the promotions of a track, the one in force last; raises ArtifactError."""
    path = track / HISTORY_NAME
    try:
        return _HISTORY.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise ArtifactError(
            f'{path} cannot be read; a list of objects with "run" is expected: mend it, or remove '
            "the track's folder"
        ) from None


def current(root: Path, track: str) -> Incumbent | None:
    """Return what is promoted on a track, or None; raises ArtifactError."""
    link = root / layout.PROMOTED / track
    folder = link.resolve() if link.is_symlink() else link  # one version, whatever comes next
    made = history(folder)
    return Incumbent(folder, made[-1]) if made else None


def track_of(limits: GateConfig, data: str) -> str:
    """Return the track on which a run competes: the one that is set, or its data's."""
    return limits.track or track_name(data)


def track_name(name: str) -> str:
    """Return a data set's name as that of a track."""
    safe = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:64]
    return safe if _NAME.fullmatch(safe) else "data"


@contextmanager
def locked(root: Path, track: str) -> Iterator[None]:
    """Let no other process decide on a track while the block runs."""
    folder = root / layout.PROMOTED
    with atomic.disk_faults("what is promoted", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.exclusive_lock(folder / f".{track}.lock"):
            yield


def promote(root: Path, track: str, run: Path, dataset: Path, promotion: Promotion) -> Path:
    """Put a run's folder in force on a track, with the history; return the track's folder.

    dataset: folder of the data set that it was made from. The caller is `deciding`. Whatever
    fails or is killed on the way leaves what was in force. Raises StoreUnwritableError.
    """
    folder = root / layout.PROMOTED
    with atomic.disk_faults("what is promoted", folder), in_use.shared_lock(root):
        made = [*history(folder / track), promotion]
        with atomic.temporary_folder(folder, track) as temporary:
            _fill(temporary / "version", run, dataset, made)
            version = _put(folder, track, temporary / "version")
            link = temporary / "link"
            link.symlink_to(version.relative_to(folder))
            _make_way(folder, track)
            link.replace(folder / track)
        atomic.flush(folder)
        _sweep(folder, track, version)
    return folder / track


def _is_ours(path: Path) -> bool:
    """Return whether a path is a link to one of our versions."""
    return path.is_symlink() and path.readlink().parent == Path(VERSIONS_NAME) and path.is_dir()


def _fill(version: Path, run: Path, dataset: Path, made: list[Promotion]) -> None:
    """Write a version: copies of the run's files, the history, the images' hashes."""
    shutil.copytree(run, version, ignore=shutil.ignore_patterns(folders.PIN_NAME))
    if not (version / "model" / MODEL_NAME).is_file():
        raise ArtifactError(f"{run}: has no model; run it again")
    splits = datasets.read(dataset).splits
    (version / "arrays").mkdir(exist_ok=True)
    for name in _SPLITS:
        values = image_hashes.of(splits[name].images)
        np.save(version / "arrays" / f"{name}-image-hashes.npy", values, allow_pickle=False)
    (version / HISTORY_NAME).write_bytes(_HISTORY.dump_json(made, indent=2))
    for path in (*version.rglob("*"), version):
        atomic.flush(path)


def _put(folder: Path, track: str, version: Path) -> Path:
    """Give a complete version its number; one that a killed process left is overwritten."""
    (folder / VERSIONS_NAME).mkdir(exist_ok=True)
    numbers = [number for number, _ in _versions(folder, track)]
    name = f"{track}.{max(numbers, default=0) + 1:06d}"
    atomic.flush(version)
    return version.rename(folder / VERSIONS_NAME / name)


def _make_way(folder: Path, track: str) -> None:
    """Make a plain folder in the place of a track's link, as in some copies of a store, a version.

    It gets the lowest number: it is the oldest.
    """
    if layout.is_folder(folder / track):
        (folder / track).rename(folder / VERSIONS_NAME / f"{track}.{0:06d}")


def _versions(folder: Path, track: str) -> list[tuple[int, Path]]:
    """Return the versions of a track by number, oldest first."""
    found = []
    for path in (folder / VERSIONS_NAME).glob(f"{track}.*"):
        number = path.name.removeprefix(f"{track}.")
        if number.isdecimal():
            found.append((int(number), path))
    return sorted(found)


def _sweep(folder: Path, track: str, version: Path) -> None:
    """Remove the versions that nobody reads any more."""
    for _, path in _versions(folder, track)[:-_N_VERSIONS]:
        if path != version:
            atomic.discard(path, folder)
    atomic.sweep(folder)


def promotion_of(run: records.RunRecord, because: str, model: str) -> Promotion:
    """Return the line of the history for a run that is promoted now."""
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
    """Return whether the gate would decide on a run's model as it did; raises ArtifactError."""
    verdict = record.gate
    if verdict is None or record.config.get("gate") != limits.model_dump(mode="json"):
        return False
    incumbent = current(root, verdict.track)
    failing = limits.fail and verdict.outcome == "rejected"
    return not failing and verdict.model_in_force == (incumbent.model if incumbent else "")
