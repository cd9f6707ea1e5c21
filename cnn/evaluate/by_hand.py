"""Promotes a run because a person says so: a newer one, or an earlier one again."""

from pathlib import Path

from cnn.config import GateConfig
from cnn.errors import ArtifactError, ConfigError
from cnn.evaluate import gate, judging
from cnn.evaluate.judging import Candidate
from cnn.store import contents, promoted, runs, verifying
from cnn.store.refs import Kind, Ref
from cnn.store.runs import RunRecord
from cnn.store.store import Store


def promote(store: Store, name: str, because: str, track: str | None) -> tuple[RunRecord, str]:
    """Put a run in force and return it with its track, the one it was judged on by default.

    It must be whole, be for the track's data and classes, and its model must answer in a
    fresh process as it was evaluated. Raises ConfigError or ArtifactError where it is not.
    """
    if not because.strip():
        raise ConfigError("--because is empty; say why, for those who read the history")
    record, folder = runs.find(store.runs, name)
    refs = _refs(record)
    track = track or (record.gate.track if record.gate else promoted.track_name(record.data))
    folders = {kind: store.open(ref) for kind, ref in refs.items()}
    candidate = Candidate(folders, refs["model"], record.data, record.headline)
    _refuse_changed(store, record, folder)
    with promoted.deciding(store.root, track):
        incumbent = promoted.current(store.root, track)
        if incumbent and incumbent.run == record.run:
            raise ConfigError(f"{record.run} is promoted on track {track} already")
        if incumbent:
            judging.refuse_other_task(candidate, incumbent)
        if failed := gate.failed(judging.answers(candidate, GateConfig())):
            raise ArtifactError(f"{record.run} is not promoted: {failed}")
        line = promoted.now(record, because.strip(), refs["model"].digest)
        promoted.promote(store.root, track, folder, folders["dataset"], line)
    return record, track


def _refs(record: RunRecord) -> dict[Kind, Ref]:
    """Return what a run made by kind; raises ConfigError where it did not come to an end."""
    refs = {step.ref.kind: step.ref for step in record.steps if step.ref}
    if record.status != "completed" or not {"dataset", "model", "evaluation"} <= refs.keys():
        raise ConfigError(f"{record.run} failed; a completed run is needed")
    return {kind: refs[kind] for kind in ("dataset", "model", "evaluation")}


def _refuse_changed(store: Store, record: RunRecord, folder: Path) -> None:
    """Raise ArtifactError where a file of the run's folder is not what the run made."""
    for name, sha256 in verifying.copies(store, record):
        path = folder / name
        if not path.is_file() or contents.file_digest(path) != sha256:
            raise ArtifactError(f"{path} is not what the run made; run it again")
