"""Keras archives, looked at before Keras opens them: whole, and of stock layers only.

Keras's safe mode stops marshalled code; it lets through layers that read files or
another framework's pickles, and archives that unpack to far more than they are.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cnn.errors import ArtifactError
from cnn.io import strict_json

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_WITH_KERNEL = ("Conv2D", "Dense")
_NAMING = {"module", "class_name", "registered_name"}
_LONGEST_VERSION = 24  # characters
_SMALLEST_ITEM = 64  # bytes; an HDF5 group or data set takes more, however empty
_MOST_ADDED = 100 << 20  # bytes that an archive may unpack to beyond its own size

# What the network of cnn.train.networks is saved as, by the module that Keras names.
_STOCK = {
    "keras": {"Sequential", "DTypePolicy"},
    "keras.initializers": {"TruncatedNormal", "Constant"},
    "keras.layers": {
        *("InputLayer", "Rescaling", "Conv2D", "MaxPooling2D"),
        *("Flatten", "Dense", "Dropout", "Softmax"),
    },
}


@dataclass(frozen=True)
class Archive:
    """A .keras archive, read and checksummed: its config, the Keras that wrote it, its weights."""

    path: Path
    config: dict[str, Any]
    keras_version: str
    weights: bytes

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield name and values of every weight; raises ArtifactError for what is no weight."""
        for name, item in self._datasets():
            yield name, item[()]

    def refuse_odd_weights(self) -> None:
        """Raise where the weights are not those that the config asks for.

        Keras makes room for what the config asks for, however much, before it looks at the
        weights. Raises ArtifactError, or whatever an odd config leads to.
        """
        layers = [part for part in _parts(self.config) if part["class_name"] in _WITH_KERNEL]
        asked = sorted(_kernel_shape(layer) for layer in layers)
        there = sorted(item.shape for _, item in self._datasets() if item.ndim > 1)
        if asked != there:
            raise ValueError(f"its config asks for kernels {asked}, it holds {there}")

    def _datasets(self) -> Iterator[tuple[str, Any]]:
        import h5py

        try:
            with h5py.File(io.BytesIO(self.weights), "r") as file:
                yield from _plain_datasets(file, len(self.weights))
        except Exception as error:  # h5py raises whatever the content leads to
            raise ArtifactError(f"{self.path}: {_WEIGHTS} is damaged ({error})") from None


def read(path: Path) -> Archive:
    """Return a .keras archive; raises ArtifactError where it is not complete."""
    with _zip_faults(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sorted(item.filename for item in members) != [_CONFIG, _METADATA, _WEIGHTS]:
            shown = ", ".join(repr(item.filename) for item in members[:6]) or "nothing"
            raise ValueError(f"it holds {shown}")
        if sum(item.file_size for item in members) > path.stat().st_size + _MOST_ADDED:
            raise ValueError("it unpacks to far more than it is")
        config, metadata = (strict_json.parse(archive.read(name)) for name in (_CONFIG, _METADATA))
        if not isinstance(config, dict) or not isinstance(metadata, dict):
            raise ValueError("its JSON files are no objects")
        version = " ".join(str(metadata.get("keras_version", "of an unknown version")).split())
        return Archive(path, config, version[:_LONGEST_VERSION], archive.read(_WEIGHTS))


def refuse_foreign(config: dict[str, Any]) -> None:
    """Raise ValueError where a model's config names anything but the stock parts we use."""
    for part in _parts(config):
        module, name = str(part.get("module")), str(part.get("class_name"))
        if name not in _STOCK.get(module, ()) or part.get("registered_name") is not None:
            raise ValueError(f"its config names {module}.{name}, which no model of ours has")


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield whatever in a config Keras may look up and build."""
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if _NAMING & value.keys():
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _kernel_shape(layer: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of the kernel that Keras allocates for a Conv2D or Dense layer."""
    options, n_inputs = layer["config"], layer["build_config"]["input_shape"][-1]
    if layer["class_name"] == "Dense":
        return n_inputs, options["units"]
    return *options["kernel_size"], n_inputs // options["groups"], options["filters"]


@contextmanager
def _zip_faults(path: Path) -> Iterator[None]:
    """Turn whatever a damaged archive leads to into ArtifactError."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError),
        RuntimeError,  # zipfile's word for what is encrypted, or compressed in an unknown way
    ) as error:
        raise ArtifactError(
            f"{path}: not a complete .keras archive ({error}); copy or make it again"
        ) from None


def _plain_datasets(file: Any, n_bytes: int) -> Iterator[tuple[str, Any]]:
    """Yield the data sets of an HDF5 file of n_bytes; raises ValueError for links and bombs."""
    import h5py

    waiting = [file]
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link")
            item = group[name]
            n_bytes -= _SMALLEST_ITEM
            n_bytes -= 0 if isinstance(item, h5py.Group) else item.nbytes
            if n_bytes < 0:
                raise ValueError("it says that it holds more than it can")
            if isinstance(item, h5py.Group):
                waiting.append(item)
                continue
            if item.external or item.is_virtual or item.dtype.kind not in "fiu":
                raise ValueError(f"{item.name} does not hold its numbers itself")
            yield item.name.lstrip("/"), item
