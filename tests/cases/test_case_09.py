"""Case 09: own pictures: colour, alpha, 16 bit, palette, other sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnn.config.run import RuntimeConfig
from cnn.data.dataset import Dataset
from cnn.errors import DataError, ServerError
from cnn.report.pages import body
from cnn.train import device
from flows import cli, local_run
from tests.cases import inputs
from tests.cnn.report.conftest import train_briefly, write_artifacts

LABELS = {"left": 1, "right": 2}
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6  # to be turned clockwise by 90 degrees


def rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([gray] * 3)


def rgba(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture that is white where nothing is seen of it."""
    picture = np.dstack([rgb(gray), np.where(gray > 0, 255, 0)]).astype(np.uint8)
    picture[..., :3][gray == 0] = 255
    return picture


def file(array: NDArray[Any], format: str, mode: str = "", **options: Any) -> bytes:
    picture = Image.fromarray(array)
    return inputs.encoded(picture.convert(mode) if mode else picture, format, **options)


# Every way to say the same picture, by file name.
VARIANTS: dict[str, Any] = {
    "gray8.png": inputs.png,
    "gray16.png": lambda g: inputs.png(g.astype(np.uint16) * 257),
    "rgb.png": lambda g: inputs.png(rgb(g)),
    "rgba.png": lambda g: inputs.png(rgba(g)),
    "gray and alpha.png": lambda g: file(np.dstack([g, np.full_like(g, 255)]), "PNG"),
    "one gray is transparent.png": lambda g: inputs.png(g, transparency=0),
    "palette.png": lambda g: inputs.png(g, [v for i in range(256) for v in (i, i, i)]),
    "png_named.jpg": inputs.png,
    "no suffix": inputs.png,
    "bitmap.bmp": lambda g: file(g, "BMP"),
    "bitmap rgb.bmp": lambda g: file(rgb(g), "BMP"),
    "still.gif": lambda g: file(g, "GIF"),
    "gray.tif": lambda g: file(g, "TIFF"),
    "gray16.tif": lambda g: file(g.astype(np.uint16) * 257, "TIFF"),
    "rgb.tiff": lambda g: file(rgb(g), "TIFF", compression="tiff_lzw"),
    "cmyk.tif": lambda g: file(rgb(g), "TIFF", mode="CMYK"),
    "lossless.webp": lambda g: file(rgb(g), "WEBP", lossless=True),
    "turned.png": lambda g: inputs.png(np.ascontiguousarray(np.rot90(g)), exif=SIDEWAYS),
    "turned.tif": lambda g: file(np.ascontiguousarray(np.rot90(g)), "TIFF", exif=SIDEWAYS),
}


def put(folder: Path, name: str, size: tuple[int, int] = (28, 28)) -> Path:
    """Write one variant beside plain gray pictures, in each of two classes."""
    for label, number in LABELS.items():
        glyph = inputs.glyph(number, size)
        content = {f"{label}/a.png": inputs.png(glyph), f"{label}/b {name}": VARIANTS[name](glyph)}
        inputs.write_pictures(folder, content)
    return folder


def all_images(dataset: Dataset) -> NDArray[Any]:
    """Return all images by their id."""
    splits = list(dataset.splits.values())
    order = np.argsort(np.concatenate([split.ids for split in splits]))
    return np.concatenate([split.images for split in splits])[order]


@pytest.mark.parametrize("size", [(28, 28), (30, 20)])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_format_gives_the_gray_picture(
    tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    """Colour by its luma, 16 bits divided by 257, transparent on 0, turned as EXIF says."""
    images = all_images(inputs.load(put(tmp_path, name, size)))
    assert images.shape == (4, *size, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_array_equal(images[3], images[2])


@pytest.mark.parametrize("quality", [100, 90])
def test_jpeg_is_read_up_to_its_loss(tmp_path: Path, quality: int) -> None:
    """JPEG changes pixels a little; a phone's, with previews behind it, too."""
    glyph = inputs.glyph(1, (30, 20))
    turned = np.ascontiguousarray(np.rot90(rgb(glyph)))
    second = Image.fromarray(turned)
    for label in LABELS:
        files = {
            f"{label}/a.png": inputs.png(glyph),
            f"{label}/b.jpg": file(rgb(glyph), "JPEG", quality=quality),
            f"{label}/c.jpeg": file(turned, "JPEG", quality=quality, exif=SIDEWAYS),
            f"{label}/d.jpg": file(
                rgb(glyph), "MPO", quality=quality, save_all=True, append_images=[second]
            ),
        }
        inputs.write_pictures(tmp_path, files)
    images = all_images(inputs.load(tmp_path)).astype(int)
    assert images.shape == (8, 30, 20, 1)
    for i in (1, 2, 3):
        assert np.abs(images[i] - images[0]).mean() < (2 if quality == 100 else 8)


@pytest.mark.parametrize("opaque", [0, 51, 255])
def test_half_transparent_pixels_are_as_much_darker(tmp_path: Path, opaque: int) -> None:
    """The background is 0, as in MNIST."""
    base = np.full((8, 8), 200, np.uint8)
    picture = np.dstack([rgb(base), np.full_like(base, opaque)])
    for i in range(2):
        inputs.write_pictures(tmp_path, {f"{label}/{i}.png": inputs.png(picture) for label in "ab"})
    assert (all_images(inputs.load(tmp_path)) == 200 * opaque // 255).all()


def test_colours_are_kept_where_asked(tmp_path: Path) -> None:
    """Three channels instead of one; gray pictures have them all alike."""
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    files = {"a/0.png": colours, "a/1.png": colours[..., 0], "b/0.png": colours, "b/1.png": colours}
    inputs.write_pictures(tmp_path, {name: inputs.png(array) for name, array in files.items()})
    images = all_images(inputs.load(tmp_path, channels=3))
    np.testing.assert_array_equal(images[0], colours)
    np.testing.assert_array_equal(images[1], rgb(colours[..., 0]))
    gray = all_images(inputs.load(tmp_path))
    luma = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray[0, ..., 0], luma, atol=1)


def test_sizes_that_differ_are_refused_with_a_table(tmp_path: Path) -> None:
    """How many pictures have which size, which is one of them, and what to do."""
    inputs.class_folders(tmp_path, 5)
    odd = {f"{label}/odd.png": inputs.png(inputs.glyph(1, (30, 20))) for label in LABELS}
    inputs.write_pictures(tmp_path, {**odd, "left/tiny.png": inputs.png(inputs.glyph(1, (14, 9)))})
    with pytest.raises(DataError) as caught:
        inputs.load(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: the pictures have 3 sizes (height x width), and one is expected:",
        "  28 x 28: 10 pictures, such as left/0.png",
        "  30 x 20: 2 pictures, such as left/odd.png",
        "  14 x 9: 1 pictures, such as left/tiny.png",
        "give --data.image_size '[28, 28]', or another size, to resize all",
    ]
    for size in ((28, 28), (16, 40)):
        dataset = inputs.load(tmp_path, image_size=size)
        assert dataset.image_shape == (*size, 1)
        assert dataset.origin["image_size"] == list(size)


def test_resizing_is_smooth(tmp_path: Path) -> None:
    """Fine stripes become their mean, not every second of them."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[::2] = 200
    for label in LABELS:
        inputs.write_pictures(tmp_path, {f"{label}/{i}.png": inputs.png(stripes) for i in "ab"})
    images = all_images(inputs.load(tmp_path, image_size=(16, 16)))
    assert np.abs(images.astype(int) - 100).max() <= 15


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path, format: str, share: float) -> None:
    """The file is named, however much of it is there."""
    inputs.class_folders(tmp_path, 3)
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    whole = file(noise, format)
    victim = tmp_path / f"right/cut.{format.lower()}"
    victim.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=f"{victim}: (the picture is|not a picture)"):
        inputs.load(tmp_path)


@pytest.mark.parametrize("part", ["data", "checksum"])
def test_a_png_whose_checksums_are_wrong_is_refused(tmp_path: Path, part: str) -> None:
    """Decoding would not notice other pixels; the file says itself that they are."""
    inputs.class_folders(tmp_path, 3)
    victim = tmp_path / "left/0.png"
    content = bytearray(inputs.png(np.full((28, 28), 9, np.uint8), compress_level=0))
    place = content.index(b"IDAT") + (40 if part == "data" else 4 + 7 + 28 * 29 + 4)
    content[place] ^= 1
    victim.write_bytes(content)
    with pytest.raises(DataError, match=f"{victim}: the picture is cut off or damaged"):
        inputs.load(tmp_path)


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_the_command_refuses_pictures_before_anything_is_written(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, one message that names the file, and Prefect was not started."""
    monkeypatch.setattr(local_run, "train_and_explain", lambda *_: pytest.fail("a run was started"))
    data = inputs.class_folders(tmp_path / "data", 3)
    (data / "left/0.png").write_bytes(b"")
    words = ["--data.source", "folder", "--data.path", str(data)]
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, *words, "--store", str(tmp_path / "artifacts")])
    assert ended.value.code == 3
    assert capsys.readouterr().err == f"error: {data}/left/0.png: the picture is empty\n"
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


def test_looking_at_the_data_before_a_run_warns_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run itself warns, once, where its log is kept; a plan warns too."""

    def begin(*_: object) -> None:
        assert caplog.messages == []
        raise ServerError("far enough")

    monkeypatch.setattr(local_run, "train_and_explain", begin)
    for i in range(6):
        files = {f"{name}/{i}.png": 255 - inputs.glyph(i) for name in LABELS}
        inputs.write_pictures(tmp_path / "data", {n: inputs.png(a) for n, a in files.items()})
    words = ["--data.source", "folder", "--data.path", str(tmp_path / "data"), "--store"]
    for verb, code, n_warnings in (("run", 1, 0), ("plan", 0, 1)):
        with pytest.raises(SystemExit) as ended:
            cli.main([verb, *words, str(tmp_path / "artifacts")])
        assert ended.value.code == code
        assert len(caplog.messages) == n_warnings


def test_all_damaged_pictures_are_named_at_once(tmp_path: Path) -> None:
    """A person mends a folder once; of many damaged files ten are named."""
    inputs.class_folders(tmp_path, 12)
    for path in (tmp_path / "left").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"and 2 more files$") as caught:
        inputs.load(tmp_path)
    assert len(str(caught.value).splitlines()) == 11


@pytest.mark.parametrize(("inverted", "n_warnings"), [(True, 1), (False, 0)])
@pytest.mark.parametrize("kind", ["pictures", "idx"])
def test_bright_borders_are_warned_of_and_never_inverted(
    tmp_path: Path, kind: str, inverted: bool, n_warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Ink on paper is pointed out once and used as it is."""
    good = inputs.good_set(40, 10, 2)
    shown = {n: 255 - a if inverted and "images" in n else a for n, a in good.items()}
    if kind == "idx":
        inputs.write_set(tmp_path, shown)
    else:
        pairs = zip(shown["train-images"], shown["train-labels"], strict=True)
        files = {f"{label}/{i}.png": inputs.png(image) for i, (image, label) in enumerate(pairs)}
        inputs.write_pictures(tmp_path, files)
    dataset = inputs.load(tmp_path)
    assert sum("looks inverted" in message for message in caplog.messages) == n_warnings
    assert (dataset.splits["train"].images.mean() > 127) == inverted


SETS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "rgb idx": ({}, (28, 28, 3)),
    "32 x 20 idx": ({}, (32, 20, 1)),
    "gray pictures": ({}, (28, 28, 1)),
    "colour pictures": ({"channels": 3, "image_size": (24, 30)}, (24, 30, 3)),
}


def put_set(folder: Path, name: str) -> Path:
    if name.endswith("pictures"):
        names = ("Übergröße – eine lange Klasse", "$x_1$ <b>", "日本語")
        return inputs.class_folders(folder, 14, names)
    arrays = inputs.good_set(size=(32, 20) if name == "32 x 20 idx" else (28, 28))
    if name == "rgb idx":
        arrays = {n: np.stack([a] * 3, -1) if "images" in n else a for n, a in arrays.items()}
    return inputs.write_set(folder, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_everything_behind_the_data_works_with_it(tmp_path: Path, name: str) -> None:
    """Training, evaluation, filters, patches and every figure take the shape from the data."""
    options, shape = SETS[name]
    device.prepare(RuntimeConfig())
    dataset = inputs.load(put_set(tmp_path / "data", name), **options)
    assert dataset.image_shape == shape
    fitted = train_briefly(dataset, steps=2, log_every=1)
    assert fitted.model.input_shape == (None, *shape)
    made = body.gather(write_artifacts(tmp_path, dataset, fitted))
    assert made.patches["conv1"].shape[-1] == shape[-1]
    page = tmp_path / "page"
    page.mkdir()
    body.write(page, made, n_mistakes=24)
    assert len(list(page.glob("*.png"))) == 13
