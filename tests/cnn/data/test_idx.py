"""IDX files: what is written is read back, and what is not IDX is refused by name."""

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
anything = array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=3).flatmap(
    lambda shape: st.sampled_from(sorted(idx.TYPES)).flatmap(
        lambda code: arrays(idx.TYPES[code].newbyteorder("="), shape)
    )
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each example writes anew."""
    return tmp_path_factory.mktemp("idx") / "images-idx3-ubyte"


def header(code: int, *sizes: int) -> bytes:
    return struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes)


def same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Return whether two arrays have one type, one shape and the same bits."""
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


def read_or_none(path: Path, content: bytes) -> NDArray[Any] | None:
    """Return the array that bytes spell, None if refused; `idx.digest` must agree."""
    path.write_bytes(content)
    try:
        array = idx.read(path)
    except DataError as error:
        assert str(path) in str(error)
        with pytest.raises(DataError):
            idx.digest(path)
        return None
    assert len(idx.digest(path)) == 64
    return array


@given(array=anything, compress=st.booleans())
def test_what_is_written_is_read_back(path: Path, array: NDArray[Any], compress: bool) -> None:
    """Type, shape and every bit survive, with or without gzip; the array is one's own."""
    idx.write(path, array, compress=compress)
    payload = idx.load(path)
    assert same(payload.array, array)
    assert payload.array.flags.writeable
    assert payload.array.dtype.isnative
    raw = path.read_bytes()
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
def test_elements_are_read_as_the_format_has_them(
    path: Path, code: int, element: str, dtype: str, value: float
) -> None:
    """All six types are big-endian in the file and native in memory."""
    path.write_bytes(header(code, 1) + bytes.fromhex(element))
    assert same(idx.read(path), np.array([value], dtype))


@given(
    content=st.binary(max_size=64)
    | st.builds(
        lambda code, sizes, body: header(code, *sizes) + body,
        st.sampled_from([*idx.TYPES, 0x0A]),
        st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**32 - 1]), max_size=5),
        st.binary(max_size=32),
    )
)
def test_bytes_are_refused_or_read_as_what_they_say(path: Path, content: bytes) -> None:
    """No content gives anything but DataError or the one array that is written as it."""
    array = read_or_none(path, content)
    if array is not None:
        idx.write(path, array)
        assert path.read_bytes() == content


@given(array=anything, compress=st.booleans(), data=st.data())
def test_a_file_that_is_cut_off_is_refused(
    path: Path, array: NDArray[Any], compress: bool, data: st.DataObject
) -> None:
    """However many bytes are missing at the end, nothing is read."""
    idx.write(path, array, compress=compress)
    content = path.read_bytes()
    n_kept = data.draw(st.integers(0, len(content) - 1))
    assert read_or_none(path, content[:n_kept]) is None


@given(array=anything, data=st.data())
def test_a_flipped_bit_of_a_compressed_file_changes_nothing_unnoticed(
    path: Path, array: NDArray[Any], data: st.DataObject
) -> None:
    """Damage to a gzip file is found, or it did not touch the array."""
    idx.write(path, array, compress=True)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = read_or_none(path, bytes(content))
    assert found is None or same(found, array)


@pytest.mark.parametrize(
    "content",
    [
        header(0x08, *[1] * 65) + b"\0",
        header(0x08, *[0] * 255),
        header(0x08, 0, 2**32 - 1, 2**32 - 1, 2**32 - 1),
        header(0x0E, 0, 2**32 - 1, 2**32 - 1),
    ],
    ids=["65 dimensions", "255 dimensions", "empty but huge", "empty but huge, float64"],
)
def test_a_shape_that_no_array_can_have_is_refused(path: Path, content: bytes) -> None:
    """A header beyond NumPy's own limits is refused like any other bad header."""
    assert read_or_none(path, content) is None


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "the file is empty"),
        (b"\n <!DOCTYPE html><title>Sign in</title>", "HTML page.*begins '<!DOCTYPE html>"),
        (b"<html>" + b"x" * 500, "HTML page"),
        (SHORTS[:3], "cut off after 3 bytes"),
        (SHORTS[:9], "cut off in its header of 2 dimensions"),
        (b'{"message": "no"}', 'text, not an IDX file; it begins \'{"message": "no"}\''),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "not an IDX file: it begins 89 50 4e 47"),
        (header(0x0A, 1) + b"\0", "unknown IDX element type 0x0A; known are 0x08, 0x09, 0x0B"),
        (header(0x08), "0 dimensions; 1 to 64"),
        (SHORTS[:-1], "says 1 x 3, which takes 6 bytes .* holds only 5; it is cut off or damaged"),
        (SHORTS + b"\0", "says 1 x 3, which takes 6 bytes .* holds more"),
        (header(0x08, 2**31, 2**31) + b"\0", "more than this file can hold"),
        (gzip.compress(SHORTS, mtime=0)[:-9], "the gzip file is cut off"),
        (gzip.compress(SHORTS, mtime=0)[:-8] + bytes(8), "the gzip file is damaged"),
        (gzip.compress(SHORTS, mtime=0) + b"more", "the gzip file is damaged"),
        (
            gzip.compress(gzip.compress(SHORTS, mtime=0), mtime=0),
            "not an IDX file: it begins 1f 8b",
        ),
    ],
)
def test_a_refusal_says_what_was_found(tmp_path: Path, content: bytes, wanted: str) -> None:
    """The message names the file and tells one kind of damage from another."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){path}: .*{wanted}"):
        idx.read(path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A missing file and a folder in its place are data errors that name the path."""
    path = tmp_path / "images"
    make(path)
    with pytest.raises(DataError, match=f"{path}: cannot be read"):
        idx.read(path)


def test_compression_is_recognised_by_content(tmp_path: Path) -> None:
    """Neither a missing nor a false .gz in the name misleads the reader."""
    array = np.arange(3, dtype=np.int32)
    for name, compress in (("packed", True), ("plain.gz", False)):
        idx.write(tmp_path / name, array, compress=compress)
        assert same(idx.read(tmp_path / name), array)


def test_writing_twice_gives_the_same_bytes(path: Path) -> None:
    """A compressed file carries neither date nor name."""
    idx.write(path, np.zeros(9, np.uint8), compress=True)
    content = path.read_bytes()
    assert content[3:8] == bytes(5)  # gzip: no flags, so no name; no time (RFC 1952, 2.3)
    idx.write(path, np.zeros(9, np.uint8), compress=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "array",
    [np.zeros(2, np.uint16), np.zeros(2, bool), np.array(["a"]), np.array(7, np.uint8)],
    ids=["uint16", "bool", "text", "no dimension"],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, array: NDArray[Any]) -> None:
    """An element type or a rank that IDX does not have is refused before a file is there."""
    with pytest.raises(DataError, match="IDX has no"):
        idx.write(tmp_path / "file", array)
    assert not (tmp_path / "file").exists()
