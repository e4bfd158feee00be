"""Who acted in the AWS console: CloudTrail's record of the call, confirmed by what the service says of the execution.

Rules, each of which fails closed:
- A person of this account: an IAM user, or a session of a role. Services, what services do for somebody, and other accounts are refused.
- A session was issued by the very role that its ARN names, in this account.
- The record is about the execution that the service describes: the same state machine, the same name, begun at the same moment.
- A redriven execution acts for nobody, and neither does one that began more than a day ago.
- Where the registry asks for a second factor, the session must have been authenticated with one.
- The login maps to a person; `attestry.domain.principal` says which identities have a login at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attestry.domain.errors import ForbiddenError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal, identify
from attestry.ports import CallRecord, ExecutionDescription

SKEW: Final = timedelta(seconds=60)
"""How far CloudTrail's time of the call and the service's time of the start may lie apart."""

MAX_AGE: Final = timedelta(days=1)
"""Far above what an execution waits for its caller, and below the life of the row that says it has acted."""

_ISSUER = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/(?:.*/)?([^/]+)")
_SESSION = re.compile(r"arn:aws[a-z-]*:sts::(\d{12}):assumed-role/([^/]+)/[^/]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True)
class CallerRules:
    """What is asked of a caller.

    Attributes:
        account: the registry's account.
        prefix: prefix of the registry's role names.
        mfa: whether the session must have been authenticated with a second factor.
    """

    account: str
    prefix: str
    mfa: bool = False


def claimed_principal(record: CallRecord, rules: CallerRules) -> Principal:
    """Return the principal that a record names, for an audit note: nothing about it has been checked."""
    method = f"CloudTrail {record.call}"[:64]
    return identify(record.arn, record.user_id, account=rules.account, prefix=rules.prefix, method=method, address=record.address)


def identify_caller(record: CallRecord, rules: CallerRules) -> Principal:
    """Return the principal of a call, without its person; its method names the event by ID and digest.

    Raises:
        ForbiddenError: a service, another account, a session that another role issued, no second factor where one is asked for, or an
            event that cannot be named.
    """
    if record.identity_type not in ("IAMUser", "AssumedRole") or record.account != rules.account:
        raise ForbiddenError(f"a person of this account is needed; {record.arn} is {record.identity_type} of {record.account}")
    if record.identity_type == "AssumedRole":
        _check_issuer(record, rules)
    if rules.mfa and not record.mfa:
        raise ForbiddenError(f"a session with a second factor (MFA) is needed here; the one of {record.arn} has none")
    if not _DIGEST.fullmatch(record.digest) or not _EVENT_ID.fullmatch(record.event_id):
        raise ForbiddenError("CloudTrail's event has no ID or no canonical form, so nothing could be proven by it")
    method = f"CloudTrail {record.call}, event {record.event_id}, SHA-256 {record.digest}"
    return identify(record.arn, record.user_id, account=rules.account, prefix=rules.prefix, method=method, address=record.address)


def check_execution(record: CallRecord, described: ExecutionDescription, *, state_machine: str, at: datetime) -> None:
    """Check that a record tells of the start of the execution that the service describes.

    Raises:
        ForbiddenError: it is about another one, the execution was redriven, or it is too old.
    """
    if record.call != "StartExecution" or described.redrives:
        raise ForbiddenError("a redriven execution acts for nobody; start a new one")
    asked = record.parameters
    if not asked.get("stateMachineArn") == described.state_machine_arn == state_machine:
        raise ForbiddenError("CloudTrail's event is about another state machine than the execution")
    if asked.get("name", described.name) != described.name or not described.arn.endswith(f":{described.name}"):
        raise ForbiddenError("CloudTrail's event is about an execution of another name")
    if abs(moment_of(record) - described.started) > SKEW:
        raise ForbiddenError("CloudTrail's event tells of another moment than the one at which the execution began")
    if at - described.started > MAX_AGE:
        raise ForbiddenError("the execution began more than a day ago; start a new one")


def moment_of(record: CallRecord) -> datetime:
    """Return when the call was made, to the second.

    Raises:
        ForbiddenError: the event does not say.
    """
    try:
        moment = datetime.fromisoformat(record.at)
    except ValueError as error:
        raise ForbiddenError("CloudTrail's event does not say when the call was made") from error
    if moment.tzinfo is None:
        raise ForbiddenError("CloudTrail's event does not say when the call was made")
    return moment.astimezone(UTC)


def console_facts(record: CallRecord, on: str) -> dict[str, Any]:
    """Return what an approval says of how it was given in the AWS console.

    Args:
        record: the checked record.
        on: ARN of the execution, or of the automation.
    """
    return {
        "call": record.call,
        "on": on,
        "event_id": record.event_id,
        "event_sha256": record.digest,
        "at": timestamp(moment_of(record)),
        "mfa": record.mfa,
        "session_issuer": record.issuer,
    }


def _check_issuer(record: CallRecord, rules: CallerRules) -> None:
    issuer, session = _ISSUER.fullmatch(record.issuer), _SESSION.fullmatch(record.arn)
    if issuer is None or session is None or issuer[1] != rules.account or issuer.groups() != session.groups():
        raise ForbiddenError(f"{record.arn} was not issued by the role that it names, but by {record.issuer or 'nobody'}")
