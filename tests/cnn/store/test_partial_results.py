"""Partial results come back whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from cnn.store import partial_results

ARRAYS = {"places": np.arange(300), "strengths": np.linspace(0, 1, 300, dtype=np.float32)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A partial result on disk."""
    path = tmp_path / "key" / "part.npz"
    partial_results.write(path, ARRAYS)
    return path


def test_written_arrays_are_read_back(path: Path) -> None:
    """Names, dtypes and values; no other file is left in the folder."""
    found = partial_results.read(path)
    assert found is not None
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_partial_result_is_none(tmp_path: Path) -> None:
    """Neither the file nor its folder needs to exist."""
    assert partial_results.read(tmp_path / "key" / "part.npz") is None


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "text", "pickle"])
def test_a_damaged_partial_result_is_removed(
    path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names it, and the caller computes it again."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= how == "flipped"
    damaged = {"empty": b"", "cut": content[:-30], "text": b"PK", "flipped": content}
    path.write_bytes(damaged.get(how, b"\x80\x04N."))
    assert partial_results.read(path) is None
    assert not path.exists()
    assert f"{path}: incomplete or damaged" in caplog.text
