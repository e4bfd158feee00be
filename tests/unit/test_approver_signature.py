"""An approver's own signature in a decision: what it takes, what it leaves on the record, and the attacks on it."""

from __future__ import annotations

import hashlib

import pytest

from attestry.domain.approvals import ApprovalPolicy, Verdict, read_packet_sha256, read_signature
from attestry.domain.errors import (
    ConditionFailedError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    SelfApprovalError,
    UnsignedApprovalError,
)
from attestry.domain.stages import Stage, Standing, Status
from attestry.evidence.ssh_signature import SshKey, verify_approval
from attestry.ports import Update
from attestry.usecases.people import add_person, list_people
from attestry.usecases.records import Move, approval_key, move_writes, person_key
from tests.approvals import ADMIN, MODEL, ApprovalWorld
from tests.ssh_keys import SshPerson
from tests.versions import AT, DANA, ERIN, FRANK, session

ERINS, FRANKS, SECOND = SshPerson("erin"), SshPerson("frank"), SshPerson("erin's other laptop")
SIGNED = ApprovalPolicy(False, ("approver",), 1, signed=True)
MINE = Move(Stage.APPROVAL, Status.SUCCEEDED, Standing.APPROVED, "version.approved", DANA, "mine", AT)


@pytest.fixture
def world() -> ApprovalWorld:
    made = ApprovalWorld()
    made.register_key("erin", ERINS)
    made.register_key("frank", FRANKS)
    return made


def refused_without_a_trace(world: ApprovalWorld, number: int = 1) -> bool:
    rows = world.meta.query(f"VERSION#{MODEL}#{number}", prefix="APPROVAL#")
    kept = [key for key in world.store.versions if "/signatures/" in key]
    return world.head(number).status is Status.RUNNING and not rows and not kept


def test_a_signed_approval_is_kept_write_once_and_named_by_row_event_and_attestation(world):
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    signature = ERINS.sign(packet)
    decision = world.decide(ERIN, packet_sha256=packet, signature=signature)
    assert decision.complete
    assert decision.signed_by_person
    version = world.head()
    (stored,) = world.store.versions[f"{version.folder}/evidence/signatures/erin.sig"]
    assert (stored.body, stored.retained) == (signature, True)
    facts = {"sha256": hashlib.sha256(signature).hexdigest(), "fingerprint": SshKey.parse(ERINS.public).fingerprint}
    row = world.meta.get(approval_key(MODEL, 1, "erin"))
    event = next(e for e in world.events() if e["kind"] == "version.approved")
    content = world.statement(version.transition).predicate["content"]
    for told in (row, event["data"], content):
        assert told["signed_by_person"] is True
        assert {k: told["signature"][k] for k in facts} == facts
    assert event["data"]["evidence"] == row["evidence"] == content["packet_sha256"] == packet
    assert content["policy_sha256"] == SIGNED.digest
    assert content["opened"] == version.packet["transition"]
    assert verify_approval(stored.body, content["packet_sha256"], [ERINS.public]).fingerprint == facts["fingerprint"]


def test_an_unsigned_approval_says_so_everywhere(world):
    world.waiting()
    assert not world.decide().signed_by_person
    event = next(e for e in world.events() if e["kind"] == "version.approved")
    assert (event["data"]["signed_by_person"], "signature" in event["data"]) == (False, False)


def test_an_unsigned_approval_is_refused_where_the_policy_asks_for_a_signature_and_the_command_is_given(world):
    world.waiting(policy=SIGNED)
    with pytest.raises(UnsignedApprovalError) as refused:
        world.decide(reason="it's fine; rm -rf /")
    command = "attestry approve credit-risk@1 --reason 'it'\"'\"'s fine; rm -rf /' --sign-with ~/.ssh/id_ed25519"
    assert command in refused.value.message
    assert refused_without_a_trace(world)


def test_a_rejection_needs_no_signature(world):
    world.waiting(policy=SIGNED)
    assert world.decide(verdict=Verdict.REJECT).version.standing is Standing.REJECTED


def test_a_rejection_never_takes_a_signature_that_would_read_as_an_approval(world):
    packet = world.waiting().packet["sha256"]
    with pytest.raises(InvalidInputError, match="approves; a rejection has none"):
        world.decide(verdict=Verdict.REJECT, signature=ERINS.sign(packet))
    assert refused_without_a_trace(world)


def test_a_signature_by_a_key_of_another_person_is_refused(world):
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    with pytest.raises(IntegrityError, match="not registered for this person"):
        world.decide(ERIN, signature=FRANKS.sign(packet))
    assert refused_without_a_trace(world)


def test_a_signature_in_another_namespace_is_refused(world):
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    with pytest.raises(IntegrityError, match="namespace 'file'"):
        world.decide(ERIN, signature=ERINS.sign(packet, namespace=b"file"))
    assert refused_without_a_trace(world)


def test_a_signature_over_another_digest_is_refused(world):
    world.waiting(policy=SIGNED)
    with pytest.raises(IntegrityError, match="not over the packet"):
        world.decide(ERIN, signature=ERINS.sign("ab" * 32))
    assert refused_without_a_trace(world)


def test_a_signature_cannot_be_replayed_for_another_version(world):
    packet = world.waiting(1, policy=SIGNED).packet["sha256"]
    signature = ERINS.sign(packet)
    assert world.decide(ERIN, number=1, signature=signature).complete
    world.waiting(2, policy=SIGNED)
    assert world.head(2).packet["sha256"] != packet
    with pytest.raises(IntegrityError, match="not over the packet"):
        world.decide(ERIN, number=2, signature=signature)
    assert world.head(2).status is Status.RUNNING


def test_a_signature_cannot_be_replayed_by_another_person(world):
    packet = world.waiting(policy=ApprovalPolicy(False, ("approver",), 2, signed=True)).packet["sha256"]
    world.decide(ERIN, signature=ERINS.sign(packet))
    with pytest.raises(IntegrityError, match="not registered for this person"):
        world.decide(FRANK, signature=ERINS.sign(packet))
    assert not world.head().approved


@pytest.mark.parametrize("spoil", [lambda s: s[:-2], lambda s: s.replace(b"A", b"B", 1), lambda s: b"signed, erin", lambda s: s + b" "])
def test_a_tampered_signature_is_refused(world, spoil):
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    with pytest.raises((InvalidInputError, IntegrityError)):
        world.decide(ERIN, signature=spoil(ERINS.sign(packet)))
    assert refused_without_a_trace(world)


def test_a_bad_signature_is_refused_although_none_is_asked_for(world):
    packet = world.waiting().packet["sha256"]
    with pytest.raises(IntegrityError):
        world.decide(ERIN, signature=FRANKS.sign(packet))
    assert refused_without_a_trace(world)


def test_a_key_that_is_registered_later_makes_no_earlier_attempt_good_and_shows_when_it_came():
    world = ApprovalWorld()
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    signature = ERINS.sign(packet)
    with pytest.raises(ForbiddenError, match="attestry people add erin --ssh-key"):
        world.decide(ERIN, signature=signature)
    assert refused_without_a_trace(world)
    later = AT.replace(hour=9)
    add_person(world.meta, "erin", ["erin"], name="", by=ADMIN, at=later, ssh_keys=[ERINS.public])
    assert world.head().status is Status.RUNNING
    world.decide(ERIN, signature=signature)
    row = world.meta.get(approval_key(MODEL, 1, "erin"))
    assert row["signature"]["key_added"] == "2026-01-02T09:04:05.000000Z"
    assert row["signature"]["key_added"] > world.packet().content["opened"]


def test_a_key_that_changes_hands_between_check_and_write_does_not_count(world):
    """The keys that were read must still be the person's when the decision is written."""
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    write = world.meta.transact

    def meanwhile(writes):
        world.meta.transact = write
        row = world.meta.get(person_key("erin"))
        write([Update(person_key("erin"), {"ssh_keys": [SECOND.public], "ssh_keys_added": {}, "rev": row["rev"] + 1})])
        write(writes)

    world.meta.transact = meanwhile
    with pytest.raises(IntegrityError, match="not registered"):
        world.decide(ERIN, signature=ERINS.sign(packet))
    assert world.head().status is Status.RUNNING


def test_a_signature_does_not_help_the_submitter_and_the_table_refuses_them_too(world):
    world.register_key("dana", SECOND)
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    with pytest.raises(SelfApprovalError):
        world.decide(session("approver", "dana", person="dana"), signature=SECOND.sign(packet))
    assert refused_without_a_trace(world)
    version = world.head()
    writes = move_writes(version, MINE, world.attestor, {"approved": True}, differs={"submitter_person": "dana"})
    with pytest.raises(ConditionFailedError):
        world.meta.transact(writes)


def test_a_decision_on_an_older_packet_is_refused_with_the_command_that_shows_the_right_one(world):
    version = world.waiting()
    with pytest.raises(ConflictError, match=f"is {version.packet['sha256']}; read it and decide again: attestry packet credit-risk@1"):
        world.decide(packet_sha256="ab" * 32)
    assert refused_without_a_trace(world)


def test_a_repeated_decision_that_names_another_packet_is_refused(world):
    world.waiting()
    world.decide()
    with pytest.raises(ConflictError, match="the decision names the packet"):
        world.decide(packet_sha256="ab" * 32)


def test_a_signed_decision_again_is_answered_like_the_first(world):
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    first = world.decide(ERIN, signature=ERINS.sign(packet))
    events = len(world.events())
    assert world.decide(ERIN, signature=ERINS.sign(packet)) == first
    assert len(world.events()) == events


def test_a_signature_that_comes_after_an_unsigned_decision_is_not_passed_over_in_silence(world):
    packet = world.waiting().packet["sha256"]
    world.decide(ERIN)
    with pytest.raises(ConflictError, match="already approved credit-risk@1 without a signature"):
        world.decide(ERIN, signature=ERINS.sign(packet))


def test_a_second_key_after_a_lost_first_try_is_refused_with_a_sentence(world):
    add_person(world.meta, "erin", [], name="", by=ADMIN, at=AT, ssh_keys=[SECOND.public])
    packet = world.waiting(policy=SIGNED).packet["sha256"]
    world.faults.fail_before(1, method="transact")
    with pytest.raises(Exception, match="injected"):
        world.decide(ERIN, signature=ERINS.sign(packet))
    world.faults.clear()
    with pytest.raises(ConflictError, match="sign with the key of the first try"):
        world.decide(ERIN, signature=SECOND.sign(packet))
    assert world.decide(ERIN, signature=ERINS.sign(packet)).complete


def test_the_digest_of_a_policy_covers_the_demand_for_signatures():
    assert SIGNED.digest != ApprovalPolicy(False, ("approver",), 1).digest
    assert ApprovalPolicy.from_item(SIGNED.to_item()) == SIGNED


@pytest.mark.parametrize("value", [1, "x", "AB" * 32, "ab" * 31, ["ab" * 32], "ab" * 32 + "\n", True])
def test_a_packet_is_named_by_a_digest(value):
    with pytest.raises(InvalidInputError):
        read_packet_sha256(value)


@pytest.mark.parametrize("value", [1, {"a": 1}, "gr\u00fc\u00df", "\ud800"])
def test_a_signature_is_ascii_text(value):
    with pytest.raises(InvalidInputError):
        read_signature(value)


class TestKeysOfPeople:
    def test_a_key_belongs_to_one_person_for_good(self, world):
        with pytest.raises(ConflictError, match=r"the SSH key SHA256:\S+ belongs to another person \(erin\)"):
            world.register_key("grace", ERINS)
        assert [p.person for p in list_people(world.meta)] == ["erin", "frank"]

    def test_adding_a_key_is_an_event_with_its_fingerprint_and_adding_it_again_is_none(self, world):
        changed = [e for e in world.events() if e["kind"] == "person.changed" and e["subject"] == "person/erin"]
        fingerprint = SshKey.parse(ERINS.public).fingerprint
        validity = {fingerprint: {"start": changed[-1]["at"]}}
        assert changed[-1]["data"] == {"logins": ["erin"], "ssh_keys": [fingerprint], "validity": validity}
        world.register_key("erin", ERINS)
        assert len([e for e in world.events() if e["subject"] == "person/erin"]) == len(changed)

    def test_a_key_can_be_added_to_a_person_without_naming_a_login_again(self, world):
        person = add_person(world.meta, "erin", [], name="", by=ADMIN, at=AT, ssh_keys=[f"{SECOND.public} laptop"])
        assert person.ssh_keys == (ERINS.public, SECOND.public)
        assert person.logins == ("erin",)

    def test_a_person_is_not_made_of_a_key_alone(self, world):
        with pytest.raises(InvalidInputError, match="logins"):
            add_person(world.meta, "heidi", [], name="", by=ADMIN, at=AT, ssh_keys=[SECOND.public])

    def test_a_person_has_at_most_ten_keys(self, world):
        keys = [SshPerson(str(i)).public for i in range(10)]
        with pytest.raises(InvalidInputError, match="at most 10 SSH keys"):
            add_person(world.meta, "erin", [], name="", by=ADMIN, at=AT, ssh_keys=keys)

    def test_a_key_that_cannot_be_used_changes_nothing(self, world):
        with pytest.raises(InvalidInputError, match="only ssh-ed25519"):
            add_person(world.meta, "erin", ["e2"], name="", by=ADMIN, at=AT, ssh_keys=["ssh-rsa AAAA"])
        assert world.meta.get(person_key("erin"))["logins"] == ["erin"]
