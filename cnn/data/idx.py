"""Reading and writing IDX files, the format of MNIST: every element type and rank, gzip or not.

Format: http://yann.lecun.com/exdb/mnist/ ("The IDX file format"). Two zero bytes, a
type code, the number of dimensions, one big-endian uint32 per dimension, the elements.
"""

import codecs
import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import DataError
from cnn.formatting import size_words

TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_CODES = {dtype.newbyteorder("="): code for code, dtype in TYPES.items()}
_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_GZIP_RATIO = 1032  # deflate cannot compress further: zlib, "Technical Details"
# A file that expands further, and by more than _LARGEST_GAIN bytes, is refused as a gzip bomb.
_LARGEST_USUAL_RATIO = 100  # MNIST's is 5
_LARGEST_GAIN = 100 << 20
_MOST_DIMENSIONS, _MOST_BYTES = 64, 2**63 - 1  # limits of a NumPy array
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Payload:
    """The array of an IDX file, and the SHA-256 of its uncompressed bytes."""

    array: NDArray[Any]
    sha256: str


def read(path: Path) -> NDArray[Any]:
    """Return the array of an IDX file, writable and in native byte order.

    gzip is recognised by content, not by file name. Raises DataError naming the file,
    what was found and what was expected.
    """
    return load(path).array


def load(path: Path) -> Payload:
    """Return the array of an IDX file and the digest of its uncompressed bytes; see `read`."""
    with _opened(path) as stream:
        header, dtype, shape = _read_header(path, stream)
        n_bytes = math.prod(shape) * dtype.itemsize
        _refuse_impossible(path, n_bytes)
        body = _read_body(path, stream, n_bytes, shape)
    sha256 = hashlib.sha256(header)
    sha256.update(body)
    return Payload(_native(np.frombuffer(body, dtype).reshape(shape)), sha256.hexdigest())


def digest(path: Path) -> str:
    """Return the SHA-256 of an IDX file's uncompressed bytes; raises DataError like `read`."""
    sha256 = hashlib.sha256()
    with _opened(path) as stream:
        header, dtype, shape = _read_header(path, stream)
        n_bytes = math.prod(shape) * dtype.itemsize
        _refuse_impossible(path, n_bytes)
        sha256.update(header)
        n_read = 0
        while chunk := stream.read(_CHUNK):
            n_read += len(chunk)
            if n_read > n_bytes:
                raise _wrong_length(path, shape, n_bytes, "more")
            sha256.update(chunk)
        if n_read < n_bytes:
            raise _wrong_length(path, shape, n_bytes, f"only {n_read:,}")
    return sha256.hexdigest()


def header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the dtype, in native byte order, and the shape from the header of an IDX file.

    Raises DataError like `read`.
    """
    with _opened(path) as stream:
        _, dtype, shape = _read_header(path, stream)
    return dtype.newbyteorder("="), shape


def write(path: Path, array: NDArray[Any], *, compress: bool = False) -> None:
    """Write an array as an IDX file.

    compress: gzip it, with no name or date in the gzip header. Raises DataError for an element
    type that IDX does not have, or an array without dimensions.
    """
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        known = ", ".join(str(dtype) for dtype in _CODES)
        raise DataError(f"{path}: IDX cannot store {array.dtype} elements, only {known}")
    if not array.ndim:
        raise DataError(f"{path}: IDX cannot store an array without dimensions")
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    content = header + np.ascontiguousarray(array, TYPES[code]).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if compress else content)


def check_content(path: Path) -> None:
    """Raise DataError if a file is empty, an HTML page or text, as failed downloads often are."""
    with path.open("rb") as stream:
        head = stream.read(512).removeprefix(codecs.BOM_UTF8)
    if not head:
        raise DataError(f"{path}: the file is empty; an IDX file is expected")
    text = head.lstrip()
    page = text.lower().startswith((b"<!", b"<html", b"<?xml", b"<head", b"<body"))
    if page or _is_printable(text[:80]):
        what, shown = "an HTML page" if page else "text", text[:80].decode("ascii", "replace")
        raise DataError(
            f"{path}: this is {what}, not an IDX file; it begins {shown!r}. "
            "A server may have sent it instead of the file: fetch it again"
        )


def _is_printable(content: bytes) -> bool:
    return len(content) > 3 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in content)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressing gzip; turn file and compression errors into DataError."""
    try:
        check_content(path)
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield raw
    except EOFError:
        raise DataError(f"{path}: the gzip file is cut off; fetch or copy it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip file is damaged, its checksum or stream is wrong ({error}); "
            "fetch or copy it again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _read_header(path: Path, stream: IO[bytes]) -> tuple[bytes, np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: the file is cut off after {len(magic)} bytes, in its header")
    if magic[:2] != b"\0\0":
        raise DataError(
            f"{path}: not an IDX file: it begins {magic.hex(' ')}, and IDX begins 00 00"
        )
    if magic[2] not in TYPES:
        known = ", ".join(f"0x{code:02X}" for code in TYPES)
        raise DataError(f"{path}: unknown IDX element type 0x{magic[2]:02X}; known are {known}")
    if not 1 <= magic[3] <= _MOST_DIMENSIONS:
        raise DataError(
            f"{path}: the IDX header has {magic[3]} dimensions; "
            f"1 to {_MOST_DIMENSIONS} are expected"
        )
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{path}: the file is cut off in its header of {magic[3]} dimensions")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    if TYPES[magic[2]].itemsize * math.prod(n for n in shape if n) > _MOST_BYTES:
        raise DataError(f"{path}: the IDX header has the shape {shape}, too large for any array")
    return magic + sizes, TYPES[magic[2]], shape


def _refuse_impossible(path: Path, n_bytes: int) -> None:
    """Refuse a header that promises more data than a file of this size can plausibly hold."""
    size = path.stat().st_size
    if n_bytes > size * _LARGEST_GZIP_RATIO:
        raise DataError(
            f"{path}: the header promises {n_bytes:,} bytes of data, more than this file can "
            "hold; it is cut off or its header is wrong"
        )
    if n_bytes > size * _LARGEST_USUAL_RATIO and n_bytes > size + _LARGEST_GAIN:
        raise DataError(
            f"{path}: the header promises {n_bytes:,} bytes of data in a file of {size:,}; no "
            "images compress that well, so the file is damaged or built to exhaust the memory"
        )


def _read_body(path: Path, stream: IO[bytes], n_bytes: int, shape: tuple[int, ...]) -> bytearray:
    body = bytearray()
    while len(body) < n_bytes and (chunk := stream.read(min(_CHUNK, n_bytes - len(body)))):
        body += chunk
    if len(body) < n_bytes:
        raise _wrong_length(path, shape, n_bytes, f"only {len(body):,}")
    if stream.read(1):
        raise _wrong_length(path, shape, n_bytes, "more")
    return body


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Convert an array to native byte order in place, so that it is never in memory twice."""
    if array.dtype.isnative:
        return array
    return array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))


def _wrong_length(path: Path, shape: tuple[int, ...], n_bytes: int, found: str) -> DataError:
    return DataError(
        f"{path}: the header says {size_words(shape)}, which takes {n_bytes:,} bytes of data, "
        f"but the file holds {found}; it is cut off or damaged"
    )
