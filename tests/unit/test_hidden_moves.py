"""What is hidden: from a bundle it is missing, not broken; from the table the bundle's maker finds it again in the ledger and the store."""

from __future__ import annotations

import json

import pytest

from attestry.evidence.bundle import read_bundle
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.verdict import Outcome, Verdict, Verification
from attestry.evidence.verification import verify_bundle
from attestry.usecases.records import transition_key, version_key
from attestry.usecases.sign import delegation_key, receipt_key
from tests.evidence_world import EvidenceWorld, find_leaf, rewrite
from tests.unit.test_verification import Made

REFERENCE = "tumour-diagnosis@1"
KINDS = {4: "stage.started", 8: "stage.started", 9: "version.approved", 11: "version.deployed"}


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


def moves_in(bundle: bytes) -> dict[int, dict[str, str]]:
    """Number to kind and attestation of the moves in a bundle."""
    leaves = [json.loads(body)["event"] for name, body in read_bundle(bundle).files.items() if name.startswith("ledger/leaves/")]
    return {e["sequence"]: {"kind": e["kind"], "attestation": e["data"]["attestation"]} for e in leaves if e["subject"] == REFERENCE}


def hide(bundle: bytes, *numbers: int, attestations: bool = True) -> bytes:
    """A bundle without some moves, their proofs and, by default, their attestations."""
    moves, changed = moves_in(bundle), dict[str, bytes | None]()
    proofs = json.loads(read_bundle(bundle).files["ledger/proofs.json"])
    for number in numbers:
        leaf = find_leaf(bundle, moves[number]["kind"], REFERENCE, number)
        del proofs["proofs"][str(int(leaf[-17:-5]))]
        changed[leaf] = None
        if attestations:
            changed[f"attestations/{moves[number]['attestation']}.json"] = None
    return rewrite(bundle, {**changed, "ledger/proofs.json": canonical_bytes(proofs)})


def failed(verification: Verification) -> list[str]:
    return [f"{s.name}: {s.detail}" for s in verification.steps if s.outcome is Outcome.FAILED]


def test_whichever_move_but_the_last_is_hidden_it_is_missing_and_named_and_nothing_is_held_against_the_version(made: Made) -> None:
    numbers = sorted(moves_in(made.bundle))
    for number in numbers[:-1]:
        for attestations in (True, False):
            verification = made.world.verify(hide(made.bundle, number, attestations=attestations))
            assert verification.verdict is Verdict.INCOMPLETE, (number, attestations, failed(verification))
            assert f"move {number} of {REFERENCE} is not in the bundle" in verification.reason


def test_a_hidden_deployment_leaves_a_delegation_that_nothing_allows(made: Made) -> None:
    """Nothing shows that a last move is missing; what is provable then is that the key was delegated without a deployment."""
    last = max(moves_in(made.bundle))
    verification = made.world.verify(hide(made.bundle, last))
    assert (verification.verdict, [f.split(":")[0] for f in failed(verification)]) == (Verdict.BROKEN, ["standing"])


def test_a_contradiction_in_what_is_there_outweighs_a_gap(made: Made) -> None:
    moves = moves_in(made.bundle)
    other = f"attestations/{moves[9]['attestation']}.json"
    body = read_bundle(made.bundle).files[other]
    hidden = hide(made.bundle, 4)
    verification = made.world.verify(rewrite(hidden, {other: body.replace(b'"sig":"M', b'"sig":"N')}))
    assert verification.verdict is Verdict.BROKEN


def test_a_hidden_attestation_is_missing_and_the_rest_is_not_judged_by_what_it_would_have_shown(made: Made) -> None:
    for number, move in moves_in(made.bundle).items():
        verification = made.world.verify(rewrite(made.bundle, {f"attestations/{move['attestation']}.json": None}))
        assert verification.verdict is Verdict.INCOMPLETE, failed(verification)
        assert f"the attestation of move {number}" in verification.reason


def test_without_a_pin_a_stranger_in_the_bundle_is_refused_all_the_same(made: Made) -> None:
    stranger = {"ledger/pending/" + "0" * 64 + ".json": b"{}"}
    assert verify_bundle(rewrite(made.bundle, stranger), pin=None).verdict is Verdict.BROKEN
    stranger = {"version/records/DEPLOYMENT-9.json": b"{}"}
    assert verify_bundle(rewrite(made.bundle, stranger), pin=None).verdict is Verdict.BROKEN


# Hidden from the table


@pytest.fixture
def world(made: Made) -> EvidenceWorld:
    """The world, whose rows are as they were when the test is over."""
    return made.world


@pytest.mark.parametrize("number", sorted(KINDS))
@pytest.mark.parametrize("how", ["deleted", "other kind", "other attestation", "counted down"])
def test_a_move_that_was_hidden_from_the_table_is_found_in_the_ledger(world: EvidenceWorld, made: Made, number: int, how: str) -> None:
    model, version = REFERENCE.split("@")
    key, head = transition_key(model, int(version), number), world.meta.rows[version_key(model, int(version))]
    kept, before = dict(world.meta.rows[key]), dict(head)
    try:
        if how in ("deleted", "counted down"):
            del world.meta.rows[key]
        if how == "counted down":
            head["transition"] = number - 1
        if how == "other kind":
            world.meta.rows[key]["kind"] = "stage.failed"
        if how == "other attestation":
            world.meta.rows[key]["attestation"] = world.meta.rows[transition_key(model, int(version), 1)]["attestation"]
        verification = world.verify(world.bundle(made.prediction))
    finally:
        world.meta.rows[key] = kept
        head.clear()
        head.update(before)
    assert verification.verdict is Verdict.PROVEN, verification.reason


def test_a_sealed_receipt_counts_and_not_its_edited_row(world: EvidenceWorld, made: Made) -> None:
    kid, _, number = made.prediction.rpartition("-")
    row = world.meta.rows[receipt_key(kid, int(number))]
    kept = dict(row)
    try:
        header, payload, signature = str(row["receipt"]).split(".")
        row["receipt"] = f"{header}.{payload}.{'A' * len(signature)}"
        verification = world.verify(world.bundle(made.prediction))
    finally:
        row.update(kept)
    assert verification.verdict is Verdict.PROVEN, verification.reason


def test_a_sealed_receipt_is_found_although_its_row_was_deleted(world: EvidenceWorld, made: Made) -> None:
    kid, _, number = made.prediction.rpartition("-")
    kept = world.meta.rows.pop(receipt_key(kid, int(number)))
    try:
        assert world.verify(world.bundle(made.prediction)).verdict is Verdict.PROVEN
    finally:
        world.meta.rows[receipt_key(kid, int(number))] = kept


def test_a_delegation_that_was_edited_in_its_row_is_read_beside_the_batches(world: EvidenceWorld, made: Made) -> None:
    row = world.meta.rows[delegation_key(made.prediction.rpartition("-")[0])]
    kept = dict(row)
    try:
        row["delegation"] = str(row["delegation"])[:-4] + "AAAA"
        assert world.verify(world.bundle(made.prediction)).verdict is Verdict.PROVEN
    finally:
        row.update(kept)


def test_a_receipt_that_is_not_sealed_yet_is_the_row_s() -> None:
    world = EvidenceWorld()
    world.deploy()
    prediction = world.predict()
    world.sequence()
    kid, _, number = prediction.rpartition("-")
    row = world.meta.rows[receipt_key(kid, int(number))]
    assert world.verify(world.bundle(prediction)).verdict is Verdict.SIGNED_UNANCHORED
    header, payload, signature = str(row["receipt"]).split(".")
    row["receipt"] = f"{header}.{payload}.{'A' * len(signature)}"
    assert world.verify(world.bundle(prediction)).verdict is Verdict.BROKEN


def test_a_batch_object_that_was_planted_over_the_range_does_not_take_the_sealed_one_s_place(world: EvidenceWorld, made: Made) -> None:
    batch = next(k for k in world.store.versions if k.endswith(".jsonl") and "/predictions/" in k)
    planted = f"{batch.rpartition('/')[0]}/000000000001-000000000900.jsonl"
    world.store.put(planted, b'{"at":"2026-01-01T00:00:00.000000Z","receipt":"a.b.c","sequence":1}\n')
    try:
        verification = world.verify(world.bundle(made.prediction))
    finally:
        del world.store.versions[planted]
    assert verification.verdict is Verdict.PROVEN, verification.reason
