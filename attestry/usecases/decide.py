"""Decide: a person approves or rejects a version that waits for it.

The decision is a row first, in one transaction with the move of the version; only then does the gate send the waiting pipeline on, and
the pipeline reads the decision from the table again. A lost answer, a second call and a crash in between are therefore harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy, Verdict, check_may_decide, is_met
from attestry.domain.errors import ConditionFailedError, ConflictError, UnprovenIdentityError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import MetaStore, Put
from attestry.usecases.records import Move, approval_key, load_version, move_writes

TRIES = 8


@dataclass(frozen=True)
class Decision:
    """What a decision led to.

    Attributes:
        version: the version after the decision.
        complete: whether the stage has ended; False while further approvals are needed.
        approvals: persons who have approved.
        needed: how many approvals the policy asks for.
    """

    version: Version
    complete: bool
    approvals: tuple[str, ...]
    needed: int


def decide_approval(
    meta: MetaStore, model: str, number: int, verdict: Verdict, *, reason: str, by: Principal, at: datetime, evidence: str = ""
) -> Decision:
    """Record a person's decision, and end the stage when the policy is met or a person rejects.

    The same decision by the same person again is answered like the first.

    Args:
        meta: the table.
        model: the model's name.
        number: the version's number.
        verdict: approve or reject.
        reason: why, checked.
        by: the authenticated principal, with its person.
        at: the time.
        evidence: digest of what the approver was shown, or empty.

    Raises:
        ConflictError: the version does not wait for a decision, or the person has decided otherwise.
        SelfApprovalError, UnprovenIdentityError, ForbiddenError: see `check_may_decide`.
        NotFoundError: no such version.
    """
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        repeated = _repeated(meta, version, verdict, by)
        if repeated:
            return repeated
        person = check_may_decide(version, by)
        policy = ApprovalPolicy.from_item(version.approval_policy)
        approving = _approving(meta, version)
        if verdict is Verdict.APPROVE:
            approving = tuple(sorted({*approving, person}))
        rejected = verdict is Verdict.REJECT
        complete = rejected or is_met(policy, approving)
        move = _move(version, rejected=rejected, complete=complete, principal=by, reason=reason, at=at, evidence=evidence)
        changes = {"approved": complete and not rejected, "error": f"rejected by {person}: {reason}" if rejected else ""}
        row = _row(version, policy, person, verdict, by, reason, at, evidence)
        writes = [*move_writes(version, move, changes, differs={"submitter_person": person}), Put(approval_key(model, number, person), row)]
        try:
            meta.transact(writes)
        except ConditionFailedError:
            continue
        return Decision(load_version(meta, model, number), complete, approving, max(1, policy.count))
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def approve_by_policy(meta: MetaStore, version: Version, *, at: datetime) -> Version:
    """Approve a version whose policy asks for no person; the gates have passed, since VALIDATION has succeeded.

    Raises:
        ConflictError: the version moved meanwhile.
    """
    policy = ApprovalPolicy.from_item(version.approval_policy)
    if not policy.automatic:
        raise ConflictError(f"{version.reference} needs people to approve it")
    if version.submitter_person is None:
        raise UnprovenIdentityError(f"{version.reference} is not approved before a person has claimed it: its submitter is unproven")
    by = registry_principal("approval-policy")
    reason = "the manifest's policy approves what passes all gates"
    move = _move(version, rejected=False, complete=True, principal=by, reason=reason, at=at, evidence="")
    row = _row(version, policy, by.login, Verdict.APPROVE, by, reason, at, "")
    try:
        meta.transact([*move_writes(version, move, {"approved": True}), Put(approval_key(version.model, version.number, by.login), row)])
    except ConditionFailedError:
        head = load_version(meta, version.model, version.number)
        if not head.approved:
            raise ConflictError(f"{version.reference} moved while its policy was applied") from None
        return head
    return load_version(meta, version.model, version.number)


def _repeated(meta: MetaStore, version: Version, verdict: Verdict, by: Principal) -> Decision | None:
    row = meta.get(approval_key(version.model, version.number, by.person)) if by.person else None
    if row is None:
        return None
    if row["decision"] != verdict.value:
        raise ConflictError(f"{by.person} has already decided '{row['decision']}' on {version.reference}; a decision is not changed")
    policy = ApprovalPolicy.from_item(version.approval_policy)
    complete = version.stage is not Stage.APPROVAL or version.status is not Status.RUNNING
    return Decision(version, complete, _approving(meta, version), max(1, policy.count))


def _approving(meta: MetaStore, version: Version) -> tuple[str, ...]:
    rows = meta.query(approval_key(version.model, version.number, "").partition, prefix="APPROVAL#")
    return tuple(sorted(r["person"] for r in rows if r["decision"] == Verdict.APPROVE.value))


def _move(version: Version, *, rejected: bool, complete: bool, principal: Principal, reason: str, at: datetime, evidence: str) -> Move:
    if rejected:
        return Move(Stage.APPROVAL, Status.REJECTED, Standing.REJECTED, "version.rejected", principal, reason, at, evidence)
    if complete:
        return Move(Stage.APPROVAL, Status.SUCCEEDED, Standing.APPROVED, "version.approved", principal, reason, at, evidence)
    return Move(Stage.APPROVAL, Status.RUNNING, version.standing, "approval.given", principal, reason, at, evidence)


def _row(
    version: Version, policy: ApprovalPolicy, person: str, verdict: Verdict, by: Principal, reason: str, at: datetime, evidence: str
) -> dict[str, Any]:
    return {
        "person": person,
        "decision": verdict.value,
        "reason": reason,
        "principal": by.to_item(),
        "at": timestamp(at),
        "stage": Stage.APPROVAL.value,
        "version_digest": version.version_digest,
        "policy_digest": policy.digest,
        "policy": policy.to_item(),
        "transition": version.transition + 1,
        "evidence": evidence,
    }
