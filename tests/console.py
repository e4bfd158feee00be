"""The AWS console's side of things: executions that people start, and what CloudTrail and EventBridge tell of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from attestry.aws.trail import automation_of, execution_of, read_call
from attestry.ports import CallRecord, ExecutionDescription
from tests.fakes import Faults, _Faulty
from tests.versions import ACCOUNT, AT

MACHINE = f"arn:aws:states:eu-central-1:{ACCOUNT}:stateMachine:attestry-RegistryDecision"
NAME = "2f6b2f6e-0d0d-4c1c-8f54-0f3b1c2d3e4f"


def execution_arn(name: str = NAME) -> str:
    return f"{MACHINE.replace(':stateMachine:', ':execution:')}:{name}"


def identity(login: str, role: str = "approver", **changes: Any) -> dict[str, Any]:
    """The `userIdentity` of a session, as CloudTrail writes it."""
    issuer = {"type": "Role", "principalId": "AROA", "arn": f"arn:aws:iam::{ACCOUNT}:role/attestry-{role}", "accountId": ACCOUNT}
    return {
        "type": "AssumedRole",
        "principalId": f"AROA:{login}",
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{login}",
        "accountId": ACCOUNT,
        "accessKeyId": "ASIAEXAMPLE",
        "sessionContext": {
            "sessionIssuer": {**issuer, "userName": f"attestry-{role}"},
            "attributes": {"creationDate": "2026-01-02T02:00:00Z", "mfaAuthenticated": "false"},
        },
        **changes,
    }


def cloudtrail(
    call: str, who: Mapping[str, Any], *, at: datetime = AT, source: str = "states.amazonaws.com", **changes: Any
) -> dict[str, Any]:
    """A record of CloudTrail about a call."""
    return {
        "eventVersion": "1.11",
        "userIdentity": dict(who),
        "eventTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": source,
        "eventName": call,
        "awsRegion": "eu-central-1",
        "sourceIPAddress": "192.0.2.7",
        "userAgent": "Mozilla/5.0",
        "requestParameters": {},
        "responseElements": None,
        "requestID": "7a2c2e54-7f0b-4c8e-9f5e-2c0a5ed0b6a1",
        "eventID": "5b9a3c1e-1f2d-4e7a-8c6b-9d0e1f2a3b4c",
        "readOnly": False,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
        **changes,
    }


def started(who: Mapping[str, Any], *, name: str = NAME, at: datetime = AT, **changes: Any) -> dict[str, Any]:
    """The record of somebody's start of RegistryDecision; its input is hidden, as CloudTrail hides it."""
    asked = {"stateMachineArn": MACHINE, "name": name, "input": "HIDDEN_DUE_TO_SECURITY_REASONS"}
    answered = {"executionArn": execution_arn(name), "startDate": "Jan 2, 2026, 3:04:05 AM"}
    return cloudtrail("StartExecution", who, at=at, **{"requestParameters": asked, "responseElements": answered, **changes})


def delivered(detail: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The event with which EventBridge delivers a record."""
    return {
        "version": "0",
        "id": "3e1f2a4b-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
        "detail-type": "AWS API Call via CloudTrail",
        "source": f"aws.{str(detail['eventSource']).split('.', 1)[0]}",
        "account": ACCOUNT,
        "time": detail["eventTime"],
        "region": "eu-central-1",
        "resources": [],
        "detail": dict(detail),
        **changes,
    }


@dataclass
class StandInExecutions(_Faulty):
    """`attestry.ports.Executions` in memory: what people started."""

    described: dict[str, ExecutionDescription] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    def start(self, body: Any, *, text: str | None = None, name: str = NAME, at: datetime = AT, **changes: Any) -> str:
        arn, given = execution_arn(name), json.dumps(body) if text is None else text
        self.described[arn] = ExecutionDescription(
            **{"arn": arn, "state_machine_arn": MACHINE, "name": name, "started": at, "input": given, **changes}
        )
        return arn

    def describe(self, execution_arn: str) -> ExecutionDescription | None:
        found: ExecutionDescription | None = self._call("describe", lambda: self.described.get(execution_arn))
        return found


@dataclass
class StandInTrail(_Faulty):
    """`attestry.ports.Trail` in memory: the records that CloudTrail has delivered so far."""

    records: list[dict[str, Any]] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)

    def find_start(self, execution_arn: str, *, since: datetime) -> CallRecord | None:
        def find() -> CallRecord | None:
            found = [r for r in self.records if execution_of(r) == execution_arn and r["eventTime"] >= since.strftime("%Y-%m-%dT%H:%M:%SZ")]
            redriven = [r for r in found if r["eventName"] == "RedriveExecution"]
            return read_call((redriven or found)[0]) if found else None

        found: CallRecord | None = self._call("find_start", find)
        return found

    def find_signals(self, automation_id: str, *, since: datetime) -> list[CallRecord]:
        def find() -> list[CallRecord]:
            after = since.strftime("%Y-%m-%dT%H:%M:%SZ")
            return [read_call(r) for r in self.records if automation_of(r) == automation_id and r["eventTime"] >= after]

        found: list[CallRecord] = self._call("find_signals", find)
        return found


LATER = AT + timedelta(seconds=30)
