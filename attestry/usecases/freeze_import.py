"""Freeze an import: copy the pinned files into the version's folder, digest them on the way, close the folder, and have it signed.

Rules:
- What is read is exactly the S3 version that was pinned when the version got its number, so what the uploader writes afterwards changes
  nothing. A file that is gone, or whose size is another, ends the version: IMPORTED FAILED, with the reason.
- Nothing of the files is believed, loaded or run. `MLmodel` is parsed as text (`attestry.domain.mlmodel`); one that cannot be read is
  recorded as such, and keeps nobody from the version.
- A retry writes the same bytes to the same places, so it goes on wherever the try before was cut off; the version moves once, at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.events import shorten, timestamp
from attestry.domain.imports import ImportDocument
from attestry.domain.mlmodel import MAX_BYTES, MAX_REQUIREMENTS_BYTES, NAME, REQUIREMENTS, read_mlmodel
from attestry.domain.principal import registry_principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import FileRef, Version
from attestry.evidence.artifact_manifest import ArtifactManifest, FrozenFile
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.import_record import attested_import, record_of
from attestry.ports import ABSENT, MetaStore, Notifier, ObjectStore, Put
from attestry.usecases.artifact_copy import copy_puts
from attestry.usecases.attest import Attestor
from attestry.usecases.import_version import read_import_document
from attestry.usecases.record_stage import SignArtifact
from attestry.usecases.records import Move, load_version, move_writes, stage_key
from attestry.usecases.stage_failure import MAX_ERROR

DOCUMENT: Final = "import.json"
MAX_FOLDERS: Final = 1
"""How deep an MLmodel file may lie: MLflow writes it beside the model, and a folder may have been uploaded around both."""


def freeze_import(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    notifier: Notifier,
    *,
    model: str,
    number: int,
    sign_artifact: SignArtifact,
    at: datetime,
) -> Version:
    """Freeze an imported version; one whose freezing has ended, either way, is answered as it is.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        store: the model store.
        notifier: tells people.
        model: the model's name.
        number: the version's number.
        sign_artifact: has a frozen folder signed.
        at: the time.

    Raises:
        NotFoundError: no such version.
        ConflictError: it was not imported, or others kept changing it.
        UnavailableError: a service failed; call again.
    """
    version = load_version(meta, model, number)
    if not version.imported:
        raise ConflictError(f"{version.reference} is made by its manifest; there is nothing to import")
    if version.standing is Standing.RETIRED or (version.stage, version.status) != (Stage.IMPORTED, Status.RUNNING):
        return version
    try:
        frozen = _freeze(store, version)
        signature = sign_artifact(version.folder, frozen.artifact.sha256).sha256
    except (InvalidInputError, IntegrityError, NotFoundError) as error:
        return _fail(meta, attestor, notifier, version, error.message, at)
    record = canonical_bytes(frozen.record)
    kept = store.put_new(f"{version.folder}/stages/IMPORTED/1/record.json", record, content_type="application/json", retain=True)
    data = {"attempt": 1, "outputs": {"model": frozen.artifact.sha256}, "oms_sha256": signature}
    predicate = attested_import(frozen.record, kept.sha256)
    by, reason = registry_principal("import"), "the files are frozen as they were brought"
    move = Move(Stage.IMPORTED, Status.SUCCEEDED, version.standing, "stage.succeeded", by, reason, at, kept.sha256, data, predicate)
    changes = {
        "frozen": [f.to_item() for f in frozen.files],
        "artifact": frozen.artifact.to_item(),
        "version_digest": frozen.artifact.sha256,
        "error": "",
    }
    row = {
        "stage": Stage.IMPORTED.value,
        "attempt": 1,
        "status": Status.SUCCEEDED.value,
        "begun": version.created,
        "ended": timestamp(at),
        "record": record.decode(),
        "record_sha256": kept.sha256,
        "record_key": kept.key,
        "record_version_id": kept.version_id,
        "error": "",
        "log": None,
    }
    place = stage_key(model, number, Stage.IMPORTED, 1)
    return _commit(meta, attestor, version, move, changes, [Put(place, row, ABSENT), *copy_puts(model, number, frozen.document)])


@dataclass(frozen=True)
class _Frozen:
    """A closed folder: its files, the artifact manifest with its bytes, and the record."""

    files: tuple[FileRef, ...]
    artifact: FileRef
    document: bytes
    record: Mapping[str, Any]


def _freeze(store: ObjectStore, version: Version) -> _Frozen:
    document = read_import_document(store, version)
    files = [_copy_document(store, version), *(_copy(store, version, document, i) for i in range(len(document.files)))]
    manifest = ArtifactManifest(
        model=version.model,
        number=version.number,
        execution_id=version.execution_id,
        candidate=version.candidate,
        source=(),
        training="",
        holdout="",
        environment=None,
        files=tuple(FrozenFile(f.path, f.size, f.sha256) for f in files),
    ).to_bytes()
    kept = store.put_new(f"{version.folder}/frozen/artifact-manifest.json", manifest, content_type="application/json", retain=True)
    record = record_of(
        model=version.model,
        number=version.number,
        candidate=version.candidate,
        version_digest=kept.sha256,
        files=len(document.files),
        total_bytes=document.total_bytes,
        source=document.request.source,
        mlmodel=_read_mlmodel(store, files),
    )
    artifact = FileRef("artifact-manifest.json", kept.key, kept.version_id, kept.size, kept.sha256)
    return _Frozen(tuple(sorted(files, key=lambda f: f.path)), artifact, manifest, record)


def _copy_document(store: ObjectStore, version: Version) -> FileRef:
    with store.open(version.manifest.key, version.manifest.version_id) as stream:
        kept = store.put_new(f"{version.folder}/frozen/{DOCUMENT}", stream, content_type="application/json", retain=True)
    if kept.sha256 != version.candidate:
        raise IntegrityError("the import document is not the one that the version was made by")
    return FileRef(DOCUMENT, kept.key, kept.version_id, kept.size, kept.sha256)


def _copy(store: ObjectStore, version: Version, document: ImportDocument, index: int) -> FileRef:
    """Copy one pinned file, digesting it on the way."""
    pinned = document.files[index]
    with store.open(f"{version.upload_folder}{pinned.path}", pinned.version_id) as stream:
        kept = store.put_new(f"{version.folder}/frozen/model/{pinned.path}", stream, retain=True)
    if kept.size != pinned.size:
        raise IntegrityError(f"{pinned.path} has {kept.size} bytes, and had {pinned.size} when the version was made")
    return FileRef(f"model/{pinned.path}", kept.key, kept.version_id, kept.size, kept.sha256)


def _read_mlmodel(store: ObjectStore, files: list[FileRef]) -> dict[str, Any]:
    """Return what the record says of the MLmodel file, from its frozen bytes; empty where there is none."""
    by_path = {f.path.removeprefix("model/"): f for f in files if f.path.startswith("model/")}
    found = sorted((p for p in by_path if p.rpartition("/")[2] == NAME and p.count("/") <= MAX_FOLDERS), key=lambda p: (p.count("/"), p))
    if not found:
        return {}
    path = found[0]
    file = by_path[path]
    told = {"path": path, "sha256": file.sha256}
    if file.size > MAX_BYTES:
        return {**told, "problem": f"it has {file.size} bytes; at most {MAX_BYTES} are read"}
    beside = by_path.get(path.removesuffix(NAME) + REQUIREMENTS)
    requirements = None
    if beside is not None and beside.size <= MAX_REQUIREMENTS_BYTES:
        requirements = store.read(beside.key, beside.version_id, max_bytes=beside.size)
    try:
        reading = read_mlmodel(store.read(file.key, file.version_id, max_bytes=file.size), requirements).to_item()
        canonical_bytes(reading)
    except InvalidInputError as error:
        return {**told, "problem": shorten(error.message)}
    return {**told, "reading": json.loads(json.dumps(reading))}


def _fail(meta: MetaStore, attestor: Attestor, notifier: Notifier, version: Version, error: str, at: datetime) -> Version:
    """End a version whose files are not what was pinned; its number stays taken, and the files are imported again as another one."""
    why = shorten(error, MAX_ERROR)
    by = registry_principal("import")
    move = Move(Stage.IMPORTED, Status.FAILED, version.standing, "stage.failed", by, shorten(why), at)
    after = _commit(meta, attestor, version, move, {"error": why}, [])
    notifier.notify(f"{version.reference}: the import failed", {"model": version.model, "version": version.number, "error": why})
    return after


def _commit(meta: MetaStore, attestor: Attestor, version: Version, move: Move, changes: Mapping[str, Any], rows: list[Put]) -> Version:
    try:
        meta.transact([*move_writes(version, move, attestor, changes), *rows])
    except ConditionFailedError as error:
        after = load_version(meta, version.model, version.number)
        if (after.stage, after.status) == (Stage.IMPORTED, Status.RUNNING):
            raise ConflictError(f"{version.reference} was changed by somebody else while it was frozen; it is tried again") from error
        return after
    return load_version(meta, version.model, version.number)
