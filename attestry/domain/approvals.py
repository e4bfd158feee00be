"""Approvals: what a policy asks for, and whether it is met.

Rules:
- An approval names the version digest, the stage, the policy's digest and the number of the transition that opened the stage, so it cannot
  serve for another version, another stage, another policy, or twice.
- A person decides once for a version; the person who submitted the candidate never does.
- One rejection ends the version. Approval needs as many persons as the policy says, each in one of its roles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import rfc8785

from attestry.domain.errors import ConflictError, ForbiddenError, InvalidInputError, SelfApprovalError, UnprovenIdentityError
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Status
from attestry.domain.version import Version

MAX_REASON = 500


class Verdict(StrEnum):
    """What an approver says."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True)
class ApprovalPolicy:
    """What has to be there before a version is approved.

    Attributes:
        automatic: the gates alone decide; no person is asked.
        roles: roles of which a deciding person must act in one.
        count: how many persons.
    """

    automatic: bool
    roles: tuple[str, ...] = ()
    count: int = 0

    @property
    def digest(self) -> str:
        """Return SHA-256 of the policy's canonical form."""
        return hashlib.sha256(rfc8785.dumps(self.to_item())).hexdigest()

    def to_item(self) -> dict[str, Any]:
        """Return the policy as it is stored."""
        return {"automatic": self.automatic, "roles": list(self.roles), "count": self.count}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> ApprovalPolicy:
        """Return the policy that `to_item` wrote."""
        return cls(bool(item["automatic"]), tuple(item["roles"]), int(item["count"]))


def read_reason(reason: object) -> str:
    """Return a checked reason: who reads the record years later needs one.

    Raises:
        InvalidInputError: no text of 1 to 500 characters.
    """
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_REASON:
        raise InvalidInputError.of("reason", "reason", f"a reason of 1 to {MAX_REASON} characters is needed")
    return reason.strip()


def read_verdict(verdict: object) -> Verdict:
    """Return the verdict.

    Raises:
        InvalidInputError: neither approve nor reject.
    """
    if verdict not in (Verdict.APPROVE.value, Verdict.REJECT.value):
        raise InvalidInputError.of("decision", "enum", "the decision is 'approve' or 'reject'")
    return Verdict(verdict)


def check_may_decide(version: Version, approver: Principal) -> str:
    """Return the deciding person's ID if the rules let them decide on this version now.

    Raises:
        ConflictError: the version does not wait for a decision.
        UnprovenIdentityError: the approver's login, or the submitter's, maps to no person.
        SelfApprovalError: the approver submitted the candidate.
        ForbiddenError: the approver acts in none of the roles that the policy names.
    """
    if version.stage is not Stage.APPROVAL or version.status is not Status.RUNNING:
        raise ConflictError(f"{version.reference} does not wait for a decision: it is in {version.stage} {version.status}")
    person = approver.require_person("decide")
    if version.submitter_person is None:
        raise UnprovenIdentityError(
            f"nobody can decide on {version.reference}: its submitter {version.submitter.subject} is unproven until a person claims it"
        )
    if person == version.submitter_person:
        raise SelfApprovalError(f"{person} submitted {version.reference} and cannot decide on it; another person has to")
    policy = ApprovalPolicy.from_item(version.approval_policy)
    if not set(approver.roles) & set(policy.roles):
        raise ForbiddenError(
            f"{version.reference} needs a decision in the role {' or '.join(policy.roles)}; {approver.subject} acts in none of them"
        )
    return person


def is_met(policy: ApprovalPolicy, approving: Iterable[str]) -> bool:
    """Return whether the approving persons are as many as the policy asks for."""
    return policy.automatic or len(set(approving)) >= max(1, policy.count)
