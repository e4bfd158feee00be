"""What the approval runbook asks for before it waits for people: whom it may ask, how many must answer, and what it shows.

Systems Manager lists at most ten approvers for a step. They are sessions of the registry's roles, which is how people approve in the
console. Whether a person may assume a role is IAM's to say, so everybody who has a login of the form of a user's name is a candidate for
each role that the policy asks for, one role after the other. Who is left out can approve in any other way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import ConflictError
from attestry.domain.promotion import require_open
from attestry.domain.requirements import Approving, missing, total
from attestry.domain.stages import Stage, Status
from attestry.domain.version import Version
from attestry.ports import MetaStore
from attestry.usecases.decide import counted_approvals
from attestry.usecases.people import Person, list_people
from attestry.usecases.promotion_rows import counted_on, decisions_on
from attestry.usecases.records import approving_persons, load_version

MAX_APPROVERS: Final = 10
_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


@dataclass(frozen=True)
class RoleNames:
    """How sessions of the registry's roles are named: `arn:<partition>:sts::<account>:assumed-role/<prefix>-<role>/<login>`."""

    partition: str
    account: str
    prefix: str

    def session(self, role: str, login: str) -> str:
        """Return the ARN of a session."""
        return f"arn:{self.partition}:sts::{self.account}:assumed-role/{self.prefix}-{role}/{login}"


def ask_approval(meta: MetaStore, names: RoleNames, model: str, number: int, *, api_url: str = "", promotion: str = "") -> dict[str, Any]:
    """Return `approvers` (ARNs), `minimum`, `message` and `packet_sha256` for the step that waits.

    Args:
        meta: the table.
        names: how sessions are named.
        model: the model's name.
        number: the version's number.
        api_url: where the API answers, for the packet's link; empty for none.
        promotion: the environment, to ask about the promotion there; empty for the version's own approval.

    Raises:
        ConflictError: the version, or its promotion, waits for no person's approval, needs signatures, or too few people could give it.
        NotFoundError: no such version.
    """
    version = load_version(meta, model, number)
    wanted = _promotion_wanted(meta, version, promotion) if promotion else _approval_wanted(meta, version)
    if wanted.policy.signed:
        raise ConflictError(f"the policy of {wanted.about} asks for approvers' own signatures, which Systems Manager cannot carry")
    left = missing(wanted.policy.requirements, wanted.approving)
    out = {version.submitter_person, *version.barred, *wanted.approving, *wanted.out}
    asked = _asked(list_people(meta), out, [role for requirement in left for role in requirement.roles])
    minimum = total(left)
    if len({person for _, _, person in asked}) < minimum:
        raise ConflictError(f"{wanted.about} needs {minimum} more approvals, and fewer people could give them")
    chosen = [names.session(role, login) for role, login, _ in asked[:MAX_APPROVERS]]
    return {
        "approvers": chosen,
        "minimum": minimum,
        "message": _message(version, wanted, " and ".join(map(str, left)), len(asked) - len(chosen), api_url),
        "packet_sha256": wanted.packet,
    }


@dataclass(frozen=True)
class _Wanted:
    """What is decided on, by which policy, who has approved, and who stays out of it besides."""

    about: str
    packet: str
    policy: ApprovalPolicy
    approving: Approving
    promotion: str = ""
    out: tuple[str, ...] = ()


def _approval_wanted(meta: MetaStore, version: Version) -> _Wanted:
    policy = ApprovalPolicy.from_item(version.approval_policy)
    if version.stage is not Stage.APPROVAL or version.status is not Status.RUNNING or policy.automatic:
        raise ConflictError(f"{version.reference} waits for no person's approval: it is in {version.stage} {version.status}")
    return _Wanted(version.reference, str(version.packet["sha256"]), policy, approving_persons(counted_approvals(meta, version)))


def _promotion_wanted(meta: MetaStore, version: Version, environment: str) -> _Wanted:
    promotion, policy = require_open(version, environment)
    approving = approving_persons(counted_on(decisions_on(meta, version, promotion)[1], version, promotion, policy))
    about = f"the promotion of {version.reference} to {environment}"
    return _Wanted(about, promotion.packet, policy, approving, environment, (promotion.asked_by,))


def _asked(people: Sequence[Person], out: set[str | None], roles: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return role, login and person of whom to ask, one role after the other, so that ten places serve each of them."""
    logins = sorted((login, p.person) for p in people if p.person not in out for login in p.logins if _SESSION_NAME.fullmatch(login))
    columns = [[(role, login, person) for login, person in logins] for role in dict.fromkeys(roles)]
    return [entry for row in zip_longest(*columns) for entry in row if entry is not None]


def _message(version: Version, wanted: _Wanted, left: str, left_out: int, api_url: str) -> str:
    to = wanted.promotion
    route = f"/v1/models/{version.model}/versions/{version.number}/packet" + (f"?promotion={to}" if to else "")
    which = f"{version.reference} --promotion {to}" if to else str(version.reference)
    lines = [
        f"{wanted.about[:1].upper()}{wanted.about[1:]} waits for {left}." if to else f"{version.reference} waits for {left}.",
        f"Packet, SHA-256: {wanted.packet}",
        f"Read it before you answer: attestry packet {which}" + (f", or GET {api_url}{route} (signed)" if api_url else ""),
        "Your answer here, with its comment as the reason, is recorded as your decision on exactly this packet.",
        *([f"{left_out} more sessions than can be listed here may answer as well: attestry approve {which}"] if left_out else []),
    ]
    return "\n".join(lines)
