"""Steps of a verification: what a version that was made elsewhere consists of, and what of it is nothing but said.

Rules:

- The candidate is the digest of the import document, which names the submission, each file with its size, everything that is claimed, and
  the approval policy.
- The artifact manifest is one of an imported version, and lists exactly the files of the document, besides the document itself.
- The record of the import follows from both, and its attestation from the record. What is claimed is told as claimed: no signature of the
  registry makes more of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.imports import ImportDocument
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.canonical import parse_canonical
from attestry.evidence.case import Case
from attestry.evidence.digests import sha256_hex
from attestry.evidence.import_record import attested_import, record_of
from attestry.evidence.predicates import read_move
from attestry.evidence.verdict import MissingError

DOCUMENT: Final = "import.json"


def check_imported(case: Case) -> str:
    """Verify the import document, and that the artifact manifest lists its files and no other."""
    index = case.need_bundle().index
    raw = case.need("version/import.json")
    candidate = str(case.need_moves()[0].entry.data["candidate"])
    if sha256_hex(raw) != candidate:
        raise IntegrityError("the import document is not that of the candidate that was imported")
    document = ImportDocument.from_bytes(raw)
    if document.request.model != index.model:
        raise IntegrityError(f"the import document is of the model {document.request.model}")
    case.imported = document
    case.facts["claimed"] = {"source": document.request.source, "run": document.request.run.id}
    if not index.version_digest:
        return "the import document is the candidate's; its files are not frozen yet"
    raw = case.need("version/artifact-manifest.json")
    if sha256_hex(raw) != index.version_digest:
        raise IntegrityError("the artifact manifest does not have the version digest")
    artifact = ArtifactManifest.from_bytes(raw)
    if not artifact.imported:
        raise IntegrityError("the artifact manifest is that of a version which was made here, and this one was imported")
    if (artifact.model, artifact.number, artifact.candidate) != (index.model, index.number, candidate):
        raise IntegrityError(f"the artifact manifest is of {artifact.model}@{artifact.number}, candidate {artifact.candidate[:16]}")
    listed = {f.path: f.size for f in artifact.files}
    expected = {DOCUMENT: len(case.need("version/import.json")), **{f"model/{f.path}": f.size for f in document.files}}
    if listed != expected:
        wrong = sorted(p for p in {*listed, *expected} if listed.get(p) != expected.get(p))
        raise IntegrityError(f"the artifact manifest and the import document differ in {wrong[0]}")
    if next(f.sha256 for f in artifact.files if f.path == DOCUMENT) != candidate:
        raise IntegrityError("the artifact manifest lists another import document than the version was made of")
    case.artifact = artifact
    return f"version digest {index.version_digest[:16]} over {len(artifact.files)} files; made elsewhere, candidate {candidate[:16]}"


def check_import_record(case: Case) -> str:
    """Verify the record of the import and its attestation; what is claimed stays claimed."""
    ends = case.moved("stage.succeeded", "IMPORTED")
    if len(ends) > 1:
        raise IntegrityError("the moves show that the files were frozen more than once")
    if not ends:
        if case.artifact is not None:
            raise IntegrityError("there is an artifact, and no move that froze it")
        return "nothing is frozen yet"
    move = ends[0]
    raw = case.take("version/records/IMPORTED-1.json")
    if raw is None:
        raise MissingError("the record of the import is not in the bundle")
    if sha256_hex(raw) != move.entry.data["evidence"]:
        raise IntegrityError("version/records/IMPORTED-1.json is not what the import rests on")
    record = parse_canonical(raw)
    try:
        _check_record(case, record)
        expected = attested_import(record, str(move.entry.data["evidence"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"the record of the import has another form: {type(error).__name__}") from error
    _, content = read_move(move.statement)
    if content != dict(expected.content):
        raise IntegrityError("the attestation of the import says something else than its record")
    if move.entry.data.get("outputs") != {"model": case.need_artifact().version_digest}:
        raise IntegrityError("the event of the import names another artifact than its record")
    case.records = {"IMPORTED": record}
    case.notes.append("MADE ELSEWHERE: the files are as they were brought; all that is said of the run that made them is claimed")
    return "made elsewhere: its files were digested here, and what is said of the run is claimed"


def policy_of_import(case: Case) -> ApprovalPolicy:
    """Return the approval policy that an imported version stands under."""
    document = case.need_import()
    try:
        policy = ApprovalPolicy.from_item(document.approval)
        same = policy.to_item() == dict(document.approval)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError.of("approval", "policy", "the import document names no approval policy") from error
    if not same:
        raise IntegrityError("the approval policy of the import document is not written as the registry writes it")
    return policy


def _check_record(case: Case, record: Mapping[str, Any]) -> None:
    """Check that the record is the one that follows from document and artifact manifest."""
    document, artifact = case.need_import(), case.need_artifact()
    mlmodel = record["claimed"]["mlmodel"]
    expected = record_of(
        model=artifact.model,
        number=artifact.number,
        candidate=artifact.candidate,
        version_digest=artifact.version_digest,
        files=len(document.files),
        total_bytes=document.total_bytes,
        source=document.request.source,
        mlmodel=mlmodel,
    )
    if record != expected:
        wrong = sorted(k for k in {*record, *expected} if record.get(k) != expected.get(k))
        raise IntegrityError(f"the record of the import says another {wrong[0]} than document and artifact manifest")
    if not mlmodel:
        return
    listed = {f.path: f.sha256 for f in artifact.files}
    if listed.get(f"model/{mlmodel['path']}") != mlmodel["sha256"] or ("reading" in mlmodel) == ("problem" in mlmodel):
        raise IntegrityError("the record of the import reads another MLmodel than the one that is frozen")
