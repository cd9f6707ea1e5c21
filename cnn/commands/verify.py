"""Verification of a store: hashes every file again and lists what is broken.

Nothing on disk is changed, so it is safe during runs and works on a read-only disk.
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

SETTLE_SECONDS = 1.0  # a run's folder appears a moment before its row in the index


@dataclass(frozen=True)
class Broken:
    """A path in the store that is missing or damaged, and what is wrong with it."""

    path: Path
    what: str


@dataclass
class Findings:
    """How much was checked, and what is broken."""

    n_artifacts: int = 0
    n_runs: int = 0
    n_files: int = 0
    n_bytes: int = 0
    broken: list[Broken] = field(default_factory=list)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file's bytes, and count the file."""
        return self.count(path, digests.file_digest)

    def count(self, path: Path, digest: Callable[[Path], str]) -> str:
        """Return a file's digest as computed by `digest`, and count the file."""
        self.n_files += 1
        self.n_bytes += path.stat().st_size
        return digest(path)

    def note(self, path: Path, what: str) -> None:
        """Record a broken path, unless it was removed during the check."""
        if path.exists() or path.is_symlink():
            self.broken.append(Broken(path, what))


def verify(store: Store, report: progress.Report = progress.ignore) -> Findings:
    """Return how much of a store was checked, and everything that is broken in it."""
    store, findings = Store(store.root.resolve()), Findings()
    for path, what in layout.strangers(store.root):
        if path.parent != store.root or path.name in layout.FOLDERS:
            findings.note(path, what)
    artifacts = [path for _, path in layout.artifacts(store.root)]
    run_folders = layout.run_folders(store.root)
    total = len(artifacts) + len(run_folders)
    for done, folder in enumerate(artifacts, start=1):
        _artifact(store, folder, findings)
        report(progress.Progress(done, total))
    for done, folder in enumerate(run_folders, start=len(artifacts) + 1):
        _run(store, folder, findings)
        report(progress.Progress(done, total))
    _index(store.runs, findings)
    _promoted(store, findings)
    _downloads(store.downloads, findings)
    return findings


def _artifact(store: Store, folder: Path, findings: Findings) -> None:
    findings.n_artifacts += 1
    try:
        for problem in manifests.problems(folder, store.manifest_in(folder), findings.digest):
            findings.note(folder, problem)
    except ArtifactError as error:
        findings.note(folder, str(error))
    except OSError as error:
        findings.note(folder, _unreadable(error))


def _run(store: Store, folder: Path, findings: Findings) -> None:
    findings.n_runs += 1
    try:
        record = records.read(folder)
    except ArtifactError:
        findings.note(folder, f"{records.RECORD_NAME} is missing or damaged")
        return
    if record.status == "completed" and not (folder / records.REPORT_NAME).is_file():
        findings.note(folder, f"{records.REPORT_NAME} is missing")
    _copies(store, record, folder, findings)


def _copies(store: Store, record: RunRecord, folder: Path, findings: Findings) -> None:
    """Compare the files in a run's folder with the artifacts they were copied from."""
    for name, sha256 in folders.copies(store, record):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            _copy(path, sha256, "was changed since it was copied from its artifact", findings)
        else:
            findings.note(folder, f"{name} is missing")


def _copy(path: Path, sha256: str, what: str, findings: Findings) -> None:
    """Record `what` for a copy whose bytes differ from the artifact's."""
    try:
        if findings.digest(path) != sha256:
            findings.note(path, what)
    except OSError as error:
        findings.note(path, _unreadable(error))


def _index(folder: Path, findings: Findings) -> None:
    """Compare the index with the run.json files, twice, in case a run is just being published."""
    if not folder.is_dir() or not (problem := _index_problem(folder)):
        return
    time.sleep(SETTLE_SECONDS)
    if problem := _index_problem(folder):
        findings.broken.append(Broken(folder / layout.INDEX_NAME, problem))


def _index_problem(folder: Path) -> str:
    path = folder / layout.INDEX_NAME
    expected = {row["run"]: row for row in index.rows(folder)}
    if not path.is_file():
        return "is missing" if expected else ""
    try:
        rows: Sequence[Mapping[str, Any]] = parquet.read(path).to_pylist()
        actual = {row["run"]: row for row in rows}
    except ArtifactError as error:
        return str(error).removeprefix(f"{path}: ")
    except KeyError:
        return "has no column run"
    if len(actual) < len(rows):
        return "lists a run twice"
    if actual.keys() != expected.keys():
        first = sorted(actual.keys() ^ expected.keys())[0]
        place = "the index" if first in actual else "the folder"
        return (
            f"lists {len(actual)} runs, the folder has {len(expected)}; {first} is only in {place}"
        )
    differing = [name for name, row in expected.items() if row.items() - actual[name].items()]
    return f"differs from the {records.RECORD_NAME} of {sorted(differing)[0]}" if differing else ""


def _promoted(store: Store, findings: Findings) -> None:
    """Compare the promoted files of every track with the artifacts of the promoted run."""
    for track in registry.tracks(store.root):
        try:
            current = registry.current(store.root, track.name)
            record = records.read(current.folder) if current else None
        except ArtifactError as error:
            findings.note(track, str(error))
            continue
        if current and record:
            for name, sha256 in folders.copies(store, record):
                _promoted_copy(track / name, sha256, current.run, findings)


def _promoted_copy(path: Path, sha256: str, run: str, findings: Findings) -> None:
    if path.is_file():
        _copy(path, sha256, f"differs from the artifact of {run}", findings)
    else:
        findings.note(path.parent, f"{path.name} is missing")


def _downloads(downloads: Path, findings: Findings) -> None:
    roles = {file: role for role, file in published.FILE_NAMES.items()}
    for folder in filter(layout.is_folder, layout.entries(downloads)):
        known = published.SETS[folder.name].sha256 if folder.name in published.SETS else {}
        for path in layout.entries(folder):
            if path.is_file() and path.suffix == ".gz":
                _download(path, known.get(roles.get(path.name, "")), findings)


def _download(path: Path, expected: str | None, findings: Findings) -> None:
    """Decompress a downloaded file, and compare its digest with the expected one if known."""
    try:
        digest = findings.count(path, idx.digest)
        if expected and digest != expected:
            problem = f"has wrong content: its unpacked SHA-256 is {digest}, expected {expected}"
            findings.note(path, problem)
    except DataError as error:
        findings.note(path, str(error).removeprefix(f"{path}: "))
    except OSError as error:
        findings.note(path, _unreadable(error))


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"
