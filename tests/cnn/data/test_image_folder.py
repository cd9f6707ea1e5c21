"""Finding own pictures, one folder of images per class, and what is left out or refused."""

import logging
import os
import shutil
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn.config.run import DataConfig
from cnn.data import image_decoding, image_folder, sources
from cnn.errors import ConfigError, DataError
from tests.cases import inputs

PNG = inputs.png(inputs.glyph(3))


def put(root: Path, *names: str) -> Path:
    """Write pictures of these names, all different, and texts."""
    for i, name in enumerate(names):
        content = inputs.png(np.full((9, 9), i % 256, np.uint8))
        inputs.write_pictures(root, {name: b"text" if name.endswith(".txt") else content})
    return root


def flat(root: Path, *classes: str) -> Path:
    return put(root, *(f"{name}/{i}.png" for name in classes for i in range(3)))


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        inputs.load(root)
    return str(caught.value)


def test_each_folder_is_a_class_and_each_picture_has_its_place(tmp_path: Path) -> None:
    """Ids follow class and name; the data set's list of files has them in this order."""
    dataset = inputs.load(put(tmp_path, "b/2.png", "b/1.png", "a/z.png", "a/y.png", "a/x.png"))
    assert dataset.class_names == ("a", "b")
    assert dataset.files == ("a/x.png", "a/y.png", "a/z.png", "b/1.png", "b/2.png")
    values = {"b/2.png": 0, "b/1.png": 1, "a/z.png": 2, "a/y.png": 3, "a/x.png": 4}
    for split in dataset.splits.values():
        for image, label, image_id in zip(split.images, split.labels, split.ids, strict=True):
            file = dataset.files[image_id]
            assert image[0, 0, 0] == values[file]
            assert dataset.class_names[label] == file.split("/")[0]


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "TESTING")])
def test_a_train_and_a_test_folder_say_what_is_for_testing(
    tmp_path: Path, train: str, test: str
) -> None:
    """Validation images come from the training images; ids run over both."""
    flat(tmp_path / train, "cat", "dog")
    put(tmp_path, f"{test}/dog/a.png", f"{test}/cat/b.png")
    dataset = inputs.load(tmp_path, validation_fraction=1 / 3)
    assert [len(split) for split in dataset.splits.values()] == [4, 2, 2]
    assert dataset.splits["test"].ids.tolist() == [6, 7]
    assert dataset.files[6:] == (f"{test}/cat/b.png", f"{test}/dog/a.png")
    assert all(name.startswith(f"{train}/") for name in dataset.files[:6])


def test_a_class_may_lack_test_images(tmp_path: Path) -> None:
    """Only training images are needed of every class."""
    flat(tmp_path / "train", "cat", "dog")
    put(tmp_path, "test/dog/a.png")
    assert inputs.load(tmp_path).class_counts("test") == [0, 1]


def test_train_and_test_may_be_classes(tmp_path: Path) -> None:
    """Railways have trains: where pictures lie directly in both, they are classes."""
    dataset = inputs.load(flat(tmp_path, "train", "test"))
    assert dataset.class_names == ("test", "train")


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    """10 comes after 9, and words after numbers."""
    dataset = inputs.load(flat(tmp_path, "10", "9", "word", "0"))
    assert dataset.class_names == ("0", "9", "10", "word")


NAMES = [
    "with space",
    "Ünïcode",
    "日本語",
    "x" * 255,
    "-",
    "a,b;c",
    "100%",
    "'\"",
    "<b>&amp;",
]


def test_class_names_may_be_what_folders_may_be(tmp_path: Path) -> None:
    """Any name that can be shown, of any length."""
    dataset = inputs.load(flat(tmp_path, *NAMES))
    assert set(dataset.class_names) == set(NAMES)


@pytest.mark.parametrize("name", ["a\nb", "bell\a", os.fsdecode(b"\xff"), "\u2028"])
def test_a_name_that_cannot_be_shown_is_refused(tmp_path: Path, name: str) -> None:
    """Control characters and stray bytes would break tables and pages."""
    assert f"the name of the class {name!r} cannot be shown" in refusal(
        flat(tmp_path, "good", name)
    )


def test_a_file_name_may_be_any_bytes(tmp_path: Path) -> None:
    """Only the list of files shows it, with an escape."""
    flat(tmp_path, "a", "b")
    (tmp_path / "a" / os.fsdecode(b"x\xff.png")).write_bytes(inputs.png(np.ones((9, 9), np.uint8)))
    assert "a/x\\xff.png" in inputs.load(tmp_path).files


def test_the_key_follows_the_content_alone(tmp_path: Path) -> None:
    """Order of writing, dates and place change nothing; a pixel, a name or a class does."""
    first = flat(tmp_path / "first", "a", "b")
    second = tmp_path / "second"
    for path in sorted(first.rglob("*.png"), reverse=True):
        inputs.write_pictures(second, {str(path.relative_to(first)): path.read_bytes()})
        os.utime(second / path.relative_to(first), (1, 1))
    (second / "a/.DS_Store").touch()
    (second / "README.md").write_text("about")

    def digest(root: Path) -> str:
        return image_folder.find(root).digest

    assert digest(first) == digest(second)
    before = digest(second)
    for source, target in (("a/0.png", "b/0.png"), ("a/1.png", "a/x.png"), ("b", "c")):
        (second / source).rename(second / target)
        assert digest(second) != before
        before = digest(second)


def test_a_name_is_the_same_however_its_letters_are_composed(tmp_path: Path) -> None:
    """One system writes ü as one letter, another as u and two dots: the key is one."""
    digests = set()
    for form in ("NFC", "NFD"):
        root = flat(tmp_path / form, "a", unicodedata.normalize(form, "Kürbis"))
        found = image_folder.find(root)
        assert found.class_names == (unicodedata.normalize("NFC", "Kürbis"), "a")
        digests.add(found.digest)
    assert len(digests) == 1
    flat(tmp_path / "NFD", unicodedata.normalize("NFC", "Kürbis"))
    assert "two folders of the class 'Kürbis'; keep one" in refusal(tmp_path / "NFD")


def test_choices_are_in_the_key(tmp_path: Path) -> None:
    """Size, channels and transposing decide the arrays; null means gray."""
    config = DataConfig(source="folder", path=flat(tmp_path, "a", "b"))

    def identity(**options: Any) -> str:
        return repr(sources.identify(config.model_copy(update=options), tmp_path).identity())

    assert identity() == identity(channels=1) == identity(transpose=False)
    others = [{"channels": 3}, {"image_size": (9, 9)}, {"transpose": True}]
    assert len({identity(), *(identity(**options) for options in others)}) == 4


@pytest.mark.parametrize(
    "name", [".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/x.png"]
)
def test_files_of_the_system_are_no_news(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They lie in every folder, and nobody put them there."""
    flat(tmp_path, "a", "b")
    for place in ("", "a/"):
        inputs.write_pictures(tmp_path, {place + name: b"x"})
    assert len(inputs.load(tmp_path).files) == 6
    assert caplog.messages == []


def test_other_files_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A table of labels or a text beside the pictures stops nobody, and is named."""
    flat(tmp_path, "a", "b")
    others = {"a/labels.csv": b"1,2", "b/notes": b"text", "loose.png": PNG, "README.md": b"x"}
    inputs.write_pictures(tmp_path, others)
    os.mkfifo(tmp_path / "a/pipe")
    assert len(inputs.load(tmp_path).files) == 6
    (message,) = caplog.messages
    assert "out of the folder: 5 (" in message
    assert all(name in message for name in (*others, "a/pipe"))


def test_links_that_lead_out_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a picture nor a class comes from elsewhere; links within the folder are fine."""
    elsewhere = flat(tmp_path / "elsewhere", "c")
    root = flat(tmp_path / "root", "a", "b")
    (root / "a/out.png").symlink_to(elsewhere / "c/0.png")
    (root / "a/nowhere.png").symlink_to(root / "missing")
    (root / "a/loop.png").symlink_to(root / "a/loop.png")
    (root / "c").symlink_to(elsewhere / "c")
    (root / "b/in.png").symlink_to(root / "a/0.png")
    dataset = inputs.load(root)
    assert dataset.class_names == ("a", "b")
    assert len(dataset.files) == 7
    assert "b/in.png" in dataset.files
    assert "out of the folder: 4 (" in caplog.messages[0]


def test_the_data_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """Where the folder lies is the user's business."""
    flat(tmp_path / "disk", "a", "b")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/b/in.png").symlink_to(tmp_path / "disk/a/0.png")
    assert len(inputs.load(tmp_path / "data").files) == 7


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a/0.png", "a/1.png"], "2 to 1,000 class folders are expected, 1 found: a; pictures lie"),
        (["a/0.png", "a/1.png", "b/0.png"], "class 'b' has 1 picture, and at least 2 are needed"),
        (["a/0.png", "a/1.png", "b/x.txt"], "class 'b' has 0 pictures, and at least 2 are needed"),
        (["a/0.png", "a/1.png", "b/c/0.png", "b/0.png"], "b/c: a folder inside of a class folder"),
        (["train/a/0.png", "train/b/0.png", "test/b/x.txt"], "class 'b' has no pictures in test"),
        (["train/a/0.png", "train/b/x.txt", "test/b/0.png"], "class 'b' has no pictures in train"),
        (["train/a/0.png", "test/b/0.png", "test/a/0.png"], "class 'b' has no pictures in train"),
        (
            ["train/a/0.png", "train/b/0.png"],
            "train/a: a folder inside of a class folder; pictures",
        ),
        (["train/a/0.png", "test/0.png"], "in FOLDER/train/<class>/ and FOLDER/test/<class>/"),
        (
            ["train/a/0.png", "train/b/0.png", "test/a/0.png", "val/a/0.png"],
            "val: validation images are drawn from the training images",
        ),
        (["0.png", "1.png"], "no IDX files, and no folders of pictures, one for each class"),
    ],
)
def test_a_folder_of_another_form_is_refused(tmp_path: Path, names: list[str], wanted: str) -> None:
    """The message names the folder or class and says how pictures have to lie."""
    message = refusal(put(tmp_path, *names))
    assert str(tmp_path) in message
    assert wanted in message


@pytest.mark.parametrize("name", ["a/x.heic", "a/x.svg", "a/x.PNG", "a/x.jpg", "a/x.pgm"])
def test_a_file_that_is_called_a_picture_and_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """A scan that cannot be read is never left out silently."""
    flat(tmp_path, "a", "b")
    inputs.write_pictures(tmp_path, {name: b"not a picture that Pillow reads"})
    assert f"{tmp_path / name}: not a picture that can be read; readable are PNG" in refusal(
        tmp_path
    )


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_several_pictures_in_one_file_are_refused(tmp_path: Path, format: str) -> None:
    """Which frame of an animation is meant is not ours to guess."""
    flat(tmp_path, "a", "b")
    frames = [Image.fromarray(np.full((9, 9), v, np.uint8)) for v in (0, 100, 200)]
    content = inputs.encoded(frames[0], format, save_all=True, append_images=frames[1:])
    inputs.write_pictures(tmp_path, {"a/moving": content})
    assert f"{tmp_path / 'a/moving'}: 3 pictures in one file; one is expected" in refusal(tmp_path)


@pytest.mark.parametrize("sides", [(5001, 5000), (20_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, sides: tuple[int, int]) -> None:
    """A few bytes that promise gigabytes are not unpacked."""
    flat(tmp_path, "a", "b")
    small = bytearray(inputs.encoded(Image.new("L", (1, 1)), "BMP"))
    small[18:26] = sides[0].to_bytes(4, "little") + sides[1].to_bytes(4, "little")
    inputs.write_pictures(tmp_path, {"a/bomb.bmp": bytes(small)})
    assert f"{tmp_path / 'a/bomb.bmp'}: the picture has more than 25,000,000 pixels" in refusal(
        tmp_path
    )


def test_large_pictures_need_a_size(tmp_path: Path) -> None:
    """Photographs are for a small network only when they are made small."""
    for label in "ab":
        photo = inputs.png(np.zeros((1200, 900), np.uint8))
        inputs.write_pictures(tmp_path, {f"{label}/{i}.png": photo for i in range(2)})
    assert "the pictures are 1200 x 900, and no side may be above 1,024; give" in refusal(tmp_path)
    assert inputs.load(tmp_path, image_size=(28, 28)).image_shape == (28, 28, 1)


@pytest.mark.parametrize(("mode", "values"), [("I", np.int32), ("F", np.float32)])
def test_32_bits_have_no_known_scale(tmp_path: Path, mode: str, values: Any) -> None:
    """Neither whole numbers nor floats of 32 bits say what white is."""
    flat(tmp_path, "a", "b")
    picture = Image.fromarray(np.zeros((9, 9), values))
    assert picture.mode == mode
    inputs.write_pictures(tmp_path, {"a/wide.tif": inputs.encoded(picture, "TIFF")})
    assert f"{tmp_path / 'a/wide.tif'}: pixels of 32 bits" in refusal(tmp_path)


def test_a_picture_that_changes_between_key_and_loading_is_refused(tmp_path: Path) -> None:
    """What the key says was read is what was read."""
    config = DataConfig(source="folder", path=flat(tmp_path, "a", "b"))
    source = sources.identify(config, tmp_path)
    inputs.write_pictures(tmp_path, {"b/2.png": inputs.png(np.full((9, 9), 77, np.uint8))})
    with pytest.raises(DataError, match=r"b/2\.png: the file changed while the run was starting"):
        sources.load(source, config)


def test_a_picture_that_vanishes_is_refused(tmp_path: Path) -> None:
    """No traceback, but the file's name."""
    found = image_folder.find(flat(tmp_path, "a", "b"))
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(DataError, match=r"b/0\.png: cannot be read \(No such file"):
        image_decoding.read(found, None, 1)


def test_a_column_of_labels_is_refused_for_pictures(tmp_path: Path) -> None:
    """A setting that would be ignored is refused in its place."""
    config = DataConfig(source="folder", path=flat(tmp_path, "a", "b"), label_column=0)
    with pytest.raises(ConfigError, match=r"data\.label_column is for IDX files, and this folder"):
        sources.identify(config, tmp_path)


def test_idx_files_rule_where_both_lie(tmp_path: Path) -> None:
    """A folder of IDX files may have sub-folders."""
    inputs.write_set(flat(tmp_path, "a", "b"), inputs.good_set())
    assert inputs.load(tmp_path).class_names == tuple("0123456789")


def test_nothing_is_warned_of_where_nothing_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A clean folder says nothing."""
    with caplog.at_level(logging.DEBUG, "cnn"):
        inputs.load(flat(tmp_path, "a", "b"))
    assert [item for item in caplog.records if item.name.startswith("cnn")] == []


def test_reading_takes_the_memory_of_the_arrays_and_little_more(tmp_path: Path) -> None:
    """Pictures are decoded into their place, and a split moves them within it."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
    files = {f"{label}/{i}.png": np.roll(noise, i) for label in "ab" for i in range(60)}
    inputs.write_pictures(tmp_path, {name: inputs.png(array) for name, array in files.items()})
    n_bytes = len(files) * noise.size
    tracemalloc.start()
    try:
        dataset = inputs.load(tmp_path, validation_fraction=0.01)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    n_copied = sum(dataset.splits[name].images.nbytes for name in ("validation", "test"))
    assert peak < n_bytes + n_copied + 8_000_000


def test_a_class_name_that_turns_text_around_is_refused(tmp_path: Path) -> None:
    """Figures that are said beside it would be read backwards."""
    for name in ("a", "b\N{RIGHT-TO-LEFT OVERRIDE}c"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="cannot be shown; rename it"):
        image_folder.find(tmp_path)
