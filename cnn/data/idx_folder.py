"""Finding the four IDX files of a data set in a folder, under any of their usual names."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from cnn.data import idx
from cnn.errors import DataError

ROLES = ("train-images", "train-labels", "test-images", "test-labels")
_NAME = re.compile(
    r"(?P<prefix>.*?)(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx\d-[a-z]+(\.gz)?"
)


@dataclass(frozen=True)
class IdxFolder:
    """The four files of a data set, by role, and the prefix of their names.

    class_names: by label, from the file `[PREFIX]mapping.txt` beside them; empty without it.
    """

    paths: dict[str, Path]
    prefix: str
    class_names: dict[int, str] = field(default_factory=dict)

    @property
    def transposed(self) -> bool:
        """Whether rows and columns of the images are swapped, as in EMNIST's published files."""
        return self.prefix.lower().startswith("emnist-")


def holds_idx(folder: Path) -> bool:
    """Return whether a folder is readable and holds a file with the name of an IDX file."""
    try:
        return bool(_by_prefix(folder))
    except OSError:
        return False


def find(folder: Path) -> IdxFolder:
    """Return the data set in a folder.

    File names are `[PREFIX]train-images-idx3-ubyte` and so on, with `t10k` or `test`, a dash or
    a dot before `idx`, any element type, and with or without `.gz`. Raises DataError if the
    folder or a file is missing, the folder holds several data sets, or two files of one role
    differ.
    """
    try:
        found = _by_prefix(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"data.path {folder}: there is no such folder") from None
    except OSError as error:
        raise DataError(f"data.path {folder}: cannot be read ({error.strerror})") from None
    if not found:
        raise DataError(
            f"{folder}: neither IDX files nor one folder of images per class. "
            f"{_expected_and_present(folder)}"
        )
    if len(found) > 1:
        names = ", ".join(repr(prefix) for prefix in sorted(found))
        raise DataError(f"{folder}: holds several data sets, with the prefixes {names}; keep one")
    prefix, roles = next(iter(found.items()))
    missing = [role for role in ROLES if role not in roles]
    if missing:
        raise DataError(
            f"{folder}: no file for {', '.join(missing)}. {_expected_and_present(folder)}"
        )
    paths = {role: _one_of(roles[role]) for role in ROLES}
    return IdxFolder(paths, prefix, _class_names(folder / f"{prefix}mapping.txt"))


def _by_prefix(folder: Path) -> dict[str, dict[str, list[Path]]]:
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.iterdir()):
        if (match := _NAME.fullmatch(path.name)) and path.is_file():
            part = "train" if match["part"] == "train" else "test"
            found[match["prefix"]][f"{part}-{match['kind']}"].append(path)
    return found


def _class_names(path: Path) -> dict[int, str]:
    """Return class names by label from a file in EMNIST's format; none if there is no file.

    Each line has a label and the codes of its characters. Raises DataError naming the first
    line that does not.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a file of class names ({error})") from None
    names: dict[int, str] = {}
    for i, line in enumerate(filter(str.strip, lines), start=1):
        try:
            label, *codes = (int(word) for word in line.split())
            name = "".join(chr(code) for code in codes)
        except (ValueError, OverflowError):
            name = ""
        if not name.isprintable() or not name or label in names or name in names.values():
            raise DataError(
                f"{path}: line {i} is {line[:40]!r}; expected a label and the ASCII codes of its "
                "characters, and no label or name twice; correct the file or remove it"
            )
        names[label] = name
    return names


def _one_of(paths: list[Path]) -> Path:
    """Return one of the files of a role; raises DataError unless all hold the same data."""
    if len(paths) > 1 and len({idx.digest(path) for path in paths}) > 1:
        names = " and ".join(str(path) for path in paths)
        raise DataError(f"{names} have the same role but hold different data; remove one")
    return paths[0]


def _expected_and_present(folder: Path) -> str:
    expected = ", ".join(f"{role}-idx*" for role in ROLES)
    present = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
    return (
        f"Looked for {expected} (or with t10k for test, .idx for -idx, .gz at the end); "
        f"present: {shown or 'nothing'}"
    )
