"""Decide from the AWS console: who started an execution of the state machine `RegistryDecision`?

Rules:
- The identity comes from CloudTrail, by the ARN of the execution; nothing in the execution's input says who decides.
- CloudTrail delivers late, sometimes by many minutes: the state machine asks again until its time is over, and then nothing is decided.
- Services, the registry's own functions, and identities that map to no person are refused like everywhere.
- The decision rests on the version's packet. The input may name it (`packet`), and is refused where it names another.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from attestry.domain.approvals import Verdict, read_packet_sha256, read_reason, read_verdict
from attestry.domain.errors import AttestryError, ConditionFailedError, ForbiddenError, InvalidInputError, UnavailableError
from attestry.domain.names import VersionReference
from attestry.domain.principal import Principal, identify
from attestry.ports import Functions, Key, MetaStore, ObjectStore, Put, StartRecord, Trail
from attestry.usecases.attest import Attestor
from attestry.usecases.decide import decide_approval
from attestry.usecases.records import person_of

CALLER_DAYS = 7


def caller_key(execution_arn: str) -> Key:
    """Return the key under which the caller of an execution is kept."""
    return Key(f"CALLER#{execution_arn}")


def keep_caller(meta: MetaStore, execution_arn: str, record: StartRecord, at: datetime) -> None:
    """Keep what an event from CloudTrail says, for the execution that waits for it; the first one stays."""
    row = {**record.to_item(), "expires": int(at.timestamp()) + CALLER_DAYS * 86400}
    with suppress(ConditionFailedError):
        meta.transact([Put(caller_key(execution_arn), row)])


def decide_from_console(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    trail: Trail,
    functions: Functions,
    *,
    execution_arn: str,
    body: Mapping[str, Any],
    account: str,
    prefix: str,
    gate_function: str,
    since: datetime,
    at: datetime,
) -> dict[str, Any]:
    """Decide if CloudTrail names the caller; `{"outcome": "WAIT"}` while it does not.

    Returns:
        `{"outcome": "DECIDED"|"REFUSED"|"WAIT", ...}` with the error's code and message when refused.
    """
    record = _caller(meta, trail, execution_arn, since)
    if record is None:
        return {"outcome": "WAIT"}
    try:
        reference, verdict, reason = _read(body)
        seen = read_packet_sha256(body.get("packet"))
        by = person_of(meta, _principal(record, account=account, prefix=prefix))
        decision = decide_approval(
            meta, attestor, store, reference.model, reference.number, verdict, reason=reason, by=by, at=at, packet_sha256=seen
        )
    except UnavailableError:
        # The decision may have been written: the state machine asks again.
        raise
    except AttestryError as error:
        return {"outcome": "REFUSED", "error": error.to_dict()}
    if decision.complete:
        functions.send(gate_function, {"action": "decided", "model": reference.model, "version": reference.number})
    return {
        "outcome": "DECIDED",
        "decision": verdict.value,
        "person": by.person,
        "complete": decision.complete,
        "version": str(reference),
        "packet_sha256": decision.version.packet["sha256"],
    }


def _caller(meta: MetaStore, trail: Trail, execution_arn: str, since: datetime) -> StartRecord | None:
    row = meta.get(caller_key(execution_arn))
    if row:
        return StartRecord(**{name: row[name] for name in StartRecord.__dataclass_fields__})
    return trail.find_start(execution_arn, since=since)


def _read(body: Mapping[str, Any]) -> tuple[VersionReference, Verdict, str]:
    model, version = body.get("model"), body.get("version")
    if not isinstance(model, str) or not isinstance(version, int) or isinstance(version, bool):
        raise InvalidInputError.of(
            "version",
            "version_reference",
            'the input is {"model": text, "version": number, "decision": "approve" or "reject", "reason": text}',
        )
    return VersionReference.parse(f"{model}@{version}"), read_verdict(body.get("decision")), read_reason(body.get("reason"))


def _principal(record: StartRecord, *, account: str, prefix: str) -> Principal:
    if record.identity_type not in ("IAMUser", "AssumedRole") or record.account != account:
        raise ForbiddenError(f"a decision needs a person of this account; {record.arn} is {record.identity_type} of {record.account}")
    if record.redriven:
        raise ForbiddenError("a redriven execution decides nothing; start a new one")
    return identify(record.arn, record.user_id, account=account, prefix=prefix, method="CloudTrail StartExecution", address=record.address)
