"""Finding the four files of a data set under all their usual names."""

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
    """Write small IDX files with these names, compressed if the name ends in .gz."""
    for name in names:
        array = np.full((2, 2, 2) if "images" in name else 2, value, np.uint8)
        idx.write(path / name, array, compress=name.endswith(".gz"))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        idx_folder.find(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        PLAIN,
        [f"{name}.gz" for name in PLAIN],
        [name.replace("-idx", ".idx") for name in PLAIN],
        [name.replace("t10k", "test") for name in PLAIN],
        [PLAIN[0] + ".gz", PLAIN[1].replace("-idx", ".idx"), PLAIN[2], PLAIN[3] + ".gz"],
        ["qmnist-" + name.replace("idx1-ubyte", "idx2-int") for name in PLAIN],
        ["not-emnist-" + name.replace("-idx", ".idx") + ".gz" for name in PLAIN],
        ["emnist-balanced-" + name.replace("t10k", "test") for name in PLAIN],
        ["EMNIST-letters-" + name + ".gz" for name in PLAIN],
    ],
    ids=["plain", "gz", "dots", "test", "mixed", "int labels", "other", "prefix", "capitals"],
)
def test_files_are_found_under_all_usual_names(tmp_path: Path, names: list[str]) -> None:
    """Dash or dot, t10k or test, .gz or not, any prefix: every file gets its role."""
    put(tmp_path, *names)
    (tmp_path / "README.md").write_text("not an IDX file")
    (tmp_path / "old-train-images-idx3-ubyte").mkdir()
    folder = idx_folder.find(tmp_path)
    assert folder.paths == {
        role: tmp_path / name for role, name in zip(idx_folder.ROLES, names, strict=True)
    }
    assert folder.transposed == names[0].lower().startswith("emnist-")
    assert idx_folder.holds_idx(tmp_path)


@pytest.mark.parametrize("name", PLAIN)
def test_two_files_of_one_role_must_hold_the_same_data(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A packed and an unpacked copy may exist side by side; if they differ, both are named."""
    put(tmp_path, *PLAIN, name + ".gz")
    paths = idx_folder.find(tmp_path).paths.values()
    assert {path.name.removesuffix(".gz") for path in paths} == set(PLAIN)
    assert caplog.messages == []
    put(tmp_path, name + ".gz", value=1)
    assert refusal(tmp_path) == (
        f"{tmp_path / name} and {tmp_path / name}.gz have the same role but hold different data; "
        "remove one"
    )


def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    """Files with different prefixes are never mixed into one data set."""
    put(tmp_path, *(f"emnist-{name}" for name in PLAIN), PLAIN[0])
    assert "several data sets, with the prefixes '', 'emnist-'; keep one" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("names", "problem", "present"),
    [
        ([], "neither IDX files nor one folder of images per class", "nothing"),
        (["train_images.idx3", "notes.txt"], "neither IDX files", "notes.txt, train_images.idx3"),
        (
            [*PLAIN[:3], "t10k_labels.idx"],
            "no file for test-labels",
            "t10k-images-idx3-ubyte, t10k_labels.idx, train-images-idx3-ubyte, train-labels-idx1-u",
        ),
    ],
)
def test_a_missing_file_is_refused_with_the_expected_and_the_present_names(
    tmp_path: Path, names: list[str], problem: str, present: str
) -> None:
    """The user sees what a file must be called and what it is called now."""
    put(tmp_path, *names)
    message = refusal(tmp_path)
    assert f"{tmp_path}: {problem}" in message
    assert ". Looked for train-images-idx*, train-labels-idx*, test-images-idx*" in message
    assert f"; present: {present}" in message


@pytest.mark.parametrize("name", ["missing", "file", "x" * 300])
def test_a_path_that_is_not_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    """If it is missing, a file or too long, the message names the setting."""
    (tmp_path / "file").touch()
    assert refusal(tmp_path / name).startswith(f"data.path {tmp_path / name}: ")


@pytest.mark.parametrize(
    ("text", "class_names"),
    [
        ("0 48\n1 49\n", {0: "0", 1: "1"}),
        ("1 65 97 \r\n2 66 98\r\n\r\n", {1: "Aa", 2: "Bb"}),
        ("", {}),
    ],
)
def test_class_names_are_read_from_the_mapping_file(
    tmp_path: Path, text: str, class_names: dict[int, str]
) -> None:
    """A line of EMNIST's mapping has a label and the codes of one character, or of two cases."""
    put(tmp_path, *("emnist-letters-" + name for name in PLAIN))
    assert idx_folder.find(tmp_path).class_names == {}
    (tmp_path / "emnist-letters-mapping.txt").write_text(text, newline="")
    assert idx_folder.find(tmp_path).class_names == class_names


@pytest.mark.parametrize(
    "line", ["x 65", "1", "1 7", "1 -5", "1 99999999999", "0 65", "1 48", "1.0 65", "\xff"]
)
def test_a_bad_line_of_the_mapping_file_is_refused(tmp_path: Path, line: str) -> None:
    """Bad codes and repeated labels or names: the message names the file."""
    put(tmp_path, *PLAIN)
    (tmp_path / "mapping.txt").write_text(f"0 48\n{line}\n", encoding="latin-1")
    with pytest.raises(DataError, match=f"{tmp_path}/mapping.txt: (line 2 is|cannot be read)"):
        idx_folder.find(tmp_path)
