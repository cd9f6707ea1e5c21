"""Finding a user's own images, in one folder per class.

Images are FOLDER/<class>/<image>, or FOLDER/train/<class>/<image> and
FOLDER/test/<class>/<image>.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cnn.data.checks import MAX_CLASSES
from cnn.errors import DataError

N_THREADS = min(8, os.cpu_count() or 1)
_LAYOUT = (
    "put images in FOLDER/<class>/, or in FOLDER/train/<class>/ and FOLDER/test/<class>/, "
    "where FOLDER is data.path"
)
_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_VALIDATION = {"val", "valid", "validation"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
# A file with one of these suffixes is meant to be an image: it is refused if it cannot be read.
_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
    *(".heic", ".heif", ".avif", ".jp2", ".pgm", ".ppm", ".pbm", ".pnm", ".svg", ".psd", ".ico"),
}
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, stray bytes
# Bidirectional controls would reverse the text beside a class name, numbers included.
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class ImageFile:
    """An image file: its path, its name relative to the data folder, its class and its SHA-256."""

    path: Path
    name: str
    label: int
    sha256: str


@dataclass(frozen=True)
class ImageFolder:
    """The images of a data set, sorted by part, class and name; an image's index is its id.

    n_train: the first n_train images are for training; 0 if the folder has no train and test
    parts. left_out: names of files that are not images, and of links that lead out of the folder.
    """

    root: Path
    class_names: tuple[str, ...]
    pictures: tuple[ImageFile, ...]
    n_train: int
    left_out: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over contents and names, which include the class; the root does not matter."""
        lines = (f"{picture.name}\0{picture.sha256}\n" for picture in self.pictures)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class _Part:
    """The files of the whole folder, or of its train or test folder, by class."""

    by_class: dict[str, list[Path]] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)


def holds_classes(folder: Path) -> bool:
    """Return whether a folder is readable and has subfolders, which may be classes."""
    try:
        return bool(_folders(folder))
    except OSError:
        return False


def find(root: Path) -> ImageFolder:
    """Return the images of a folder that has one subfolder per class.

    Raises DataError if the folders are nested differently, a class has too few images, or a
    class name cannot be displayed.
    """
    try:
        parts = {name: _scan(folder, root) for name, folder in _parts(root).items()}
        class_names = tuple(sorted({name for p in parts.values() for name in p.by_class}, key=_key))
        _check(root, class_names, parts)
        files = [
            (path, label)
            for part in parts.values()
            for label, name in enumerate(class_names)
            for path in part.by_class.get(name, ())
        ]
        with ThreadPoolExecutor(N_THREADS) as pool:
            digests = pool.map(_digest, (path for path, _ in files))
            pictures = tuple(
                ImageFile(path, _name(path, root), label, sha256)
                for (path, label), sha256 in zip(files, digests, strict=True)
            )
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror})") from None
    n_train = sum(map(len, parts["train"].by_class.values())) if "train" in parts else 0
    left_out = tuple(_name(path, root) for part in parts.values() for path in part.left_out)
    return ImageFolder(root, class_names, pictures, n_train, left_out)


def _parts(root: Path) -> dict[str, Path]:
    """Return the train and test folders if both exist, else the whole folder under the key ""."""
    folders = _folders(root)
    found = {_PARTS[path.name.lower()]: path for path in folders if path.name.lower() in _PARTS}
    if len(found) < 2 or not all(_folders(path) for path in found.values()):
        return {"": root}
    for path in folders:
        if path.name.lower() in _VALIDATION:
            raise DataError(
                f"{path}: validation images are held out from the training images, by "
                f"data.validation_fraction; move the images in this folder to {found['train']}"
            )
    return {"train": found["train"], "test": found["test"]}


def _scan(folder: Path, root: Path) -> _Part:
    part = _Part()
    for path in _visible(folder):
        if not path.is_dir() or _leads_out(path, root):
            part.left_out.append(path)
            continue
        name = unicodedata.normalize("NFC", path.name)
        if name in part.by_class:
            raise DataError(f"{path}: there are two folders for the class {name!r}; keep one")
        part.by_class[name] = list(_pictures(path, root, part.left_out))
    return part


def _pictures(folder: Path, root: Path, left_out: list[Path]) -> Iterator[Path]:
    """Yield the images of a class; add everything else to `left_out`."""
    for path in _visible(folder):
        if _leads_out(path, root):
            left_out.append(path)
        elif path.is_dir():
            raise DataError(f"{path}: a folder inside a class folder; {_LAYOUT}")
        elif path.is_file() and (path.suffix.lower() in _SUFFIXES or _begins_like_an_image(path)):
            yield path
        else:
            left_out.append(path)


def _visible(folder: Path) -> list[Path]:
    """Return the entries of a folder by name, without hidden and system files."""
    paths = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _SYSTEM_FILES
    ]
    return sorted(paths, key=lambda path: _shown(path.name))


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _leads_out(path: Path, root: Path) -> bool:
    """Return whether a path is a broken link or a link out of the data folder."""
    if not path.is_symlink():
        return False
    try:
        return not path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
        return True


def _begins_like_an_image(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(12)
    known = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
    webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    bitmap = head[:2] == b"BM" and head[6:10] == bytes(4)
    return head.startswith(known) or webp or bitmap


def _check(root: Path, class_names: tuple[str, ...], parts: Mapping[str, _Part]) -> None:
    if not 2 <= len(class_names) <= MAX_CLASSES:
        shown = ", ".join(class_names[:10]) or "none"
        raise DataError(
            f"{root}: expected 2 to {MAX_CLASSES:,} class folders, found {len(class_names)}: "
            f"{shown}; {_LAYOUT}"
        )
    for name in class_names:
        if _BIDIRECTIONAL & set(name) or any(unicodedata.category(c) in _UNPRINTABLE for c in name):
            raise DataError(
                f"{root}: the class name {name!r} cannot be displayed; rename the folder"
            )
    problems = [problem for name in class_names for problem in _too_few(name, parts)]
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(f"{root}: {'; '.join(problems[:10])}{more}")


def _too_few(name: str, parts: Mapping[str, _Part]) -> Iterator[str]:
    for part, found in parts.items():
        n = len(found.by_class.get(name, ()))
        if not part and n < 2:
            yield (
                f"class {name!r} has {n} image{'' if n == 1 else 's'}; at least 2 are needed, "
                "one for training and one for testing"
            )
        elif part and n == 0 and (part == "train" or name in found.by_class):
            yield f"class {name!r} has no images in {part}"


def _key(name: str) -> tuple[int, str]:
    """Return the sort key of a class name: numbers by value, before words."""
    return (int(name), name) if name.isascii() and name.isdigit() else (1 << 1024, name)


def _shown(name: str) -> str:
    """Return a file name in Unicode form NFC, with escapes for bytes that are not UTF-8."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def _name(path: Path, root: Path) -> str:
    return _shown(path.relative_to(root).as_posix())


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
