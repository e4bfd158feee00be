"""Attacks on what a verifier is handed: foreign roots, confused types, exchanged and hidden parts."""

from __future__ import annotations

import json

import pytest

from attestry.domain.errors import IntegrityError
from attestry.evidence.bundle import read_bundle
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.dsse import read_envelope, sign_envelope, verify_envelope
from attestry.evidence.verification import verify_bundle
from tests.attacks.conftest import Tell
from tests.attacks.scene import Scene, broken
from tests.evidence_world import EvidenceWorld, find_leaf, rewrite

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]


@pytest.fixture(scope="module")
def attackers() -> EvidenceWorld:
    """A registry of the attacker's own, with a version that it approved by itself."""
    world = EvidenceWorld()
    world.deploy()
    world.sequence()
    return world


def approval_in(scene: Scene, bundle: bytes) -> str:
    """The name of the attestation of an approval."""
    leaf = find_leaf(bundle, "approval.given", f"{scene.model}@{scene.second}", number_of(scene))
    attestation = json.loads(read_bundle(bundle).files[leaf])["event"]["data"]["attestation"]
    return f"attestations/{attestation}.json"


def number_of(scene: Scene) -> int:
    """The number of the move by which the first of two persons approved."""
    rows = scene.registry.rows(scene.model, scene.second, "TRANSITION#")
    return int(next(row["number"] for row in rows if row["kind"] == "approval.given"))


def test_a_foreign_root_leads_to_nothing(scene: Scene, attackers: EvidenceWorld, tell: Tell) -> None:
    step, _ = broken(verify_bundle(scene.bundle, pin=attackers.pin))
    assert step == "root"
    tell("verify BROKEN at `root`")


def test_a_bundle_of_a_foreign_registry_is_not_ours(scene: Scene, attackers: EvidenceWorld, tell: Tell) -> None:
    assert attackers.verify(attackers.version_bundle()).verdict == "PROVEN"
    step, _ = broken(scene.verify(attackers.version_bundle()))
    assert step == "root"
    tell("verify BROKEN at `root`")


def test_foreign_keys_in_the_bundle_s_trusted_root_are_not_believed(scene: Scene, attackers: EvidenceWorld, tell: Tell) -> None:
    foreign = read_bundle(attackers.version_bundle()).files["root/trusted_root.json"]
    step, _ = broken(scene.verify(rewrite(scene.bundle, {"root/trusted_root.json": foreign})))
    assert step == "root"
    tell("verify BROKEN at `root`")


def test_without_a_pin_nothing_is_proven(scene: Scene, tell: Tell) -> None:
    assert verify_bundle(scene.bundle, pin=None).verdict == "INCOMPLETE"
    tell("verify INCOMPLETE: anybody could have made the bundle")


def test_a_payload_of_another_type_does_not_pass_for_an_attestation(scene: Scene, tell: Tell) -> None:
    """The right function's key signs the same bytes, for real, under another payload type."""
    name = approval_in(scene, scene.bundle)
    payload = read_envelope(read_bundle(scene.bundle).files[name]).payload
    signer = scene.registry.attestor("decide")._signer
    confused = sign_envelope(payload, signer, payload_type="application/json")
    with pytest.raises(IntegrityError, match="of type"):
        verify_envelope(confused, signer.public_key_der())
    relabelled = canonical_bytes({**json.loads(confused), "payloadType": "application/vnd.in-toto+json"})
    with pytest.raises(IntegrityError, match="does not verify"):
        verify_envelope(relabelled, signer.public_key_der())
    for forged in (confused, relabelled):
        step, _ = broken(scene.verify(rewrite(scene.bundle, {name: forged})))
        assert step == "transitions"
    tell("DSSE signs the type with the payload: refused; verify BROKEN at `transitions`")


def test_an_attestation_by_the_key_of_another_function_is_refused(scene: Scene, tell: Tell) -> None:
    name = approval_in(scene, scene.bundle)
    payload = read_envelope(read_bundle(scene.bundle).files[name]).payload
    forged = sign_envelope(payload, scene.registry.attestor("register")._signer)
    step, _ = broken(scene.verify(rewrite(scene.bundle, {name: forged})))
    assert step == "transitions"
    tell("verify BROKEN at `transitions`")


def test_a_packet_that_shows_other_metrics_than_were_approved_is_refused(scene: Scene, tell: Tell) -> None:
    packet = json.loads(read_bundle(scene.bundle).files["version/packet.json"])
    packet["metrics"] = {**packet["metrics"], "recall_score": "1.0"}
    step, reason = broken(scene.verify(rewrite(scene.bundle, {"version/packet.json": canonical_bytes(packet)})))
    assert (step, "frozen when the approval opened" in reason) == ("approvals", True), reason
    tell("verify BROKEN at `approvals`: the approval names the packet by its digest")


def test_a_move_that_is_hidden_is_missed(scene: Scene, tell: Tell) -> None:
    """A bundle without the event of an approval, its proof and its attestation."""
    bundle = scene.bundle
    leaf, attestation = find_leaf(bundle, "approval.given", f"{scene.model}@{scene.second}", number_of(scene)), approval_in(scene, bundle)
    proofs = json.loads(read_bundle(bundle).files["ledger/proofs.json"])
    del proofs["proofs"][str(int(leaf[-17:-5]))]
    told = scene.verify(rewrite(bundle, {leaf: None, attestation: None, "ledger/proofs.json": canonical_bytes(proofs)}))
    (moves,) = [step for step in told.steps if step.name == "transitions"]
    assert (told.verdict, moves.outcome) == ("INCOMPLETE", "missing"), told.reason
    assert f"move {number_of(scene)} of {scene.model}@{scene.second} is not in the bundle" == moves.detail
    tell("verify INCOMPLETE: `transitions` names the move that is missing; what would follow from it is not judged")


def test_the_bundle_of_a_killed_version_says_so(scene: Scene, tell: Tell) -> None:
    verification = scene.verify(scene.bundle_of(str(scene.by_first["prediction_id"])))
    assert verification.verdict == "PROVEN"
    assert any(note.startswith("REVOKED") and "version.killed" in note for note in verification.notes)
    tell("what was signed before stays proven, with the note REVOKED")
