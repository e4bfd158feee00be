"""The trusted root: which key speaks for what, and when."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestry.client.key_changes import labelled, read_deployed, revoke, rotate
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.stages import Stage
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.note import open_note, sign_note
from attestry.evidence.trusted_root import (
    MAY_SIGN,
    MAY_SIGN_AT,
    TrustedKey,
    TrustedRoot,
    ed25519_der,
    require_may_sign,
    thumbprint,
)
from tests.root_of_trust import REGISTRY, START, WITNESS, a_trusted_root, deployment, ed, entry, moment, p256

ROOT = Path(__file__).resolve().parents[2]


def changed(root: TrustedRoot, change: Any) -> bytes:
    value = json.loads(root.to_bytes())
    change(value)
    return canonical_bytes(value)


def test_a_trusted_root_is_read_as_it_was_written() -> None:
    root = a_trusted_root()
    assert TrustedRoot.parse(root.to_bytes()) == root
    ended = revoke(root, root.signers[0].fingerprint, since=moment(3))
    assert TrustedRoot.parse(ended.to_bytes()) == ended


def test_a_document_that_is_written_otherwise_is_refused() -> None:
    root = a_trusted_root()
    for data in (json.dumps(json.loads(root.to_bytes())).encode(), root.to_bytes() + b"\n", b"[]", b"{}", b"null", b'"x"', b""):
        with pytest.raises(InvalidInputError):
            TrustedRoot.parse(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(more=1),
        lambda v: v.update(mediaType="application/json"),
        lambda v: v.update(demo="false"),
        lambda v: v.update(demo=0),
        lambda v: v.pop("demo"),
        lambda v: v.update(registry="attestry/other"),
        lambda v: v.update(tlogs=[]),
        lambda v: v["tlogs"][0].update(baseUrl="elsewhere"),
        lambda v: v["tlogs"][0].update(hashAlgorithm="SHA1"),
        lambda v: v["tlogs"][0]["logId"].update(keyId="AAAA"),
        lambda v: v["tlogs"][0]["publicKey"].update(keyDetails="PKIX_ECDSA_P256_SHA_256"),
        lambda v: v["witnesses"][0].update(outside=1),
        lambda v: v["witnesses"][0].update(name="a b"),
        lambda v: v["signers"][0].update(function="root"),
        lambda v: v["signers"][0].update(function=""),
        lambda v: v["signers"][0].update(keyId=""),
        lambda v: v["signers"][0]["publicKey"].update(rawBytes=v["signers"][0]["publicKey"]["rawBytes"][:-8]),
        lambda v: v["signers"][0]["publicKey"].update(rawBytes="!!!!"),
        lambda v: v["signers"][0]["publicKey"]["validFor"].update(start="2026-01-01T00:00:00Z"),
        lambda v: v["signers"][0]["publicKey"]["validFor"].update(start="2026-13-01T00:00:00.000000Z"),
        lambda v: v["signers"][0]["publicKey"]["validFor"].update(end=None),
        lambda v: v["signers"][0]["publicKey"]["validFor"].update(end="2025-01-01T00:00:00.000000Z"),
        lambda v: v["signers"][0].update(publicKey=v["signers"][1]["publicKey"]),
        lambda v: v["signers"][0].update(keyId=v["signers"][1]["keyId"]),
        lambda v: v["signers"][0].update(publicKey=v["delegators"][0]["publicKey"]),
        lambda v: v["witnesses"][0].update(publicKey=v["tlogs"][0]["publicKey"]),
        lambda v: v["delegators"][0].update(publicKey=v["tlogs"][0]["publicKey"]),
        lambda v: v["delegators"].append("x"),
        lambda v: v.update(signers=None),
    ],
)
def test_a_document_that_breaks_a_rule_is_refused(change: Any) -> None:
    with pytest.raises(InvalidInputError):
        TrustedRoot.parse(changed(a_trusted_root(), change))


@pytest.mark.parametrize("name", [WITNESS, REGISTRY, "attestry/123456789012/eu-west-1/second/witness"])
def test_a_witness_that_shares_the_account_is_never_outside(name: str) -> None:
    with pytest.raises(InvalidInputError, match="own account"):
        a_trusted_root([entry("tlogs", REGISTRY), entry("witnesses", name, outside=True)])


def test_a_key_is_valid_from_its_start_on_and_before_its_end() -> None:
    key = TrustedKey("register", "arn:x", "PKIX_ECDSA_P256_SHA_256", p256(), moment(1), moment(2))
    assert not key.is_valid_at(moment(0.999999))
    assert key.is_valid_at(moment(1))
    assert key.is_valid_at(moment(1.999999))
    assert not key.is_valid_at(moment(2))
    with pytest.raises(InvalidInputError):
        key.is_valid_at("2026-01-02T00:00:00Z")
    with pytest.raises(InvalidInputError):
        key.is_valid_at("٢٠٢٦-01-02T00:00:00.000000Z")


def test_a_signer_is_found_by_its_dsse_key_id_and_judged_at_the_ledger_time_of_the_leaf() -> None:
    root = a_trusted_root()
    signer = next(s for s in root.signers if s.name == "record_stage")
    ended = revoke(root, signer.fingerprint, since=moment(10))
    assert ended.signer(signer.fingerprint, moment(9.9)).name == "record_stage"
    with pytest.raises(IntegrityError, match="not at"):
        ended.signer(signer.fingerprint, moment(10))
    with pytest.raises(IntegrityError, match="not at"):
        ended.signer(signer.fingerprint, moment(-1))
    with pytest.raises(IntegrityError, match="names no signer"):
        root.signer("0" * 64, moment(1))
    with pytest.raises(IntegrityError, match="names no signer"):
        root.signer(root.delegators[0].fingerprint, moment(1))


def test_a_delegator_is_found_by_its_arn_and_by_its_rfc_7638_thumbprint() -> None:
    root = a_trusted_root()
    delegator = root.delegators[0]
    assert thumbprint(delegator) == ECKey.import_key(delegator.der).thumbprint()
    assert root.delegator(delegator.key_id, START) == delegator
    assert root.delegator(thumbprint(delegator), START) == delegator
    with pytest.raises(IntegrityError):
        root.delegator("", START)
    with pytest.raises(IntegrityError):
        root.delegator(root.signers[0].key_id, START)


def test_ledger_and_witness_verifiers_check_notes() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    root = a_trusted_root([entry("tlogs", REGISTRY, ed25519_der(public)), entry("witnesses", WITNESS)])
    note = sign_note(f"{REGISTRY}\n0\n", REGISTRY, public, private.sign)
    assert len(open_note(note, root.ledger_verifiers(START)).verified) == 1
    assert root.ledger_verifiers(moment(-1)) == ()
    assert [v.name for v in root.witness_verifiers()] == [WITNESS]
    assert root.witness_verifiers()[0].algorithm == 4


def test_a_planned_rotation_leaves_both_keys_valid_until_the_old_one_ends() -> None:
    deployed = deployment()
    root = a_trusted_root(deployed)
    old = next(s for s in root.signers if s.name == "decide")
    replaced = [e if e["name"] != "decide" else entry("signers", "decide") for e in deployed]
    following = rotate(root, read_deployed(replaced, moment(5)), end=moment(6))
    following.require_continues(root)
    new = next(s for s in following.signers if s.name == "decide" and s.der != old.der)
    assert following.signer(old.fingerprint, moment(5.9)).name == "decide"
    assert following.signer(new.fingerprint, moment(5)).name == "decide"
    with pytest.raises(IntegrityError):
        following.signer(old.fingerprint, moment(6))
    with pytest.raises(IntegrityError):
        following.signer(new.fingerprint, moment(4.9))
    assert rotate(following, read_deployed(replaced, moment(9)), end=moment(9)) == following


def test_a_rotation_of_one_key_changes_no_other_and_needs_a_label_that_a_key_has() -> None:
    deployed = deployment()
    root = a_trusted_root(deployed)
    replaced = [e if e["name"] not in ("decide", "gate") else entry("signers", e["name"]) for e in deployed]
    following = rotate(root, read_deployed(replaced, moment(5)), end=moment(6), only=["gate"])
    assert len(following.keys) == len(root.keys) + 1
    assert [s.name for s in following.signers if s.end] == ["gate"]
    with pytest.raises(InvalidInputError, match="no key is called"):
        rotate(root, read_deployed(replaced, moment(5)), end=moment(6), only=["nobody"])


def test_a_deployment_that_signs_with_an_ended_key_is_told_so() -> None:
    deployed = deployment()
    root = a_trusted_root(deployed)
    ended = revoke(root, root.delegators[0].fingerprint, since=moment(1))
    with pytest.raises(InvalidInputError, match="ended"):
        rotate(ended, read_deployed(deployed, moment(5)), end=moment(6))


def test_a_revocation_names_one_key_that_has_not_ended_earlier() -> None:
    root = a_trusted_root()
    print_ = root.signers[0].fingerprint
    ended = revoke(root, print_[:16], since=moment(4))
    assert [k.key.end for k in labelled(ended) if k.key.end] == [moment(4)]
    assert revoke(ended, print_, since=moment(3)).signers[0].end == moment(3)
    for fingerprint, since in (("", moment(1)), ("zz", moment(1)), (print_, moment(5))):
        with pytest.raises(InvalidInputError):
            revoke(ended, fingerprint, since=since)
    assert revoke(root, print_, since=moment(-9)).signers[0].end == START


def test_a_successor_keeps_every_key_and_gives_none_more_time() -> None:
    root = a_trusted_root()
    ended = revoke(root, root.signers[0].fingerprint, since=moment(4))
    ended.require_continues(root)
    later = replace(ended, signers=(replace(ended.signers[0], end=moment(5)), *ended.signers[1:]))
    moved = replace(root, signers=(replace(root.signers[0], start=moment(-5)), *root.signers[1:]))
    renamed = replace(root, signers=(replace(root.signers[0], name="operate"), *root.signers[1:]))
    inside = replace(root, witnesses=tuple(replace(w, outside=False) for w in root.witnesses))
    for earlier, following in (
        (ended, root),
        (ended, later),
        (root, moved),
        (root, renamed),
        (root, inside),
        (root, replace(root, signers=root.signers[1:])),
        (replace(root, demo=True), root),
        (a_trusted_root(), root),
    ):
        with pytest.raises(IntegrityError):
            following.require_continues(earlier)


def test_every_function_that_signs_is_named_with_stages_that_exist() -> None:
    stages = {stage.value for stage in Stage}
    assert set(MAY_SIGN) == {
        "register",
        "prepare_stage",
        "record_stage",
        "gate",
        "decide",
        "console_decision",
        "custody",
        "deploy",
        "operate",
    }
    assert all(allowed <= stages for kinds in MAY_SIGN_AT.values() for allowed in kinds.values())


def test_a_function_speaks_for_its_own_events_at_their_own_stages_only() -> None:
    require_may_sign("record_stage", "stage.succeeded", "TRAINING")
    require_may_sign("record_stage", "stage.failed", "APPROVAL")
    for function, kind, stage in (
        ("deploy", "stage.succeeded", "TRAINING"),
        ("deploy", "version.approved", "APPROVAL"),
        ("record_stage", "version.approved", "VALIDATION"),
        ("record_stage", "version.rejected", "APPROVAL"),
        ("gate", "approval.given", "APPROVAL"),
        ("prepare_stage", "stage.started", "APPROVAL"),
        ("nobody", "stage.started", "TRAINING"),
    ):
        with pytest.raises(IntegrityError):
            require_may_sign(function, kind, stage)


def kinds_in(path: Path) -> set[str]:
    """Kinds of events that stand as texts in a module."""
    texts = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {
        t
        for t in texts
        if re.fullmatch(
            r"(candidate|stage|version|approval|promotion|validation|submission|retirement|rollout|legal_hold|disposal|file)\.[a-z_]+", t
        )
    }


def test_every_kind_of_move_in_the_use_cases_may_be_signed_by_somebody_and_the_table_names_no_other() -> None:
    # Reconciliation moves nothing; its texts are names of findings.
    movers = [p for p in (ROOT / "attestry" / "usecases").glob("*.py") if not p.name.startswith("reconcile")]
    written = set().union(
        *(kinds_in(p) for p in movers),
        *(kinds_in(ROOT / "attestry" / "domain" / f"{name}.py") for name in ("holds", "promotion", "stages", "validations")),
    )
    signed = set().union(*MAY_SIGN.values())
    # A field of the manifest; and events of the catalogue, which move no version and are not attested.
    assert written - signed - {"approval.automatic", "version.annotated", "version.deleted", "version.labelled"} == set()
    assert signed - written == set()


def test_ed25519_keys_are_taken_by_their_32_bytes() -> None:
    der = ed()
    assert ed25519_der(der[-32:]) == der
    with pytest.raises(InvalidInputError):
        ed25519_der(b"x")
