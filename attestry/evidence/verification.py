"""Verification: from a bundle, or a receipt with its delegation, to a verdict with a reason.

    verification = verify_bundle(data, pin=root_json)
    verification.verdict, verification.reason
    for step in verification.steps: ...

Everything is bytes in and a `Verification` out: no I/O, no clock, no network, no credentials.

| step | what it shows |
|---|---|
| bundle | the zip is whole and holds exactly what its index lists |
| root | the pin leads by TUF to the keys |
| checkpoint | the ledger signed its head; who cosigned |
| leaves | every event is in the ledger |
| validity | ledger key and root metadata were in force |
| transitions | the version's moves: complete, in order, each attested by who may make it |
| artifact | version digest, manifest, signature over the files |
| provenance | how the data and the model were made |
| gates | the rules were fixed before the evaluation, and met |
| validations | what validators recorded, signed with keys of their own |
| approvals | who approved, on which packet, under which policy |
| policies | the registry's own policies, as they were in force, and that manifest, approvals and placings kept them |
| acts | of a batch of audited acts: that they are those which its event names; the steps of a version fall away |
| delegation, standing, receipt, seal, payload | of a prediction: which version made it, and that it is sealed |
| documents | report and instructions in the bundle say what the evidence says; nothing else is in it |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attestry.domain.errors import IntegrityError
from attestry.evidence.audit_bundle import check_acts
from attestry.evidence.audit_report import render_audit_report
from attestry.evidence.bundle import README, REPORT, Bundle, BundleIndex, read_bundle
from attestry.evidence.case import Case
from attestry.evidence.checks_approval import check_approvals, refuse_strange_signatures
from attestry.evidence.checks_ledger import check_checkpoint, check_leaves, check_root, check_validity
from attestry.evidence.checks_moves import check_moves
from attestry.evidence.checks_policies import check_policies
from attestry.evidence.checks_prediction import check_delegation, check_payload, check_receipt, check_seal, check_standing
from attestry.evidence.checks_promotion import check_promotions
from attestry.evidence.checks_validation import check_validations
from attestry.evidence.checks_version import check_artifact, check_gates, check_provenance
from attestry.evidence.delegation import read_unverified_delegation
from attestry.evidence.digests import sha256_hex
from attestry.evidence.oms_signature import check_signature
from attestry.evidence.readme import render_readme
from attestry.evidence.receipt import unverified_prediction_id
from attestry.evidence.report import render_report
from attestry.evidence.verdict import Check, Found, MissingError, Outcome, Step, Verification, run_steps

_NO_TIME: Final = "1970-01-01T00:00:00.000000Z"


def verify_bundle(data: bytes, *, pin: bytes | None) -> Verification:
    """Verify a bundle.

    Args:
        data: the zip.
        pin: the TUF root.json that the verifier trusts, got on a way of its own; None where there is none, and then the
            verdict is INCOMPLETE at best.
    """
    case = Case()

    def bundle() -> str:
        case.bundle = read_bundle(data)
        case.facts["bundle"] = {"kind": case.bundle.index.kind, "model": case.bundle.index.model, "version": case.bundle.index.number}
        return f"{len(case.bundle.files)} files, {len(data)} bytes"

    read = run_steps([("bundle", bundle)])
    kind = case.bundle.index.kind if case.bundle is not None else "version"
    checks: list[tuple[str, Check]] = [
        ("root", lambda: check_root(case, pin)),
        ("checkpoint", lambda: check_checkpoint(case)),
        ("leaves", lambda: check_leaves(case)),
        ("validity", lambda: check_validity(case)),
        *([("acts", lambda: check_acts(case))] if kind == "audit" else _version_checks(case)),
        *(_prediction_checks(case) if kind == "prediction" else []),
    ]
    steps = run_steps(checks, after=read)
    # Without a pin everything is looked at all the same, so only what other steps lack excuses a file that none of them has used.
    lacks = any(step.outcome is Outcome.MISSING and step.name != "root" for step in steps)
    return _result(case, run_steps([("documents", lambda: _check_documents(case, lacks=lacks))], after=steps))


def verify_prediction(
    receipt: str,
    delegation: str,
    *,
    pin: bytes | None,
    metadata: Mapping[str, bytes],
    request: bytes | None = None,
    salt: str | None = None,
    output: bytes | None = None,
) -> Verification:
    """Verify a receipt and its delegation alone: what both signatures show, SIGNED-UNANCHORED at best.

    Args:
        receipt: the compact JWS.
        delegation: the compact JWT that the receipt's key was delegated to with.
        pin: the TUF root.json that the verifier trusts.
        metadata: the registry's other TUF files and `trusted_root.json`, by name.
        request: the request's bytes, to check against the receipt.
        salt: the answer's `request_salt`, hex, needed for the request.
        output: the output's bytes.
    """
    given = {
        "prediction/receipt.jws": receipt.encode("ascii", "replace"),
        "prediction/delegation.jwt": delegation.encode("ascii", "replace"),
        "prediction/request.bin": request,
        "prediction/salt.txt": None if salt is None else salt.encode("ascii", "replace"),
        "prediction/output.json": output,
        **{f"root/{name}": body for name, body in metadata.items()},
    }
    files = {name: body for name, body in given.items() if body is not None}
    case = Case()

    def tokens() -> str:
        version = read_unverified_delegation(delegation).grant.version
        subject = str(unverified_prediction_id(receipt))
        case.bundle = Bundle(BundleIndex("prediction", subject, version.model, version.number, version.digest, _NO_TIME), files)
        return f"receipt of {version.reference} and its delegation"

    checks: list[tuple[str, Check]] = [
        ("tokens", tokens),
        ("root", lambda: check_root(case, pin)),
        ("delegation", lambda: check_delegation(case, alone=True)),
        ("receipt", lambda: check_receipt(case)),
        ("seal", lambda: Found(Outcome.PENDING, "no evidence of the ledger was given; ask the registry for the prediction's bundle")),
        ("payload", lambda: check_payload(case)),
    ]
    return _result(case, run_steps(checks))


def _version_checks(case: Case) -> list[tuple[str, Check]]:
    return [
        ("transitions", lambda: check_moves(case)),
        ("artifact", lambda: _check_artifact(case)),
        ("provenance", lambda: check_provenance(case)),
        ("gates", lambda: check_gates(case)),
        ("validations", lambda: check_validations(case)),
        ("approvals", lambda: _check_decisions(case)),
        ("policies", lambda: check_policies(case)),
    ]


def _prediction_checks(case: Case) -> list[tuple[str, Check]]:
    return [
        ("delegation", lambda: check_delegation(case)),
        ("standing", lambda: check_standing(case)),
        ("receipt", lambda: check_receipt(case)),
        ("seal", lambda: check_seal(case)),
        ("payload", lambda: check_payload(case)),
    ]


def _check_decisions(case: Case) -> str:
    """Verify the approvals of the version and of its promotions, and that nobody signed anything else."""
    told = check_approvals(case) + check_promotions(case)
    refuse_strange_signatures(case)
    return told


def _check_artifact(case: Case) -> Found | str:
    """Verify the artifact, and the signature over its files."""
    told = check_artifact(case)
    if case.artifact is None:
        return told
    made = "IMPORTED" if case.was_imported() else "TRAINING"
    trained = case.moved("stage.succeeded", made)
    if not trained:
        raise IntegrityError("there is an artifact, and no move that made it")
    signature = case.take("version/model.sig")
    if signature is None:
        raise MissingError("version/model.sig, the signature over the version's files, is not in the bundle")
    end = trained[-1].entry
    if sha256_hex(signature) != end.data.get("oms_sha256"):
        raise IntegrityError(f"version/model.sig is not the signature that the success of {made} names")
    key = check_signature(signature, case.artifact, [k for k in case.need_root().artifact_signers if k.is_valid_at(end.at)])
    return f"{told}; signed for model_signing by {key.fingerprint[:16]}"


def _check_documents(case: Case, *, lacks: bool) -> str:
    """Check that the documents for people follow from the evidence, and that every file was used.

    Args:
        case: the case.
        lacks: an earlier step lacked something, so a file may be there that only that step would have used.
    """
    bundle = case.need_bundle()
    report = render_audit_report if bundle.index.kind == "audit" else render_report
    for name, render in ((REPORT, report), (README, render_readme)):
        if case.need(name).decode("utf-8", "replace") != render(bundle.index, bundle.files):
            raise IntegrityError(f"{name} is not what the evidence in the bundle gives")
    strange = sorted(bundle.files.keys() - case.taken)
    if strange and lacks:
        raise MissingError(f"{len(strange)} files could not be judged without what is missing, {strange[0]} for one")
    if strange:
        raise IntegrityError(f"{strange[0]} is there, and nothing rests on it")
    return "report and instructions follow from the evidence; every file was checked"


def _result(case: Case, steps: tuple[Step, ...]) -> Verification:
    subject = case.bundle.index.subject if case.bundle else ""
    return Verification(subject, steps, case.witnessing, tuple(case.notes), case.facts)
