"""Run folders, for people: run.json, the report, and copies of the artifacts' files."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cnn.errors import ArtifactError, ConfigError, FilterscopeError
from cnn.io import atomic
from cnn.runs import index, records
from cnn.runs.records import RECORD_NAME, REPORT_NAME, RunRecord
from cnn.store import in_use
from cnn.store.manifests import Manifest
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store

PIN_NAME = "pinned"
_PLACES = {".png": "figures", ".parquet": "tables", ".npy": "arrays", ".keras": "model"}
_MODEL_FILES = ("model.json", "training.json")


def publish(
    runs: Path,
    record: RunRecord,
    artifacts: Mapping[Kind, Path],
    report: str = "",
    accept: Callable[[RunRecord, Path], None] = lambda record, folder: None,
) -> tuple[RunRecord, Path]:
    """Publish a run's folder and rebuild the index; return the record and the folder.

    artifacts: artifact folders by kind, whose figures, tables, arrays and model are copied; the
    data set is not. The folder appears complete, in one rename. If its name is taken, a number
    is added to it. If `accept`, which is called last, raises, nothing is published. Raises
    StoreUnwritableError if the disk is full, ArtifactError if an artifact is gone.
    """
    with atomic.disk_faults("the run's folder", runs):
        runs.mkdir(parents=True, exist_ok=True)
        with atomic.temporary_folder(_staging_folder(runs), record.run) as temporary:
            for kind, folder in artifacts.items():
                if kind != "dataset":
                    _copy(folder, temporary)
            if report:
                (temporary / REPORT_NAME).write_text(report, encoding="utf-8")
            record, folder = _put(runs, temporary, record)
            try:
                index.rebuild(runs)
                accept(record, folder)
            except (OSError, FilterscopeError):  # no published run may be missing from the index
                folder.rename(temporary)
                with suppress(OSError):
                    index.rebuild(runs)
                raise
        return record, folder


def place_of(name: str) -> str | None:
    """Return the subfolder of a run's folder for a file of that name; None if it is not copied."""
    return "model" if name in _MODEL_FILES else _PLACES.get(Path(name).suffix)


def is_pinned(folder: Path) -> bool:
    """Return whether a run is pinned, so that `gc` keeps it and its artifacts."""
    return (folder / PIN_NAME).is_file()


def pin(runs: Path, name: str) -> Path:
    """Pin a run, so that `gc` keeps it and its artifacts; return its folder. Raises like `find`."""
    with _pinning(runs, name) as folder:
        (folder / PIN_NAME).touch()
    return folder


def unpin(runs: Path, name: str) -> Path:
    """Unpin a run, so that `gc` may free it; return its folder. Raises like `find`."""
    with _pinning(runs, name) as folder:
        (folder / PIN_NAME).unlink(missing_ok=True)
    return folder


def copies(store: Store, record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield path and SHA-256 of every copied file whose artifact is still in the store."""
    refs = [step.ref for step in record.steps if step.ref and step.ref.kind != "dataset"]
    for manifest in _present(store, refs):
        for file in manifest.files:
            if place := place_of(file.path):
                yield f"{place}/{file.path}", file.sha256


@contextmanager
def _pinning(runs: Path, name: str) -> Iterator[Path]:
    """Yield the folder of a run; `gc` cannot free anything while the block runs."""
    _, folder = records.find(runs, name)
    with atomic.disk_faults("the pin", folder), in_use.shared_lock(runs.parent):
        if not folder.is_dir():
            raise ConfigError(f"run {name!r}: gc has just freed it")
        yield folder


def _staging_folder(runs: Path) -> Path:
    """Return where to assemble a run's folder: beside `runs`, where no glob over runs finds it.

    The globs of polars, duckdb and pathlib match hidden folders too. If `runs` is on a disk of
    its own, the rename works only from inside it.
    """
    same_disk = runs.stat().st_dev == runs.parent.stat().st_dev
    return runs.parent if same_disk else runs


def _copy(folder: Path, target: Path) -> None:
    try:
        for path in sorted(folder.iterdir()):
            place = place_of(path.name)
            if place is not None:
                (target / place).mkdir(exist_ok=True)
                shutil.copyfile(path, target / place / path.name)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename} vanished while the run's folder was being written; run again"
        ) from None


def _put(runs: Path, temporary: Path, record: RunRecord) -> tuple[RunRecord, Path]:
    """Rename the folder to the run's name, with the first free number if it is taken."""
    for number in range(1, 1000):
        name = record.run if number == 1 else f"{record.run}-{number}"
        named = record.model_copy(update={"run": name})
        text = named.model_dump_json(indent=2)
        (temporary / RECORD_NAME).write_text(text, encoding="utf-8")
        try:
            if not (runs / name).exists():
                temporary.rename(runs / name)
                return named, runs / name
        except OSError:
            if not (runs / name).exists():
                raise
    raise ArtifactError(
        f"{runs / record.run}: 999 runs have this name already; start the run again"
    )


def _present(store: Store, refs: Iterable[Ref]) -> Iterator[Manifest]:
    """Yield the manifests of the artifacts that are still in the store with the same digest."""
    for ref in refs:
        try:
            manifest = store.manifest(ref)
        except ArtifactError:
            continue
        if manifest.ref == ref:
            yield manifest
