"""What lies below a store's root: the artifacts, the runs, and what does not belong there.

Links are never followed: a link where a folder belongs is something that does not belong.
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
    """Return what lies in a folder, hidden names aside, sorted; nothing where it is none."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_key(name: str) -> bool:
    """Return whether a name is that of an artifact's or a checkpoint's folder."""
    return _KEY.fullmatch(name) is not None


def is_made(root: Path, key: str) -> bool:
    """Return whether an artifact of that key is there, of whatever kind."""
    return any((root / STORE / kind / key).exists() for kind in KINDS)


def artifacts(root: Path) -> Iterator[tuple[Kind, Path]]:
    """Yield the kind and the folder of every artifact, damaged ones among them."""
    for kind in KINDS if is_folder(root / STORE) else ():
        for path in entries(root / STORE / kind):
            if is_key(path.name) and is_folder(path):
                yield kind, path


def workplaces(root: Path) -> list[Path]:
    """Return the folders in which temporary files and folders may lie."""
    nested = [p for name in (DOWNLOADS, CHECKPOINTS) for p in entries(root / name)]
    folders = [*(root / name for name in FOLDERS), root / STORE / MEMORY, *nested]
    return [root, *filter(is_folder, folders)]


def run_folders(root: Path) -> list[Path]:
    """Return the folders of all runs, unreadable ones among them."""
    return [path for path in entries(root / RUNS) if is_folder(path)]


def compared_name(before: str, after: str) -> str:
    """Return the name of the folder that holds the comparison of two runs."""
    return f"{before}--{after}"


def compares(name: str, known: Collection[str]) -> bool:
    """Return whether a folder of that name holds the comparison of two of the known runs."""
    parts = name.split("--")  # a run's name may have it too
    halves = (("--".join(parts[:i]), "--".join(parts[i:])) for i in range(1, len(parts)))
    return any(before in known and after in known for before, after in halves)


def strangers(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield what does not belong where it lies, with what is wrong with it."""
    for path in entries(root):
        if path.name not in FOLDERS:
            yield path, "is nothing that belongs into a store"
        elif not is_folder(path):
            yield path, _no_folder(path)
    for path in entries(root / STORE):
        if path.name not in KINDS or not is_folder(path):
            yield path, _no_folder(path) if path.name in KINDS else "is no kind of artifact"
    for folder in (*(root / STORE / kind for kind in KINDS), root / CHECKPOINTS):
        if is_folder(folder.parent):
            yield from ((path, _no_key(path)) for path in entries(folder) if _no_key(path))
    for path in entries(root / RUNS):
        if path.name != INDEX_NAME and not is_folder(path):
            yield path, _no_folder(path)


def _no_key(path: Path) -> str:
    if not is_key(path.name):
        return "is not named by a key"
    return "" if is_folder(path) else _no_folder(path)


def _no_folder(path: Path) -> str:
    found = "is a link, which is not followed" if path.is_symlink() else "is a file"
    return f"{found}; a folder belongs there"
