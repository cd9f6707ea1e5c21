"""Decoding image files of different formats, pixel types and sizes into one array."""

import hashlib
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from cnn.data.image_folder import N_THREADS, ImageFile, ImageFolder
from cnn.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
LARGEST_SIDE = 1024  # pixels, of images that are not resized
LARGEST_PICTURE = 25_000_000  # pixels
_LARGE = 1_000_000  # pixels; larger images are decoded one at a time, to save memory
_ORIENTATION, _SIDEWAYS = 0x0112, {5, 6, 7, 8}  # EXIF tag and values
_ONE_AT_A_TIME = threading.Lock()
Size = tuple[int, int]


def read(folder: ImageFolder, size: Size | None, channels: int) -> NDArray[np.uint8]:
    """Return all images as (n, h, w, channels), uint8, pixels 0..255, in the order of the folder.

    Colours become gray by their luma (ITU-R BT.601), 16-bit values are divided by 257,
    transparent pixels are blended with 0, and EXIF orientation is applied. size: (height, width)
    to which images are resized with bicubic interpolation; None if they have one size. Raises
    DataError naming the files that cannot be read, or the sizes found.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata
        sizes = _of_each(_size, folder.pictures)
        height, width = size or _one_size(folder, sizes)
        images = _room_for(len(sizes), height, width, channels)

        def fill(picture: ImageFile, i: int) -> None:
            with _in_turn(sizes[i]):
                images[i] = _decode(picture, (height, width), channels)

        _of_each(fill, folder.pictures, range(len(sizes)))
    return images


def _room_for(*shape: int) -> NDArray[np.uint8]:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError:
        raise DataError(
            f"{shape[0]:,} images of {shape[1]} x {shape[2]} pixels do not fit into this "
            "machine's memory; set a smaller data.image_size"
        ) from None


def _of_each(work: Callable[..., Any], pictures: Iterable[ImageFile], *more: Iterable[Any]) -> Any:
    """Return the result of `work` for each image, from several threads; list ten errors in one."""

    def attempt(picture: ImageFile, *others: Any) -> Any:
        try:
            return work(picture, *others)
        except DataError as error:
            return error

    with ThreadPoolExecutor(N_THREADS) as pool:
        results = list(pool.map(attempt, pictures, *more))
    errors = [result for result in results if isinstance(result, DataError)]
    if errors:
        more_of_them = [f"and {len(errors) - 10:,} more files"] if len(errors) > 10 else []
        raise DataError("\n".join([*map(str, errors[:10]), *more_of_them]))
    return results


@contextmanager
def _in_turn(size: Size) -> Iterator[None]:
    if size[0] * size[1] <= _LARGE:
        yield
    else:
        with _ONE_AT_A_TIME:
            yield


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, IO[bytes]]]:
    try:
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            yield image, stream
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path}: {_unknown(path)}") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Exception as error:  # on bad content Pillow raises errors of many types
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        raise DataError(f"{path}: the image is cut off or damaged ({error})") from None


def _unknown(path: Path) -> str:
    if path.stat().st_size == 0:
        return "the file is empty; an image is expected"
    return "not a readable image; the supported formats are PNG, JPEG, BMP, GIF, TIFF and WebP"


def _too_large(path: Path) -> DataError:
    return DataError(f"{path}: the image has more than {LARGEST_PICTURE:,} pixels; make it smaller")


def _size(picture: ImageFile) -> Size:
    """Return height and width after EXIF orientation, without decoding the image."""
    with _opened(picture.path) as (image, _):
        width, height = image.size
        if width * height > LARGEST_PICTURE:
            raise _too_large(picture.path)
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1 and image.format != "MPO":  # a phone's JPEG, followed by previews
            raise DataError(f"{picture.path}: {n_frames} images in one file; one is expected")
        size = (width, height) if _is_sideways(image) else (height, width)
        image.verify()  # a PNG's checksums, which decoding ignores
        return size


def _is_sideways(image: Image.Image) -> bool:
    """Return whether EXIF orientation rotates the image by 90 degrees.

    TIFF is left out because Pillow rotates it by itself. `info` is checked first because
    `getexif` would decode a PNG that has no EXIF in its header.
    """
    if "exif" not in image.info or image.format == "TIFF":
        return False
    return image.getexif().get(_ORIENTATION) in _SIDEWAYS


def _one_size(folder: ImageFolder, sizes: list[Size]) -> Size:
    """Return the common size of all images; raises DataError with a table if sizes differ."""
    by_size: dict[Size, list[str]] = defaultdict(list)
    for picture, size in zip(folder.pictures, sizes, strict=True):
        by_size[size].append(picture.name)
    if len(by_size) > 1:
        common = sorted(by_size, key=lambda size: (-len(by_size[size]), size))
        rows = [
            f"  {size[0]} x {size[1]}: {len(by_size[size]):,} images, such as {by_size[size][0]}"
            for size in common[:10]
        ]
        more = [f"  and {len(common) - 10:,} more sizes"] if len(common) > 10 else []
        raise DataError(
            "\n".join(
                [
                    f"{folder.root}: the images have {len(common):,} sizes (height x width), but "
                    "one is expected:",
                    *rows,
                    *more,
                    f"give --data.image_size '[{common[0][0]}, {common[0][1]}]', or another size, "
                    "to resize all images",
                ]
            )
        )
    (size,) = by_size
    if max(size) > LARGEST_SIDE:
        raise DataError(
            f"{folder.root}: the images are {size[0]} x {size[1]}, but no side may be longer than "
            f"{LARGEST_SIDE:,} pixels; give --data.image_size to resize them"
        )
    return size


def _decode(picture: ImageFile, size: Size, channels: int) -> NDArray[np.uint8]:
    with _opened(picture.path) as (image, stream):
        image.load()
        plain = _plain(ImageOps.exif_transpose(image), channels, picture.path)
        if plain.size != (size[1], size[0]):
            plain = plain.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        stream.seek(0)
        _refuse_changed(picture, stream)
        return np.asarray(plain).reshape(*size, channels)


def _refuse_changed(picture: ImageFile, stream: IO[bytes]) -> None:
    sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    if sha256 != picture.sha256:
        raise DataError(
            f"{picture.path}: the file changed while the run was starting; start the run again"
        )


def _plain(image: Image.Image, channels: int, path: Path) -> Image.Image:
    """Convert an image of any mode to 8 bits in one or three channels."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DataError(f"{path}: 32-bit pixels have no known scale; 8 or 16 bits are expected")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    opaque = image.convert("L" if channels == 1 else "RGB")
    if alpha is None:
        return opaque
    bands = [ImageChops.multiply(band, alpha) for band in opaque.split()]
    return Image.merge(opaque.mode, bands)
