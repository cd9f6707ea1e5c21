"""Finds the four IDX files of a data set in a folder, under the names people really have."""

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

    class_names: by label, where a file `[PREFIX]mapping.txt` lies beside them.
    """

    paths: dict[str, Path]
    prefix: str
    class_names: dict[int, str] = field(default_factory=dict)

    @property
    def transposed(self) -> bool:
        """Whether the images lie on their side, as EMNIST is published."""
        return self.prefix.lower().startswith("emnist-")


def holds_idx(folder: Path) -> bool:
    """Return whether a folder that can be read has a file named like an IDX file's."""
    try:
        return bool(_by_prefix(folder))
    except OSError:
        return False


def find(folder: Path) -> IdxFolder:
    """Return the data set that lies in a folder.

    Names are `[PREFIX]train-images-idx3-ubyte` and so on: `t10k` or `test`, a dash or a
    dot before `idx`, any element type, with or without `.gz`. Raises DataError where the
    folder or a file is missing, two sets lie there, or two files of one role differ.
    """
    try:
        found = _by_prefix(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"data.path {folder}: there is no such folder") from None
    except OSError as error:
        raise DataError(f"data.path {folder}: cannot be read ({error.strerror})") from None
    if not found:
        raise DataError(
            f"{folder}: no IDX files, and no folders of pictures, one for each class. "
            f"{_wanted_and_present(folder)}"
        )
    if len(found) > 1:
        names = ", ".join(repr(prefix) for prefix in sorted(found))
        raise DataError(f"{folder}: several data sets, with the prefixes {names}; keep one")
    prefix, roles = next(iter(found.items()))
    missing = [role for role in ROLES if role not in roles]
    if missing:
        raise DataError(f"{folder}: no {', '.join(missing)}. {_wanted_and_present(folder)}")
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
    """Return the names in a file of EMNIST's form: a label and the codes of its characters.

    No file, no names. Raises DataError naming the first line that is not so.
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
                f"{path}: line {i} is {line[:40]!r}; a label and the ASCII codes of its characters "
                "are expected, each label and name once; mend the file or remove it"
            )
        names[label] = name
    return names


def _one_of(paths: list[Path]) -> Path:
    """Return one of several files of the same role; raises DataError unless they agree."""
    if len({idx.digest(path) for path in paths} if len(paths) > 1 else {0}) > 1:
        names = " and ".join(str(path) for path in paths)
        raise DataError(f"{names} are both there and hold different data; remove one")
    return paths[0]


def _wanted_and_present(folder: Path) -> str:
    wanted = ", ".join(f"{role}-idx*" for role in ROLES)
    present = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
    return (
        f"Looked for {wanted} (t10k for test, dot for dash, with or without .gz); "
        f"present: {shown or 'nothing'}"
    )
