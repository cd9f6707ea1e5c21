"""The folders of a store: where artifacts and runs lie, and which entries do not belong.

Links are never followed: a link in place of a folder is an entry that does not belong.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import get_args

from cnn.store.refs import Kind

STORE, CHECKPOINTS, QUARANTINE, RUNS = "store", "checkpoints", "quarantine", "runs"
PROMOTED, COMPARED, MINED = "promoted", "compared", "mined"
DOWNLOADS, MEMORY = "downloads", ".verified"
INDEX_NAME = "index.parquet"  # of the runs
FOLDERS = (STORE, CHECKPOINTS, QUARANTINE, RUNS, PROMOTED, COMPARED, MINED, DOWNLOADS)
KINDS: tuple[Kind, ...] = get_args(Kind)
_KEY = re.compile(r"[0-9a-f]{64}")


def entries(folder: Path) -> list[Path]:
    """Return the visible entries of a folder, sorted; an empty list if it is not a folder."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_key(name: str) -> bool:
    """Return whether a name is a key: 64 hex digits, as artifact folders have."""
    return _KEY.fullmatch(name) is not None


def is_made(root: Path, key: str) -> bool:
    """Return whether an artifact of any kind exists for a key."""
    return any((root / STORE / kind / key).exists() for kind in KINDS)


def artifacts(root: Path) -> Iterator[tuple[Kind, Path]]:
    """Yield the kind and the folder of every artifact, including damaged ones."""
    for kind in KINDS if is_folder(root / STORE) else ():
        for path in entries(root / STORE / kind):
            if is_key(path.name) and is_folder(path):
                yield kind, path


def workplaces(root: Path) -> list[Path]:
    """Return the existing folders that may hold temporary files and folders."""
    nested = [p for name in (DOWNLOADS, CHECKPOINTS) for p in entries(root / name)]
    folders = [*(root / name for name in FOLDERS), root / STORE / MEMORY, *nested]
    return [root, *filter(is_folder, folders)]


def run_folders(root: Path) -> list[Path]:
    """Return the folders of all runs, including unreadable ones."""
    return [path for path in entries(root / RUNS) if is_folder(path)]


def compared_name(before: str, after: str) -> str:
    """Return the name of the folder that holds the comparison of two runs."""
    return f"{before}--{after}"


def compares(name: str, known: Collection[str]) -> bool:
    """Return whether a folder name is that of a comparison of two known runs."""
    parts = name.split("--")  # a run's own name may contain it
    halves = (("--".join(parts[:i]), "--".join(parts[i:])) for i in range(1, len(parts)))
    return any(before in known and after in known for before, after in halves)


def strangers(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each entry that does not belong where it lies, with the reason."""
    for path in entries(root):
        if path.name not in FOLDERS:
            yield path, "does not belong in a store"
        elif not is_folder(path):
            yield path, _not_a_folder(path)
    for path in entries(root / STORE):
        if path.name not in KINDS or not is_folder(path):
            yield path, _not_a_folder(path) if path.name in KINDS else "is not a kind of artifact"
    for folder in (*(root / STORE / kind for kind in KINDS), root / CHECKPOINTS):
        if is_folder(folder.parent):
            yield from (
                (path, _not_an_artifact(path)) for path in entries(folder) if _not_an_artifact(path)
            )
    for path in entries(root / RUNS):
        if path.name != INDEX_NAME and not is_folder(path):
            yield path, _not_a_folder(path)


def _not_an_artifact(path: Path) -> str:
    if not is_key(path.name):
        return "is not named by a key"
    return "" if is_folder(path) else _not_a_folder(path)


def _not_a_folder(path: Path) -> str:
    kind = "is a link, which is not followed" if path.is_symlink() else "is a file"
    return f"{kind}; expected a folder"
