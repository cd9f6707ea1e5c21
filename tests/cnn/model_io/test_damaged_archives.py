"""A damaged .keras archive is refused as such.

Odd inputs from keras-team/keras#20463, Lightning-AI/pytorch-lightning#688, deepfakes/faceswap#329.
"""

from pathlib import Path

import pytest

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.model_io import exports
from cnn.train import networks, recipes


@pytest.fixture(scope="module")
def whole(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The archive of an untrained model of the usual size."""
    folder = tmp_path_factory.mktemp("model")
    exports.save_model(folder, networks.build(recipes.FAST, digits.image_shape, 10, seed=0), digits)
    assert exports.load_model(folder).count_params() > 0
    return (folder / exports.MODEL_NAME).read_bytes()


def assert_refused(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"^{path}: not a complete .keras archive{reason}"):
        exports.load_model(path.parent)


@pytest.mark.parametrize("fraction", [0, 0.001, 0.1, 0.5, 0.7, 0.999])
def test_a_truncated_archive_is_refused(whole: bytes, tmp_path: Path, fraction: float) -> None:
    """However much of it is missing, including everything."""
    assert_refused(tmp_path / exports.MODEL_NAME, whole[: int(len(whole) * fraction)], "")


def test_an_archive_with_a_hole_is_refused(whole: bytes, tmp_path: Path) -> None:
    """Its directory at the end is intact, and the weights before it are not."""
    middle = len(whole) // 2
    content = whole[:middle] + bytes(512) + whole[middle + 512 :]
    assert_refused(tmp_path / exports.MODEL_NAME, content, r" \(Bad CRC-32")


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [(8, b"\x01\x00", "is encrypted"), (10, b"\x63\x00", "compression method is not supported")],
    ids=["encrypted", "unknown compression"],
)
def test_an_archive_that_cannot_be_unpacked_is_refused(
    whole: bytes, tmp_path: Path, offset: int, value: bytes, reason: str
) -> None:
    """According to its directory it needs a password or another program."""
    start = whole.index(b"PK\x01\x02") + offset  # in the directory's first entry
    content = whole[:start] + value + whole[start + len(value) :]
    assert_refused(tmp_path / exports.MODEL_NAME, content, rf" \(.*{reason}")


def test_a_folder_without_an_archive_is_refused(tmp_path: Path) -> None:
    """The error is an ArtifactError, not FileNotFoundError."""
    with pytest.raises(ArtifactError, match="No such file"):
        exports.load_model(tmp_path)
