"""Promotions that people approve: which is open or approved for an environment, and whether it still counts.

Rules:
- An environment has an approval of its own where the version's policy names it (`ApprovalPolicy.promotion`); any other needs none.
- A promotion is asked for by a person, for one version digest and one environment, while the version stands deployed in the one before, or
  belongs there and has none that counts. People decide on it under the environment's policy, judged by the rules of every approval.
- Neither who stands behind the version nor who asked for the promotion decides on it.
- It counts for the approval of the version under which it was asked for, and for the deployment in the environment before that it was asked
  for: what was replaced, rolled back or approved anew since is asked for anew. Once the version has come to the environment it counts
  there, for a rollback too, until it ends by its date.
- One rejection ends it, and so does who withdraws it before the version is put in place. The version stays where it stands, and its
  promotion can be asked for again; what was decided before serves nowhere else, because every decision names packet and opening.
- What stands is what the version's moves make of it: `promotions_after` is the one rule for rows, ledger and verifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy, check_may_judge, check_role
from attestry.domain.errors import ApprovalLapsedError, ConflictError, SelfApprovalError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.stages import LAPSED as APPROVAL_LAPSED
from attestry.domain.stages import PROMOTION_LAPSED, PROMOTION_OPENED, Stage, Standing
from attestry.domain.version import Version

OPENED: Final = PROMOTION_OPENED
GIVEN: Final = "promotion.given"
APPROVED: Final = "promotion.approved"
REJECTED: Final = "promotion.rejected"
WITHDRAWN: Final = "promotion.withdrawn"
LAPSED: Final = PROMOTION_LAPSED

DECIDED: Final = (GIVEN, APPROVED, REJECTED)
"""Kinds of moves that a decision is written with."""


_ARRIVALS: Final = ("version.deployed", "version.rolled_back")
_PLACINGS: Final = (*_ARRIVALS, "version.canaried", "version.shadowed")


class State(StrEnum):
    """How far a promotion is."""

    OPEN = "OPEN"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"
    LAPSED = "LAPSED"


_ENDS: Final[Mapping[str, State]] = {
    APPROVED: State.APPROVED,
    REJECTED: State.REJECTED,
    WITHDRAWN: State.WITHDRAWN,
    LAPSED: State.LAPSED,
}
KINDS: Final = (OPENED, GIVEN, *_ENDS)
"""The kinds of moves that are about a promotion."""


@dataclass(frozen=True)
class Place:
    """Where a version is, as far as promotions turn on it; by its head, or by its moves.

    Attributes:
        reference: `MODEL@N`.
        environment: where it belongs: where it was placed last, or is to be placed first.
        standing: what it stands as.
        since: when it was put in place the last time, RFC 3339; empty before.
        approved: whether its own approval stands.
        approval: number of the transition that opened that the last time; 0 before.
    """

    reference: str
    environment: str
    standing: str = Standing.CANDIDATE.value
    since: str = ""
    approved: bool = False
    approval: int = 0

    @classmethod
    def of(cls, version: Version) -> Place:
        """Return where a version is by its head."""
        here = (version.deployment_environment, version.standing.value, version.deployed_at)
        return cls(version.reference, *here, version.approved, version.opening)

    def after(self, move: Mapping[str, Any]) -> Place:
        """Return where the version is after a move: `kind`, `number`, `at`, `to` and `data`."""
        kind = str(move["kind"])
        place = replace(self, standing=str(move["to"]["standing"]))
        if kind in _PLACINGS:
            place = replace(place, environment=str(move["data"]["environment"]))
        if kind in _ARRIVALS:
            place = replace(place, since=str(move["at"]))
        if kind == "stage.started" and move["to"]["stage"] == Stage.APPROVAL:
            place = replace(place, approval=int(move["number"]))
        if kind in ("version.approved", "version.rejected", APPROVAL_LAPSED):
            place = replace(place, approved=kind == "version.approved")
        return place


@dataclass(frozen=True)
class Promotion:
    """The latest promotion of a version to an environment.

    Attributes:
        environment: where to.
        state: how far it is.
        origin: where the version stood when it was asked for; the environment itself where it belonged there already.
        opened: number of the transition that opened it.
        asked_by: the person who asked for it.
        since: when the version had been put in place there, RFC 3339; empty where it was not.
        approval: number of the transition that had opened the version's own approval.
        packet: SHA-256 of the packet that is decided on.
        policy_sha256: digest of the policy that it stands under.
        until: the moment at which its approval ends, RFC 3339; empty for none.
    """

    environment: str
    state: State
    origin: str
    opened: int
    asked_by: str
    since: str
    approval: int
    packet: str
    policy_sha256: str
    until: str = ""

    def to_item(self) -> dict[str, Any]:
        """Return the promotion as the version's head holds it under the environment's name."""
        told = {"state": self.state.value, "origin": self.origin, "opened": self.opened, "asked_by": self.asked_by, "since": self.since}
        return {**told, "approval": self.approval, "packet": self.packet, "policy_sha256": self.policy_sha256, "until": self.until}

    @classmethod
    def from_item(cls, environment: str, item: Mapping[str, Any]) -> Promotion:
        """Return the promotion that `to_item` wrote."""
        told: dict[str, Any] = {name: int(item[name]) for name in ("opened", "approval")}
        told |= {name: str(item[name]) for name in ("origin", "asked_by", "since", "packet", "policy_sha256", "until")}
        return cls(environment, State(item["state"]), **told)

    def why_not(self, version: Version | Place) -> str:
        """Return why it does not count for a version where that is by now, whatever its state; empty where it does."""
        place = version if isinstance(version, Place) else Place.of(version)
        if not place.approved or self.approval != place.approval:
            return f"{place.reference} was approved anew, or lost its approval, since its promotion was asked for"
        stands = place.standing == Standing.DEPLOYED and place.environment == self.origin and place.since == self.since
        if place.environment != self.environment and not stands:
            return f"{place.reference} does not stand deployed in {self.origin} any more as it did when its promotion was asked for"
        return ""


def promotion_of(version: Version, environment: str) -> Promotion | None:
    """Return the latest promotion of a version to an environment, whether it counts or not; None where none was asked for."""
    item = version.promotions.get(environment)
    return None if item is None else Promotion.from_item(environment, item)


def policy_for(version: Version, environment: str) -> ApprovalPolicy | None:
    """Return the policy of promotions of a version to an environment; None where it has no approval of its own."""
    return ApprovalPolicy.from_item(version.approval_policy).for_promotion(environment)


def require_promoted(version: Version, environment: str, at: datetime) -> Promotion | None:
    """Refuse a version in an environment that has an approval of its own, and has not given it.

    Args:
        version: the version.
        environment: where it is to stand, or stands.
        at: the time.

    Returns:
        The promotion that counts; None where the environment asks for none.

    Raises:
        ConflictError: none is approved for this environment, or it counts no more; the sentence says what to do.
        ApprovalLapsedError: its approval has ended.
    """
    policy = policy_for(version, environment)
    if policy is None:
        return None
    found = promotion_of(version, environment)
    ask = f"attestry promote {version.reference} --to {environment} --reason TEXT"
    if found is None:
        raise ConflictError(f"{environment} takes {version.reference} with an approval of its own alone, which nobody has asked for: {ask}")
    if found.state is State.OPEN and not found.why_not(version):
        raise ConflictError(f"the promotion of {version.reference} to {environment} waits for its approval, asked for by {found.asked_by}")
    if found.state is not State.APPROVED:
        raise ConflictError(f"the promotion of {version.reference} to {environment} is {found.state}; ask for it again: {ask}")
    why = found.why_not(version) or ("" if found.policy_sha256 == policy.digest else "it was given under another policy")
    if why:
        raise ConflictError(f"the approval of the promotion to {environment} counts no more: {why}; ask for it again: {ask}")
    if found.until and found.until <= timestamp(at):
        raise ApprovalLapsedError(f"the approval of {version.reference} for {environment} ended at {found.until}; ask for it again: {ask}")
    return found


def require_open(version: Version, environment: str) -> tuple[Promotion, ApprovalPolicy]:
    """Return the promotion to an environment that waits for decisions, and its policy.

    Raises:
        ConflictError: none waits, or what was asked for counts no more.
    """
    found, policy = promotion_of(version, environment), policy_for(version, environment)
    if found is None or policy is None or found.state is not State.OPEN:
        state = f": it is {found.state}" if found is not None else ""
        raise ConflictError(f"no promotion of {version.reference} to {environment} waits for a decision{state}")
    why = found.why_not(version)
    if why:
        raise ConflictError(f"nobody decides on the promotion to {environment}: {why}")
    return found, policy


def check_may_decide_promotion(version: Version, promotion: Promotion, policy: ApprovalPolicy, approver: Principal) -> str:
    """Return the deciding person's ID if the rules let them decide on a promotion.

    Raises:
        UnprovenIdentityError: the approver's login, or the submitter's, maps to no person.
        SelfApprovalError: the approver stands behind the version, or asked for the promotion.
        ForbiddenError: the approver acts in none of the roles that the policy names.
    """
    person = check_may_judge(version, approver)
    if person == promotion.asked_by:
        about = f"the promotion of {version.reference} to {promotion.environment}"
        raise SelfApprovalError(f"{person} asked for {about} and cannot decide on it; another person has to")
    check_role(policy, f"the promotion of {version.reference}", approver)
    return person


def promotions_after(moves: Iterable[Mapping[str, Any]], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what moves of a version make of its promotions: environment to `Promotion.to_item`.

    Args:
        moves: each with `kind`, `number` and `data`, in their order; those of other kinds are passed over.
        before: what stood before them; None at the version's beginning.
    """
    promotions = dict(before or {})
    for move in moves:
        kind, data = str(move["kind"]), move["data"]
        if kind not in KINDS:
            continue
        environment = str(data["environment"])
        if kind == OPENED:
            promotions[environment] = Promotion(
                environment,
                State.OPEN,
                str(data["origin"]),
                int(move["number"]),
                str(data["asked_by"]),
                str(data["since"]),
                int(data["approval"]),
                str(data["packet_sha256"]),
                str(data["policy_sha256"]),
            ).to_item()
        elif kind in _ENDS and environment in promotions:
            until = str((data.get("terms") or {}).get("until", "")) if kind == APPROVED else promotions[environment]["until"]
            promotions[environment] = {**promotions[environment], "state": _ENDS[kind].value, "until": until}
    return promotions
