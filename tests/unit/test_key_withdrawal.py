"""An approver's SSH key can be withdrawn: it signs nothing new, and what it signed before stays proven, judged by ledger time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestry.domain.approvals import Verdict as Decision
from attestry.domain.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError, UnavailableError
from attestry.evidence.bundle import read_bundle
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.ssh_signature import SshKey
from attestry.evidence.verdict import Verdict, Verification
from attestry.usecases.decide import decide_approval
from attestry.usecases.outbox import outbox_key
from attestry.usecases.people import Person, add_person, list_people, withdraw_keys
from attestry.usecases.records import person_key
from lambdas import people
from tests.approvals import ADMIN, ApprovalWorld
from tests.evidence_world import ADMIN as ALEX
from tests.evidence_world import ERIN as APPROVER
from tests.evidence_world import EvidenceWorld, find_leaf, rewrite
from tests.fakes import Faults, Killed, MemoryMetaStore
from tests.ssh_keys import SshPerson
from tests.unit.test_decision_handlers import approvals as _handlers
from tests.unit.test_decision_handlers import call
from tests.versions import AT, ERIN

ERINS, SECOND = SshPerson("erin"), SshPerson("erin's other laptop")
KEY = SshKey.parse(ERINS.public).fingerprint
approvals = _handlers


@pytest.fixture
def world() -> ApprovalWorld:
    made = ApprovalWorld()
    made.register_key("erin", ERINS)
    return made


def withdraw(meta: Any, *fingerprints: str, person: str = "erin", reason: str = "stolen") -> Person:
    return withdraw_keys(meta, person, fingerprints or (KEY,), reason=reason, by=ADMIN, at=AT)


# At the table


def test_a_withdrawn_key_signs_nothing_new_and_the_refusal_says_why(world: ApprovalWorld) -> None:
    packet = world.waiting().packet["sha256"]
    withdraw(world.meta)
    add_person(world.meta, "erin", [], name="", by=ADMIN, at=AT, ssh_keys=[SECOND.public])
    with pytest.raises(ForbiddenError, match="was withdrawn at"):
        world.decide(ERIN, packet_sha256=packet, signature=ERINS.sign(packet))
    assert world.decide(ERIN, packet_sha256=packet, signature=SECOND.sign(packet)).signed_by_person


def test_the_event_says_which_key_was_theirs_from_when_to_when(world: ApprovalWorld) -> None:
    withdraw(world.meta)
    event = [e for e in world.events() if e["subject"] == "person/erin"][-1]
    (person,) = [p for p in list_people(world.meta) if p.person == "erin"]
    assert event["kind"] == "person.changed"
    assert (event["data"]["withdrawn"], event["data"]["reason"], event["data"]["ssh_keys"]) == ([KEY], "stolen", [])
    assert event["data"]["validity"] == {KEY: {"start": person.ssh_keys_added[KEY], "end": event["at"]}}
    assert (person.ssh_keys, person.ssh_keys_withdrawn) == ((), {KEY: event["at"]})


def test_a_withdrawn_key_comes_back_for_nobody(world: ApprovalWorld) -> None:
    withdraw(world.meta)
    with pytest.raises(ConflictError, match="withdrawn"):
        add_person(world.meta, "erin", [], name="", by=ADMIN, at=AT, ssh_keys=[ERINS.public])
    with pytest.raises(ConflictError, match="belongs to another person"):
        add_person(world.meta, "mallory", ["mallory"], name="", by=ADMIN, at=AT, ssh_keys=[ERINS.public])


def test_withdrawing_again_changes_nothing_and_a_stranger_to_the_person_is_refused(world: ApprovalWorld) -> None:
    first = withdraw(world.meta)
    before = len(world.events())
    assert withdraw(world.meta, reason="again") == first
    assert len(world.events()) == before
    with pytest.raises(InvalidInputError, match="fingerprints of keys"):
        withdraw(world.meta, "SHA256:other")
    with pytest.raises(InvalidInputError, match="fingerprints of keys"):
        withdraw_keys(world.meta, "erin", [], reason="x", by=ADMIN, at=AT)
    with pytest.raises(NotFoundError):
        withdraw(world.meta, person="nobody")


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_around_the_write_leaves_one_event_after_the_retry(after: bool) -> None:
    faults = Faults()
    meta = MemoryMetaStore(faults)
    add_person(meta, "erin", ["erin"], name="", by=ADMIN, at=AT, ssh_keys=[ERINS.public])
    (faults.fail_after if after else faults.fail_before)(1, method="transact", error=Killed())
    with pytest.raises((Killed, UnavailableError)):
        withdraw(meta)
    faults.clear()
    withdraw(meta)
    events = [parse_canonical(row["event"]) for key, row in meta.rows.items() if key.partition == "OUTBOX"]
    assert [e["data"]["withdrawn"] for e in events if "withdrawn" in e["data"]] == [[KEY]]


def test_a_withdrawal_between_looking_up_the_key_and_the_decision_wins(world: ApprovalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    packet = world.waiting().packet["sha256"]
    real, done = world.meta.transact, list[int]()

    def race(writes: Any) -> None:
        if not done:
            done.append(1)
            withdraw(world.meta)
        real(writes)

    monkeypatch.setattr(world.meta, "transact", race)
    with pytest.raises(ForbiddenError, match="no SSH key is registered"):
        world.decide(ERIN, packet_sha256=packet, signature=ERINS.sign(packet))
    assert not world.meta.query("VERSION#credit-risk#1", prefix="APPROVAL#")


def test_an_admin_withdraws_by_the_api_in_a_request_of_its_own(approvals: ApprovalWorld) -> None:
    body = {"person": "erin", "withdraw": [KEY], "reason": "stolen"}
    status, answer = call(people, "POST /v1/people", body, role="admin", login="alex")
    assert status == 200
    (key,) = answer["ssh_keys"]
    assert key["fingerprint"] == KEY
    assert key["withdrawn"] is not None
    for wrong in ({**body, "logins": ["x"]}, {"person": "erin", "withdraw": [KEY]}, {**body, "withdraw": KEY}, {"withdraw": [KEY]}):
        assert call(people, "POST /v1/people", wrong, role="admin", login="alex")[0] == 400


# In the evidence


def end_key(world: EvidenceWorld) -> None:
    withdraw_keys(world.meta, "erin", [KEY], reason="stolen", by=ALEX, at=world.clock.now())


def put_back_by_hand(world: EvidenceWorld) -> None:
    """Make the table say that the key is still erin's, as only its administrator can."""
    row = world.meta.rows[person_key("erin")]
    row["ssh_keys"], row["ssh_keys_withdrawn"] = [ERINS.public], {}


def reason(verification: Verification) -> str:
    return f"{verification.verdict.value} {verification.reason}"


@pytest.fixture(scope="module")
def approved() -> EvidenceWorld:
    """A version that was approved, after which the key was withdrawn."""
    made = EvidenceWorld()
    made.deploy()
    made.sequence()
    end_key(made)
    made.sequence()
    return made


def test_what_a_key_signed_before_it_was_withdrawn_stays_proven_and_the_withdrawal_is_told(approved: EvidenceWorld) -> None:
    verification = approved.verify(approved.version_bundle())
    assert verification.verdict is Verdict.PROVEN, verification.reason
    assert [n for n in verification.notes if "was withdrawn after this decision" in n]
    assert verification.facts["approvals"][0]["grade"] == "signed by person"


@pytest.mark.parametrize("revision", [1, 2])
def test_a_bundle_that_leaves_out_what_became_of_the_key_is_incomplete_or_says_nothing_wrong(
    approved: EvidenceWorld, revision: int
) -> None:
    bundle = approved.version_bundle()
    leaf = find_leaf(bundle, "person.changed", "person/erin", revision)
    index = str(int(leaf[-17:-5]))
    proofs = parse_canonical(read_bundle(bundle).files["ledger/proofs.json"])
    del proofs["proofs"][index]
    without = approved.verify(rewrite(bundle, {leaf: None, "ledger/proofs.json": canonical_bytes(proofs)}))
    if revision == 1:
        assert "INCOMPLETE" in reason(without)
        assert "person.changed 1 of erin is not in the bundle" in without.reason
    else:
        # The withdrawal came after the decision, so nothing that is proven rests on it.
        assert without.verdict is Verdict.PROVEN


def test_a_key_that_was_withdrawn_and_put_back_into_the_row_by_hand_proves_nothing() -> None:
    world = EvidenceWorld()
    world.validate()
    world.open()
    end_key(world)
    world.sequence()
    put_back_by_hand(world)
    world.approve()
    world.sequence()
    told = reason(world.verify(world.version_bundle()))
    assert told.startswith("BROKEN")
    assert "had been withdrawn before they decided" in told


def test_a_key_that_was_put_into_the_row_by_hand_and_never_registered_proves_nothing() -> None:
    world = EvidenceWorld()
    world.validate()
    packet = world.open()
    row = world.meta.rows[person_key("erin")]
    row["ssh_keys"] = [SECOND.public]
    world.ssh = SECOND
    version = world.head
    what = {"reason": "ok", "by": APPROVER, "at": world.clock.now(), "packet_sha256": packet, "signature": SECOND.sign(packet)}
    attestor = world.flow.attestors["decide"]
    decide_approval(world.meta, attestor, world.store, version.model, version.number, Decision.APPROVE, **what)
    world.sequence()
    told = reason(world.verify(world.version_bundle()))
    assert told.startswith("BROKEN")
    assert "was not registered for erin" in told


def test_a_withdrawal_and_a_decision_in_one_batch_are_judged_by_the_revision() -> None:
    world = EvidenceWorld()
    world.validate()
    world.open()
    world.sequence()
    world.approve()
    end_key(world)
    # The clock of the function that withdrew was behind: in the outbox the withdrawal comes first.
    (key,) = [k for k, row in world.meta.rows.items() if k.partition == "OUTBOX" and b'"withdrawn"' in row["event"]]
    row = world.meta.rows.pop(key)
    event = json.loads(row["event"])
    event["at"] = "2026-01-01T00:00:00.000000Z"
    row["event"] = canonical_bytes(event)
    world.meta.rows[person_key("erin")]["changed"][-1] = event["at"]
    moved = outbox_key(event)
    world.meta.rows[moved] = {**row, "pk": moved.partition, "sk": moved.sort}
    world.sequence()
    verification = world.verify(world.version_bundle())
    assert verification.verdict is Verdict.PROVEN, verification.reason
