"""Finding the four files of a data set under the names that people have."""

from pathlib import Path

import numpy as np
import pytest

from cnn.data import idx, idx_folder
from cnn.errors import DataError

PLAIN = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def put(path: Path, *names: str, value: int = 0) -> None:
    """Write small IDX files of these names, compressed where the name says so."""
    for name in names:
        array = np.full((2, 2, 2) if "images" in name else 2, value, np.uint8)
        idx.write(path / name, array, compress=name.endswith(".gz"))


@pytest.mark.parametrize(
    "names",
    [
        PLAIN,
        [f"{name}.gz" for name in PLAIN],
        [name.replace("-idx", ".idx") for name in PLAIN],
        [name.replace("t10k", "test") for name in PLAIN],
        [PLAIN[0] + ".gz", PLAIN[1].replace("-idx", ".idx"), PLAIN[2], PLAIN[3] + ".gz"],
        ["qmnist-" + name.replace("idx1-ubyte", "idx2-int") for name in PLAIN],
        ["emnist-balanced-" + name.replace("t10k", "test") for name in PLAIN],
        ["EMNIST-letters-" + name + ".gz" for name in PLAIN],
    ],
    ids=["plain", "packed", "dots", "test", "mixed", "int labels", "prefix", "capitals"],
)
def test_files_are_found_under_every_usual_name(tmp_path: Path, names: list[str]) -> None:
    """Dash or dot, t10k or test, packed or not, any prefix: each file gets its role."""
    put(tmp_path, *names)
    (tmp_path / "README.md").write_text("not one of them")
    (tmp_path / "old-train-images-idx3-ubyte").mkdir()
    found = idx_folder.find(tmp_path)
    assert found.paths == {
        role: tmp_path / name for role, name in zip(idx_folder.ROLES, names, strict=True)
    }
    assert found.transposed == names[0].lower().startswith("emnist-")
    assert idx_folder.holds_idx(tmp_path)


def test_a_packed_and_an_unpacked_copy_may_lie_side_by_side(tmp_path: Path) -> None:
    """Two files of one role are no question where they hold the same."""
    put(tmp_path, *PLAIN, PLAIN[0] + ".gz")
    assert idx_folder.find(tmp_path).paths["train-images"].name in (PLAIN[0], PLAIN[0] + ".gz")


def test_two_files_of_one_role_that_differ_are_refused(tmp_path: Path) -> None:
    """Which of them is meant is for a person to say: both are named."""
    put(tmp_path, *PLAIN)
    put(tmp_path, PLAIN[2] + ".gz", value=1)
    with pytest.raises(DataError) as caught:
        idx_folder.find(tmp_path)
    assert f"{tmp_path / PLAIN[2]} and {tmp_path / PLAIN[2]}.gz" in str(caught.value)
    assert "hold different data; remove one" in str(caught.value)


def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    """Files of different prefixes are never mixed into one data set."""
    put(tmp_path, *(f"emnist-{name}" for name in PLAIN), PLAIN[0])
    with pytest.raises(DataError, match="several data sets, with the prefixes '', 'emnist-'"):
        idx_folder.find(tmp_path)


def test_a_missing_role_is_refused_with_the_names_looked_for_and_present(tmp_path: Path) -> None:
    """A person sees at once how a file must be called and what it is called now."""
    put(tmp_path, *PLAIN[:3])
    (tmp_path / "t10k_labels.idx").touch()
    with pytest.raises(DataError) as caught:
        idx_folder.find(tmp_path)
    message = str(caught.value)
    assert f"{tmp_path}: no test-labels. Looked for train-images-idx*" in message
    assert "present: t10k-images-idx3-ubyte, t10k_labels.idx, train-images" in message


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """Nothing there is said as nothing there."""
    with pytest.raises(DataError, match=r"no IDX files, and no folders of pic.*present: nothing"):
        idx_folder.find(tmp_path)


@pytest.mark.parametrize("name", ["missing", "file", "x" * 300])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A path that is missing, a file or too long is a data error that names the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"data.path {tmp_path / name}: "):
        idx_folder.find(tmp_path / name)


MAPPINGS = [
    ("0 48\n1 49\n", {0: "0", 1: "1"}),
    ("1 65 97 \r\n2 66 98\r\n\r\n", {1: "Aa", 2: "Bb"}),
    ("", {}),
]


@pytest.mark.parametrize(("text", "wanted"), MAPPINGS)
def test_class_names_are_read_from_the_file_beside(
    tmp_path: Path, text: str, wanted: dict[int, str]
) -> None:
    """EMNIST's mapping has a label and the codes of one character or of capital and small."""
    put(tmp_path, *("emnist-letters-" + name for name in PLAIN))
    assert idx_folder.find(tmp_path).class_names == {}
    (tmp_path / "emnist-letters-mapping.txt").write_text(text, newline="")
    assert idx_folder.find(tmp_path).class_names == wanted


@pytest.mark.parametrize(
    "line", ["x 65", "1", "1 7", "1 -5", "1 99999999999", "0 65", "1 48", "1.0 65", "\xff"]
)
def test_a_file_of_class_names_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    """Bad codes, and labels or names that stand there twice, are named with their file."""
    put(tmp_path, *PLAIN)
    (tmp_path / "mapping.txt").write_text(f"0 48\n{line}\n", encoding="latin-1")
    with pytest.raises(DataError, match=f"{tmp_path}/mapping.txt: (line 2 is|cannot be read)"):
        idx_folder.find(tmp_path)
