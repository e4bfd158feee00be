"""Delegate: to whom the registry gives a delegation, and what it records."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.stages import Standing
from attestry.evidence.delegation import Delegation, jwk_of, verify_delegation
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import event_id
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Delete, Key, Put, When
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.ledger_head import leaf_key
from attestry.usecases.records import approval_key, load_version, pointer_key, transition_key
from attestry.usecases.sign import delegation_key, open_key
from tests.deployed import ENVIRONMENT, MODEL, Scene, make_version, recorded_approval


@pytest.fixture
def scene() -> Scene:
    return Scene()


def ask(scene: Scene, **changes: Any) -> Delegation:
    jwk = jwk_of(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    values: dict[str, Any] = {"model": MODEL, "environment": ENVIRONMENT, "jwk": jwk, "at": scene.clock.now()}
    return delegate_signing(scene.meta, scene.signer, **{**values, **changes})


def delegated(scene: Scene) -> list[dict[str, Any]]:
    events = [json.loads(r["event"]) for k, r in scene.meta.rows.items() if k.partition == "OUTBOX"]
    return [e for e in events if e["kind"] == "key.delegated"]


def given(scene: Scene) -> list[Key]:
    keys = [k for k in scene.meta.rows if k.partition.startswith("KEY")]
    return keys + [Key("OUTBOX", e["id"]) for e in delegated(scene)]


def decide(scene: Scene, **changes: Any) -> None:
    """Record a decision as the registry would have."""
    version = load_version(scene.meta, MODEL, 1)
    transition = sum(k.sort.startswith("TRANSITION#") for k in scene.meta.rows) + 1
    scene.meta._apply(recorded_approval(version, transition, **changes))


def test_the_deployed_version_is_delegated_to_and_everything_is_recorded_in_one_transaction(scene: Scene) -> None:
    delegation = ask(scene)
    assert verify_delegation(delegation.token, scene.signer.public_key_der(), now=scene.clock.now()) == delegation
    assert delegation.grant.version.digest == make_version(1).version_digest
    row = scene.meta.rows[delegation_key(delegation.kid)]
    assert row["delegation"] == delegation.token
    assert scene.meta.rows[open_key(delegation.kid)]["collected"] == 0
    assert [(e["data"]["kid"], e["data"]["delegation_sha256"]) for e in delegated(scene)] == [
        (delegation.kid, sha256_hex(delegation.token.encode()))
    ]
    assert delegation.grant.standing == delegated(scene)[0]["data"]["standing"] == "DEPLOYED"
    assert scene.faults.calls.count("MemoryMetaStore.transact") == 1


@pytest.mark.parametrize("standing", [s for s in Standing if s is not Standing.DEPLOYED])
def test_a_version_that_does_not_stand_deployed_is_not_delegated_to(scene: Scene, standing: Standing) -> None:
    scene.change_version(1, standing=standing)
    with pytest.raises(ConflictError, match="not DEPLOYED"):
        ask(scene)
    assert given(scene) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": "reject"},
        {"version_digest": "0" * 64},
        {"policy_digest": "0" * 64},
        {"stage": "VALIDATION"},
    ],
    ids=str,
)
def test_an_approval_of_something_else_does_not_count(scene: Scene, changes: dict[str, Any]) -> None:
    decide(scene, **changes)
    with pytest.raises(ConflictError, match="approvals"):
        ask(scene)
    assert given(scene) == []


def test_an_approval_by_the_submitter_does_not_count(scene: Scene) -> None:
    scene.meta._apply([Delete(approval_key(MODEL, 1, "erin"))])
    decide(scene, person="dana")
    with pytest.raises(ConflictError, match="approvals"):
        ask(scene)


def test_a_head_that_says_approved_is_not_enough(scene: Scene) -> None:
    scene.meta._apply([Delete(approval_key(MODEL, 1, "erin"))])
    with pytest.raises(ConflictError, match="approvals"):
        ask(scene)


def test_approvals_are_not_enough_without_the_head(scene: Scene) -> None:
    scene.change_version(1, approved=False)
    with pytest.raises(ConflictError, match="approvals"):
        ask(scene)


def test_fewer_persons_than_the_policy_asks_for_are_not_enough(scene: Scene) -> None:
    policy = ApprovalPolicy(automatic=False, roles=("approver",), count=2)
    scene.change_version(1, approval_policy=policy.to_item())
    decide(scene)
    with pytest.raises(ConflictError, match="approvals"):
        ask(scene)
    decide(scene, person="farid")
    assert ask(scene)


def test_an_unsigned_approval_does_not_count_where_the_policy_asks_for_signatures(scene: Scene) -> None:
    policy = ApprovalPolicy(automatic=False, roles=("approver",), count=1, signed=True)
    scene.change_version(1, approval_policy=policy.to_item())
    decide(scene)
    with pytest.raises(ConflictError, match="approvals"):
        ask(scene)
    decide(scene, person="farid", signed_by_person=True)
    assert ask(scene)


def test_the_approval_that_an_automatic_policy_gave_counts(scene: Scene) -> None:
    policy = ApprovalPolicy(automatic=True)
    scene.change_version(1, approval_policy=policy.to_item())
    scene.meta._apply([Delete(approval_key(MODEL, 1, "erin"))])
    with pytest.raises(ConflictError, match="approvals"):
        ask(scene)
    decide(scene, person="attestry:approval-policy")
    assert ask(scene)


def test_a_pointer_with_another_digest_than_the_version_is_refused(scene: Scene) -> None:
    scene.change_version(1, version_digest="0" * 64)
    with pytest.raises(ConflictError, match="digest"):
        ask(scene)


def test_a_process_that_serves_another_version_is_refused(scene: Scene) -> None:
    with pytest.raises(ConflictError, match="another version"):
        ask(scene, version_digest=make_version(2).version_digest)


def test_nothing_deployed_is_nothing_to_delegate_to(scene: Scene) -> None:
    with pytest.raises(NotFoundError):
        ask(scene, environment="staging")


@pytest.mark.parametrize("jwk", [{}, {"kty": "OKP", "crv": "Ed25519"}, {"kty": "EC", "crv": "P-256", "x": "A", "y": "B"}], ids=str)
def test_only_an_ed25519_key_is_delegated_to(scene: Scene, jwk: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        ask(scene, jwk=jwk)
    assert given(scene) == []


def test_a_version_that_leaves_between_reading_and_recording_is_not_delegated_to(scene: Scene) -> None:
    sign = scene.signer.sign_es256

    def sign_while_the_pointer_moves(message: bytes) -> bytes:
        scene.signer.sign_es256 = sign  # type: ignore[method-assign]
        scene.deploy(2)
        return sign(message)

    scene.signer.sign_es256 = sign_while_the_pointer_moves  # type: ignore[method-assign]
    delegation = ask(scene)
    assert delegation.grant.version.number == 2
    assert sum(k.sort == "DELEGATION" for k in given(scene)) == 1


@pytest.mark.parametrize("changes", [{"standing": Standing.RETIRED}, {"approved": False}], ids=str)
def test_a_version_that_is_stopped_between_reading_and_recording_is_not_delegated_to(scene: Scene, changes: dict[str, Any]) -> None:
    sign = scene.signer.sign_es256

    def sign_while_the_version_is_stopped(message: bytes) -> bytes:
        scene.change_version(1, **changes)
        return sign(message)

    scene.signer.sign_es256 = sign_while_the_version_is_stopped  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        ask(scene)
    assert given(scene) == []


def test_a_pointer_that_keeps_moving_gives_no_delegation(scene: Scene) -> None:
    sign = scene.signer.sign_es256

    def sign_while_the_pointer_moves(message: bytes) -> bytes:
        scene.deploy(1)
        return sign(message)

    scene.signer.sign_es256 = sign_while_the_pointer_moves  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="try again"):
        ask(scene)
    assert given(scene) == []


def test_a_crash_at_any_call_leaves_nothing_or_everything(scene: Scene) -> None:
    for n in range(1, 8):
        for plan in (scene.faults.fail_before, scene.faults.fail_after):
            before = len(given(scene))
            plan(n)
            with pytest.raises(UnavailableError):
                ask(scene)
            assert len(given(scene)) - before in (0, 3)
            assert ask(scene)


@pytest.mark.parametrize(
    "changes",
    [
        {"person": "mallory"},
        {"reason": "other"},
        {"at": "2026-01-01T00:00:00.000001Z"},
        {"transition": 99},
        {"principal": {}},
    ],
    ids=str,
)
def test_an_approval_row_that_differs_from_its_transition_is_an_integrity_error(scene: Scene, changes: dict[str, Any]) -> None:
    scene.meta.rows[approval_key(MODEL, 1, "erin")].update(changes)
    with pytest.raises(IntegrityError, match="transition"):
        ask(scene)
    assert given(scene) == []


def test_an_approval_with_its_transition_inserted_by_hand_has_no_event(scene: Scene) -> None:
    scene.change_version(1, approval_policy=ApprovalPolicy(automatic=False, roles=("approver",), count=2).to_item())
    scene.meta._apply([*recorded_approval(load_version(scene.meta, MODEL, 1), 1)])
    scene.meta._apply([w for w in recorded_approval(load_version(scene.meta, MODEL, 1), 7, person="farid") if w.key.partition != "OUTBOX"])
    with pytest.raises(IntegrityError, match="no event"):
        ask(scene)
    assert given(scene) == []


def test_a_transition_changed_together_with_its_approval_is_not_what_its_event_tells(scene: Scene) -> None:
    for key in (approval_key(MODEL, 1, "erin"), transition_key(MODEL, 1, 1)):
        scene.meta.rows[key]["reason"] = "much better than the last one"
    with pytest.raises(IntegrityError, match="otherwise"):
        ask(scene)


def test_an_approval_whose_event_is_in_the_ledger_counts_by_the_digest_in_its_index(scene: Scene) -> None:
    (waiting,) = [k for k in scene.meta.rows if k.partition == "OUTBOX"]
    row = scene.meta.rows[waiting]
    scene.meta._apply([Delete(waiting), Put(leaf_key(row["id"]), {"index": 3, "sha256": sha256_hex(row["event"]), "logged": "x"})])
    assert ask(scene)
    scene.meta.rows[leaf_key(row["id"])]["sha256"] = "0" * 64
    with pytest.raises(IntegrityError, match="otherwise"):
        ask(scene)


def test_an_approval_on_another_packet_than_the_version_names_does_not_count(scene: Scene) -> None:
    """A version whose approval was opened anew has decisions on the packet before, which stay where they are."""
    scene.change_version(1, packet={"sha256": "1" * 64})
    with pytest.raises(ConflictError, match="approvals that the policy"):
        ask(scene)
    assert given(scene) == []


def test_an_approval_that_was_put_on_another_packet_does_not_count(scene: Scene) -> None:
    scene.meta.rows[approval_key(MODEL, 1, "erin")]["evidence"] = "0" * 64
    with pytest.raises(ConflictError, match="approvals that the policy"):
        ask(scene)
    assert given(scene) == []


def test_a_serving_process_is_told_that_the_record_was_changed(scene: Scene) -> None:
    scene.meta.rows[approval_key(MODEL, 1, "erin")]["reason"] = "other"
    version = VersionUrn(MODEL, 1, make_version(1).version_digest)
    with pytest.raises(IntegrityError):
        scene.keys.key_for(version, ENVIRONMENT)


def test_nothing_is_delegated_from_the_day_of_retirement_on(scene: Scene) -> None:
    scene.change_version(1, retires_on="2026-01-02")
    with pytest.raises(ConflictError, match="out of use from 2026-01-02"):
        ask(scene)


@pytest.mark.parametrize(("hour", "seconds"), [(12, 3600), (23, 1800)])
def test_a_delegation_ends_with_the_day_before_the_retirement(scene: Scene, hour: int, seconds: int) -> None:
    scene.change_version(1, retires_on="2026-01-03")
    grant = ask(scene, at=datetime(2026, 1, 2, hour, 30, tzinfo=UTC)).grant
    assert grant.expires - grant.issued == seconds


def test_a_short_delegation_does_not_make_a_process_ask_for_each_prediction(scene: Scene) -> None:
    scene.change_version(1, retires_on="2026-01-03")
    scene.clock.at = datetime(2026, 1, 2, 23, 58, tzinfo=UTC)
    version = VersionUrn(MODEL, 1, make_version(1).version_digest)
    first = scene.keys.key_for(version, ENVIRONMENT)
    scene.clock.advance(seconds=100)
    assert scene.keys.key_for(version, ENVIRONMENT) is first
    scene.clock.advance(seconds=15)
    assert scene.keys.key_for(version, ENVIRONMENT) is not first


def test_a_killed_version_is_refused_with_who_and_why(scene: Scene) -> None:
    scene.change_version(1, standing=Standing.RETIRED, retirement={"kind": "version.killed", "by": "erin", "reason": "leaks", "at": "now"})
    with pytest.raises(ConflictError, match="killed at now by erin: leaks"):
        ask(scene)


@pytest.mark.parametrize("kind", ["version.killed", "version.retired"])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_version_whose_end_only_its_head_does_not_tell_is_not_delegated_to(scene: Scene, kind: str, beyond: int) -> None:
    version = load_version(scene.meta, MODEL, 1)
    number = version.transition + beyond
    scene.meta._apply([Put(leaf_key(event_id(kind, version.reference, number)), {"index": 7, "sha256": "0" * 64, "logged": ""})])
    with pytest.raises(IntegrityError, match="its head does not say so"):
        ask(scene)
    assert given(scene) == []
    scene.meta._apply([Delete(leaf_key(event_id(kind, version.reference, number)))])
    scene.meta._apply([Put(transition_key(MODEL, 1, number), {"kind": kind}, When())])
    with pytest.raises(IntegrityError, match="its head does not say so"):
        ask(scene)
    assert given(scene) == []


def test_the_pointer_row_carries_what_the_delegation_names(scene: Scene) -> None:
    pointer = scene.meta.rows[pointer_key(MODEL, ENVIRONMENT)]
    row = scene.meta.rows[delegation_key(ask(scene).kid)]
    assert {k: row[k] for k in ("version_digest", "execution_id", "folder", "capture_rate")} == {
        k: pointer[k] for k in ("version_digest", "execution_id", "folder", "capture_rate")
    }
    assert replace(load_version(scene.meta, MODEL, 1)).folder == row["folder"]
