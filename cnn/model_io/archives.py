"""Check Keras archives before Keras opens them: complete, and made of stock layers only.

Keras's safe mode blocks marshalled code. It does not block layers that read files or another
framework's pickles, nor archives that unpack to far more than their own size.
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
_SMALLEST_ITEM = 64  # bytes; even an empty HDF5 group or data set takes more
_MOST_ADDED = 100 << 20  # bytes by which an unpacked archive may exceed its own size

# All that Keras names in a saved network of cnn.train.networks, by module.
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
    """The verified content of a .keras archive: config, the Keras that wrote it, weights."""

    path: Path
    config: dict[str, Any]
    keras_version: str
    weights: bytes

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield name and values of every weight. Raises ArtifactError for anything else."""
        for name, item in self._datasets():
            yield name, item[()]

    def refuse_odd_weights(self) -> None:
        """Raise if the kernels do not have the shapes that the config asks for.

        Keras allocates what the config asks for, however much, before it reads the weights.
        Raises ArtifactError, ValueError, or whatever an odd config leads to.
        """
        layers = [part for part in _parts(self.config) if part["class_name"] in _WITH_KERNEL]
        expected = sorted(_kernel_shape(layer) for layer in layers)
        stored = sorted(item.shape for _, item in self._datasets() if item.ndim > 1)
        if stored != expected:
            raise ValueError(f"its config asks for kernels {expected}, but it holds {stored}")

    def _datasets(self) -> Iterator[tuple[str, Any]]:
        import h5py

        try:
            with h5py.File(io.BytesIO(self.weights), "r") as file:
                yield from _plain_datasets(file, len(self.weights))
        except Exception as error:  # bad content makes h5py raise anything
            raise ArtifactError(f"{self.path}: {_WEIGHTS} is damaged ({error})") from None


def read(path: Path) -> Archive:
    """Return the content of a .keras archive. Raises ArtifactError if it is incomplete."""
    with _zip_faults(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sorted(item.filename for item in members) != [_CONFIG, _METADATA, _WEIGHTS]:
            shown = ", ".join(repr(item.filename) for item in members[:6]) or "nothing"
            raise ValueError(f"it holds {shown}, not {_CONFIG}, {_METADATA}, {_WEIGHTS}")
        if sum(item.file_size for item in members) > path.stat().st_size + _MOST_ADDED:
            raise ValueError("it unpacks to far more than its own size")
        config, metadata = (strict_json.parse(archive.read(name)) for name in (_CONFIG, _METADATA))
        if not isinstance(config, dict) or not isinstance(metadata, dict):
            raise ValueError(f"{_CONFIG} or {_METADATA} is not a JSON object")
        version = " ".join(str(metadata.get("keras_version", "of an unknown version")).split())
        return Archive(path, config, version[:_LONGEST_VERSION], archive.read(_WEIGHTS))


def refuse_foreign(config: dict[str, Any]) -> None:
    """Raise ValueError if a model's config names anything but the stock parts of our network."""
    for part in _parts(config):
        module, name = str(part.get("module")), str(part.get("class_name"))
        if name not in _STOCK.get(module, ()) or part.get("registered_name") is not None:
            raise ValueError(f"its config names {module}.{name}, which filterscope never saves")


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every part of a config that Keras may look up and build."""
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if _NAMING & value.keys():
                yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _kernel_shape(layer: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of the kernel that Keras allocates for a Conv2D or Dense layer."""
    options, n_inputs = layer["config"], layer["build_config"]["input_shape"][-1]
    if layer["class_name"] == "Dense":
        return n_inputs, options["units"]
    return *options["kernel_size"], n_inputs // options["groups"], options["filters"]


@contextmanager
def _zip_faults(path: Path) -> Iterator[None]:
    """Turn every error that a damaged archive causes into ArtifactError."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError),
        RuntimeError,  # zipfile raises it for encryption and for unknown compression
    ) as error:
        raise ArtifactError(
            f"{path}: not a complete .keras archive ({error}); copy it or train the model again"
        ) from None


def _plain_datasets(file: Any, n_bytes: int) -> Iterator[tuple[str, Any]]:
    """Yield the data sets of an HDF5 file of n_bytes. Raises ValueError for links and bombs."""
    import h5py

    pending = [file]
    while pending:
        group = pending.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link")
            item = group[name]
            n_bytes -= _SMALLEST_ITEM
            n_bytes -= 0 if isinstance(item, h5py.Group) else item.nbytes
            if n_bytes < 0:
                raise ValueError("it claims to hold more than its size allows")
            if isinstance(item, h5py.Group):
                pending.append(item)
                continue
            if item.external or item.is_virtual or item.dtype.kind not in "fiu":
                raise ValueError(f"{item.name} is not an array of numbers stored in this file")
            yield item.name.lstrip("/"), item
