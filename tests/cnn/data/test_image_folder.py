"""Finding a user's own images in one folder per class, and what is left out or refused."""

import logging
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.config.run import DataConfig
from cnn.data import image_folder, sources
from cnn.errors import ConfigError, DataError
from tests.cnn.data import inputs

PNG = inputs.encoded(inputs.glyph(3))


def put(root: Path, *names: str) -> Path:
    """Write files with these names: texts for .txt, else images that all differ."""
    files = {
        name: b"text"
        if name.endswith(".txt")
        else inputs.encoded(np.full((9, 9), i % 256, np.uint8))
        for i, name in enumerate(names)
    }
    return inputs.write_files(root, files)


def flat(root: Path, *classes: str) -> Path:
    return put(root, *(f"{name}/{i}.png" for name in classes for i in range(3)))


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        inputs.load(root)
    return str(caught.value)


def test_each_folder_is_a_class_and_each_image_has_its_id(tmp_path: Path) -> None:
    """Ids follow class and name; the data set lists the files in this order."""
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
def test_a_train_and_a_test_folder_divide_the_images(tmp_path: Path, train: str, test: str) -> None:
    """Validation images are held out from training; ids run over both; test may lack a class."""
    flat(tmp_path / train, "cat", "cow", "dog")
    put(tmp_path, f"{test}/dog/a.png", f"{test}/cat/b.png")
    dataset = inputs.load(tmp_path, validation_fraction=1 / 3)
    assert [len(split) for split in dataset.splits.values()] == [6, 3, 2]
    assert dataset.class_counts("test") == [1, 0, 1]
    assert dataset.splits["test"].ids.tolist() == [9, 10]
    assert dataset.files[9:] == (f"{test}/cat/b.png", f"{test}/dog/a.png")
    assert all(name.startswith(f"{train}/") for name in dataset.files[:9])


@pytest.mark.parametrize(
    "classes",
    [
        ("test", "train"),
        ("0", "9", "10", "word"),
        ("'\"", "-", "100%", "<b>&amp;", "a,b;c", "with space", "x" * 255, "Ünïcode", "日本語"),
    ],
    ids=["train and test without subfolders", "numbers by value, before words", "any name"],
)
def test_classes_are_named_after_their_folders_and_sorted(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    assert inputs.load(flat(tmp_path, *classes[::-1])).class_names == classes


@pytest.mark.parametrize(
    "name", ["a\nb", "bell\a", os.fsdecode(b"\xff"), "\u2028", "b\N{RIGHT-TO-LEFT OVERRIDE}c"]
)
def test_a_class_name_that_cannot_be_displayed_is_refused(tmp_path: Path, name: str) -> None:
    """Control characters and stray bytes would break tables and pages, or reverse their text."""
    message = refusal(flat(tmp_path, "good", name))
    assert f"the class name {name!r} cannot be displayed; rename the folder" in message


def test_a_file_name_may_be_any_bytes(tmp_path: Path) -> None:
    """The list of files shows it with an escape."""
    put(flat(tmp_path, "a", "b"), os.fsdecode(b"a/x\xff.png"))
    assert "a/x\\xff.png" in inputs.load(tmp_path).files


def test_the_digest_depends_on_contents_and_names_alone(tmp_path: Path) -> None:
    """Write order, dates, root and other files do not change it; a pixel, name or class does."""
    first = flat(tmp_path / "first", "a", "b")
    second = tmp_path / "second"
    for path in sorted(first.rglob("*.png"), reverse=True):
        inputs.write_files(second, {str(path.relative_to(first)): path.read_bytes()})
        os.utime(second / path.relative_to(first), (1, 1))
    inputs.write_files(second, {"a/.DS_Store": b"", "README.md": b"about"})
    digests = [image_folder.find(first).digest, image_folder.find(second).digest]
    assert digests[0] == digests[1]
    for source, target in (("a/0.png", "b/0.png"), ("a/1.png", "a/x.png"), ("b", "c")):
        (second / source).rename(second / target)
        digests.append(image_folder.find(second).digest)
    inputs.write_files(second, {"a/x.png": PNG})
    digests.append(image_folder.find(second).digest)
    assert len(set(digests)) == 5


def test_a_name_is_the_same_in_both_unicode_forms(tmp_path: Path) -> None:
    """One system writes ü as one character, another as u and two dots: names and digest agree."""
    digests = set()
    for form in ("NFC", "NFD"):
        root = flat(tmp_path / form, "a", unicodedata.normalize(form, "Kürbis"))
        folder = image_folder.find(root)
        assert folder.class_names == (unicodedata.normalize("NFC", "Kürbis"), "a")
        digests.add(folder.digest)
    assert len(digests) == 1
    flat(tmp_path / "NFD", unicodedata.normalize("NFC", "Kürbis"))
    assert "two folders for the class 'Kürbis'; keep one" in refusal(tmp_path / "NFD")


def test_settings_that_decide_the_arrays_are_in_the_key(tmp_path: Path) -> None:
    """Size, channels and transposing are; no channels means gray."""
    config = DataConfig(source="folder", path=flat(tmp_path, "a", "b"))

    def identity(**options: Any) -> str:
        return repr(sources.identify(config.model_copy(update=options), tmp_path).identity())

    assert identity() == identity(channels=1) == identity(transpose=False)
    others = [{"channels": 3}, {"image_size": (9, 9)}, {"transpose": True}]
    assert len({identity(), *(identity(**options) for options in others)}) == 4


@pytest.mark.parametrize("transpose", [True, False])
def test_own_images_are_transposed_if_asked(tmp_path: Path, transpose: bool) -> None:
    """EMNIST as a folder of PNG files has rows and columns swapped as well."""
    glyph = inputs.glyph(1)
    files = {f"{label}/{i}.png": inputs.encoded(glyph.T) for label in "ab" for i in range(8)}
    images = inputs.load(inputs.write_files(tmp_path, files), transpose=transpose)
    expected = glyph if transpose else glyph.T
    assert all((split.images[..., 0] == expected).all() for split in images.splits.values())


def test_system_files_are_skipped_silently_and_others_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No user puts the former there; a table or text beside the images does not stop a run."""
    flat(tmp_path, "a", "b")
    for name in (".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/x.png"):
        inputs.write_files(tmp_path, {name: b"x", f"a/{name}": b"x"})
    with caplog.at_level(logging.DEBUG, "cnn"):
        assert len(inputs.load(tmp_path).files) == 6
    assert caplog.messages == []
    others = {"a/labels.csv": b"1,2", "b/notes": b"text", "loose.png": PNG, "README.md": b"x"}
    inputs.write_files(tmp_path, others)
    os.mkfifo(tmp_path / "a/pipe")
    assert len(inputs.load(tmp_path).files) == 6
    (message,) = caplog.messages
    assert f"{tmp_path}: skipped 5 files" in message
    assert all(name in message for name in (*others, "a/pipe"))


def test_links_that_lead_out_of_the_folder_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Links within the folder are fine, and the folder itself may be a link."""
    elsewhere = flat(tmp_path / "elsewhere", "c")
    root = flat(tmp_path / "root", "a", "b")
    (root / "a/out.png").symlink_to(elsewhere / "c/0.png")
    (root / "a/nowhere.png").symlink_to(root / "missing")
    (root / "a/loop.png").symlink_to(root / "a/loop.png")
    (root / "c").symlink_to(elsewhere / "c")
    (root / "b/in.png").symlink_to(root / "a/0.png")
    (tmp_path / "link").symlink_to(root)
    for folder in (root, tmp_path / "link"):
        caplog.clear()
        dataset = inputs.load(folder)
        assert dataset.class_names == ("a", "b")
        assert len(dataset.files) == 7
        assert "b/in.png" in dataset.files
        assert f"{folder}: skipped 4 files" in caplog.messages[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/0.png", "a/1.png"], "expected 2 to 1,000 class folders, found 1: a; put images"),
        (["a/0.png", "a/1.png", "b/0.png"], "class 'b' has 1 image; at least 2 are needed, one"),
        (["a/0.png", "a/1.png", "b/x.txt"], "class 'b' has 0 images; at least 2 are needed, one"),
        (["a/0.png", "a/1.png", "b/c/0.png", "b/0.png"], "b/c: a folder inside a class folder"),
        (["train/a/0.png", "train/b/0.png", "test/b/x.txt"], "class 'b' has no images in test"),
        (["train/a/0.png", "train/b/x.txt", "test/b/0.png"], "class 'b' has no images in train"),
        (["train/a/0.png", "test/b/0.png", "test/a/0.png"], "class 'b' has no images in train"),
        (["train/a/0.png", "train/b/0.png"], "train/a: a folder inside a class folder; put images"),
        (["train/a/0.png", "test/0.png"], "in FOLDER/train/<class>/ and FOLDER/test/<class>/"),
        (
            ["train/a/0.png", "train/b/0.png", "test/a/0.png", "val/a/0.png"],
            "val: validation images are held out from the training images",
        ),
        (["0.png", "1.png"], "neither IDX files nor one folder of images per class"),
    ],
)
def test_a_folder_with_another_layout_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    """The message names the folder or class and says where images belong."""
    error = refusal(put(tmp_path, *names))
    assert str(tmp_path) in error
    assert message in error


def test_a_column_of_labels_is_refused_for_images(tmp_path: Path) -> None:
    """A setting without effect is refused."""
    config = DataConfig(source="folder", path=flat(tmp_path, "a", "b"), label_column=0)
    with pytest.raises(ConfigError, match=r"data\.label_column is for IDX files, but this folder"):
        sources.identify(config, tmp_path)


def test_idx_files_take_precedence_over_subfolders(tmp_path: Path) -> None:
    inputs.write_set(flat(tmp_path, "a", "b"), inputs.good_set())
    assert inputs.load(tmp_path).class_names == tuple("0123456789")


def test_without_test_images_a_seventh_of_each_class_is_held_out(tmp_path: Path) -> None:
    """Validation images are then held out from the rest, class by class too."""
    names = tuple(f"class {i}" for i in range(5))
    dataset = inputs.load(inputs.class_folders(tmp_path, 28, names), validation_fraction=0.25)
    assert dataset.class_counts("test") == [4] * 5
    assert dataset.class_counts("validation") == [6] * 5
    ids = np.concatenate([split.ids for split in dataset.splits.values()])
    assert sorted(ids.tolist()) == list(range(140))
