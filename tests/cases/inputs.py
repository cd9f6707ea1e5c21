"""Inputs of the public cases: small data sets, IDX bytes of every type, pictures."""

import gzip
import io
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn.config.run import DataConfig
from cnn.data import sources
from cnn.data.dataset import Dataset

CODES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
WORDS = {0x08: "ubyte", 0x09: "byte", 0x0B: "short", 0x0C: "int", 0x0D: "float", 0x0E: "double"}
Arrays = dict[str, NDArray[Any]]


def glyph(label: int, size: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    """Return a picture with an up side: a bright left edge, and a bar whose place is its class."""
    height, width = size
    picture = np.zeros(size, np.uint8)
    picture[2:-2, 2 : 2 + width // 5] = 255
    row = height // 3 + (label * (height // 2)) // 26
    picture[row : row + 2, 2 : -2 - label % 5] = 150 + 4 * label
    return picture


def is_upright(picture: NDArray[Any]) -> bool:
    """Return whether a glyph's left columns are brighter than its top rows."""
    return bool(picture[:, :8].mean() > picture[:8].mean())


def good_set(
    n_train: int = 60,
    n_test: int = 20,
    n_classes: int = 10,
    size: tuple[int, int] = (28, 28),
) -> Arrays:
    """Return the four arrays of a data set, each class equally often, classes taking turns."""
    arrays: Arrays = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        labels = (np.arange(n) % n_classes).astype(np.uint8)
        noise = np.random.default_rng(n).integers(0, 40, (n, *size), np.uint8)
        glyphs = np.stack([glyph(int(label), size) for label in labels])
        arrays[f"{part}-images"] = np.maximum(glyphs, noise)
        arrays[f"{part}-labels"] = labels
    return arrays


def idx_bytes(array: NDArray[Any], code: int = 0x08) -> bytes:
    """Return an array as the bytes of an IDX file of any element type."""
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(CODES[code]).tobytes()


def packed(content: bytes) -> bytes:
    """Return bytes as gzip, the same each time."""
    return gzip.compress(content, 6, mtime=0)


def write_set(
    folder: Path,
    arrays: Mapping[str, NDArray[Any]],
    prefix: str = "",
    name: str = "{part}-idx{rank}-{word}.gz",
    codes: Mapping[str, int] | None = None,
) -> Path:
    """Write the four IDX files; codes: types of `images` and `labels`. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in arrays.items():
        code = (codes or {}).get(part.split("-")[1], 0x08)
        file = prefix + name.format(part=part, rank=array.ndim, word=WORDS[code])
        content = idx_bytes(array, code)
        (folder / file).write_bytes(packed(content) if file.endswith(".gz") else content)
    return folder


def png(array: NDArray[Any], palette: list[int] | None = None, **options: Any) -> bytes:
    """Return an array as PNG: (h, w) of 8 or 16 bits, (h, w, 3 or 4), or indices of a palette."""
    picture = Image.fromarray(array)
    if palette is not None:
        picture = Image.fromarray(array, "P") if array.dtype == np.uint8 else picture
        picture.putpalette(palette)
    return encoded(picture, "PNG", **options)


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> Path:
    """Write files by their names below a folder; return the folder."""
    for name, content in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def class_folders(
    folder: Path,
    n: int = 14,
    names: tuple[str, ...] = ("left", "right"),
    size: tuple[int, int] = (28, 28),
) -> Path:
    """Write n gray pictures for each of the classes, all different; return the folder."""
    for label, name in enumerate(names):
        for i in range(n):
            noise = np.random.default_rng([label, i]).integers(0, 40, size, np.uint8)
            file = f"{name}/{i:0{math.ceil(math.log10(n + 1))}}.png"
            write_pictures(folder, {file: png(np.maximum(glyph(label, size), noise))})
    return folder


def load(folder: Path, **options: Any) -> Dataset:
    """Return what the product makes of a folder."""
    config = DataConfig(source="folder", path=folder, **options)
    downloads = folder / "no downloads"
    return sources.load(sources.identify(config, downloads), config)


def as_files(dataset: Dataset) -> Arrays:
    """Return images and labels as they stood in the files: training and validation by id."""
    train, validation, test = (dataset.splits[s] for s in ("train", "validation", "test"))
    order = np.argsort(np.concatenate([train.ids, validation.ids]))
    return {
        "train-images": np.concatenate([train.images, validation.images])[order],
        "train-labels": np.concatenate([train.labels, validation.labels])[order],
        "t10k-images": np.asarray(test.images),
        "t10k-labels": np.asarray(test.labels),
    }


def assert_equal(dataset: Dataset, arrays: Arrays, tolerance: float = 0) -> None:
    """Assert that a data set holds these images, (n, h, w) or (n, h, w, c), and labels."""
    found = as_files(dataset)
    for part, wanted in arrays.items():
        given = wanted if wanted.ndim != 3 else wanted[..., None]
        np.testing.assert_allclose(found[part], given, rtol=0, atol=tolerance, err_msg=part)
