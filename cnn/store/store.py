"""The artifact store: verified reading, atomic publishing, quarantine.

Layout: `store/<kind>/<key>/` holds the files of one immutable artifact and its
manifest.json. A folder gets that name in one rename, once it is complete.
"""

import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cnn.errors import ArtifactError, StoreUnwritableError
from cnn.io import atomic
from cnn.io.digest_cache import DigestCache
from cnn.store import digests, layout, leases, manifests
from cnn.store.keys import Key
from cnn.store.manifests import Headline, Manifest
from cnn.store.refs import Kind, Ref

log = logging.getLogger(__name__)

Produce = Callable[[Path], Headline]


@dataclass(frozen=True)
class Found:
    """What the store holds for a key: a verified artifact, or the problem with it.

    Without an artifact both fields are empty.
    """

    manifest: Manifest | None
    problem: str = ""


def default_root() -> Path:
    """Return the default root of the store: FILTERSCOPE_STORE, or ./artifacts."""
    return Path(os.environ.get("FILTERSCOPE_STORE") or "artifacts")


class Store:
    """The artifacts below one root folder."""

    def __init__(self, root: Path) -> None:
        """Set the root, made absolute; does not touch the disk."""
        self.root = root.absolute()

    @property
    def downloads(self) -> Path:
        """Folder of downloaded and verified data sets."""
        return self.root / "downloads"

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.root / "runs"

    @property
    def checkpoints(self) -> Path:
        """Folder of unfinished trainings and searches, one folder each, named by its key."""
        return self.root / "checkpoints"

    def ensure_writable(self) -> None:
        """Create the root and write a test file there; raises StoreUnwritableError."""
        try:
            parts = (self.root / "store", self.runs, self.downloads, self.checkpoints)
            for folder in (self.root, *parts):
                if folder == self.root or folder.exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    with tempfile.TemporaryFile(dir=folder) as stream:
                        stream.write(b"filterscope")
        except OSError as error:
            raise StoreUnwritableError(
                f"store {self.root}: cannot be written ({error.strerror}); "
                "choose another folder with --store or FILTERSCOPE_STORE"
            ) from None

    def sweep(self) -> None:
        """Remove what interrupted processes left half-written, but nothing that is being written.

        Also remove the checkpoints and partial results of artifacts that are published by now.
        """
        for folder in layout.workplaces(self.root):
            for path in atomic.sweep(folder):
                log.info("%s: removed; an interrupted run left it half-written", path)
        for folder in layout.entries(self.checkpoints):
            if layout.is_made(self.root, folder.name) and not leases.is_live(folder):
                leases.discard(folder)

    def finish(self, key: Key) -> None:
        """Remove the checkpoints and partial results of a published artifact; keep the lease."""
        for path in (self.checkpoints / key.digest).glob("*.npz"):
            path.unlink(missing_ok=True)

    def find(self, key: Key) -> Found:
        """Return the artifact of a key with every file verified, or the problem with it."""
        folder = self._folder(key.kind, key.digest)
        if not folder.exists():
            return Found(None)
        try:
            manifest = self._manifest(folder)
        except ArtifactError as error:
            return Found(None, str(error))
        problem = self._problem(folder, manifest)
        return Found(None, problem) if problem else Found(manifest)

    def quarantine(self, key: Key, problem: str) -> None:
        """Move an artifact that failed verification to quarantine, and log a warning.

        Do nothing if another process has replaced it with a good one by now.
        """
        if self.find(key).manifest:
            return
        folder = self._folder(key.kind, key.digest)
        self._set_aside(folder)
        log.warning("%s %s: %s; moved to quarantine", key.kind, key.digest[:12], problem)

    def open(self, ref: Ref) -> Path:
        """Return an artifact's folder after verifying its files.

        Raises ArtifactError if it is missing, changed, or not the artifact that the ref names.
        """
        folder = self._folder(ref.kind, ref.key)
        manifest = self._manifest(folder)
        problem = self._problem(folder, manifest)
        if not problem and manifest.ref != ref:
            problem = f"its digest is {manifest.ref.digest[:12]}, expected {ref.digest[:12]}"
        if problem:
            raise ArtifactError(f"{ref} in {folder}: {problem}; run again to rebuild it")
        return folder

    def manifest(self, ref: Ref) -> Manifest:
        """Return the manifest of an artifact; raises ArtifactError."""
        return self._manifest(self._folder(ref.kind, ref.key))

    def manifest_in(self, folder: Path) -> Manifest:
        """Return the manifest in an artifact's folder; raises ArtifactError."""
        return self._manifest(folder)

    def manifests(self, kind: Kind) -> Iterator[Manifest]:
        """Yield the manifests of a kind, skipping unreadable ones."""
        folder = self.root / "store" / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            try:
                yield self._manifest(path)
            except ArtifactError:
                continue

    def publish(
        self,
        key: Key,
        reads: tuple[Ref, ...],
        produce: Produce,
        device: Mapping[str, Any] | None = None,
        *,
        replace: bool = False,
    ) -> Manifest:
        """Publish what `produce` writes into a temporary folder; return the artifact's manifest.

        The folder gets its final name once it is complete. If a verified artifact with this
        key exists by then, it is kept and returned unless `replace`. Raises
        StoreUnwritableError if the disk is full or not writable.
        """
        store = self.root / "store"
        with atomic.disk_faults(key.kind, self.root):
            store.mkdir(parents=True, exist_ok=True)
            with atomic.temporary_folder(store, f"{key.kind}-{key.digest[:12]}") as temporary:
                started = time.monotonic()
                headline = produce(temporary)
                manifest = Manifest(
                    kind=key.kind,
                    key=key.digest,
                    components=dict(key.components),
                    reads=reads,
                    files=manifests.describe(temporary),
                    environment=manifests.environment(device, key.precision),
                    created=datetime.now(UTC),
                    seconds=time.monotonic() - started,
                    headline=headline,
                ).sealed()
                text = manifest.model_dump_json(indent=2)
                (temporary / manifests.NAME).write_text(text, encoding="utf-8")
                for path in (*temporary.iterdir(), temporary):
                    atomic.flush(path)
                return self._put(temporary, key, manifest, replace)

    def _put(self, temporary: Path, key: Key, manifest: Manifest, replace: bool) -> Manifest:
        """Give a complete folder its final name unless a verified artifact already has it."""
        folder = self._folder(key.kind, key.digest)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            existing = self.find(key).manifest
            if existing and existing.ref != manifest.ref:
                log.warning("%s was computed twice, with different results", manifest.ref)
            if existing and (not replace or existing.ref == manifest.ref):
                return existing
            self._set_aside(folder)
        try:
            temporary.rename(folder)
        except OSError:
            existing = self.find(key).manifest  # another process may have been faster
            if existing is None:
                raise
            return existing
        atomic.flush(folder.parent)
        return manifest

    def _problem(self, folder: Path, manifest: Manifest) -> str:
        cache = DigestCache(self.root / "store/.verified" / f"{manifest.kind}-{manifest.key}.json")
        problem = manifests.problem(
            folder, manifest, lambda path: cache.digest(path, path.name, digests.file_digest)
        )
        if not problem:
            cache.keep()
        return problem

    def _manifest(self, folder: Path) -> Manifest:
        return manifests.read(folder)

    def _set_aside(self, folder: Path) -> None:
        quarantine = self.root / "quarantine"
        quarantine.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process was faster
            folder.rename(quarantine / f"{folder.parent.name}-{folder.name}-{uuid.uuid4().hex[:8]}")

    def _folder(self, kind: Kind, key: str) -> Path:
        return self.root / "store" / kind / key
