"""Case 05: wrong magic, exchanged files, counts that differ."""

from pathlib import Path

import numpy as np
import pytest

from cnn.errors import DataError
from tests.cases import inputs

GOOD = inputs.good_set()
PLAIN = "{part}-idx{rank}-{word}"


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        inputs.load(folder)
    return str(caught.value)


@pytest.mark.parametrize("packed", [[], ["train-images"], list(GOOD)], ids=["none", "one", "all"])
def test_gzip_is_recognised_by_content_behind_a_plain_name(
    tmp_path: Path, packed: list[str]
) -> None:
    """A file that is still packed is unpacked whatever it is called."""
    inputs.write_set(tmp_path, GOOD, name=PLAIN)
    for path in tmp_path.iterdir():
        if path.name.startswith(tuple(packed)):
            path.write_bytes(inputs.packed(path.read_bytes()))
    inputs.assert_equal(inputs.load(tmp_path), GOOD)


def test_an_unpacked_file_behind_a_name_with_gz_is_read(tmp_path: Path) -> None:
    """The other way round: a browser unpacked the file and left its name."""
    inputs.write_set(tmp_path, GOOD, name=PLAIN)
    for path in list(tmp_path.iterdir()):
        path.rename(f"{path}.gz")
    inputs.assert_equal(inputs.load(tmp_path), GOOD)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_exchanged_files_are_refused(tmp_path: Path, part: str) -> None:
    """Labels where images belong: the path, what was found, what was expected."""
    inputs.write_set(tmp_path, GOOD)
    images, labels = (next(tmp_path.glob(f"{part}-{kind}*")) for kind in ("images", "labels"))
    images.rename(tmp_path / "aside")
    labels.rename(images)
    (tmp_path / "aside").rename(labels)
    n = len(GOOD[f"{part}-labels"])
    assert refusal(tmp_path).startswith(
        f"{images}: 1 dimension, shape ({n},), {n} items: looks like labels; "
        "images have 3 dimensions"
    )


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("part", GOOD)
def test_a_wrong_magic_is_refused(tmp_path: Path, part: str, position: int) -> None:
    """The first bytes that were found are shown beside those that IDX has."""
    inputs.write_set(tmp_path, GOOD, name=PLAIN)
    (victim,) = tmp_path.glob(f"{part}*")
    content = bytearray(victim.read_bytes())
    content[position] = 0x61
    victim.write_bytes(content)
    assert f"{victim}: not an IDX file: it begins {content[:4].hex(' ')}, and" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("part", "n_images", "n_labels"), [("train", 60, 59), ("train", 59, 60), ("t10k", 20, 1)]
)
def test_counts_that_differ_are_refused(
    tmp_path: Path, part: str, n_images: int, n_labels: int
) -> None:
    """Both counts and both files are named."""
    cut = {f"{part}-images": n_images, f"{part}-labels": n_labels}
    inputs.write_set(tmp_path, {name: a[: cut.get(name)] for name, a in GOOD.items()})
    message = refusal(tmp_path)
    assert f"{n_images} images in {tmp_path}/{part}-images-idx3-ubyte.gz" in message
    assert f"{n_labels} labels in {tmp_path}/{part}-labels-idx1-ubyte.gz" in message


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A NumPy file under an IDX name is no IDX file."""
    inputs.write_set(tmp_path, GOOD)
    (victim,) = tmp_path.glob("train-images*")
    with victim.open("wb") as stream:
        np.save(stream, GOOD["train-images"])
    assert f"{victim}: not an IDX file: it begins 93 4e 55 4d" in refusal(tmp_path)
