"""Import: files that were made elsewhere become a version with a number, which awaits its approval.

    uploads   begin_import(...)        URLs for the announced files, below the caller's own candidate prefix
    register  import_version(...)      the files are pinned, the claims written down once, and the version has its number: IMPORTED RUNNING
    record    freeze_import(...)       the files are copied, digested and closed (`attestry.usecases.freeze_import`): IMPORTED SUCCEEDED
    gate      open_import(...)         its approval opens; from here on it is a version like any other

Rules:
- A caller imports from own submissions alone: the prefix is made of the authenticated user ID, never of what a request says.
- The submission is the idempotency key. What it is imported as is written once, before the version is made, so a retry, however much later
  and after whichever crash, finds the same candidate and so the same version; the same submission as something else is refused.
- Nothing that is claimed of the run becomes more than a claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.cause import Cause, CauseKind
from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError
from attestry.domain.events import timestamp
from attestry.domain.import_floor import ENVIRONMENT, ImportSubject
from attestry.domain.imports import MAX_DOCUMENT_BYTES, MAX_FILES, ImportDocument, ImportRequest, PinnedFile, check_files
from attestry.domain.names import ModelName, name_execution
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import FileRef, Version
from attestry.evidence.predicates import MoveFacts
from attestry.ports import ABSENT, Check, Item, Key, MetaStore, ObjectStore, Put, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.begin_import import import_prefix
from attestry.usecases.catalogue_rows import catalogue_key, name_is_free, name_key
from attestry.usecases.import_policy import PASSES, passes_by_itself, policies_hold, policy_for_import, require_met
from attestry.usecases.new_version import first_writes
from attestry.usecases.policies import Edition, policies_in_force
from attestry.usecases.records import MODELS, candidate_key, load_version, model_key

IMPORTED: Final = "version.imported"
TRIES: Final = 24


@dataclass(frozen=True)
class _Ground:
    """What an import is judged by, read together.

    Attributes:
        head: the model's row, which counts its versions; None for a model that the import makes.
        is_open: whether its entry in the catalogue lets its versions pass by themselves.
        editions: the registry's policies in force.
        conditions: under which a model that the import makes has its name, and one that is open still is.
    """

    head: Item | None
    is_open: bool
    editions: Sequence[Edition]
    conditions: tuple[Check, ...]

    @classmethod
    def of(cls, rows: Mapping[Key, Item], model: str, editions: Sequence[Edition]) -> _Ground:
        """Return it by the rows that were read.

        Raises:
            ModelExistsError: there is no such model, and another one was given its name.
        """
        head, is_open = rows.get(model_key(model)), passes_by_itself(rows.get(catalogue_key(model)))
        conditions = [] if head is not None else [name_is_free(rows, model)]
        conditions += [Check(catalogue_key(model), PASSES)] if is_open else []
        return cls(head, is_open, editions, tuple(conditions))


@dataclass(frozen=True)
class _Found:
    """An import as it is written down: the document, where it lies, and what it was judged by if it was written just now."""

    document: ImportDocument
    file: FileRef
    ground: _Ground | None = None


def import_version(
    meta: MetaStore,
    store: ObjectStore,
    attestor: Attestor,
    request: ImportRequest,
    *,
    by: Principal,
    at: datetime,
    signed_tiers: frozenset[str] = frozenset(),
    run: str = "",
) -> Version:
    """Make the version of an import; it is IMPORTED RUNNING until its files are frozen. The same again answers the same version.

    Args:
        meta: the table.
        store: the model store.
        attestor: signs with the acting function's key.
        request: model, the caller's submission, and what is claimed.
        by: the authenticated caller, with its person where it is known.
        at: the time.
        signed_tiers: risk tiers whose approvals need the approvers' own signatures.
        run: the run of the registry that the import leads to, see `attestry.usecases.import_run`; empty where there is none.

    Raises:
        InvalidInputError: the submission holds no file, or one that breaks a rule; or a policy in force asks for what no import has.
        ConflictError: the submission was imported as something else, the model is being changed by many others, or another model has its
            name.
        UnavailableError: a service failed; ask again.
    """
    found = _write_down(meta, store, request, by, signed_tiers)
    candidate = found.document.digest
    ground = found.ground  # where the document was written just now; a version that another try made meanwhile fails the condition
    for _ in range(TRIES):
        if ground is None:
            rows = meta.get_many([candidate_key(candidate), *_ground_keys(request.model)])
            made = rows.get(candidate_key(candidate))
            if made is not None:
                return load_version(meta, request.model, int(made["number"]))
            ground = _Ground.of(rows, request.model, policies_in_force(meta))
        head, editions = ground.head, ground.editions
        version = _first_head(found, int(head["next"]) if head else 1, by, at, run)
        require_met(editions, request.model, head, ApprovalPolicy.from_item(found.document.approval), is_open=ground.is_open)
        try:
            writes = _writes(attestor, version, head, by, at, editions)
            meta.transact([*writes, *policies_hold(editions), *ground.conditions])
        except ConditionFailedError:
            ground = None
            continue
        return version
    raise ConflictError(f"{request.model} is being changed by many others; import the submission again")


def document_key(user_id: str, submission: str) -> str:
    """Return the key of the document that says what a submission was imported as."""
    return f"registered/imports/{user_id}/{submission}.json"


def read_import_document(store: ObjectStore, version: Version) -> ImportDocument:
    """Return the import document of an imported version.

    Raises:
        IntegrityError: it is not the one whose digest is the candidate.
        NotFoundError: the recorded S3 version is gone.
    """
    document = ImportDocument.from_bytes(store.read(version.manifest.key, version.manifest.version_id, max_bytes=MAX_DOCUMENT_BYTES))
    if document.digest != version.candidate:
        raise IntegrityError(f"the import document of {version.reference} is not the one that it was made by")
    return document


def _write_down(meta: MetaStore, store: ObjectStore, request: ImportRequest, by: Principal, signed_tiers: frozenset[str]) -> _Found:
    """Return what the submission is imported as: as it was written down by an earlier try, or else as it is asked for."""
    key = document_key(by.user_id, request.submission)
    prefix = import_prefix(by.user_id, request.submission)
    there = store.stat(key)
    if there is None:
        files = _pin(store, prefix)
        ground = _Ground.of(meta.get_many(_ground_keys(request.model)), request.model, policies_in_force(meta))
        policy = policy_for_import(meta, ground.editions, request.model, ground.head, signed_tiers, is_open=ground.is_open)
        document = ImportDocument(request, files, policy.to_item())
        data = document.to_bytes()
        # Where another try was first, when other files were there or another policy was in force, what it wrote counts.
        with suppress(IntegrityError):
            kept = store.put_new(key, data, content_type="application/json", retain=True)
            return _Found(document, FileRef("import.json", key, kept.version_id, len(data), document.digest), ground)
        there = store.stat(key)
    if there is None:
        raise IntegrityError(f"{key} was taken away")
    data = store.read(key, there.version_id, max_bytes=MAX_DOCUMENT_BYTES)
    document = ImportDocument.from_bytes(data)
    if document.request != request:
        was = document.request
        message = f"the submission {request.submission} was imported as {was.model} with other claims; begin another import"
        raise ConflictError(message if was.model == request.model else f"the submission {request.submission} was imported as {was.model}")
    return _Found(document, FileRef("import.json", key, there.version_id, len(data), document.digest))


def _ground_keys(model: str) -> list[Key]:
    return [model_key(model), catalogue_key(model), name_key(model)]


def _pin(store: ObjectStore, prefix: str) -> tuple[PinnedFile, ...]:
    """Return the files of a submission, each in the S3 version that lies on top.

    Raises:
        InvalidInputError: none, too many, or one whose path breaks a rule.
    """
    found: list[PinnedFile] = []
    for entry in store.list_versions(prefix):
        if entry.is_latest and not entry.is_delete_marker:
            found.append(PinnedFile(entry.key.removeprefix(prefix), entry.size, entry.version_id))
        if len(found) > MAX_FILES:
            break
    check_files([(f.path, f.size) for f in found])
    return tuple(found)


def _first_head(found: _Found, number: int, by: Principal, at: datetime, run: str) -> Version:
    """Return the head of an imported version that does not exist yet."""
    document, model = found.document, found.document.request.model
    execution = name_execution(model, number, 1, document.digest)
    facts = {"submission": document.request.submission, "files": len(document.files), "bytes": document.total_bytes}
    # The move's event tells of the link, so that it cannot be made up later.
    cause = Cause(CauseKind.IMPORT, facts={**facts, **({"run": run} if run else {})})
    return Version(
        model=model,
        number=number,
        candidate=document.digest,
        execution_id=execution,
        folder=f"{ModelName(model).prefix}{number}-import-{execution}",
        submitter=by,
        submitter_person=by.person,
        manifest=found.file,
        source=None,
        lock=None,
        created=timestamp(at),
        updated=timestamp(at),
        stage=Stage.IMPORTED,
        status=Status.RUNNING,
        standing=Standing.CANDIDATE,
        approval_policy=document.approval,
        upload_folder=import_prefix(by.user_id, document.request.submission),
        deployment_environment=ENVIRONMENT,
        cause=cause.to_item(),
        traits={"run": run} if run else {},
    )


def _writes(
    attestor: Attestor, version: Version, head: Item | None, by: Principal, at: datetime, editions: Sequence[Edition]
) -> list[Write]:
    facts = MoveFacts(
        model=version.model,
        number=version.number,
        transition=1,
        kind=IMPORTED,
        origin=None,
        to={"stage": version.stage.value, "status": version.status.value, "standing": version.standing.value},
        principal=by.to_item(),
        reason="files that were made elsewhere are imported",
        at=timestamp(at),
        evidence=version.candidate,
        version_digest="",
        data={
            "candidate": version.candidate,
            "folder": version.folder,
            "execution": version.execution_id,
            "cause": dict(version.cause),
            **_governed(version.model, head or {}, editions),
        },
    )
    candidate = {
        "candidate": version.candidate,
        "model": version.model,
        "number": version.number,
        "submitter": by.to_item(),
        "at": facts.at,
    }
    return [
        _model_put(version, head, by, at),
        Put(candidate_key(version.candidate), candidate),
        *first_writes(attestor, version, facts, by, at),
    ]


def _governed(model: str, head: Mapping[str, Any], editions: Sequence[Edition]) -> dict[str, Any]:
    """Return the policies that the import keeps, and what of the model their rules were chosen by: a verifier chooses the same."""
    if not editions:
        return {}
    judged_as = ImportSubject.of_head(model, head).to_item([e.policy for e in editions])
    return {"policies": [e.reference for e in editions], "judged_as": judged_as}


def _model_put(version: Version, head: Item | None, by: Principal, at: datetime) -> Put:
    """Return the write that counts the version in its model's row, which it makes where there is none."""
    key = model_key(version.model)
    if head is not None:
        kept = {name: value for name, value in head.items() if name not in ("pk", "sk")}
        counted = {**kept, "next": version.number + 1, "rev": int(head["rev"]) + 1}
        return Put(key, counted, When(exists=True, equals={"rev": head["rev"]}))
    made = {
        "model": version.model,
        "owner": by.person or by.login,
        "team": "",
        "purpose": "",
        "risk_tier": "",
        "labels": {},
        "created": timestamp(at),
        "next": version.number + 1,
        "rev": 1,
        "gsi_pk": MODELS,
        "gsi_sk": version.model,
    }
    return Put(key, made, ABSENT)
