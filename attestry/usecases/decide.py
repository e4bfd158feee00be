"""Decide: a person approves or rejects a version that waits for it.

The decision is a row first, in one transaction with the move of the version; only then does the gate send the waiting pipeline on, and
the pipeline reads the decision from the table again. A lost answer, a second call and a crash in between are therefore harmless.

Every decision names the packet that was frozen when the approval opened, by its digest. An approver's own signature over that digest is
kept before the decision is written, so that a decision never names a signature that is not there.

What completes an approval names the validation records that the manifest demands; while they do not stand it is refused, here and by the
table itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy, Verdict, check_in_turn, check_may_decide, check_signed, is_met
from attestry.domain.conditions import Conditions, Terms, ends_at, fit_conditions, strictest
from attestry.domain.conflicts import check_independent, check_no_conflict
from attestry.domain.errors import (
    ConditionFailedError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    UnprovenIdentityError,
)
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.requirements import Approving, missing
from attestry.domain.stages import APPROVED, Stage, Standing, Status
from attestry.domain.validations import ValidationMissingError, named_records, unmet
from attestry.domain.version import Version
from attestry.evidence.packet import Packet
from attestry.evidence.predicates import APPROVAL, Predicate
from attestry.evidence.promotion_packet import PromotionPacket
from attestry.ports import Check, Item, Key, MetaStore, ObjectStore, Put, When, Write
from attestry.usecases.approver_signature import OwnSignature, check_is_approval, take_signature
from attestry.usecases.attest import Attestor
from attestry.usecases.conditions import begin_terms
from attestry.usecases.conflicts import conflicts_of, require_none
from attestry.usecases.packet import load_packet
from attestry.usecases.records import Move, approval_key, approving_persons, decision_key, load_version, move_writes, person_key

TRIES = 8
NONE = Conditions()
COUNTED = ("decision", "version_digest", "evidence", "policy_digest")
"""What a row has to say alike for its approval to count."""


@dataclass(frozen=True)
class Decision:
    """What a decision led to.

    Attributes:
        version: the version after the decision.
        complete: whether the stage has ended; False while further approvals are needed.
        approvals: persons who have approved.
        needed: how many approvals the policy asks for.
        signed_by_person: whether the person's own signature stands behind it; else the registry alone recorded it.
        missing: what the policy asks for yet, for a person; empty where nothing.
    """

    version: Version
    complete: bool
    approvals: tuple[str, ...]
    needed: int
    signed_by_person: bool = False
    missing: str = ""


@dataclass(frozen=True)
class Act:
    """A decision as it is written: who decides what, on which packet, under which policy and conditions.

    Where the decision completes the approval, `terms` are those of the version, and `validations` the records that it rests on, place to
    digest.
    """

    verdict: Verdict
    person: str
    by: Principal
    reason: str
    at: datetime
    packet: Packet | PromotionPacket
    policy: ApprovalPolicy
    signature: OwnSignature | None = None
    further: tuple[Write, ...] = field(default=())
    console: Mapping[str, Any] | None = None
    conditions: Conditions = field(default_factory=Conditions)
    terms: Terms | None = None
    validations: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what event, row and attestation say of it alike."""
        facts: dict[str, Any] = {
            "person": self.person,
            "decision": self.verdict.value,
            "policy_sha256": self.policy.digest,
            "opened": self.packet.content["transition"],
            "signed_by_person": self.signature is not None,
        }
        terms = self.terms.to_item() if self.terms else {}
        more = {"conditions": self.conditions.to_item(), "terms": terms, "validations": dict(self.validations)}
        facts |= {name: value for name, value in more.items() if value}
        if self.signature:
            facts["signature"] = self.signature.facts
        return {**facts, "console": dict(self.console)} if self.console else facts


def decide_approval(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    model: str,
    number: int,
    verdict: Verdict,
    *,
    reason: str,
    by: Principal,
    at: datetime,
    packet_sha256: str = "",
    signature: bytes = b"",
    console: Mapping[str, Any] | None = None,
    conditions: Conditions = NONE,
) -> Decision:
    """Record a person's decision, and end the stage when the policy is met or a person rejects.

    The same decision by the same person again is answered like the first.

    Args:
        meta: the table.
        attestor: signs with the deciding function's key.
        store: the model store.
        model: the model's name.
        number: the version's number.
        verdict: approve or reject.
        reason: why, checked.
        by: the authenticated principal, with its person.
        at: the time.
        packet_sha256: digest of the packet that the person saw; empty where nobody says.
        signature: the person's own signature over that digest, see `attestry.evidence.ssh_signature`; empty where there is none.
        console: how the decision was made in the AWS console, see `attestry.usecases.console_caller.console_facts`; None elsewhere.
        conditions: under what the person approves; only with an approval.

    Raises:
        ConflictError: the version does not wait for a decision, has another packet, the person has decided otherwise, or an approval that
            would count has ended meanwhile.
        ApprovalOrderError: others have to approve first.
        HeldError: the version is held; it can be rejected, but not approved.
        SelfApprovalError, UnprovenIdentityError, ForbiddenError: see `check_may_decide`.
        ValidationMissingError: the approval would be complete, and validation records that the manifest demands do not stand.
        ConflictOfInterestError: the person has declared one, wrote the code, or approved the version before, where the policy minds.
        UnsignedApprovalError: the policy asks for the person's own signature.
        InvalidInputError, IntegrityError: see `attestry.evidence.ssh_signature.verify_approval`.
        NotFoundError: no such version.
    """
    if signature:
        check_is_approval(verdict)
    if conditions != NONE and verdict is not Verdict.APPROVE:
        raise InvalidInputError.of("conditions", "approval_only", "a rejection has no conditions")
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        _check_packet(version, packet_sha256)
        repeated = _repeated(meta, version, verdict, by, signature, conditions)
        if repeated:
            return repeated
        person = check_may_decide(version, by)
        if verdict is Verdict.APPROVE:
            version.require_not_held("is not approved")
            asked = ApprovalPolicy.from_item(version.approval_policy)
            check_signed(asked, version, person, reason=reason, signed=bool(signature))
        packet, policy = _packet_and_policy(store, version)
        further = check_interest(meta, version, packet, policy, by, person)
        own, checks = take_signature(meta, store, version, person, packet.sha256, signature) if signature else (None, ())
        fitted = fit_conditions(conditions, version.schema, at)
        act = Act(verdict, person, by, reason, at, packet, policy, own, (*further, *checks), console, fitted)
        counted = counted_approvals(meta, version)
        approving = approving_persons(counted)
        if verdict is Verdict.APPROVE:
            try:
                check_in_turn(policy, version.reference, approving, person, by.roles)
            except (ConflictError, ForbiddenError):
                if load_version(meta, model, number).rev != version.rev:
                    continue  # somebody decided between the two readings
                raise
            approving = {**approving, person: by.roles}
        complete = verdict is Verdict.REJECT or is_met(policy, approving)
        if verdict is Verdict.APPROVE:
            if complete:
                further = (*act.further, *require_no_conflicts(meta, version, set(approving) - {person}))
                act = replace(act, further=further, validations=_require_validated(version, policy))
            terms = terms_of(version, act, counted)
            act = replace(act, terms=terms) if complete else act
        if _commit(meta, attestor, version, act, counted, complete=complete):
            return _outcome(load_version(meta, model, number), policy, approving, complete=complete, signed=own is not None)
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def check_interest(
    meta: MetaStore, version: Version, packet: Packet | PromotionPacket, policy: ApprovalPolicy, by: Principal, person: str
) -> tuple[Write, ...]:
    """Refuse who has a conflict of interest, and return the condition that none is declared when the decision is written.

    Raises:
        ConflictOfInterestError: the person has one.
    """
    check_no_conflict(packet.content.get("conflicts", []), person)
    check_no_conflict([vars(d) for d in conflicts_of(meta, version.model) if d.active], person)
    if policy.independent:
        row = meta.get(person_key(person)) or {}
        author = str(packet.content["lineage"]["code"]["author"])
        check_independent(author, person, (by.login, str(row.get("name") or ""), *map(str, row.get("logins") or ())))
    return tuple(require_none(version.model, {person}))


def require_no_conflicts(meta: MetaStore, version: Version, persons: set[str]) -> list[Check]:
    """Return the conditions that nobody who approved before has a conflict by now.

    Raises:
        ConflictOfInterestError: somebody has; the approval cannot be completed with theirs.
    """
    for person in persons:
        check_no_conflict([vars(d) for d in conflicts_of(meta, version.model) if d.active], person)
    return require_none(version.model, persons)


def _require_validated(version: Version, policy: ApprovalPolicy) -> dict[str, str]:
    """Return the validation records that the manifest demands, place to digest.

    Raises:
        ValidationMissingError: one of them does not stand.
    """
    missing_records = unmet(policy.records, version.validations)
    if missing_records:
        raise ValidationMissingError(
            f"{version.reference} cannot be approved yet: {'; '.join(missing_records)}; a validator hands it in: "
            f"attestry validate {version.reference} --record FILE --sign-with ~/.ssh/id_ed25519",
            details={"missing": missing_records},
        )
    return named_records(policy.records, version.validations)


def approve_by_policy(meta: MetaStore, attestor: Attestor, store: ObjectStore, version: Version, *, at: datetime) -> Version:
    """Approve a version whose policy asks for no person; the gates have passed, since VALIDATION has succeeded.

    Raises:
        ConflictError: the version moved meanwhile.
        UnprovenIdentityError: nobody knows yet who submitted it.
    """
    if not ApprovalPolicy.from_item(version.approval_policy).automatic:
        raise ConflictError(f"{version.reference} needs people to approve it")
    if version.submitter_person is None:
        raise UnprovenIdentityError(f"{version.reference} is not approved before a person has claimed it: its submitter is unproven")
    by = registry_principal("approval-policy")
    packet, policy = _packet_and_policy(store, version)
    why = "its model is open: no person is asked" if version.imported else "the manifest's policy approves what passes all gates"
    act = Act(Verdict.APPROVE, by.login, by, why, at, packet, policy)
    act = replace(act, terms=terms_of(version, act, ()))
    if not _commit(meta, attestor, version, act, (), complete=True):
        head = load_version(meta, version.model, version.number)
        if not head.approved:
            raise ConflictError(f"{version.reference} moved while its policy was applied")
        return head
    return load_version(meta, version.model, version.number)


def _commit(meta: MetaStore, attestor: Attestor, version: Version, act: Act, counted: Sequence[Item], *, complete: bool) -> bool:
    """Write the decision with the move that it leads to; False where the version has moved meanwhile."""
    rejected = act.verdict is Verdict.REJECT
    changes = {
        "approved": complete and not rejected,
        "error": f"rejected by {act.person}: {act.reason}" if rejected else "",
        "terms": act.terms.to_item() if act.terms else {},
    }
    move = _move(version, act, rejected=rejected, complete=complete)
    # The rules of four eyes and of the quorum stand in the transaction too, so that code that forgets them cannot write past them: the row
    # of each person who is counted, one person one row, has to be there, as an approval of this digest on this packet.
    moving = move_writes(version, move, attestor, changes, differs={"submitter_person": act.person}, lacks={"barred": act.person})
    there = [Check(Key(str(row["pk"]), str(row["sk"])), When(exists=True, equals={n: row[n] for n in COUNTED})) for row in counted]
    writes = [*moving, Put(decision_key(version, act.person), _row(version, act)), *act.further]
    if act.terms:
        writes += begin_terms(version, act.terms, act.policy.notice_days, act.at)
    try:
        meta.transact([*writes, *(there if complete and not rejected else [])])
    except ConditionFailedError:
        return False
    return True


def terms_of(version: Version, act: Act, counted: Sequence[Item]) -> Terms:
    """Return what follows from the approvals that are there and this one.

    Raises:
        ConflictError: one of them, or the policy, has ended; the sentence names it.
    """
    given = [(str(r["person"]), datetime.fromisoformat(str(r["at"])), Conditions.from_item(r.get("conditions") or {})) for r in counted]
    given.append((act.person, act.at, act.conditions))
    for person, at, conditions in given:
        end = ends_at(act.policy, at, conditions)
        if end and end <= timestamp(act.at):
            raise ConflictError(
                f"{version.reference}: the approval of {person} counts until {end} alone, and nothing can be approved with it"
            )
    return strictest(act.policy, [(at, conditions) for _, at, conditions in given])


def _check_packet(version: Version, seen: str) -> None:
    if seen and version.packet and seen != version.packet["sha256"]:
        raise ConflictError(
            f"the decision names the packet {seen[:64]}, but the one of {version.reference} is {version.packet['sha256']}; "
            f"read it and decide again: attestry packet {version.reference}"
        )


def _packet_and_policy(store: ObjectStore, version: Version) -> tuple[Packet, ApprovalPolicy]:
    """Return the packet and the policy that the version stands under, which the packet must name."""
    if not version.packet:
        raise ConflictError(f"{version.reference} has no decision packet, so nothing can be decided on")
    packet, policy = load_packet(store, version), ApprovalPolicy.from_item(version.approval_policy)
    if packet.content["policy_sha256"] != policy.digest:
        raise IntegrityError(f"the approval policy of {version.reference} is not the one in its decision packet")
    return packet, policy


def _repeated(
    meta: MetaStore, version: Version, verdict: Verdict, by: Principal, signature: bytes, conditions: Conditions
) -> Decision | None:
    row = meta.get(decision_key(version, by.person)) if by.person else None
    if row is None:
        return None
    if row["decision"] != verdict.value:
        raise ConflictError(f"{by.person} has already decided '{row['decision']}' on {version.reference}; a decision is not changed")
    if signature and not row["signed_by_person"]:
        raise ConflictError(f"{by.person} has already approved {version.reference} without a signature; a decision is not changed")
    if conditions != NONE and row.get("conditions", {}) != fit_conditions(conditions, version.schema).to_item():
        raise ConflictError(f"{by.person} has already approved {version.reference} under other conditions; a decision is not changed")
    policy = ApprovalPolicy.from_item(version.approval_policy)
    complete = version.stage is not Stage.APPROVAL or version.status is not Status.RUNNING
    approving = approving_persons(counted_approvals(meta, version))
    return _outcome(version, policy, approving, complete=complete, signed=bool(row["signed_by_person"]))


def _outcome(version: Version, policy: ApprovalPolicy, approving: Approving, *, complete: bool, signed: bool) -> Decision:
    wanted = "" if complete else " and ".join(map(str, missing(policy.requirements, approving)))
    return Decision(version, complete, tuple(sorted(approving)), policy.needed, signed, wanted)


def counted_approvals(meta: MetaStore, version: Version) -> list[Item]:
    """Return the rows of those who have approved this version digest, on this packet, under this policy."""
    rows = meta.query(approval_key(version.model, version.number, "").partition, prefix="APPROVAL#")
    policy = ApprovalPolicy.from_item(version.approval_policy)
    wanted = (Verdict.APPROVE.value, version.version_digest, version.packet.get("sha256", ""), policy.digest)
    counted = [r for r in rows if tuple(r.get(k) for k in COUNTED) == wanted]
    return [r for r in counted if r.get("signed_by_person") or not policy.signed]


def _move(version: Version, act: Act, *, rejected: bool, complete: bool) -> Move:
    status, standing, kind = Status.RUNNING, version.standing, "approval.given"
    if rejected:
        status, standing, kind = Status.REJECTED, Standing.REJECTED, "version.rejected"
    elif complete:
        status, standing, kind = Status.SUCCEEDED, Standing.APPROVED, APPROVED
    content = {
        **act.facts,
        "stage": Stage.APPROVAL.value,
        "version_digest": version.version_digest,
        "policy": act.policy.to_item(),
        "packet_sha256": act.packet.sha256,
    }
    predicate = Predicate(APPROVAL, content)
    return Move(Stage.APPROVAL, status, standing, kind, act.by, act.reason, act.at, act.packet.sha256, act.facts, predicate)


def _row(version: Version, act: Act) -> dict[str, Any]:
    return {
        **act.facts,
        **({"signature": act.signature.to_item()} if act.signature else {}),
        "reason": act.reason,
        "principal": act.by.to_item(),
        "at": timestamp(act.at),
        "stage": Stage.APPROVAL.value,
        "version_digest": version.version_digest,
        "policy_digest": act.policy.digest,
        "policy": act.policy.to_item(),
        "transition": version.transition + 1,
        "evidence": act.packet.sha256,
    }
