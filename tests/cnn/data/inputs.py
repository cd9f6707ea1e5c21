"""Small data sets as IDX files of every element type and as folders of images."""

import gzip
import io
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
    """Return an image (h, w), uint8, with a bright left edge and a bar whose row is the class."""
    height, width = size
    image = np.zeros(size, np.uint8)
    image[2:-2, 2 : 2 + width // 5] = 255
    row = height // 3 + (label * (height // 2)) // 26
    image[row : row + 2, 2 : -2 - label % 5] = 150 + 4 * label
    return image


def good_set(size: tuple[int, int] = (28, 28)) -> Arrays:
    """Return the four arrays of a data set: 60 training and 20 test images in 10 classes."""
    arrays: Arrays = {}
    for part, n in (("train", 60), ("t10k", 20)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        noise = np.random.default_rng(n).integers(0, 40, (n, *size), np.uint8)
        glyphs = np.stack([glyph(int(label), size) for label in labels])
        arrays[f"{part}-images"] = np.maximum(glyphs, noise)
        arrays[f"{part}-labels"] = labels
    return arrays


def write_set(
    folder: Path,
    arrays: Mapping[str, NDArray[Any]],
    prefix: str = "",
    codes: Mapping[str, int] | None = None,
) -> Path:
    """Write arrays as .gz IDX files; codes: types of `images` and `labels`. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in arrays.items():
        code = (codes or {}).get(part.split("-")[1], 0x08)
        header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
        content = header + array.astype(CODES[code]).tobytes()
        file = f"{prefix}{part}-idx{array.ndim}-{WORDS[code]}.gz"
        (folder / file).write_bytes(gzip.compress(content, mtime=0))
    return folder


def encoded(
    image: Image.Image | NDArray[Any], format: str = "PNG", mode: str = "", **options: Any
) -> bytes:
    """Return an image as the bytes of a file; mode: to which it is converted first."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, format, **options)
    return stream.getvalue()


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by their names below a folder; return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def class_folders(
    folder: Path,
    n: int,
    names: tuple[str, ...] = ("left", "right"),
    size: tuple[int, int] = (28, 28),
) -> Path:
    """Write n gray images for each class, all different; return the folder."""
    for label, name in enumerate(names):
        for i in range(n):
            noise = np.random.default_rng([label, i]).integers(0, 40, size, np.uint8)
            file = f"{name}/{i:0{len(str(n))}}.png"
            write_files(folder, {file: encoded(np.maximum(glyph(label, size), noise))})
    return folder


def load(folder: Path, **options: Any) -> Dataset:
    """Load a folder as the source `folder`."""
    config = DataConfig(source="folder", path=folder, **options)
    downloads = folder / "no downloads"
    return sources.load(sources.identify(config, downloads), config)


def assert_equal(dataset: Dataset, arrays: Arrays, tolerance: float = 0) -> None:
    """Assert that a data set holds these images, (n, h, w) or (n, h, w, c), and labels."""
    train, validation, test = (dataset.splits[s] for s in ("train", "validation", "test"))
    order = np.argsort(np.concatenate([train.ids, validation.ids]))
    actual = {
        "train-images": np.concatenate([train.images, validation.images])[order],
        "train-labels": np.concatenate([train.labels, validation.labels])[order],
        "t10k-images": test.images,
        "t10k-labels": test.labels,
    }
    for part, array in arrays.items():
        expected = array[..., None] if array.ndim == 3 else array
        np.testing.assert_allclose(actual[part], expected, rtol=0, atol=tolerance, err_msg=part)
