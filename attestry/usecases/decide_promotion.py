"""Decide on a promotion: a person approves or rejects that a version comes to an environment which has an approval of its own.

The rules are those of every decision (`attestry.usecases.decide`): by people in the roles that the environment's policy names, in its
order, with a signature of their own where it asks for one, and none by who has a conflict of interest. Neither who stands behind the
version nor who asked for the promotion decides; the table refuses their rows too.

The decision is one transaction with the move of the version, which stays where it stands: a deployer puts it in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy, Verdict, check_in_turn, check_signed, is_met
from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError, IntegrityError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.promotion import (
    APPROVED,
    GIVEN,
    REJECTED,
    Promotion,
    State,
    check_may_decide_promotion,
    promotion_of,
    promotions_after,
    require_open,
)
from attestry.domain.requirements import Approving, missing
from attestry.domain.version import Version
from attestry.evidence.predicates import APPROVAL, Predicate
from attestry.ports import Check, Item, Key, MetaStore, ObjectStore, Put, When
from attestry.usecases.approver_signature import check_is_approval, take_signature
from attestry.usecases.attest import Attestor
from attestry.usecases.conditions import promotion_lapses
from attestry.usecases.decide import COUNTED, TRIES, Act, Decision, check_interest, require_no_conflicts, terms_of
from attestry.usecases.packet import load_promotion_packet
from attestry.usecases.promotion_rows import counted_on, decisions_on, promotion_key
from attestry.usecases.records import Move, approving_persons, load_version, move_writes

STAGE: Final = "PROMOTION"
"""What a decision on a promotion says in the place of the stage that it is about."""


def decide_promotion(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    model: str,
    number: int,
    verdict: Verdict,
    *,
    environment: str,
    reason: str,
    by: Principal,
    at: datetime,
    packet_sha256: str = "",
    signature: bytes = b"",
    console: Mapping[str, Any] | None = None,
) -> Decision:
    """Record a person's decision on a promotion, and end it when the policy is met or a person rejects.

    The same decision by the same person again is answered like the first.

    Args:
        meta: the table.
        attestor: signs with the deciding function's key.
        store: the model store.
        model: the model's name.
        number: the version's number.
        verdict: approve or reject.
        environment: where to.
        reason: why, checked.
        by: the authenticated principal, with its person.
        at: the time.
        packet_sha256: digest of the promotion's packet that the person saw; empty where nobody says.
        signature: the person's own signature over that digest; empty where there is none.
        console: how the decision was made in the AWS console; None elsewhere.

    Raises:
        NotFoundError: no such version.
        ConflictError: no promotion there waits for a decision, it has another packet, the version has left the place that it was asked for
            in, the person has decided otherwise, or an approval that would count has ended meanwhile.
        ApprovalOrderError: others have to approve first.
        HeldError: the version is held; the promotion can be rejected, but not approved.
        SelfApprovalError, UnprovenIdentityError, ForbiddenError: see `check_may_decide_promotion`.
        ConflictOfInterestError: the person has declared one, wrote the code, or approved the version before, where the policy minds.
        UnsignedApprovalError: the policy asks for the person's own signature.
        InvalidInputError, IntegrityError: see `attestry.evidence.ssh_signature.verify_approval`.
    """
    if signature:
        check_is_approval(verdict)
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        repeated = _repeated(meta, version, environment, verdict, by, packet_sha256, signed=bool(signature))
        if repeated:
            return repeated
        promotion, policy = require_open(version, environment)
        _check_packet(version, promotion, packet_sha256)
        person = check_may_decide_promotion(version, promotion, policy, by)
        if verdict is Verdict.APPROVE:
            version.require_not_held("is not promoted")
            check_signed(policy, version, person, reason=reason, signed=bool(signature), promotion=environment)
        packet = load_promotion_packet(store, version, promotion)
        if not packet.content["policy_sha256"] == promotion.policy_sha256 == policy.digest:
            raise IntegrityError(f"the policy of {version.reference} for {environment} is not the one in the promotion's packet")
        further = check_interest(meta, version, packet, policy, by, person)
        place = f"{person}#{promotion.opened:06d}"
        own, checks = take_signature(meta, store, version, person, packet.sha256, signature, place=place) if signature else (None, ())
        act = Act(verdict, person, by, reason, at, packet, policy, own, (*further, *checks), console)
        counted = counted_on(decisions_on(meta, version, promotion)[1], version, promotion, policy)
        approving = approving_persons(counted)
        if verdict is Verdict.APPROVE:
            try:
                check_in_turn(policy, f"the promotion of {version.reference}", approving, person, by.roles)
            except (ConflictError, ForbiddenError):
                if load_version(meta, model, number).rev != version.rev:
                    continue  # somebody decided between the two readings
                raise
            approving = {**approving, person: by.roles}
        complete = verdict is Verdict.REJECT or is_met(policy, approving)
        if verdict is Verdict.APPROVE:
            terms = terms_of(version, act, counted)
            if complete:
                act = replace(act, terms=terms, further=(*act.further, *require_no_conflicts(meta, version, set(approving) - {person})))
        if _commit(meta, attestor, version, promotion, act, counted, complete=complete):
            return _outcome(load_version(meta, model, number), policy, approving, complete=complete, signed=own is not None)
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def _commit(
    meta: MetaStore, attestor: Attestor, version: Version, promotion: Promotion, act: Act, counted: Sequence[Item], *, complete: bool
) -> bool:
    """Write the decision with the move that it is; False where the version has moved meanwhile."""
    rejected = act.verdict is Verdict.REJECT
    kind = REJECTED if rejected else APPROVED if complete else GIVEN
    facts = {**act.facts, "environment": promotion.environment}
    content = {
        **facts,
        "stage": STAGE,
        "version_digest": version.version_digest,
        "policy": act.policy.to_item(),
        "packet_sha256": promotion.packet,
    }
    predicate = Predicate(APPROVAL, content)
    move = Move(version.stage, version.status, version.standing, kind, act.by, act.reason, act.at, promotion.packet, facts, predicate)
    after = promotions_after([{"kind": kind, "number": version.transition + 1, "data": facts}], version.promotions)
    # Four eyes and quorum stand in the transaction too: who asked for the promotion is refused by its row, as who submitted by the head.
    moving = move_writes(
        version, move, attestor, {"promotions": after}, differs={"submitter_person": act.person}, lacks={"barred": act.person}
    )
    named = {"version_digest": version.version_digest, "evidence": promotion.packet, "policy_digest": act.policy.digest}
    opening = promotion_key(version.model, version.number, promotion.environment, promotion.opened)
    asked = Check(opening, When(exists=True, equals=named, differs={"asked_by": act.person}))
    there = [Check(Key(str(row["pk"]), str(row["sk"])), When(exists=True, equals={n: row[n] for n in COUNTED})) for row in counted]
    own = promotion_key(version.model, version.number, promotion.environment, promotion.opened, act.person)
    writes = [*moving, asked, Put(own, _row(version, act, facts)), *act.further]
    if act.terms:
        writes += promotion_lapses(version, promotion.environment, promotion.opened, act.terms.until, act.policy.notice_days, act.at)
    try:
        meta.transact([*writes, *(there if complete and not rejected else [])])
    except ConditionFailedError:
        return False
    return True


def _row(version: Version, act: Act, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **facts,
        **({"signature": act.signature.to_item()} if act.signature else {}),
        "reason": act.reason,
        "principal": act.by.to_item(),
        "at": timestamp(act.at),
        "stage": STAGE,
        "version_digest": version.version_digest,
        "policy_digest": act.policy.digest,
        "policy": act.policy.to_item(),
        "transition": version.transition + 1,
        "evidence": act.packet.sha256,
    }


def _check_packet(version: Version, promotion: Promotion, seen: str) -> None:
    if seen and seen != promotion.packet:
        raise ConflictError(
            f"the decision names the packet {seen[:64]}, but the one of the promotion of {version.reference} is {promotion.packet}; "
            f"read it and decide again: attestry packet {version.reference} --promotion {promotion.environment}"
        )


def _repeated(
    meta: MetaStore, version: Version, environment: str, verdict: Verdict, by: Principal, seen: str, *, signed: bool
) -> Decision | None:
    """Return what the same decision by the same person on this promotion came to; None where there is none.

    Raises:
        ConflictError: the person has decided otherwise.
    """
    promotion = promotion_of(version, environment)
    if promotion is None or not by.person or promotion.state not in (State.OPEN, State.APPROVED, State.REJECTED):
        return None
    opening, rows = decisions_on(meta, version, promotion)
    row = next((r for r in rows if r.get("person") == by.person), None)
    if row is None or opening is None or (seen and seen != promotion.packet):
        return None
    if row["decision"] != verdict.value:
        raise ConflictError(f"{by.person} has already decided '{row['decision']}' on this promotion; a decision is not changed")
    if signed and not row["signed_by_person"]:
        raise ConflictError(f"{by.person} has already approved this promotion without a signature; a decision is not changed")
    policy = ApprovalPolicy.from_item(row["policy"])
    approving = approving_persons(counted_on(rows, version, promotion, policy))
    complete = promotion.state is not State.OPEN
    return _outcome(version, policy, approving, complete=complete, signed=bool(row.get("signed_by_person")))


def _outcome(version: Version, policy: ApprovalPolicy, approving: Approving, *, complete: bool, signed: bool) -> Decision:
    wanted = "" if complete else " and ".join(map(str, missing(policy.requirements, approving)))
    return Decision(version, complete, tuple(sorted(approving)), policy.needed, signed, wanted)
