"""Case 03: a mirror recompressed the files, so that their digests differ and the data do not."""

import gzip
import io
import logging
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnn.config.run import DataConfig
from cnn.data import published, sources
from cnn.errors import UnreachableError
from tests import hosts
from tests.hosts import Server

MNIST = DataConfig(source="mnist")
IMAGES = published.FILE_NAMES["train-images"]


def named(content: bytes) -> bytes:
    """Pack with a file name and a date in the header, as `gzip FILE` does."""
    packed = io.BytesIO()
    with gzip.GzipFile("train-images-idx3-ubyte", "wb", 9, packed, 1e9) as stream:
        stream.write(content)
    return packed.getvalue()


def huffman(content: bytes) -> bytes:
    """Pack with another strategy."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_HUFFMAN_ONLY)
    return packer.compress(content) + packer.flush()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "level 1": lambda content: gzip.compress(content, 1),
    "not compressed": lambda content: gzip.compress(content, 0),
    "name and date": named,
    "other strategy": huffman,
    "in two members": lambda content: gzip.compress(content[:999]) + gzip.compress(content[999:]),
    "not packed": lambda content: content,
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_another_packing_is_the_same_data(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, packing: str
) -> None:
    """Fetched or found in the downloads: loaded, without an option, a warning or a line more."""
    before = server.bodies[IMAGES]
    for name, body in server.bodies.items():
        server.bodies[name] = PACKINGS[packing](gzip.decompress(body))
    assert server.bodies[IMAGES] != before
    with caplog.at_level(logging.INFO, "cnn"):
        for n_lines in (4, 0):
            caplog.clear()
            dataset = sources.load(sources.identify(MNIST, tmp_path), MNIST)
            assert len(caplog.records) == n_lines
    assert (tmp_path / "mnist" / IMAGES).read_bytes() == server.bodies[IMAGES]
    np.testing.assert_array_equal(
        dataset.splits["test"].images[..., 0], hosts.small_set()["test-images"]
    )


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(("role", "cached"), [("train-images", True), ("test-labels", False)])
def test_one_changed_element_is_refused(
    tmp_path: Path, server: Server, packing: str, role: str, cached: bool
) -> None:
    """However it is packed: file, wanted and found digest are named, and nothing is loaded."""
    name = published.FILE_NAMES[role]
    content = bytearray(gzip.decompress(server.bodies[name]))
    content[-1] ^= 1
    server.bodies[name] = PACKINGS[packing](bytes(content))
    changed = tmp_path / "changed"
    changed.write_bytes(server.bodies[name])
    if cached:
        hosts.written(tmp_path / "mnist", hosts.small_set())
        (tmp_path / "mnist" / name).write_bytes(server.bodies[name])
    with pytest.raises(UnreachableError) as caught:
        sources.load(sources.identify(MNIST, tmp_path), MNIST)
    digests = f"{hosts.idx.digest(changed)}, expected {published.SETS['mnist'].sha256[role]}"
    assert f"/good/{name}: wrong checksum" in str(caught.value)
    assert str(caught.value).count(digests) == 1 + cached
    assert not (tmp_path / "mnist" / name).exists()
