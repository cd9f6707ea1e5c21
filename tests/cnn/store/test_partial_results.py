"""Parts of work under way: they are kept whole, or not at all."""

from pathlib import Path

import numpy as np
import pytest

from cnn.store import partial_results

ARRAYS = {"places": np.arange(300), "strengths": np.linspace(0, 1, 300, dtype=np.float32)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A part that was kept."""
    path = tmp_path / "key" / "part.npz"
    partial_results.write(path, ARRAYS)
    return path


def test_what_is_kept_comes_back(path: Path) -> None:
    """Names, types and values; nothing else is left in the folder."""
    found = partial_results.read(path)
    assert found is not None
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert list(path.parent.iterdir()) == [path]


def test_what_was_not_kept_is_nothing(tmp_path: Path) -> None:
    """Neither the file nor its folder needs to be there."""
    assert partial_results.read(tmp_path / "key" / "part.npz") is None


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "text", "pickle"])
def test_a_damaged_part_is_removed(path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log names it, and the work is done again."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= how == "flipped"
    made = {"empty": b"", "cut": content[:-30], "text": b"PK", "flipped": content}
    path.write_bytes(made.get(how, b"\x80\x04N."))
    assert partial_results.read(path) is None
    assert not path.exists()
    assert f"{path}: not complete or damaged" in caplog.text
