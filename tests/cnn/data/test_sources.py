"""Where data sets come from: identified without a network, loaded, checked and split."""

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
from cnn.errors import ConfigError, DataError, UnreachableError
from tests import hosts

NAMES = dict(
    zip(
        idx_folder.ROLES,
        (
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
        ),
        strict=True,
    )
)


@pytest.fixture
def arrays() -> dict[str, NDArray[Any]]:
    """Sixty training and twelve test images of 5 x 4 in three classes, sorted by class."""
    pixels = np.arange(72 * 20, dtype=np.uint32).reshape(72, 5, 4) % 251
    images = pixels.astype(np.uint8)
    labels = np.arange(3, dtype=np.uint8)
    parts = (images[:60], labels.repeat(20), images[60:], labels.repeat(4))
    return dict(zip(idx_folder.ROLES, parts, strict=True))


def put(path: Path, arrays: dict[str, NDArray[Any]], prefix: str = "") -> DataConfig:
    """Write the arrays into a folder; return the settings that name it."""
    path.mkdir(parents=True, exist_ok=True)
    for role, array in arrays.items():
        idx.write(path / (prefix + NAMES[role]), array, compress=True)
    return DataConfig(source="folder", path=path, validation_fraction=0.1)


def load(config: DataConfig, downloads: Path) -> Dataset:
    return sources.load(sources.identify(config, downloads), config)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection can be made; every attempt fails the test's own way."""

    def refuse(*_: Any) -> None:
        raise OSError("this machine is offline")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrays: dict[str, NDArray[Any]]
) -> DataConfig:
    """The small arrays are what `mnist` means; the settings name a folder that holds them."""
    config = put(tmp_path / "copy", arrays)
    digests = {role: idx.digest(tmp_path / "copy" / name) for role, name in NAMES.items()}
    hosts.patch_set(monkeypatch, "mnist", sha256=digests)
    hosts.patch_set(monkeypatch, "mnist", addresses=("http://127.0.0.1:9/",))
    return config


def test_a_folder_is_loaded_as_it_stands(tmp_path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Every image of the files is in one split, with its own label and index."""
    dataset = load(put(tmp_path, arrays), tmp_path)
    assert (dataset.name, dataset.class_names, dataset.image_shape) == (
        "folder",
        ("0", "1", "2"),
        (5, 4, 1),
    )
    seen: dict[str, list[int]] = {"train": [], "test": []}
    for name, split in dataset.splits.items():
        part = "test" if name == "test" else "train"
        seen[part] += split.ids.tolist()
        np.testing.assert_array_equal(split.images[..., 0], arrays[f"{part}-images"][split.ids])
        np.testing.assert_array_equal(split.labels, arrays[f"{part}-labels"][split.ids])
    assert sorted(seen["train"]) == list(range(60))
    assert seen["test"] == list(range(12))


def test_validation_images_are_a_stratified_part_of_the_training_images(
    tmp_path: Path, arrays: dict[str, NDArray[Any]]
) -> None:
    """Although the file is sorted by class, each class is held out by its share."""
    dataset = load(put(tmp_path, arrays), tmp_path)
    assert dataset.class_counts("validation") == [2, 2, 2]
    assert [len(dataset.splits[name]) for name in ("train", "validation", "test")] == [54, 6, 12]


def test_the_split_follows_its_own_seed(tmp_path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """data.split_seed, and nothing else, decides which images are held out."""
    config = put(tmp_path, arrays)
    held_out = [
        load(config.model_copy(update={"split_seed": seed}), tmp_path).splits["validation"].ids
        for seed in (0, 0, 1)
    ]
    assert held_out[0].tolist() == held_out[1].tolist() != held_out[2].tolist()


def test_images_of_emnist_are_set_upright(tmp_path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """EMNIST's files, known by their prefix, hold each image transposed; others do not."""
    lying = load(put(tmp_path / "a", arrays, "emnist-digits-"), tmp_path)
    assert lying.image_shape == (4, 5, 1)
    np.testing.assert_array_equal(
        lying.splits["test"].images[..., 0], arrays["test-images"].transpose(0, 2, 1)
    )
    assert lying.origin["transposed"] is True
    assert load(put(tmp_path / "b", arrays), tmp_path).origin["transposed"] is False


def test_classes_are_the_labels_that_occur(tmp_path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """A class that only the test images have is a class; a label that nobody has is none."""
    arrays["test-labels"][-1] = 6
    dataset = load(put(tmp_path, arrays), tmp_path)
    assert dataset.class_names == ("0", "1", "2", "6")
    assert dataset.class_counts("test") == [4, 4, 3, 1]
    assert dataset.class_counts("train")[3:] == [0]


def test_labels_that_begin_at_1_give_no_empty_class(
    tmp_path: Path, arrays: dict[str, NDArray[Any]]
) -> None:
    """The network has one output for each letter of EMNIST, 1..26; names keep the labels."""
    shifted = {role: a + 1 if "labels" in role else a for role, a in arrays.items()}
    dataset = load(put(tmp_path, shifted), tmp_path)
    assert dataset.class_names == ("1", "2", "3")
    for name, split in dataset.splits.items():
        part = "test" if name == "test" else "train"
        np.testing.assert_array_equal(split.labels, arrays[f"{part}-labels"][split.ids])


def test_a_mapping_file_names_the_classes_and_enters_the_key(
    tmp_path: Path, arrays: dict[str, NDArray[Any]]
) -> None:
    """EMNIST's mapping gives each label its character; every label needs one."""
    config = put(tmp_path, arrays, "emnist-x-")
    plain = sources.identify(config, tmp_path / "downloads").identity()
    mapping = tmp_path / "emnist-x-mapping.txt"
    mapping.write_text("0 65 97\n1 66 98\n2 67 99\n")
    assert load(config, tmp_path).class_names == ("Aa", "Bb", "Cc")
    assert sources.identify(config, tmp_path / "downloads").identity() != plain
    mapping.write_text("0 65 97\n1 66 98\n")
    with pytest.raises(DataError, match=f"{tmp_path}: the file of class names.*for the label 2"):
        load(config, tmp_path)


@pytest.mark.parametrize(
    ("role", "change", "wanted"),
    [
        ("train-labels", lambda labels: labels[:-1], "60 images in .*, but 59 labels in "),
        ("test-images", lambda images: images[:, :4], "images are 5 x 4 x 1 in .*, but 4 x 4 x 1"),
        ("test-images", lambda images: images[:, 0, 0], "1 dimension.*looks like labels"),
        (
            "test-labels",
            lambda labels: labels[:, None, None] * 1,
            "3 dimensions.*looks like images",
        ),
        ("train-images", lambda images: images[:0], "no images"),
    ],
)
def test_a_folder_whose_files_do_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], role: str, change: Any, wanted: str
) -> None:
    """The refusal names the file in question."""
    config = put(tmp_path, {**arrays, role: change(arrays[role])})
    with pytest.raises(DataError, match=wanted) as caught:
        load(config, tmp_path)
    assert str(tmp_path / NAMES[role]) in str(caught.value)


@pytest.mark.parametrize("label", [0, 5])
def test_one_class_is_too_few(tmp_path: Path, arrays: dict[str, NDArray[Any]], label: int) -> None:
    """There is nothing to learn where all labels are the same."""
    nothing = {role: array * 0 + label for role, array in arrays.items() if "labels" in role}
    with pytest.raises(DataError, match=f"all images have the label {label}; at least 2 classes"):
        load(put(tmp_path, {**arrays, **nothing}), tmp_path)


OPTIONS: list[dict[str, Any]] = [{"image_size": (28, 28)}, {"channels": 3}]


@pytest.mark.parametrize("options", OPTIONS)
def test_settings_of_pictures_are_refused_for_idx_files(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], options: dict[str, Any]
) -> None:
    """A setting that would be ignored is refused in its place."""
    config = put(tmp_path, arrays).model_copy(update=options)
    with pytest.raises(ConfigError, match=f"data.{next(iter(options))} is for pictures, and this"):
        sources.identify(config, tmp_path / "downloads")


def test_settings_that_change_nothing_leave_the_key_as_it_was(
    tmp_path: Path, arrays: dict[str, NDArray[Any]]
) -> None:
    """Artifacts of before these settings are found; each choice that matters is in the key."""
    config = put(tmp_path, arrays)
    before = sources.identify(config, tmp_path / "downloads").identity()
    assert before.keys() == {"name", "transposed", "payloads"}
    for options in ({"transpose": False}, {"transpose": None}):
        assert identity(config.model_copy(update=options), tmp_path) == before
    for options in ({"transpose": True}, {"label_column": 0}):
        assert identity(config.model_copy(update=options), tmp_path) != before


@pytest.mark.parametrize(("inverted", "n_warnings"), [(False, 0), (True, 1)])
def test_bright_borders_are_warned_of_once_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, inverted: bool, n_warnings: int
) -> None:
    """Ink on paper as a scanner sees it is pointed out, and used as it is."""
    images = np.zeros((20, 9, 9), np.uint8)
    images[:, 3:6, 3:6] = 250
    images = 255 - images if inverted else images
    labels = np.arange(20, dtype=np.uint8) % 2
    parts = (images, labels, images, labels)
    dataset = load(put(tmp_path, dict(zip(idx_folder.ROLES, parts, strict=True))), tmp_path)
    found = [message for message in caplog.messages if "looks inverted" in message]
    assert len(found) == n_warnings
    np.testing.assert_array_equal(dataset.splits["test"].images[..., 0], images)


@pytest.mark.parametrize("role", idx_folder.ROLES)
def test_a_file_that_changed_since_it_was_identified_is_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], role: str
) -> None:
    """What the key says was read is what was read."""
    config = put(tmp_path, arrays)
    source = sources.identify(config, tmp_path)
    put(tmp_path, {**arrays, role: arrays[role][::-1]})
    with pytest.raises(DataError, match=f"{NAMES[role]}: the file changed while the run"):
        sources.load(source, config)


@pytest.mark.usefixtures("offline")
def test_identifying_needs_no_network(known: DataConfig, tmp_path: Path) -> None:
    """The key of every source is known without asking anybody."""
    identities = [
        sources.identify(config, tmp_path).identity()
        for config in (DataConfig(source="mnist"), DataConfig(source="digits"), known)
    ]
    assert [identity["name"] for identity in identities] == ["mnist", "digits", "mnist"]
    assert all(identity["payloads"] for identity in identities)


def test_a_folder_that_holds_a_known_data_set_is_that_data_set(
    known: DataConfig, tmp_path: Path
) -> None:
    """A local copy of MNIST has MNIST's name and key, and is loaded from where it lies."""
    mnist = sources.identify(DataConfig(source="mnist"), tmp_path)
    assert sources.identify(known, tmp_path).identity() == mnist.identity()
    assert load(known, tmp_path / "downloads").name == "mnist"
    assert not (tmp_path / "downloads").exists()


def test_a_known_data_set_that_is_turned_is_another(known: DataConfig, tmp_path: Path) -> None:
    """MNIST lying on its side is not MNIST, and nobody is told that it is."""
    turned = known.model_copy(update={"transpose": True})
    assert sources.identify(turned, tmp_path).name == "folder"
    assert sources.identify(known.model_copy(update={"transpose": False}), tmp_path).name == "mnist"


def test_one_other_pixel_makes_another_data_set(
    known: DataConfig, tmp_path: Path, arrays: dict[str, NDArray[Any]]
) -> None:
    """A known name is only given to the known data."""
    arrays["train-images"][3, 1, 1] ^= 1
    other = sources.identify(put(tmp_path / "copy", arrays), tmp_path)
    assert other.name == "folder"
    assert other.identity() != sources.identify(DataConfig(source="mnist"), tmp_path).identity()


@pytest.mark.usefixtures("known")
def test_a_data_set_that_cannot_be_fetched_is_an_error(tmp_path: Path) -> None:
    """Outside of auto nothing falls back."""
    with pytest.raises(UnreachableError, match=r"--data\.source folder --data\.path FOLDER"):
        load(DataConfig(source="mnist"), tmp_path / "downloads")


def test_auto_is_refused_where_it_was_not_resolved(tmp_path: Path) -> None:
    """A flow never decides by itself which data it uses."""
    with pytest.raises(ConfigError, match=r"data\.source auto is resolved by the command"):
        sources.identify(DataConfig(source="auto"), tmp_path)


@pytest.mark.usefixtures("known")
def test_auto_falls_back_to_digits_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The note is for people, the log has what each address answered, the rest is kept."""
    config = DataConfig(source="auto", split_seed=3)
    with caplog.at_level(logging.INFO):
        resolved, note = sources.resolve_auto(config, tmp_path / "downloads")
    assert resolved == DataConfig(source="digits", split_seed=3)
    assert "MNIST could not be reached, so this run uses digits" in note
    assert "http://127.0.0.1:9/train-images" in caplog.text


@pytest.mark.usefixtures("offline")
def test_auto_is_mnist_where_its_files_are(
    known: DataConfig, tmp_path: Path, arrays: dict[str, NDArray[Any]]
) -> None:
    """Files that were fetched before are used without a network, and nothing is noted."""
    put(tmp_path / "downloads" / "mnist", arrays)
    for choose in (sources.resolve_auto, sources.guess_auto):
        resolved = choose(DataConfig(source="auto", split_seed=3), tmp_path / "downloads")
        assert resolved == (DataConfig(source="mnist", split_seed=3), "")


@pytest.mark.usefixtures("offline", "known")
def test_a_plan_guesses_without_a_network(tmp_path: Path) -> None:
    """Where MNIST is not fetched yet the plan is for digits, and says so."""
    resolved, note = sources.guess_auto(DataConfig(source="auto"), tmp_path / "downloads")
    assert resolved.source == "digits"
    assert "a run will try MNIST first" in note
    assert not (tmp_path / "downloads").exists()


@pytest.mark.parametrize("choose", [sources.resolve_auto, sources.guess_auto])
def test_a_named_source_is_left_as_it_is(choose: Any, tmp_path: Path) -> None:
    """Only auto is resolved."""
    config = DataConfig(source="digits")
    assert choose(config, tmp_path) == (config, "")


def test_digits_give_a_seventh_as_test(digits: Dataset) -> None:
    """1,797 scans are split into test first, then validation, every class in each part."""
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
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    everything = np.add(dataset.class_counts("train"), dataset.class_counts("validation"))
    shares = np.array(dataset.class_counts("validation")) - everything / 12
    assert np.abs(shares).max() < 1
    ids = np.concatenate([dataset.splits[name].ids for name in ("train", "validation")])
    assert np.array_equal(np.sort(ids), np.arange(60_000))
    assert dataset.splits["validation"].ids.max() > 50_000


@pytest.mark.parametrize("kind", ["u1", "f4", "f8", "i4"])
@pytest.mark.parametrize("prefix", ["", "emnist-x-"])
def test_reading_takes_the_memory_of_the_files_and_little_more(
    tmp_path: Path, kind: str, prefix: str
) -> None:
    """Types are converted, images turned and splits made where the bytes lie."""
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
    assert peak < 1.125 * 40_000_000 + 30_000_000  # the first for a buffer that grows


def identity(config: DataConfig, tmp_path: Path) -> dict[str, Any]:
    """What decides the arrays of a source."""
    return sources.identify(config, tmp_path / "downloads").identity()
