"""Sources of data sets: identified without the network, then loaded, checked and split."""

import logging
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.config.run import DataConfig
from cnn.data import idx, idx_folder, sources
from cnn.data.dataset import Dataset
from cnn.data.published import FILE_NAMES
from cnn.errors import ConfigError, DataError
from tests import hosts

Arrays = dict[str, NDArray[Any]]


@pytest.fixture
def arrays() -> Arrays:
    """Sixty training and twelve test images of 5 x 4 in three classes, sorted by class."""
    pixels = np.arange(72 * 20, dtype=np.uint32).reshape(72, 5, 4) % 251
    images = pixels.astype(np.uint8)
    labels = np.arange(3, dtype=np.uint8)
    parts = (images[:60], labels.repeat(20), images[60:], labels.repeat(4))
    return dict(zip(idx_folder.ROLES, parts, strict=True))


def put(path: Path, arrays: Arrays, prefix: str = "") -> DataConfig:
    """Write the arrays to a folder; return the settings that name it."""
    path.mkdir(parents=True, exist_ok=True)
    for role, array in arrays.items():
        idx.write(path / (prefix + FILE_NAMES[role]), array, compress=True)
    return DataConfig(source="folder", path=path, validation_fraction=0.1)


def load(config: DataConfig, tmp_path: Path) -> Dataset:
    return sources.load(sources.identify(config, tmp_path / "downloads"), config)


def identity(config: DataConfig, tmp_path: Path) -> dict[str, Any]:
    """Return what decides the arrays of a source."""
    return sources.identify(config, tmp_path / "downloads").identity()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every connection fail with an error of its own."""

    def refuse(*_: Any) -> None:
        raise OSError("this machine is offline")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrays: Arrays) -> DataConfig:
    """Make the small arrays stand for MNIST; return the settings of a folder that holds them."""
    config = put(tmp_path / "copy", arrays)
    addresses = ("http://127.0.0.1:9/",)
    hosts.patch_set(
        monkeypatch, "mnist", sha256=hosts.digests(tmp_path / "copy"), addresses=addresses
    )
    return config


def test_a_folder_is_loaded_and_split_by_class(tmp_path: Path, arrays: Arrays) -> None:
    """Each image is in one split, with its own label and id; validation has 10 % per class."""
    dataset = load(put(tmp_path, arrays), tmp_path)
    assert (dataset.name, dataset.class_names) == ("folder", ("0", "1", "2"))
    assert dataset.image_shape == (5, 4, 1)
    for name, split in dataset.splits.items():
        part = "test" if name == "test" else "train"
        np.testing.assert_array_equal(split.images[..., 0], arrays[f"{part}-images"][split.ids])
        np.testing.assert_array_equal(split.labels, arrays[f"{part}-labels"][split.ids])
    train, validation, test = (dataset.splits[name].ids.tolist() for name in dataset.splits)
    assert sorted(train + validation) == list(range(60))
    assert test == list(range(12))
    assert dataset.class_counts("validation") == [2, 2, 2]


def test_the_split_follows_its_own_seed(tmp_path: Path, arrays: Arrays) -> None:
    """data.split_seed, and nothing else, decides which images are held out."""
    config = put(tmp_path, arrays)
    held_out = [
        load(config.model_copy(update={"split_seed": seed}), tmp_path).splits["validation"].ids
        for seed in (0, 0, 1)
    ]
    assert held_out[0].tolist() == held_out[1].tolist() != held_out[2].tolist()


def test_classes_are_the_labels_that_occur(tmp_path: Path, arrays: Arrays) -> None:
    """A label that only test images have is a class; a label that no image has is not."""
    arrays["test-labels"][-1] = 6
    dataset = load(put(tmp_path, arrays), tmp_path)
    assert dataset.class_names == ("0", "1", "2", "6")
    assert dataset.class_counts("test") == [4, 4, 3, 1]
    assert dataset.class_counts("train")[3:] == [0]


def test_a_mapping_file_names_the_classes_and_enters_the_key(
    tmp_path: Path, arrays: Arrays
) -> None:
    """EMNIST's mapping gives each label its character; every label needs one."""
    config = put(tmp_path, arrays, "emnist-x-")
    plain = identity(config, tmp_path)
    mapping = tmp_path / "emnist-x-mapping.txt"
    mapping.write_text("0 65 97\n1 66 98\n2 67 99\n")
    assert load(config, tmp_path).class_names == ("Aa", "Bb", "Cc")
    assert identity(config, tmp_path) != plain
    mapping.write_text("0 65 97\n1 66 98\n")
    with pytest.raises(DataError, match=f"{tmp_path}: the file of class names.*for the label 2"):
        load(config, tmp_path)


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("test-images", lambda images: images[:, :4], "images are 5 x 4 x 1 in .*, but 4 x 4 x 1"),
        ("test-images", lambda images: images[:, 0, 0], "1 dimension.*looks like labels"),
        ("test-labels", lambda labels: labels[:, None, None], "3 dimensions.*looks like images"),
        ("train-images", lambda images: images[:0], "no images"),
    ],
)
def test_a_folder_whose_files_do_not_fit_is_refused(
    tmp_path: Path, arrays: Arrays, role: str, change: Any, message: str
) -> None:
    """The error names the file in question."""
    config = put(tmp_path, {**arrays, role: change(arrays[role])})
    with pytest.raises(DataError, match=message) as caught:
        load(config, tmp_path)
    assert str(tmp_path / FILE_NAMES[role]) in str(caught.value)


@pytest.mark.parametrize("label", [0, 5])
def test_one_class_is_too_few(tmp_path: Path, arrays: Arrays, label: int) -> None:
    """There is nothing to learn if all labels are the same."""
    same = {role: array * 0 + label for role, array in arrays.items() if "labels" in role}
    with pytest.raises(DataError, match=f"all images have the label {label}; at least 2 classes"):
        load(put(tmp_path, {**arrays, **same}), tmp_path)


@pytest.mark.parametrize(("option", "value"), [("image_size", (28, 28)), ("channels", 3)])
def test_settings_of_image_files_are_refused_for_idx_files(
    tmp_path: Path, arrays: Arrays, option: str, value: Any
) -> None:
    """A setting without effect is refused, not ignored."""
    config = put(tmp_path, arrays).model_copy(update={option: value})
    with pytest.raises(ConfigError, match=f"data.{option} is for image files, but this folder"):
        identity(config, tmp_path)


def test_settings_that_change_nothing_leave_the_key_as_it_was(
    tmp_path: Path, arrays: Arrays
) -> None:
    """Artifacts older than these settings are still found; choices that matter are in the key."""
    config = put(tmp_path, arrays)
    before = identity(config, tmp_path)
    assert before.keys() == {"name", "transposed", "payloads"}
    for options in ({"transpose": False}, {"transpose": None}):
        assert identity(config.model_copy(update=options), tmp_path) == before
    for options in ({"transpose": True}, {"label_column": 0}):
        assert identity(config.model_copy(update=options), tmp_path) != before


@pytest.mark.parametrize(("inverted", "n_warnings"), [(False, 0), (True, 1)])
def test_bright_borders_give_one_warning_and_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, inverted: bool, n_warnings: int
) -> None:
    """Dark ink on bright paper, as from a scanner, is reported and used as it is."""
    images = np.zeros((20, 9, 9), np.uint8)
    images[:, 3:6, 3:6] = 250
    images = 255 - images if inverted else images
    labels = np.arange(20, dtype=np.uint8) % 2
    parts = (images, labels, images, labels)
    dataset = load(put(tmp_path, dict(zip(idx_folder.ROLES, parts, strict=True))), tmp_path)
    assert sum("looks inverted" in message for message in caplog.messages) == n_warnings
    np.testing.assert_array_equal(dataset.splits["test"].images[..., 0], images)


@pytest.mark.parametrize("role", idx_folder.ROLES)
def test_a_file_that_changed_since_it_was_identified_is_refused(
    tmp_path: Path, arrays: Arrays, role: str
) -> None:
    """The data that are loaded are the data that the key names."""
    config = put(tmp_path, arrays)
    source = sources.identify(config, tmp_path)
    put(tmp_path, {**arrays, role: arrays[role][::-1]})
    with pytest.raises(DataError, match=f"{FILE_NAMES[role]}: the file changed while the run"):
        sources.load(source, config)


@pytest.mark.usefixtures("offline")
def test_a_copy_of_mnist_is_mnist_and_no_key_needs_the_network(
    known: DataConfig, tmp_path: Path
) -> None:
    """The copy has MNIST's name and key, and is loaded from its own folder."""
    configs = (DataConfig(source="mnist"), DataConfig(source="digits"), known)
    mnist, digits, copy = (identity(config, tmp_path) for config in configs)
    assert (mnist["name"], digits["name"]) == ("mnist", "digits")
    assert copy == mnist
    assert mnist["payloads"]
    assert digits["payloads"]
    assert load(known, tmp_path).name == "mnist"
    assert not (tmp_path / "downloads").exists()


def test_transposed_mnist_is_another_data_set(known: DataConfig, tmp_path: Path) -> None:
    """MNIST on its side is not MNIST, and does not have its name."""
    for transpose, name in ((True, "folder"), (False, "mnist")):
        config = known.model_copy(update={"transpose": transpose})
        assert identity(config, tmp_path)["name"] == name


def test_one_other_pixel_makes_another_data_set(
    known: DataConfig, tmp_path: Path, arrays: Arrays
) -> None:
    """Only the exact files of MNIST have its name and key."""
    arrays["train-images"][3, 1, 1] ^= 1
    other = identity(put(tmp_path / "copy", arrays), tmp_path)
    assert other["name"] == "folder"
    assert other != identity(DataConfig(source="mnist"), tmp_path)


def test_auto_is_refused_unless_it_was_resolved(tmp_path: Path) -> None:
    """A flow never decides by itself which data it uses."""
    with pytest.raises(ConfigError, match=r"data\.source auto is resolved by the command"):
        sources.identify(DataConfig(source="auto"), tmp_path)


@pytest.mark.usefixtures("known")
def test_auto_falls_back_to_digits_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The note tells the user, the log has each address's answer, other settings are kept."""
    config = DataConfig(source="auto", split_seed=3)
    with caplog.at_level(logging.INFO):
        resolved, note = sources.resolve_auto(config, tmp_path / "downloads")
    assert resolved == DataConfig(source="digits", split_seed=3)
    assert "MNIST could not be reached, so this run uses digits" in note
    assert "http://127.0.0.1:9/train-images" in caplog.text


@pytest.mark.usefixtures("offline", "known")
def test_auto_is_mnist_if_its_files_are_fetched(tmp_path: Path, arrays: Arrays) -> None:
    """Files that were fetched before are used without the network, and without a note."""
    put(tmp_path / "downloads" / "mnist", arrays)
    for choose in (sources.resolve_auto, sources.guess_auto):
        resolved = choose(DataConfig(source="auto", split_seed=3), tmp_path / "downloads")
        assert resolved == (DataConfig(source="mnist", split_seed=3), "")


@pytest.mark.usefixtures("offline", "known")
def test_a_plan_guesses_without_the_network(tmp_path: Path) -> None:
    """If MNIST is not fetched yet, the plan is for digits and says so."""
    resolved, note = sources.guess_auto(DataConfig(source="auto"), tmp_path / "downloads")
    assert resolved.source == "digits"
    assert "a run will try MNIST first" in note
    assert not (tmp_path / "downloads").exists()


@pytest.mark.parametrize("choose", [sources.resolve_auto, sources.guess_auto])
def test_a_named_source_is_left_as_it_is(choose: Any, tmp_path: Path) -> None:
    """Only auto is resolved."""
    config = DataConfig(source="digits")
    assert choose(config, tmp_path) == (config, "")


def test_a_seventh_of_the_digits_is_for_testing(digits: Dataset) -> None:
    """1,797 scans are split into test first, then validation; every split has every class."""
    n_images = {name: len(split) for name, split in digits.splits.items()}
    assert n_images["test"] == round(1797 / 7)
    assert n_images["validation"] == round((1797 - n_images["test"]) / 12)
    ids = np.concatenate([split.ids for split in digits.splits.values()])
    assert sorted(ids.tolist()) == list(range(1797))
    assert all(min(digits.class_counts(name)) > 0 for name in digits.splits)


@pytest.mark.real_mnist
def test_mnist_trains_on_55000_images_and_holds_out_5000(mnist_dir: Path, tmp_path: Path) -> None:
    """The folder is recognised as MNIST; the 5,000 are a stratified sample of the 60,000."""
    dataset = load(DataConfig(source="folder", path=mnist_dir), tmp_path)
    assert dataset.name == "mnist"
    n_images = {name: len(split) for name, split in dataset.splits.items()}
    assert n_images == {"train": 55_000, "validation": 5_000, "test": 10_000}
    everything = np.add(dataset.class_counts("train"), dataset.class_counts("validation"))
    shares = np.array(dataset.class_counts("validation")) - everything / 12
    assert np.abs(shares).max() < 1
    ids = np.concatenate([dataset.splits[name].ids for name in ("train", "validation")])
    assert np.array_equal(np.sort(ids), np.arange(60_000))
    assert dataset.splits["validation"].ids.max() > 50_000


@pytest.mark.parametrize("kind", ["u1", "f4", "f8", "i4"])
@pytest.mark.parametrize("prefix", ["", "emnist-x-"])
def test_reading_takes_little_more_memory_than_the_files(
    tmp_path: Path, kind: str, prefix: str
) -> None:
    """Images are converted, transposed and split in place."""
    n = 40_000_000 // np.dtype(kind).itemsize // 10_000
    shades = np.arange(n)[:, None, None] % 250
    labels = np.arange(n, dtype=np.uint8) % 2
    images = np.broadcast_to(shades, (n, 100, 100)).astype(kind)
    arrays = dict(zip(idx_folder.ROLES, (images, labels, images[:10], labels[:10]), strict=True))
    config = put(tmp_path, arrays, prefix)
    tracemalloc.start()
    try:
        dataset = load(config.model_copy(update={"validation_fraction": 0.01}), tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert dataset.splits["test"].images[9, 0, 0, 0] == 9
    assert peak < 1.125 * 40_000_000 + 30_000_000  # the factor is for a buffer that grows
