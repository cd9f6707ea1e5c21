"""Looks at everything in a store and says what is broken; every file is hashed anew.

Nothing on disk is changed, so that it may be done beside runs and on a disk that is read-only.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn import progress
from cnn.data import idx, published
from cnn.errors import ArtifactError, DataError
from cnn.promotion import registry
from cnn.runs import folders, index, records
from cnn.runs.records import RunRecord
from cnn.store import digests, layout, manifests
from cnn.store.store import Store
from cnn.tables import parquet

SETTLE_SECONDS = 1.0  # a run in progress has its folder a moment before its row in the index


@dataclass(frozen=True)
class Broken:
    """One thing that is not as it was made, and what is wrong with it."""

    path: Path
    what: str


@dataclass
class Findings:
    """What was looked at, and what is broken."""

    n_artifacts: int = 0
    n_runs: int = 0
    n_files: int = 0
    n_bytes: int = 0
    broken: list[Broken] = field(default_factory=list)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file's bytes, and count the file."""
        return self.count(path, digests.file_digest)

    def count(self, path: Path, digest: Callable[[Path], str]) -> str:
        """Return a file's digest, and count the file."""
        self.n_files += 1
        self.n_bytes += path.stat().st_size
        return digest(path)

    def note(self, path: Path, what: str) -> None:
        """Note what is broken, unless it went away while it was looked at."""
        if path.exists() or path.is_symlink():
            self.broken.append(Broken(path, what))


def verify(store: Store, report: progress.Report = progress.ignore) -> Findings:
    """Return what was looked at in a store, and all that is broken in it."""
    store, found = Store(store.root.resolve()), Findings()
    for path, what in layout.strangers(store.root):
        if path.parent != store.root or path.name in layout.FOLDERS:
            found.note(path, what)
    artifacts = [path for _, path in layout.artifacts(store.root)]
    run_folders = layout.run_folders(store.root)
    total = len(artifacts) + len(run_folders)
    for done, folder in enumerate(artifacts, start=1):
        _artifact(store, folder, found)
        report(progress.Progress(done, total))
    for done, folder in enumerate(run_folders, start=len(artifacts) + 1):
        _run(store, folder, found)
        report(progress.Progress(done, total))
    _index(store.runs, found)
    _promoted(store, found)
    _downloads(store.downloads, found)
    return found


def _artifact(store: Store, folder: Path, found: Findings) -> None:
    found.n_artifacts += 1
    try:
        for problem in manifests.problems(folder, store.manifest_in(folder), found.digest):
            found.note(folder, problem)
    except ArtifactError as error:
        found.note(folder, str(error))
    except OSError as error:
        found.note(folder, _unreadable(error))


def _run(store: Store, folder: Path, found: Findings) -> None:
    found.n_runs += 1
    try:
        record = records.read(folder)
    except ArtifactError:
        found.note(folder, f"{records.RECORD_NAME} is missing or damaged")
        return
    if record.status == "completed" and not (folder / records.REPORT_NAME).is_file():
        found.note(folder, f"{records.REPORT_NAME} is missing")
    _copies(store, record, folder, found)


def _copies(store: Store, record: RunRecord, folder: Path, found: Findings) -> None:
    """Compare the files of a folder with those of the artifacts that they were copied from."""
    for name, sha256 in folders.copies(store, record):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            _copy(path, sha256, "was changed since it was copied from its artifact", found)
        else:
            found.note(folder, f"{name} is missing")


def _copy(path: Path, sha256: str, what: str, found: Findings) -> None:
    """Note `what` of a copy whose bytes are not those that were copied."""
    try:
        if found.digest(path) != sha256:
            found.note(path, what)
    except OSError as error:
        found.note(path, _unreadable(error))


def _index(folder: Path, found: Findings) -> None:
    """Compare the index with the run.json files; a second look lets a run finish its work."""
    if not folder.is_dir() or not (problem := _index_problem(folder)):
        return
    time.sleep(SETTLE_SECONDS)
    if problem := _index_problem(folder):
        found.broken.append(Broken(folder / layout.INDEX_NAME, problem))


def _index_problem(folder: Path) -> str:
    path = folder / layout.INDEX_NAME
    wanted = {row["run"]: row for row in index.rows(folder)}
    if not path.is_file():
        return "is missing" if wanted else ""
    try:
        rows: Sequence[Mapping[str, Any]] = parquet.read(path).to_pylist()
        there = {row["run"]: row for row in rows}
    except ArtifactError as error:
        return str(error).removeprefix(f"{path}: ")
    except KeyError:
        return "has no column of runs"
    if len(there) < len(rows):
        return "has a run twice"
    if there.keys() != wanted.keys():
        first = sorted(there.keys() ^ wanted.keys())[0]
        return f"has {len(there)} runs and there are {len(wanted)}; {first} is in one only"
    differing = [name for name, row in wanted.items() if row.items() - there[name].items()]
    return f"differs from the {records.RECORD_NAME} of {sorted(differing)[0]}" if differing else ""


def _promoted(store: Store, found: Findings) -> None:
    """Compare what is promoted with the artifacts of the run that was promoted last."""
    for track in registry.tracks(store.root):
        try:
            current = registry.current(store.root, track.name)
            record = records.read(current.folder) if current else None
        except ArtifactError as error:
            found.note(track, str(error))
            continue
        if current and record:
            for name, sha256 in folders.copies(store, record):
                _promoted_copy(track / name, sha256, current.run, found)


def _promoted_copy(path: Path, sha256: str, run: str, found: Findings) -> None:
    if path.is_file():
        _copy(path, sha256, f"is not what {run} made", found)
    else:
        found.note(path.parent, f"{path.name} is missing")


def _downloads(downloads: Path, found: Findings) -> None:
    roles = {file: role for role, file in published.FILE_NAMES.items()}
    for folder in filter(layout.is_folder, layout.entries(downloads)):
        known = published.SETS[folder.name].sha256 if folder.name in published.SETS else {}
        for path in layout.entries(folder):
            if path.is_file() and path.suffix == ".gz":
                _download(path, known.get(roles.get(path.name, "")), found)


def _download(path: Path, wanted: str | None, found: Findings) -> None:
    """Unpack a fetched file; where its digest is known, it is compared."""
    try:
        digest = found.count(path, idx.digest)
        if wanted and digest != wanted:
            found.note(path, f"has wrong content: SHA-256 of it unpacked is {digest}, not {wanted}")
    except DataError as error:
        found.note(path, str(error).removeprefix(f"{path}: "))
    except OSError as error:
        found.note(path, _unreadable(error))


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"
