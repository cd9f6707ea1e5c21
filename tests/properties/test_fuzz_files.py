"""IDX files, tables, models and data sets with any bytes are read correctly or refused."""

import gzip
import hashlib
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.data import dataset as datasets
from cnn.data import idx
from cnn.data.dataset import Dataset, Split
from cnn.errors import ArtifactError, DataError
from cnn.model_io import archives
from cnn.store import digests
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.store import Store
from cnn.tables import parquet
from tests.cnn.data.inputs import CODES
from tests.cnn.store.test_digests import CONFIG, keras_file
from tests.properties.fuzzing import damaged_bytes, damaged_json, fuzz

IMAGES = struct.pack(">HBB3I", 0, 8, 3, 3, 4, 5) + bytes(range(60))
LABELS = struct.pack(">HBBI", 0, 12, 1, 7) + np.arange(7, dtype=">i4").tobytes()


def reference(content: bytes) -> NDArray[Any] | None:
    """Return the array of an IDX file from a second, simple reader, or None if it is bad."""
    try:
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        zero, code, n_dimensions = struct.unpack_from(">HBB", plain)
        shape = struct.unpack_from(f">{n_dimensions}I", plain, 4)
        if zero or not n_dimensions:
            return None
        return np.frombuffer(plain[4 + 4 * n_dimensions :], CODES[code]).reshape(shape)
    except (EOFError, OSError, KeyError, ValueError, struct.error, zlib.error):
        return None


headers = st.builds(
    lambda code, sizes, body: struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes) + body,
    st.sampled_from([*CODES, 0, 0x0A, 0xFF]),
    st.lists(st.integers(0, 4) | st.sampled_from([2**16, 2**31, 2**32 - 1]), max_size=70),
    st.binary(max_size=64),
)
plain = headers | damaged_bytes(IMAGES) | damaged_bytes(LABELS) | st.binary(max_size=80)
members = st.lists(plain.map(lambda part: gzip.compress(part, mtime=0)), min_size=1, max_size=3)
packed = members.map(b"".join) | damaged_bytes(gzip.compress(IMAGES, mtime=0))


@fuzz
@given(content=plain | packed)
def test_idx_bytes_are_read_as_by_a_second_reader_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Type, shape, every element and the digest agree."""
    path = tmp_path_factory.getbasetemp() / "train-images-idx3-ubyte"
    path.write_bytes(content)
    expected = reference(content)
    try:
        payload = idx.load(path)
    except DataError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        assert expected is None or expected.ndim > 64 or expected.size == 0
        with pytest.raises(DataError):
            idx.digest(path)
        return
    assert expected is not None
    assert payload.array.dtype == expected.dtype.newbyteorder("=")
    assert payload.array.shape == expected.shape
    assert payload.array.tobytes() == expected.astype(payload.array.dtype).tobytes()
    assert payload.array.flags.writeable
    raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert payload.sha256 == idx.digest(path) == hashlib.sha256(raw).hexdigest()


COLUMNS = {
    "split": ["test"] * 3,
    "metric": ["accuracy", "loss", "ece"],
    "value": [0.5, 0.25, None],
    "ci_low": [0.4, None, None],
    "ci_high": [0.6, None, None],
    "n": [257, 257, 257],
}


@fuzz
@given(data=st.data())
def test_a_damaged_table_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever error the parquet library raises, `read` raises ArtifactError."""
    path = tmp_path_factory.getbasetemp() / "metrics.parquet"
    parquet.write(path, "metrics", COLUMNS)
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    try:
        parquet.read(path)
    except ArtifactError as error:
        assert str(error).startswith(f"{path}: not a complete parquet file")
        assert "\n" not in str(error)


@fuzz
@given(data=st.data())
def test_a_damaged_archive_is_read_unchanged_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Damage to a model's file is detected, or config and weights are unharmed."""
    path = tmp_path_factory.getbasetemp() / "model.keras"
    digest = keras_file(path, CONFIG)
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    try:
        archive = archives.read(path)
        arrays = {name: array.tolist() for name, array in archive.arrays()}
    except ArtifactError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return
    assert archive.config == CONFIG
    assert sorted(arrays) == ["layers/conv1/vars/bias", "layers/conv1/vars/kernel"]
    assert all(array == [0, 1, 2, 3] for array in arrays.values())
    assert digest == digests.content_digest(path)


@fuzz
@given(data=st.data())
def test_damaged_weights_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """HDF5 damaged before it was zipped, so with a valid checksum, never crashes the process."""
    path = tmp_path_factory.getbasetemp() / "model.keras"
    keras_file(path, CONFIG)
    whole = archives.read(path)
    damaged = archives.Archive(path, {}, "3", data.draw(damaged_bytes(whole.weights)))
    try:
        n_bytes = sum(array.nbytes for _, array in damaged.arrays())
        assert n_bytes <= len(damaged.weights)
    except ArtifactError as error:
        assert str(path) in str(error)


@fuzz
@given(data=st.data())
def test_a_config_has_only_stock_keras_parts_or_is_refused(data: st.DataObject) -> None:
    """Whatever a config holds, the only error is the one that names the foreign part."""
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": None}
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}}
    try:
        read = json.loads(data.draw(damaged_json(config)))
    except (ValueError, RecursionError):
        return
    if isinstance(read, dict):
        try:
            archives.refuse_foreign(read)
        except ValueError as error:
            assert "its config names" in str(error)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one data set."""
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)
    split = Split(images, np.array([0, 1, 1]), np.arange(3))
    dataset = Dataset("folder", ("0", "1"), dict.fromkeys(datasets.SPLITS, split), {})

    def produce(folder: Path) -> Headline:
        datasets.write(folder, dataset)
        return {}

    store = Store(tmp_path_factory.mktemp("fuzz") / "artifacts")
    store.publish(Key("dataset", {"step": "load_dataset"}), (), produce)
    return store


@fuzz
@given(data=st.data())
def test_a_data_set_with_a_changed_byte_is_not_opened(store: Store, data: st.DataObject) -> None:
    """Array headers, elements and the description are verified before NumPy reads them."""
    key = Key("dataset", {"step": "load_dataset"})
    (manifest,) = store.manifests("dataset")
    folder = store.open(manifest.ref)
    path = folder / data.draw(st.sampled_from([file.path for file in manifest.files]))
    whole = path.read_bytes()
    path.write_bytes(data.draw(damaged_bytes(whole)))
    try:
        changed = path.read_bytes() != whole
        assert (store.find(key).manifest is None) == changed
        if changed:
            with pytest.raises(ArtifactError, match=path.name):
                store.open(manifest.ref)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "assets/../../x", "assets/x"])
def test_an_archive_with_other_members_is_refused(tmp_path: Path, name: str) -> None:
    """A model has three files; a fourth is refused, wherever it would be unpacked to."""
    path = tmp_path / "model.keras"
    keras_file(path, CONFIG)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "planted")
    with pytest.raises(ArtifactError, match="not a complete"):
        archives.read(path)
