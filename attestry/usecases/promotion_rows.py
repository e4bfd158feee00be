"""The rows of a promotion: who asked for it, who decided, and whether they bear out that a version stands approved for an environment.

A promotion has a row of its own, `PROMOTION#ENVIRONMENT#OPENED`, which never changes, and one for each decision below it. What is put in
place in the environment, and each key that is delegated to there, is one transaction with the condition that these rows are there as read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy, Verdict, is_met
from attestry.domain.conditions import Conditions, strictest
from attestry.domain.errors import ConflictError, IntegrityError
from attestry.domain.promotion import Promotion, policy_for, require_promoted
from attestry.domain.version import Version
from attestry.ports import Check, Item, Key, MetaStore, When
from attestry.usecases.records import approving_persons, version_key

PREFIX = "PROMOTION#"
_OF_OPENING = ("version_digest", "evidence", "policy_digest", "asked_by")
_COUNTED = ("decision", "version_digest", "evidence", "policy_digest")


def promotion_key(model: str, number: int, environment: str, opened: int, person: str = "") -> Key:
    """Return the key of a promotion by the transition that opened it, or of a person's decision on it."""
    sort = f"{PREFIX}{environment}#{opened:06d}"
    return Key(version_key(model, number).partition, f"{sort}#{person}" if person else sort)


@dataclass(frozen=True)
class Grounds:
    """On what a version stands in an environment that has an approval of its own.

    Attributes:
        promotion: the promotion.
        opening: the row that was written when it was asked for.
        approvals: the rows of the approvals that count.
    """

    promotion: Promotion
    opening: Item
    approvals: tuple[Item, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the event of a placing says of it."""
        return {"promotion": {"opened": self.promotion.opened, "approved_by": sorted(str(r["person"]) for r in self.approvals)}}

    @property
    def content(self) -> dict[str, Any]:
        """Return what the attestation of a placing says of it."""
        names = ("person", "version_digest", "policy_digest", "transition", "evidence")
        given = [{name: row[name] for name in names} for row in sorted(self.approvals, key=lambda r: str(r["person"]))]
        return {"promotion": {"opened": self.promotion.opened, "packet_sha256": self.promotion.packet, "approvals": given}}

    @property
    def conditions(self) -> list[Check]:
        """Return the conditions that these rows are there as they were read."""
        same = ((self.opening, _OF_OPENING), *((row, _COUNTED) for row in self.approvals))
        return [Check(Key(str(r["pk"]), str(r["sk"])), When(exists=True, equals={n: r[n] for n in names})) for r, names in same]


def decisions_on(meta: MetaStore, version: Version, promotion: Promotion) -> tuple[Item | None, list[Item]]:
    """Return the row of a promotion, None where it is gone, and the rows of all decisions on it."""
    own = promotion_key(version.model, version.number, promotion.environment, promotion.opened)
    rows = meta.query(own.partition, prefix=own.sort)
    return next((r for r in rows if r["sk"] == own.sort), None), [r for r in rows if str(r["sk"]).startswith(f"{own.sort}#")]


def counted_on(rows: list[Item], version: Version, promotion: Promotion, policy: ApprovalPolicy) -> list[Item]:
    """Return the approvals among decisions on a promotion that count: of this version digest, on this packet, under this policy."""
    wanted = (Verdict.APPROVE.value, version.version_digest, promotion.packet, policy.digest)
    behind = (version.submitter_person, promotion.asked_by, *version.barred)
    counted = [r for r in rows if tuple(r.get(k) for k in _COUNTED) == wanted and r["person"] not in behind]
    return [r for r in counted if r.get("signed_by_person") or not policy.signed]


def grounds_of(meta: MetaStore, version: Version, environment: str, at: datetime) -> Grounds | None:
    """Return on what a version may stand in an environment; None where that has no approval of its own, without a call.

    Raises:
        ConflictError, ApprovalLapsedError: see `attestry.domain.promotion.require_promoted`; or the decisions do not bear it out.
        IntegrityError: the version's head names another end of the approval than follows from the decisions.
    """
    promotion, policy = require_promoted(version, environment, at), policy_for(version, environment)
    if promotion is None or policy is None:
        return None
    opening, rows = decisions_on(meta, version, promotion)
    counted = counted_on(rows, version, promotion, policy)
    rejected = any(row.get("decision") == Verdict.REJECT.value for row in rows)
    if opening is None or rejected or not _is_of(opening, version, promotion) or not is_met(policy, approving_persons(counted)):
        raise ConflictError(f"the approvals that {environment} asks for are not there: {version.reference} is not placed in it")
    given = [(datetime.fromisoformat(str(r["at"])), Conditions()) for r in counted]
    if strictest(policy, given).until != promotion.until:
        raise IntegrityError(f"the head of {version.reference} names another end of its approval for {environment} than its decisions give")
    return Grounds(promotion, opening, tuple(counted))


def _is_of(opening: Mapping[str, Any], version: Version, promotion: Promotion) -> bool:
    told = (version.version_digest, promotion.packet, promotion.policy_sha256, promotion.asked_by)
    return tuple(opening.get(name) for name in _OF_OPENING) == told
