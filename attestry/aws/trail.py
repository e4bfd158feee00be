"""Who started an execution, by CloudTrail's record of the call (CloudTrail User Guide, "userIdentity element")."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate
from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import canonical_bytes
from attestry.ports import CallRecord

if TYPE_CHECKING:
    from mypy_boto3_cloudtrail import CloudTrailClient

MAX_PAGES: Final = 20
"""Pages of 50 events; LookupEvents allows two calls a second."""

_SOURCE = "states.amazonaws.com"


class CloudTrailTrail:
    """`attestry.ports.Trail` over LookupEvents, which knows an event some minutes after it happened."""

    def __init__(self, client: CloudTrailClient) -> None:
        self._client = client

    def find_start(self, execution_arn: str, *, since: datetime) -> CallRecord | None:
        """Return who started the execution, or None while CloudTrail does not say.

        Args:
            execution_arn: the execution.
            since: the events before this time are not looked at.

        Raises:
            UnavailableError: CloudTrail did not answer.
        """
        started = self._find("StartExecution", execution_arn, since)
        if started is None:
            return None
        redriven = self._find("RedriveExecution", execution_arn, since)
        return read_call(redriven or started)

    def find_signals(self, automation_id: str, *, since: datetime) -> list[CallRecord]:
        """Return who sent signals to an automation, as far as CloudTrail says.

        Raises:
            UnavailableError: CloudTrail did not answer.
        """
        return [read_call(record) for record in self._records("SendAutomationSignal", since) if automation_of(record) == automation_id]

    def _find(
        self, event_name: Literal["StartExecution", "RedriveExecution"], execution_arn: str, since: datetime
    ) -> dict[str, Any] | None:
        for record in self._records(event_name, since):
            if execution_of(record) == execution_arn:
                return record
        return None

    def _records(self, event_name: str, since: datetime) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("lookup_events").paginate(
            LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": event_name}],
            StartTime=since,
            PaginationConfig={"MaxItems": MAX_PAGES * 50, "PageSize": 50},
        )
        try:
            for page in pages:
                for event in page["Events"]:
                    yield json.loads(event["CloudTrailEvent"])
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"look up {event_name} in CloudTrail") from error


def execution_of(record: Mapping[str, Any]) -> str | None:
    """Return the ARN of the execution that a record of a successful StartExecution or RedriveExecution is about, else None."""
    if record.get("eventSource") != _SOURCE or record.get("errorCode"):
        return None
    name = record.get("eventName")
    if name == "StartExecution":
        return _text(record.get("responseElements"), "executionArn")
    if name == "RedriveExecution":
        return _text(record.get("requestParameters"), "executionArn")
    return None


def automation_of(record: Mapping[str, Any]) -> str | None:
    """Return the ID of the automation that a record of a successful SendAutomationSignal is about, else None."""
    if record.get("eventSource") != "ssm.amazonaws.com" or record.get("eventName") != "SendAutomationSignal" or record.get("errorCode"):
        return None
    return _text(record.get("requestParameters"), "automationExecutionId")


def read_call(record: Mapping[str, Any]) -> CallRecord:
    """Return what a CloudTrail record, or the `detail` of its event on EventBridge, says about the caller.

    A call that a service made for somebody is that service's (`invokedBy`): its session says nothing of a person.
    """
    identity = _mapping(record.get("userIdentity"))
    session = _mapping(identity.get("sessionContext"))
    return CallRecord(
        arn=str(identity.get("arn", "")),
        user_id=str(identity.get("principalId", "")),
        account=str(identity.get("accountId", "")),
        address=str(record.get("sourceIPAddress", "")),
        identity_type="AWSService" if identity.get("invokedBy") else str(identity.get("type", "")),
        event_id=str(record.get("eventID", "")),
        call=str(record.get("eventName", "")),
        at=str(record.get("eventTime", "")),
        # CloudTrail writes a text; sessions of an identity provider never have it, because AWS does not see their second factor.
        mfa=_mapping(session.get("attributes")).get("mfaAuthenticated") in ("true", True),
        issuer=str(_mapping(session.get("sessionIssuer")).get("arn", "")),
        digest=_digest(record),
        parameters={name: str(value) for name, value in _shown(record).items() if isinstance(value, str)},
    )


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    parameters = _mapping(record.get("requestParameters"))
    return {name: parameters.get(name) for name in ("stateMachineArn", "name", "automationExecutionId", "signalType")}


def _digest(record: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(canonical_bytes(dict(record))).hexdigest()
    except InvalidInputError:
        # CloudTrail writes no such record; without a digest nothing is decided.
        return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any, name: str) -> str | None:
    found = _mapping(value).get(name)
    return found if isinstance(found, str) else None
