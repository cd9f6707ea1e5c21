"""Makes arrays of picture files, whatever their format, type of pixel and size."""

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
LARGEST_SIDE = 1024  # pixels, of a picture that is used as it is
LARGEST_PICTURE = 25_000_000  # pixels
_LARGE = 1_000_000  # pixels; larger pictures are decoded one at a time, for the memory's sake
_ORIENTATION, _SIDEWAYS = 0x0112, {5, 6, 7, 8}  # of EXIF
_ONE_AT_A_TIME = threading.Lock()
Size = tuple[int, int]


def read(found: ImageFolder, size: Size | None, channels: int) -> NDArray[np.uint8]:
    """Return all pictures as (n, h, w, channels), pixels 0..255, in the order they are listed.

    Colours become gray by their luma (ITU-R BT.601), 16 bits are divided by 257, what is
    transparent lies on 0, EXIF's orientation is applied. size: (height, width) to which
    pictures are resized, smoothly; None where they have one size. Raises DataError naming
    the files that cannot be read, or the sizes found.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow thinks of a file's metadata
        sizes = _of_each(_size, found.pictures)
        height, width = size or _one_size(found, sizes)
        images = _room_for(len(sizes), height, width, channels)

        def fill(picture: ImageFile, i: int) -> None:
            with _in_turn(sizes[i]):
                images[i] = _decode(picture, (height, width), channels)

        _of_each(fill, found.pictures, range(len(sizes)))
    return images


def _room_for(*shape: int) -> NDArray[np.uint8]:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError:
        raise DataError(
            f"{shape[0]:,} pictures of {shape[1]} x {shape[2]} pixels do not fit into this "
            "machine's memory; give a smaller data.image_size"
        ) from None


def _of_each(work: Callable[..., Any], pictures: Iterable[ImageFile], *more: Iterable[Any]) -> Any:
    """Return what several threads make of each picture; raises one DataError for up to ten."""

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
    except Exception as error:  # Pillow raises whatever the content leads to
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        raise DataError(f"{path}: the picture is cut off or damaged ({error})") from None


def _unknown(path: Path) -> str:
    if path.stat().st_size == 0:
        return "the picture is empty"
    return "not a picture that can be read; readable are PNG, JPEG, BMP, GIF, TIFF and WebP"


def _too_large(path: Path) -> DataError:
    return DataError(
        f"{path}: the picture has more than {LARGEST_PICTURE:,} pixels; make it smaller"
    )


def _size(picture: ImageFile) -> Size:
    """Return height and width as the picture will be shown, from its header alone."""
    with _opened(picture.path) as (image, _):
        width, height = image.size
        if width * height > LARGEST_PICTURE:
            raise _too_large(picture.path)
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1 and image.format != "MPO":  # a phone's JPEG with previews behind it
            raise DataError(f"{picture.path}: {n_frames} pictures in one file; one is expected")
        size = (width, height) if _is_sideways(image) else (height, width)
        image.verify()  # a PNG's checksums, which decoding does not look at
        return size


def _is_sideways(image: Image.Image) -> bool:
    """Return whether EXIF says to turn the picture by 90 degrees.

    Pillow turns TIFF by itself, and would decode a PNG whose header says nothing.
    """
    if "exif" not in image.info or image.format == "TIFF":
        return False
    return image.getexif().get(_ORIENTATION) in _SIDEWAYS


def _one_size(found: ImageFolder, sizes: list[Size]) -> Size:
    """Return the size of all pictures; raises DataError with a table where there are several."""
    by_size: dict[Size, list[str]] = defaultdict(list)
    for picture, size in zip(found.pictures, sizes, strict=True):
        by_size[size].append(picture.name)
    if len(by_size) > 1:
        common = sorted(by_size, key=lambda size: (-len(by_size[size]), size))
        rows = [
            f"  {size[0]} x {size[1]}: {len(by_size[size]):,} pictures, such as {by_size[size][0]}"
            for size in common[:10]
        ]
        more = [f"  and {len(common) - 10:,} further sizes"] if len(common) > 10 else []
        raise DataError(
            "\n".join(
                [
                    f"{found.root}: the pictures have {len(common):,} sizes (height x width), and "
                    "one is expected:",
                    *rows,
                    *more,
                    f"give --data.image_size '[{common[0][0]}, {common[0][1]}]', or another size, "
                    "to resize all",
                ]
            )
        )
    (size,) = by_size
    if max(size) > LARGEST_SIDE:
        raise DataError(
            f"{found.root}: the pictures are {size[0]} x {size[1]}, and no side may be above "
            f"{LARGEST_SIDE:,}; give --data.image_size to resize them"
        )
    return size


def _decode(picture: ImageFile, size: Size, channels: int) -> NDArray[np.uint8]:
    with _opened(picture.path) as (image, stream):
        image.load()
        made = _plain(ImageOps.exif_transpose(image), channels, picture.path)
        if made.size != (size[1], size[0]):
            made = made.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        stream.seek(0)
        _refuse_changed(picture, stream)
        return np.asarray(made).reshape(*size, channels)


def _refuse_changed(picture: ImageFile, stream: IO[bytes]) -> None:
    sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    if sha256 != picture.sha256:
        raise DataError(
            f"{picture.path}: the file changed while the run was starting; start the run again"
        )


def _plain(image: Image.Image, channels: int, path: Path) -> Image.Image:
    """Return a picture with 8 bits in one channel or three, whatever it has."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DataError(f"{path}: pixels of 32 bits, whose scale is unknown; 8 or 16 are expected")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    made = image.convert("L" if channels == 1 else "RGB")
    if alpha is None:
        return made
    bands = [ImageChops.multiply(band, alpha) for band in made.split()]
    return Image.merge(made.mode, bands)
