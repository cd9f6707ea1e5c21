"""Decoding image files: formats, colours, alpha, orientation, sizes; bad files are refused."""

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnn.data import image_decoding, image_folder
from cnn.errors import DataError
from tests.cnn.data import inputs
from tests.cnn.data.inputs import encoded

SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6  # to be rotated clockwise by 90 degrees


def decode(
    folder: Path, size: tuple[int, int] | None = None, channels: int = 1
) -> NDArray[np.uint8]:
    """Return all images of a folder, by class and name."""
    found = image_folder.find(folder)
    return image_decoding.read(found, size, channels)


def rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([gray] * 3)


def rgba(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image that is white where it is transparent."""
    colours = np.where(gray == 0, 255, gray)
    return np.dstack([rgb(colours), np.where(gray > 0, 255, 0)]).astype(np.uint8)


def inverted_palette(gray: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(255 - gray)
    image.putpalette([value for i in range(256) for value in [255 - i] * 3])
    return encoded(image)


# Ways to store the same gray image, by file name.
VARIANTS: dict[str, Any] = {
    "gray8.png": encoded,
    "gray16.png": lambda g: encoded(g.astype(np.uint16) * 257),
    "rgb.png": lambda g: encoded(rgb(g)),
    "rgba.png": lambda g: encoded(rgba(g)),
    "gray and alpha.png": lambda g: encoded(np.dstack([g, np.full_like(g, 255)])),
    "one gray is transparent.png": lambda g: encoded(g, transparency=0),
    "palette.png": inverted_palette,
    "png_named.jpg": encoded,
    "no suffix": encoded,
    "bitmap.bmp": lambda g: encoded(g, "BMP"),
    "bitmap rgb.bmp": lambda g: encoded(rgb(g), "BMP"),
    "still.gif": lambda g: encoded(g, "GIF"),
    "gray.tif": lambda g: encoded(g, "TIFF"),
    "gray16.tif": lambda g: encoded(g.astype(np.uint16) * 257, "TIFF"),
    "rgb.tiff": lambda g: encoded(rgb(g), "TIFF", compression="tiff_lzw"),
    "cmyk.tif": lambda g: encoded(rgb(g), "TIFF", mode="CMYK"),
    "lossless.webp": lambda g: encoded(rgb(g), "WEBP", lossless=True),
    "turned.png": lambda g: encoded(np.rot90(g), exif=SIDEWAYS),
    "turned.tif": lambda g: encoded(np.rot90(g), "TIFF", exif=SIDEWAYS),
}


@pytest.mark.parametrize("size", [(28, 28), (30, 20)])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_format_gives_the_same_gray_image(
    tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    """Gray is luma, 16 bits are divided by 257, transparent is 0, EXIF orientation is applied."""
    glyphs = [inputs.glyph(label, size) for label in (1, 2)]
    for i, glyph in enumerate(glyphs):
        files = {f"{i}/a.png": encoded(glyph), f"{i}/b {name}": VARIANTS[name](glyph)}
        inputs.write_files(tmp_path, files)
    images = decode(tmp_path)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], np.repeat(glyphs, 2, axis=0))


@pytest.mark.parametrize("quality", [100, 90])
def test_jpeg_is_read_up_to_its_loss(tmp_path: Path, quality: int) -> None:
    """EXIF orientation is applied; the previews in a phone's MPO file are ignored."""
    glyph = inputs.glyph(1, (30, 20))
    turned = np.rot90(rgb(glyph))
    previews = {"save_all": True, "append_images": [Image.fromarray(turned)]}
    for label in "ab":
        files = {
            f"{label}/b.jpg": encoded(rgb(glyph), "JPEG", quality=quality),
            f"{label}/c.jpeg": encoded(turned, "JPEG", quality=quality, exif=SIDEWAYS),
            f"{label}/d.jpg": encoded(rgb(glyph), "MPO", quality=quality, **previews),
        }
        inputs.write_files(tmp_path, files)
    loss = np.abs(decode(tmp_path)[..., 0].astype(int) - glyph).mean(axis=(1, 2))
    assert loss.shape == (6,)
    assert loss.max() < (2 if quality == 100 else 8)


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_transparent_pixels_are_blended_with_black(tmp_path: Path, alpha: int) -> None:
    """The background is 0, as in MNIST."""
    base = np.full((8, 8), 200, np.uint8)
    content = encoded(np.dstack([rgb(base), np.full_like(base, alpha)]))
    inputs.write_files(tmp_path, {f"{label}/{i}.png": content for label in "ab" for i in range(2)})
    assert (decode(tmp_path) == 200 * alpha // 255).all()


def test_colours_are_kept_if_asked(tmp_path: Path) -> None:
    """With three channels, those of a gray image are equal."""
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    files = {"a/0.png": colours, "a/1.png": colours[..., 0], "b/0.png": colours, "b/1.png": colours}
    inputs.write_files(tmp_path, {name: encoded(array) for name, array in files.items()})
    assert inputs.load(tmp_path, channels=3).image_shape == (9, 7, 3)
    images = decode(tmp_path, channels=3)
    np.testing.assert_array_equal(images[0], colours)
    np.testing.assert_array_equal(images[1], rgb(colours[..., 0]))
    luma = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(decode(tmp_path)[0, ..., 0], luma, atol=1)


def test_different_sizes_are_refused_with_a_table(tmp_path: Path) -> None:
    """It shows how many images have which size, one of them, and what to do."""
    inputs.class_folders(tmp_path, 5)
    odd = {f"{label}/odd.png": encoded(inputs.glyph(1, (30, 20))) for label in ("left", "right")}
    inputs.write_files(tmp_path, {**odd, "left/tiny.png": encoded(inputs.glyph(1, (14, 9)))})
    with pytest.raises(DataError) as caught:
        inputs.load(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: the images have 3 sizes (height x width), but one is expected:",
        "  28 x 28: 10 images, such as left/0.png",
        "  30 x 20: 2 images, such as left/odd.png",
        "  14 x 9: 1 images, such as left/tiny.png",
        "give --data.image_size '[28, 28]', or another size, to resize all images",
    ]
    for size in ((28, 28), (16, 40)):
        dataset = inputs.load(tmp_path, image_size=size)
        assert dataset.image_shape == (*size, 1)
        assert dataset.origin["image_size"] == list(size)


def test_large_images_are_refused_unless_they_are_resized(tmp_path: Path) -> None:
    inputs.class_folders(tmp_path, 2, size=(1200, 900))
    with pytest.raises(DataError, match="1200 x 900, but no side may be longer than 1,024 pixels"):
        decode(tmp_path)
    assert decode(tmp_path, size=(28, 28)).shape == (4, 28, 28, 1)


def test_resizing_averages_pixels(tmp_path: Path) -> None:
    """Fine stripes become their mean; dropping every second stripe would not."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[::2] = 200
    content = encoded(stripes)
    inputs.write_files(tmp_path, {f"{label}/{i}.png": content for label in "ab" for i in range(2)})
    assert np.abs(decode(tmp_path, size=(16, 16)).astype(int) - 100).max() <= 15


def frames(format: str) -> bytes:
    """Return a file of three images."""
    images = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (0, 100, 200)]
    return encoded(images[0], format, save_all=True, append_images=images[1:])


def bomb(height: int, width: int) -> bytes:
    """Return a small BMP file whose header gives these sides."""
    content = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(content)


def wrong_checksum(part: str) -> bytes:
    """Return a PNG that would decode, but whose data or checksum has a flipped bit."""
    content = bytearray(encoded(np.full((28, 28), 9, np.uint8), compress_level=0))
    content[content.index(b"IDAT") + (40 if part == "data" else 4 + 7 + 28 * 29 + 4)] ^= 1
    return bytes(content)


NOISE = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)


def bad_files() -> Iterator[tuple[str, bytes, str]]:
    """Yield name, content and the expected message."""
    for suffix in ("heic", "svg", "PNG", "jpg", "pgm"):
        yield f"x.{suffix}", b"text", "not a readable image; the supported formats are PNG, JPEG"
    for format in ("GIF", "TIFF", "WEBP", "PNG"):
        yield f"{format} frames", frames(format), "3 images in one file; one is expected"
    for height, width in ((5001, 5000), (20_000, 10_000), (60_000, 60_000)):
        content = bomb(height, width)
        yield f"bomb {height}.bmp", content, "the image has more than 25,000,000 pixels"
    for kind in ("int32", "float32"):
        content = encoded(np.zeros((28, 28), kind), "TIFF")
        yield f"{kind}.tif", content, "32-bit pixels have no known scale"
    for part in ("data", "checksum"):
        yield f"wrong {part}.png", wrong_checksum(part), "the image is cut off or damaged"
    for format in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        content = encoded(NOISE, format)
        yield f"empty.{format}", b"", "the file is empty; an image is expected"
        for share in (0.05, 0.5, 0.9):
            cut = content[: int(len(content) * share)]
            yield f"cut {share}.{format}", cut, "(the image is cut off|not a readable image)"


BAD_FILES = list(bad_files())


@pytest.mark.parametrize(
    ("name", "content", "message"), BAD_FILES, ids=[bad[0] for bad in BAD_FILES]
)
def test_a_bad_file_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """The message names the file; no file is left out silently or decoded by guesswork."""
    inputs.write_files(inputs.class_folders(tmp_path, 3), {f"left/{name}": content})
    path = re.escape(str(tmp_path / "left" / name))
    with pytest.raises(DataError, match=f"^{path}: {message}"):
        decode(tmp_path)


def test_up_to_ten_bad_files_are_named_at_once(tmp_path: Path) -> None:
    """A user can fix a folder in one go."""
    inputs.class_folders(tmp_path, 12)
    for path in (tmp_path / "left").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"and 2 more files$") as caught:
        decode(tmp_path)
    assert len(str(caught.value).splitlines()) == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), r"cannot be read \(No such file"),
        (lambda path: path.write_bytes(encoded(NOISE)), "the file changed while the run was"),
    ],
)
def test_a_file_that_changed_after_it_was_hashed_is_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    """The images that are read are those in the key."""
    folder = image_folder.find(inputs.class_folders(tmp_path, 3))
    change(tmp_path / "right/2.png")
    with pytest.raises(DataError, match=rf"right/2\.png: {message}"):
        image_decoding.read(folder, None, 1)


def test_loading_takes_little_more_memory_than_the_arrays(tmp_path: Path) -> None:
    """Images are decoded into their final array, and the split moves them within it."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
    files = {f"{label}/{i}.png": np.roll(noise, i) for label in "ab" for i in range(60)}
    inputs.write_files(tmp_path, {name: encoded(array) for name, array in files.items()})
    n_bytes = len(files) * noise.size
    tracemalloc.start()
    try:
        dataset = inputs.load(tmp_path, validation_fraction=0.01)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    n_copied = sum(dataset.splits[name].images.nbytes for name in ("validation", "test"))
    assert peak < n_bytes + n_copied + 8_000_000
