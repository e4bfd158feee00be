"""Freeze: copy outputs from scratch to the version's folder, digesting on the way, each object written once.

The artifact manifest closes `frozen/`; its digest is the version digest. Where an earlier attempt was cut off in the middle of freezing
and left other bytes, the version gets a new folder rather than a changed one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from attestry.domain.archive import ArchiveLimits, iterate_archive
from attestry.domain.errors import IntegrityError, InvalidInputError, StageFailedError
from attestry.domain.manifest import Manifest
from attestry.domain.names import name_version_folder
from attestry.domain.version import DataSet, FileRef, Version
from attestry.evidence.artifact_manifest import ArtifactManifest, FrozenFile, ManifestEnvironment, SourceData
from attestry.evidence.digests import digest_stream, tree_digest
from attestry.ports import ObjectStore

MAX_FROZEN_FILES = 500
"""Files and folders; their references lie in the head row, which holds at most 400 KB."""

MAX_MODEL_BYTES = 4 * 1024**3
SPOOL_BYTES = 16 * 1024 * 1024

_FOLDERS: Final[Mapping[str, str]] = {"training": "train/", "holdout": "holdout/", "holdout-labels": "holdout-labels/"}
"""Prepared data set to its folder."""


@dataclass(frozen=True)
class FrozenModel:
    """A closed `frozen/` folder: the files, the artifact manifest, the version's folder, and the bytes of the artifact manifest."""

    files: tuple[FileRef, ...]
    artifact: FileRef
    folder: str
    document: bytes


class Freezer:
    """Freezes the outputs of one run of a stage."""

    def __init__(self, store: ObjectStore, scratch: ObjectStore, version: Version, prefix: str) -> None:
        """Take the model store, the scratch bucket, the version and the run's scratch prefix."""
        self._store = store
        self._scratch = scratch
        self.version = version
        self._prefix = prefix

    def freeze_data(self, attempt: int) -> list[DataSet]:
        """Keep the prepared data in the version's folder: training set, hold-out features, hold-out labels."""
        folder = f"{self.version.folder}/stages/PROCESSING/{attempt}/data"
        result: list[DataSet] = []
        for name, sub in _FOLDERS.items():
            base = f"{self._prefix}evaluated/{sub}"
            keys = sorted({v.key for v in self._scratch.list_versions(base) if v.is_latest and not v.is_delete_marker})
            files = [self._copy(key, f"{folder}/{sub}{key.removeprefix(base)}", key.removeprefix(base)) for key in keys]
            if not files:
                raise StageFailedError(f"PROCESSING left no {name} data")
            result.append(DataSet(name, tree_digest(files), tuple(files)))
        return result

    def keep(self, evaluated: str, relative: str) -> FileRef:
        """Keep one evaluated file in the version's folder."""
        return self._copy(f"{self._prefix}evaluated/{evaluated}", f"{self.version.folder}/{relative}", evaluated)

    def freeze_model(self, manifest: Manifest, archive: str) -> FrozenModel:
        """Freeze what the training script wrote together with manifest, source and lock file, and close the folder.

        Args:
            manifest: the version's manifest.
            archive: key of the archive in scratch that holds the content of SM_MODEL_DIR.

        Raises:
            InvalidInputError: the archive breaks a rule, or holds no file or too many.
            IntegrityError: a file was frozen with other bytes.
        """
        folder = self._free_folder(manifest)
        with self._scratch.open(archive) as stream:
            return self._close(folder, self._model_files(stream, folder))

    def take_data(self, attempt: int, datasets: Sequence[DataSet]) -> list[DataSet]:
        """Copy prepared data of an earlier version to the version's folder.

        Raises:
            IntegrityError: a file is not what was recorded.
        """
        folder = f"{self.version.folder}/stages/PROCESSING/{attempt}/data"
        taken = []
        for dataset in datasets:
            files = tuple(self._copy_recorded(f, f"{folder}/{_FOLDERS[dataset.name]}{f.path}") for f in dataset.files)
            taken.append(DataSet(dataset.name, tree_digest(files), files))
        return taken

    def take_model(self, manifest: Manifest, files: Sequence[FileRef]) -> FrozenModel:
        """Freeze the model's files of an earlier version as this one's, and close the folder; it has a version digest of its own.

        Raises:
            IntegrityError: a file is not what was recorded.
        """
        folder = self._free_folder(manifest)
        return self._close(folder, (self._copy_recorded(file, f"{folder}/frozen/{file.path}") for file in files))

    def _close(self, folder: str, model: Iterable[FileRef]) -> FrozenModel:
        """Freeze manifest, source and lock file beside the model's files, and write what closes the folder."""
        version = self.version
        registered = [ref for ref in (version.manifest, version.source, version.lock, version.diff) if ref is not None]
        files = [*(self._copy_registered(ref, f"{folder}/frozen/{ref.path}") for ref in registered), *model]
        if not any(f.path.startswith("model/") for f in files):
            raise InvalidInputError.of("SM_MODEL_DIR", "model_present", "the training script wrote no file below SM_MODEL_DIR")
        document = self._artifact_manifest(files)
        kept = self._store.put_new(
            f"{folder}/frozen/artifact-manifest.json", document.to_bytes(), content_type="application/json", retain=True
        )
        artifact = FileRef("artifact-manifest.json", kept.key, kept.version_id, kept.size, kept.sha256)
        return FrozenModel(tuple(sorted(files, key=lambda f: f.path)), artifact, folder, document.to_bytes())

    def _free_folder(self, manifest: Manifest) -> str:
        """Return the version's folder, or that of the attempt where an earlier one left a folder that was never closed."""
        version = self.version
        if version.attempt == 1 or next(iter(self._store.list_versions(f"{version.folder}/frozen/")), None) is None:
            return version.folder
        execution = f"{version.execution_id}-{version.attempt}"
        return name_version_folder(version.model, version.number, manifest.source.revision, execution).rstrip("/")

    def _model_files(self, stream: IO[bytes], folder: str) -> Iterator[FileRef]:
        limits = ArchiveLimits(max_files=MAX_FROZEN_FILES, max_bytes=MAX_MODEL_BYTES, max_file_bytes=MAX_MODEL_BYTES)
        for entry in iterate_archive(stream, limits):
            path = f"model/{entry.path}"
            with _spooled(entry.stream) as body:
                kept = self._store.put_new(f"{folder}/frozen/{path}", body, retain=True)
            yield FileRef(path, kept.key, kept.version_id, kept.size, kept.sha256)

    def _artifact_manifest(self, files: list[FileRef]) -> ArtifactManifest:
        version = self.version
        environment = version.environment
        if environment is None or environment.archive is None:
            raise StageFailedError("the environment was not built")
        sources = tuple(
            SourceData(d.name.removeprefix("source/"), d.digest, d.files[0].size) for d in version.datasets if d.name.startswith("source/")
        )
        return ArtifactManifest(
            model=version.model,
            number=version.number,
            execution_id=version.execution_id,
            candidate=version.candidate,
            source=sources,
            training=version.dataset("training").digest,
            holdout=version.dataset("holdout").digest,
            environment=ManifestEnvironment(environment.id, environment.lock_sha256, environment.archive.sha256, environment.python),
            files=tuple(FrozenFile(f.path, f.size, f.sha256) for f in files),
        )

    def _copy_registered(self, ref: FileRef, key: str) -> FileRef:
        with self._store.open(ref.key, ref.version_id) as stream:
            kept = self._store.put_new(key, stream, retain=True)
        if kept.sha256 != ref.sha256:
            raise StageFailedError(f"{ref.path} is not what was registered")
        return FileRef(ref.path, kept.key, kept.version_id, kept.size, kept.sha256)

    def _copy_recorded(self, ref: FileRef, key: str) -> FileRef:
        """Copy a file that was recorded before; one that differs is left where it cannot be taken for anything."""
        with self._store.open(ref.key, ref.version_id) as stream:
            found = digest_stream(stream).sha256
        if found != ref.sha256:
            raise IntegrityError(f"{ref.key} has SHA-256 {found}; {ref.sha256} was recorded")
        with self._store.open(ref.key, ref.version_id) as stream:
            kept = self._store.put_new(key, stream, retain=True)
        return FileRef(ref.path, kept.key, kept.version_id, kept.size, kept.sha256)

    def _copy(self, source: str, key: str, path: str) -> FileRef:
        with self._scratch.open(source) as stream:
            kept = self._store.put_new(key, stream, retain=True)
        return FileRef(path, kept.key, kept.version_id, kept.size, kept.sha256)


@contextmanager
def _spooled(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give a stream that can be read again: what comes out of an archive can be read once only, and a PUT may be retried."""
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
        while chunk := stream.read(1024 * 1024):
            spool.write(chunk)
        spool.seek(0)
        yield spool
