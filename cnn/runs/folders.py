"""Run folders, for people: the record, the report, and copies of what the run made."""

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
    """Return the record and the folder of a run, in place with everything in it.

    artifacts: folders whose figures, tables, arrays and model are copied, the data set's
    aside. The folder appears complete, in one rename; the index is made anew. Where the name
    is taken, a number is added to it. Where `accept`, called in the end, raises, nothing is
    published. Raises StoreUnwritableError where the disk is full.
    """
    with atomic.disk_faults("the run's folder", runs):
        runs.mkdir(parents=True, exist_ok=True)
        with atomic.temporary_folder(_workplace(runs), record.run) as temporary:
            for kind, folder in artifacts.items():
                if kind != "dataset":
                    _copy(folder, temporary)
            if report:
                (temporary / REPORT_NAME).write_text(report, encoding="utf-8")
            record, folder = _put(runs, temporary, record)
            try:
                index.rebuild(runs)
                accept(record, folder)
            except (OSError, FilterscopeError):  # a run that the index lacks is not published
                folder.rename(temporary)
                with suppress(OSError):
                    index.rebuild(runs)
                raise
        return record, folder


def place_of(name: str) -> str | None:
    """Return the folder of a run in which copies of artifacts' files of that name lie, if any."""
    return "model" if name in _MODEL_FILES else _PLACES.get(Path(name).suffix)


def is_pinned(folder: Path) -> bool:
    """Return whether a run is pinned: `gc` keeps it and what it was made from."""
    return (folder / PIN_NAME).is_file()


def pin(runs: Path, name: str) -> Path:
    """Have `gc` keep a run and what it was made from; return its folder. Raises as `find`."""
    with _pinning(runs, name) as folder:
        (folder / PIN_NAME).touch()
    return folder


def unpin(runs: Path, name: str) -> Path:
    """Let `gc` free a run again; return its folder. Raises as `find`."""
    with _pinning(runs, name) as folder:
        (folder / PIN_NAME).unlink(missing_ok=True)
    return folder


def copies(store: Store, record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield path and SHA-256 of every copy in a run's folder whose artifact is still there."""
    refs = [step.ref for step in record.steps if step.ref and step.ref.kind != "dataset"]
    for manifest in _present(store, refs):
        for file in manifest.files:
            if place := place_of(file.path):
                yield f"{place}/{file.path}", file.sha256


@contextmanager
def _pinning(runs: Path, name: str) -> Iterator[Path]:
    """Yield the folder of a run; `gc`, which must not be in the middle, waits meanwhile."""
    _, folder = records.find(runs, name)
    with atomic.disk_faults("the pin", folder), in_use.shared_lock(runs.parent):
        if not folder.is_dir():
            raise ConfigError(f"run {name!r}: gc has just freed it")
        yield folder


def _workplace(runs: Path) -> Path:
    """Return where a run's folder is put together: beside `runs`, out of every reader's glob.

    polars, duckdb and pathlib look into hidden folders too. Only where `runs` is a
    disk of its own it has to be inside.
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
            f"{error.filename} vanished while the run's folder was made; run again"
        ) from None


def _put(runs: Path, temporary: Path, record: RunRecord) -> tuple[RunRecord, Path]:
    """Rename the folder to the run's name, or to that name with the first free number."""
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
    raise ArtifactError(f"{runs / record.run}: a thousand runs have this name already")


def _present(store: Store, refs: Iterable[Ref]) -> Iterator[Manifest]:
    """Yield the manifests of the artifacts that are still there, with the same content."""
    for ref in refs:
        try:
            manifest = store.manifest(ref)
        except ArtifactError:
            continue
        if manifest.ref == ref:
            yield manifest
