"""Approvals: what a policy asks for, and whether it is met.

Rules:
- An approval names the version digest, the stage, the policy's digest, the packet that it rests on and the number of the transition that
  opened the stage, so it cannot serve for another version, another stage, another policy, or twice.
- A person decides once each time that the approval of a version is opened; the person who submitted the candidate never does.
- One rejection ends the version. Approval needs the persons that the policy asks for by role, each in one place
  (`attestry.domain.requirements`), in its order where it has one.
- Who wrote the code does not decide where the policy asks for independence; who has a conflict of interest never does
  (`attestry.domain.conflicts`).
- Where the policy says so, an approval counts only with the approver's own signature over the packet; a rejection needs none.
- An approval counts as long as the policy says, and under the conditions that it was given (`attestry.domain.conditions`).
- Where the manifest's gates demand validation records, an approval is completed only while they stand (`attestry.domain.validations`).
- An environment may have an approval of its own: its policy is part of the version's, so that its digest covers both
  (`attestry.domain.promotion`).
- A policy that uses none of what came later is stored as it always was, and keeps its digest.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from attestry.domain.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    SelfApprovalError,
    UnprovenIdentityError,
    UnsignedApprovalError,
)
from attestry.domain.principal import Principal
from attestry.domain.requirements import Approving, Requirement, are_met, check_fills, total
from attestry.domain.stages import Stage, Status
from attestry.domain.version import Version

if TYPE_CHECKING:
    from attestry.domain.manifest_sections import Approval, EnvironmentApproval, RecordGate

MAX_REASON = 500
MAX_REASON_BYTES = 1500
"""In UTF-8: the event that carries the reason has at most 4 KiB."""

NOTICE_DAYS = 14
"""How many days before an approval lapses people are told, where the policy does not say."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that show text in another order than it has."""


class Verdict(StrEnum):
    """What an approver says."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True)
class ApprovalPolicy:
    """What has to be there before a version is approved, and how long that holds.

    Attributes:
        automatic: the gates alone decide; no person is asked.
        roles: roles of which a deciding person must act in one.
        count: how many persons, in all.
        signed: each approval needs the person's own signature over the packet.
        require: how many persons of which role; empty where `count` persons of any of `roles` do.
        in_order: the requirements are filled one after the other.
        independent: who wrote the code decides nothing.
        fresh_eyes: who approved the model's version before this one, or this one before, does not decide.
        valid_days: for how many days an approval counts; 0 for no end.
        until: first day (UTC, `YYYY-MM-DD`) on which no approval counts any more; empty for no end.
        on_lapse: what becomes of the version's place when its approval lapses: `vacate`, or `rollback` to what is kept for that.
        notice_days: how many days before that people are told.
        records: validation records that must stand when the approval is completed.
        promotion: environment to the policy of a promotion there, by name; what is not named needs none.
    """

    automatic: bool
    roles: tuple[str, ...] = ()
    count: int = 0
    signed: bool = False
    require: tuple[Requirement, ...] = ()
    in_order: bool = False
    independent: bool = False
    fresh_eyes: bool = False
    valid_days: int = 0
    until: str = ""
    on_lapse: str = "vacate"
    notice_days: int = NOTICE_DAYS
    records: tuple[RecordGate, ...] = ()
    promotion: tuple[tuple[str, ApprovalPolicy], ...] = ()

    @property
    def digest(self) -> str:
        """Return SHA-256 of the policy's canonical form."""
        return hashlib.sha256(rfc8785.dumps(self.to_item())).hexdigest()

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """Return what is asked for by role; empty where no person is asked."""
        if self.automatic:
            return ()
        return self.require or (Requirement(self.roles, max(1, self.count)),)

    @property
    def needed(self) -> int:
        """Return how many persons have to approve; 1 where the policy does it itself."""
        return max(1, total(self.requirements))

    def to_item(self) -> dict[str, Any]:
        """Return the policy as it is stored; what has its default and came later is left out, so that digests stay."""
        item = {"automatic": self.automatic, "roles": list(self.roles), "count": self.count, "signed": self.signed}
        later = {f.name: getattr(self, f.name) for f in fields(self)[len(item) :] if getattr(self, f.name) != f.default}
        if "require" in later:
            later["require"] = [r.to_item() for r in self.require]
        if "records" in later:
            later["records"] = [_demand_item(demand) for demand in self.records]
        if "promotion" in later:
            later["promotion"] = {name: policy.to_item() for name, policy in self.promotion}
        return {**item, **later}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> ApprovalPolicy:
        """Return the policy that `to_item` wrote."""
        later: dict[str, Any] = {f.name: item[f.name] for f in fields(cls)[5:] if f.name in item}
        later |= {name: int(later[name]) for name in ("valid_days", "notice_days") if name in later}
        if "records" in later:
            later["records"] = tuple(_demand_of(demand) for demand in later["records"])
        if "promotion" in later:
            later["promotion"] = tuple((name, cls.from_item(later["promotion"][name])) for name in sorted(later["promotion"]))
        require = tuple(Requirement.from_item(r) for r in item.get("require", ()))
        return cls(bool(item["automatic"]), tuple(item["roles"]), int(item["count"]), bool(item.get("signed", False)), require, **later)

    def for_promotion(self, environment: str) -> ApprovalPolicy | None:
        """Return the policy of a promotion to an environment; None where it has no approval of its own."""
        return dict(self.promotion).get(environment)

    @classmethod
    def of_manifest(
        cls,
        approval: Approval,
        records: tuple[RecordGate, ...] | None,
        *,
        signed: bool = False,
        promotion: Sequence[EnvironmentApproval] | None = None,
    ) -> ApprovalPolicy:
        """Return the policy that a manifest asks for.

        Args:
            approval: the manifest's section.
            records: the validation records that its gates demand.
            signed: whether the registry asks for signatures, whatever the manifest says.
            promotion: the manifest's `deployment.promotion`.
        """
        own = {p.to: cls._of_section(p, automatic=False, signed=signed) for p in promotion or ()}
        return replace(
            cls._of_section(approval, automatic=approval.automatic, signed=signed),
            records=records or (),
            promotion=tuple((name, own[name]) for name in sorted(own)),
        )

    @classmethod
    def _of_section(cls, approval: Approval | EnvironmentApproval, *, automatic: bool, signed: bool) -> ApprovalPolicy:
        people = approval.people
        require = tuple(Requirement((r.role,), r.count) for r in (people.require or ())) if people else ()
        roles = tuple(r.roles[0] for r in require) if require else (people.roles or ()) if people else ()
        return cls(
            automatic=automatic,
            roles=roles,
            count=total(require) if require else (people.count or 1) if people else 0,
            signed=approval.signed or signed,
            require=require,
            in_order=bool(people and people.in_order),
            independent=bool(people and people.independent),
            fresh_eyes=bool(people and people.fresh_eyes),
            valid_days=approval.valid_days or 0,
            until=approval.until or "",
            on_lapse=approval.on_lapse or "vacate",
            notice_days=NOTICE_DAYS if approval.notice_days is None else approval.notice_days,
        )


_REALS: Final = ("p_value_at_most", "effect_at_least")


def _demand_item(demand: RecordGate) -> dict[str, Any]:
    """Return a demand as rows hold it: they have no floats."""
    from attestry.domain.mapping_codec import encode_dataclass

    # By the field and not by the value: canonical JSON writes 0.0 as 0, and the digest is of what the manifest means.
    return {name: repr(float(value)) if name in _REALS else value for name, value in encode_dataclass(demand).items()}


def _demand_of(item: Mapping[str, Any]) -> RecordGate:
    # Here alone: policies without demands are read without the records of manifests.
    from attestry.domain.manifest_sections import RecordGate
    from attestry.domain.mapping_codec import decode_dataclass

    numbers = {name: float(item[name]) for name in _REALS if name in item}
    counts = {name: int(item[name]) for name in ("minimum_size", "overlap_at_most", "violations_at_most") if name in item}
    return decode_dataclass(RecordGate, {**item, **numbers, **counts})


def read_reason(reason: object) -> str:
    """Return a checked reason: who reads the record years later needs one.

    Raises:
        InvalidInputError: no text of 1 to 500 characters and at most 1,500 bytes, or with characters that cannot be shown as they are.
    """
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_REASON:
        raise InvalidInputError.of("reason", "reason", f"a reason of 1 to {MAX_REASON} characters is needed")
    text = reason.strip()
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text) or _REORDERING & set(text):
        raise InvalidInputError.of("reason", "printable", "the reason has control characters, or such as change the order of others")
    if len(text.encode()) > MAX_REASON_BYTES:
        raise InvalidInputError.of("reason", "reason", f"a reason of at most {MAX_REASON_BYTES} bytes in UTF-8 is needed")
    return text


def read_verdict(verdict: object) -> Verdict:
    """Return the verdict.

    Raises:
        InvalidInputError: neither approve nor reject.
    """
    if verdict not in (Verdict.APPROVE.value, Verdict.REJECT.value):
        raise InvalidInputError.of("decision", "enum", "the decision is 'approve' or 'reject'")
    return Verdict(verdict)


def read_packet_sha256(value: object) -> str:
    """Return the digest of the packet that somebody says they saw, empty where they say nothing.

    Raises:
        InvalidInputError: no SHA-256 in lower-case hex.
    """
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise InvalidInputError.of("packet_sha256", "sha256", "the packet's SHA-256 of 64 lower-case hex digits is needed")
    return value


def read_signature(value: object) -> bytes:
    """Return the bytes of an armored signature, empty where there is none.

    Raises:
        InvalidInputError: no text.
    """
    if value in (None, ""):
        return b""
    if not isinstance(value, str) or not value.isascii():
        raise InvalidInputError.of("signature", "type", "the armored text that `ssh-keygen -Y sign` writes is needed")
    return value.encode("ascii")


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
    person = check_may_judge(version, approver)
    policy = ApprovalPolicy.from_item(version.approval_policy)
    if policy.automatic:
        raise ConflictError(f"nobody decides on {version.reference}: its policy approves by itself what has passed the gates")
    check_role(policy, version.reference, approver)
    return person


def check_may_judge(version: Version, approver: Principal) -> str:
    """Return the person behind who decides, who does not stand behind the version.

    Raises:
        UnprovenIdentityError: the approver's login, or the submitter's, maps to no person.
        SelfApprovalError: the approver submitted the candidate, or stands behind its data.
    """
    person = approver.require_person("decide")
    if version.submitter_person is None:
        raise UnprovenIdentityError(
            f"nobody can decide on {version.reference}: its submitter {version.submitter.subject} is unproven until a person claims it"
        )
    if person == version.submitter_person:
        raise SelfApprovalError(f"{person} submitted {version.reference} and cannot decide on it; another person has to")
    if person in version.barred:
        raise SelfApprovalError(
            f"{person} stands behind {version.reference}, by its candidate or its data, and cannot decide on it; another person has to"
        )
    return person


def check_role(policy: ApprovalPolicy, reference: str, approver: Principal) -> None:
    """Check that an approver acts in one of the roles that a policy names.

    Raises:
        ForbiddenError: they do not.
    """
    if not set(approver.roles) & set(policy.roles):
        acts = f"acts as {' and '.join(approver.roles)}" if approver.roles else "acts in no role of the registry"
        raise ForbiddenError(
            f"{reference} needs a decision in the role {' or '.join(policy.roles)}; {approver.login} {acts}: "
            f"use an AWS profile that assumes the role",
            details={"roles": list(policy.roles), "login": approver.login, "acts_as": list(approver.roles)},
        )


def check_signed(policy: ApprovalPolicy, version: Version, person: str, *, reason: str, signed: bool, promotion: str = "") -> None:
    """Check that an approval carries the person's own signature where the policy asks for one.

    Args:
        policy: what is asked for.
        version: the version.
        person: who approves.
        reason: why, for the command.
        signed: whether there is a signature.
        promotion: the environment, where a promotion is approved.

    Raises:
        UnsignedApprovalError: it does not; the sentence gives the command that makes it.
    """
    if policy.signed and not signed:
        about = f" --promotion {promotion}" if promotion else ""
        command = f"attestry approve {version.reference}{about} --reason {shlex.quote(reason)} --sign-with ~/.ssh/id_ed25519"
        raise UnsignedApprovalError(
            f"the policy of {version.reference} asks for the own signature of who approves, by an SSH key that is registered for {person}: "
            f"{command}",
            details={"command": command},
        )


def check_in_turn(policy: ApprovalPolicy, reference: str, approving: Approving, person: str, roles: tuple[str, ...]) -> None:
    """Check that one more approval fills a place that is open now.

    Args:
        policy: what is asked for.
        reference: `MODEL@N`.
        approving: who has approved, with the roles that they acted in.
        person: who approves.
        roles: the roles that they act in.

    Raises:
        ApprovalOrderError, ForbiddenError: see `check_fills`.
    """
    try:
        check_fills(policy.requirements, approving, person, roles, in_order=policy.in_order)
    except (ConflictError, ForbiddenError) as error:
        raise type(error)(f"{reference}: {error.message}", details=error.details) from error


def is_met(policy: ApprovalPolicy, approving: Approving) -> bool:
    """Return whether the persons who approved, each in one place, fill all that the policy asks for."""
    return policy.automatic or are_met(policy.requirements, approving)
