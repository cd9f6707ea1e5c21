"""IDX files: arrays survive a round trip, and a bad file is refused with the reason.

tests/properties/test_fuzz_files.py compares reading any bytes with a second reader.
"""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from cnn.data import idx
from cnn.errors import DataError

SHORTS = bytes.fromhex("00 00 0b 02 00000001 00000003 0001 ff00 7fff")
PACKED = gzip.compress(SHORTS, mtime=0)
any_array = array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=3).flatmap(
    lambda shape: st.sampled_from(sorted(idx.TYPES)).flatmap(
        lambda code: arrays(idx.TYPES[code].newbyteorder("="), shape)
    )
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that every example overwrites."""
    return tmp_path_factory.mktemp("idx") / "images-idx3-ubyte"


def header(code: int, *sizes: int) -> bytes:
    return struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes)


def same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Return whether two arrays have the same type, shape and bits."""
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@given(array=any_array, compress=st.booleans())
def test_a_written_array_is_read_back(path: Path, array: NDArray[Any], compress: bool) -> None:
    """Type, shape and every bit survive; the array is writable and its file reproducible."""
    idx.write(path, array, compress=compress)
    payload = idx.load(path)
    assert same(payload.array, array)
    assert payload.array.flags.writeable
    assert payload.array.dtype.isnative
    raw = path.read_bytes()
    if compress:
        assert raw[3:8] == bytes(5)  # no flags, so no name; no time (RFC 1952, 2.3)
    unpacked = gzip.decompress(raw) if compress else raw
    assert payload.sha256 == idx.digest(path) == hashlib.sha256(unpacked).hexdigest()


@pytest.mark.parametrize(
    ("code", "element", "dtype", "value"),
    [
        (0x08, "ff", "uint8", 255),
        (0x09, "ff", "int8", -1),
        (0x0B, "ff00", "int16", -256),
        (0x0C, "00010000", "int32", 65536),
        (0x0D, "3fc00000", "float32", 1.5),
        (0x0E, "3ff8000000000000", "float64", 1.5),
    ],
)
def test_all_six_element_types_are_big_endian_in_the_file(
    path: Path, code: int, element: str, dtype: str, value: float
) -> None:
    path.write_bytes(header(code, 1) + bytes.fromhex(element))
    assert same(idx.read(path), np.array([value], dtype))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n <!DOCTYPE html><title>Sign in</title>", "HTML page.*begins '<!DOCTYPE html>"),
        (b"<html>" + b"x" * 500, "HTML page"),
        (b'{"message": "no"}', 'text, not an IDX file; it begins \'{"message": "no"}\''),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "not an IDX file: it begins 89 50 4e 47"),
        (b"\0\x61" + SHORTS[2:], "not an IDX file: it begins 00 61 0b 02"),
        (SHORTS[:3], "cut off after 3 bytes"),
        (SHORTS[:9], "cut off in its header of 2 dimensions"),
        (header(0x0A, 1) + b"\0", "unknown IDX element type 0x0A; known are 0x08, 0x09, 0x0B"),
        (header(0x08), "0 dimensions; 1 to 64"),
        (header(0x08, *[1] * 65) + b"\0", "65 dimensions; 1 to 64"),
        (header(0x08, *[0] * 255), "255 dimensions; 1 to 64"),
        (header(0x08, 0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "too large for any array"),
        (header(0x0E, 0, 2**32 - 1, 2**32 - 1), "too large for any array"),
        (header(0x08, 2**31, 2**31) + b"\0", "more than this file can hold"),
        (SHORTS[:-1], "says 1 x 3, which takes 6 bytes .* holds only 5; it is cut off or damaged"),
        (SHORTS + b"\0", "says 1 x 3, which takes 6 bytes .* holds more"),
        (PACKED[:-9], "the gzip file is cut off"),
        (PACKED[:-8] + bytes(8), "the gzip file is damaged"),
        (PACKED + b"more", "the gzip file is damaged"),
        (gzip.compress(PACKED, mtime=0), "not an IDX file: it begins 1f 8b"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """`read` and `digest` agree; their message names the file and what is wrong with it."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    for function in (idx.read, idx.digest):
        with pytest.raises(DataError, match=f"(?s){path}: .*{message}"):
            function(path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_missing_file_and_a_folder_are_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "images"
    make(path)
    with pytest.raises(DataError, match=f"{path}: cannot be read"):
        idx.read(path)


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    """A missing .gz, or a .gz left over from a browser that unpacked the file, does not matter."""
    array = np.arange(3, dtype=np.int32)
    for name, compress in (("packed", True), ("plain.gz", False)):
        idx.write(tmp_path / name, array, compress=compress)
        assert same(idx.read(tmp_path / name), array)
    assert idx.digest(tmp_path / "packed") == idx.digest(tmp_path / "plain.gz")


@pytest.mark.parametrize(
    "array",
    [np.zeros(2, np.uint16), np.zeros(2, bool), np.array(["a"]), np.array(7, np.uint8)],
    ids=["uint16", "bool", "text", "no dimension"],
)
def test_an_array_that_idx_cannot_store_is_not_written(tmp_path: Path, array: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="IDX cannot store"):
        idx.write(tmp_path / "file", array)
    assert not (tmp_path / "file").exists()
