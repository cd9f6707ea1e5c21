"""Garbage collection: finds what no run needs any more, says why, and removes it.

Kept are the promoted runs, the pinned ones and the newest ones; comparisons and searches of kept
runs; the artifacts of kept runs and everything those were made from; what a run or a training in
progress needs; and artifacts younger than an hour. Each thing is first renamed, while no run can
list what it uses (see store/in_use.py), and then deleted, so that no reader sees half of it.
"""

import itertools
import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cnn.errors import ArtifactError, StoreUnwritableError
from cnn.io import atomic
from cnn.promotion import registry
from cnn.runs import folders, index, records, searches
from cnn.runs.records import RunRecord
from cnn.store import in_use, layout, leases
from cnn.store.store import Store

YOUNG_SECONDS = 3600.0  # the retry of a killed run needs what the run had published
DEAD_SECONDS = 86_400.0  # a training without a change for so long is dead

Name = tuple[str, str]  # kind and key


@dataclass(frozen=True)
class Item:
    """A file or folder in a store, its size, and why it is kept or freed."""

    what: str
    path: Path
    why: str
    n_bytes: int


@dataclass(frozen=True)
class Survey:
    """The contents of a store: what to free, what to keep, and foreign paths left alone."""

    freed: tuple[Item, ...]
    kept: tuple[Item, ...]
    left: tuple[tuple[Path, str], ...]


def survey(store: Store, n_last: int) -> Survey:
    """Return what would be freed and what would be kept; nothing is changed.

    n_last: how many of the newest completed runs to keep, and how many of the newest failed ones.
    Raises ArtifactError if the record of a promoted or pinned run cannot be read.
    """
    store, now = Store(store.root.resolve()), time.time()
    readable, left = _readable_runs(store)
    reasons = _kept_runs(store, readable, n_last)
    kept: list[Item] = []
    freed: list[Item] = []
    for name, record in readable.items():
        path, why = store.runs / name, reasons.get(name, "")
        item = Item("run", path, why or f"{record.status}; not among the last", _size(path))
        (kept if why else freed).append(item)
    for group in (
        _artifacts(store, {name: readable[name] for name in reasons}, now),
        _checkpoints(store, now),
        _comparisons(store, reasons),
        _searches(store, reasons),
    ):
        for keep, item in group:
            (kept if keep else freed).append(item)
    gone = {(item.what, item.path.name) for item in freed}
    return Survey(
        (*freed, *_leftovers(store), *_memories(store, gone)),
        tuple(kept),
        (*layout.strangers(store.root), *left),
    )


def collect(store: Store, n_last: int) -> Survey:
    """Free what `survey` returns, and return it; raises like `survey`, and StoreUnwritableError."""
    root = store.root.resolve()
    if not root.is_dir():
        return Survey((), (), ())
    with atomic.disk_faults("gc's changes", root):
        with in_use.exclusive_lock(root):
            found = survey(store, n_last)
            taken = {_take_away(root, item) for item in found.freed}
        for folder in layout.workplaces(root):
            atomic.sweep(folder)
        if layout.is_folder(root / layout.RUNS):
            index.rebuild(root / layout.RUNS)
    for path in itertools.chain(*map(atomic.abandoned, layout.workplaces(root))):
        if path in taken:  # the others are new, or another gc is about to remove them
            raise StoreUnwritableError(f"{path} cannot be removed; check its owner and mode")
    return found


def _readable_runs(store: Store) -> tuple[dict[str, RunRecord], list[tuple[Path, str]]]:
    """Return the readable records by folder name, oldest first, and the unreadable folders."""
    readable, unreadable = {}, []
    for folder in layout.run_folders(store.root):
        try:
            readable[folder.name] = records.read(folder)
        except ArtifactError as error:
            if folders.is_pinned(folder):
                raise ArtifactError(
                    f"{error}, and the run is pinned, so it is not known which artifacts to keep; "
                    f"repair it, or remove {folder / folders.PIN_NAME}"
                ) from None
            unreadable.append((folder, f"{records.RECORD_NAME} is missing or damaged"))
    in_order = sorted(readable.items(), key=lambda item: (item[1].created, item[0]))
    return dict(in_order), unreadable


def _kept_runs(store: Store, by_name: dict[str, RunRecord], n_last: int) -> dict[str, str]:
    """Return the names of the runs to keep, with the reason."""
    reasons: dict[str, str] = {}
    for status in ("completed", "failed"):
        names = [name for name, record in by_name.items() if record.status == status]
        reasons |= dict.fromkeys(_last(names, n_last), f"one of the last {n_last} {status}")
    for name in by_name:
        if folders.is_pinned(store.runs / name):
            reasons[name] = "pinned"
    for track in registry.tracks(store.root):
        for name in registry.runs_named(track):
            if name in by_name:
                reasons[name] = f"promoted on {track.name}"
            elif layout.is_folder(store.runs / name):
                raise ArtifactError(
                    f"{store.runs / name / records.RECORD_NAME} cannot be read, and the run was "
                    f"promoted on {track.name}, so it is not known which artifacts to keep; "
                    "repair it"
                )
    return reasons


def _last(names: list[str], n: int) -> list[str]:
    return names[len(names) - min(n, len(names)) :]


def _artifacts(
    store: Store, kept_runs: dict[str, RunRecord], now: float
) -> Iterator[tuple[bool, Item]]:
    """Yield every artifact and whether it is kept."""
    present: dict[Name, Path] = {
        (kind, path.name): path for kind, path in layout.artifacts(store.root)
    }
    reasons: dict[Name, str] = {}
    for name, path in present.items():
        published = next((item.st_mtime for item in _stats(path)), 0.0)
        if now - published < YOUNG_SECONDS:
            reasons[name] = "younger than an hour"
    if any(True for keep, _ in _checkpoints(store, now) if keep):
        reasons |= {
            name: "a running training may need it"
            for name in present
            if name[0] in ("dataset", "model")
        }
    for run, record in kept_runs.items():
        refs = [step.ref for step in record.steps if step.ref]
        reasons |= {(ref.kind, ref.key): f"needed by {run}" for ref in refs}
    reasons |= dict.fromkeys(in_use.read(store.root), "in use")
    _add_inputs(store, present, reasons)
    for name, path in present.items():
        why = reasons.get(name, "")
        yield bool(why), Item(name[0], path, why or "no kept run needs it", _size(path))


def _add_inputs(store: Store, present: dict[Name, Path], reasons: dict[Name, str]) -> None:
    """Add the artifacts that the kept ones were made from, recursively."""
    waiting = list(reasons)
    while waiting:
        name = waiting.pop()
        if name not in present:
            continue
        try:
            reads = store.manifest_in(present[name]).reads
        except ArtifactError:  # damaged: the next run makes it again
            continue
        for ref in reads:
            if (ref.kind, ref.key) not in reasons:
                reasons[ref.kind, ref.key] = f"{name[0]} {name[1][:12]} was made from it"
                waiting.append((ref.kind, ref.key))


def _comparisons(store: Store, kept_runs: Collection[str]) -> Iterator[tuple[bool, Item]]:
    """Yield every comparison of two runs; it is kept as long as both runs are."""
    for path in filter(layout.is_folder, layout.entries(store.root / layout.COMPARED)):
        keep = layout.compares(path.name, kept_runs)
        why = "both runs are kept" if keep else "one of its runs is not kept"
        yield keep, Item("compared", path, why, _size(path))


def _searches(store: Store, kept_runs: Collection[str]) -> Iterator[tuple[bool, Item]]:
    """Yield every search of the flow `mine`; it is kept as long as the model's run is."""
    for path in filter(layout.is_folder, layout.entries(store.root / layout.MINED)):
        try:
            keep = searches.read(path).run in kept_runs
            why = "its run is kept" if keep else "its run is not kept"
        except ArtifactError as error:
            keep, why = False, str(error)
        yield keep, Item("mined", path, why, _size(path))


def _checkpoints(store: Store, now: float) -> Iterator[tuple[bool, Item]]:
    """Yield the checkpoints of every training; they are kept while the training is running."""
    used = {key for _, key in in_use.read(store.root)}
    for path in layout.entries(store.root / layout.CHECKPOINTS):
        if not layout.is_key(path.name) or not layout.is_folder(path):
            continue
        age = now - _changed(path)
        finished = layout.is_made(store.root, path.name)
        keep, why = True, "its training is running"
        live = path.name in used or leases.is_live(path)
        if not live and age >= (YOUNG_SECONDS if finished else DEAD_SECONDS):
            keep, why = False, "its training is over" if finished else "unchanged for a day"
        yield keep, Item("checkpoint", path, why, _size(path))


def _leftovers(store: Store) -> Iterator[Item]:
    """Yield what failed verification, and temporary files that killed processes left."""
    for path in layout.entries(store.root / layout.QUARANTINE):
        yield Item("quarantine", path, "it failed verification", _size(path))
    for folder in filter(layout.is_folder, layout.entries(store.downloads)):
        for path in layout.entries(folder):
            if path.suffix == ".bad" and path.is_file():
                yield Item("download", path, "it failed verification", _size(path))
    for folder in layout.workplaces(store.root):
        for path in atomic.abandoned(folder):
            yield Item("temporary", path, "no process writes it any more", _size(path))


def _memories(store: Store, gone: Collection[Name]) -> Iterator[Item]:
    """Yield the digest caches of artifacts that are gone or about to be freed."""
    for path in sorted((store.root / layout.STORE / layout.MEMORY).glob("*.json")):
        kind, _, key = path.stem.partition("-")
        if kind not in layout.KINDS or not layout.is_key(key):  # of downloads, for example
            continue
        if (kind, key) in gone or not (store.root / layout.STORE / kind / key).exists():
            yield Item("memory", path, "its artifact is gone", _size(path))


def _take_away(root: Path, item: Item) -> Path:
    """Rename a thing to a temporary name, which `sweep` removes; return its new path."""
    if item.what == "temporary":
        return item.path
    folder = root / layout.STORE if item.what in layout.KINDS else item.path.parent
    with suppress(FileNotFoundError):  # another process was faster
        return atomic.discard(item.path, folder)
    return item.path


def _size(path: Path) -> int:
    """Return the size of a file, or of all files below a folder, in bytes; links count 0."""
    return sum(item.st_size for item in _stats(path) if stat.S_ISREG(item.st_mode))


def _changed(path: Path) -> float:
    """Return the latest modification time in a folder, in seconds since 1970."""
    return max((item.st_mtime for item in _stats(path)), default=0.0)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Yield the status of a path and of everything below it; skip what vanishes meanwhile."""
    waiting = [path]
    while waiting:
        with suppress(FileNotFoundError):
            current = waiting.pop()
            status = current.lstat()
            if stat.S_ISDIR(status.st_mode):
                waiting += current.iterdir()
            yield status
