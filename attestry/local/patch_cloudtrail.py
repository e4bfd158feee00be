"""Patch: CloudTrail records who called, with what, and what came back, and tells EventBridge.

What AWS does (CloudTrail User Guide, "userIdentity element" and "record contents"; EventBridge User Guide, "AWS API Call via
CloudTrail") and the emulator does not:
- `userIdentity` names the caller: type, principalId, arn, and for a role session `sessionContext`; `LookupEvents` finds a
  user by name and a role session by session name.
- `requestParameters`, `responseElements` and `sourceIPAddress` are those of the call. Step Functions' inputs and outputs
  are hidden, as on AWS.
- Data events (objects, items, messages, invocations) are not management events, so they are not in `LookupEvents`.
- A mutating call of Step Functions reaches the default event bus as `AWS API Call via CloudTrail`. (AWS sends those of
  every service; this is the one the registry listens to.)

Not covered: calls refused by IAM leave no event; on AWS they leave one with an `errorCode`.
"""

from __future__ import annotations

import contextvars
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from attestry.local.patching import load, replace

_LOG = logging.getLogger("attestry.local.cloudtrail")
_HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
_SECRET_PARAMETERS = {"states": ("input", "output", "cause", "error")}
_DELIVERED = {"states"}
_DATA_EVENTS: dict[str, frozenset[str] | None] = {
    "dynamodb": frozenset(
        {
            "GetItem",
            "PutItem",
            "UpdateItem",
            "DeleteItem",
            "Query",
            "Scan",
            "BatchGetItem",
            "BatchWriteItem",
            "TransactGetItems",
            "TransactWriteItems",
            "GetRecords",
            "GetShardIterator",
            "DescribeStream",
            "ListStreams",
        }
    ),
    "lambda": frozenset({"Invoke", "InvokeAsync"}),
    "sqs": frozenset(
        {"SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage", "DeleteMessageBatch", "ChangeMessageVisibility"}
    ),
    "sns": frozenset({"Publish", "PublishBatch"}),
    "logs": frozenset({"PutLogEvents", "GetLogEvents", "FilterLogEvents"}),
    "events": frozenset({"PutEvents"}),
    "monitoring": None,
}
_S3_DATA = frozenset(
    {"PutObject", "GetObject", "DeleteObject", "HeadObject", "CreateMultipartUpload", "HeadBucket", "ListObjects", "POST.s3"}
)

_answer: contextvars.ContextVar[Any] = contextvars.ContextVar("attestry_local_answer", default=None)


def apply() -> None:
    """Patch the recording of API calls.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    app = load("ministack.app")
    load("ministack.services.cloudtrail")
    for service, handler in list(app.SERVICE_HANDLERS.items()):
        app.SERVICE_HANDLERS[service] = _keeping_answer(handler)
    replace(app, "_maybe_record_cloudtrail", "9bad8a7596f9c207", lambda _: _record)


def _keeping_answer(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(*args: Any, **kwargs: Any) -> Any:
        _answer.set(None)
        answer = await handler(*args, **kwargs)
        _answer.set(answer)
        return answer

    return handle


def _record(
    service: str, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any], request_id: str, region: str
) -> None:
    if service == "cloudtrail" or path.startswith("/_"):
        return
    try:
        name = _event_name(service, method, path, headers, body, query)
        if not _is_data_event(service, name, path):
            _append(service, name, method, path, headers, body, query, request_id, region)
    except Exception:  # noqa: BLE001 - an audit record that fails must not fail the call, but must be seen
        _LOG.exception("no CloudTrail event for %s %s %s", service, method, path)


def _event_name(service: str, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> str:
    name = str(load("ministack.app")._ct_event_name(service, method, path, headers, query))
    if name == f"{method}.{service}" and "form" in headers.get("content-type", ""):
        return parse_qs(body.decode("utf-8", "replace")).get("Action", [name])[0]
    return name


def _is_data_event(service: str, name: str, path: str) -> bool:
    if service == "s3":
        return name in _S3_DATA and len([part for part in path.split("/") if part]) > 1
    names = _DATA_EVENTS.get(service, frozenset())
    return names is None or name in names


def _append(
    service: str,
    name: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    query: dict[str, Any],
    request_id: str,
    region: str,
) -> None:
    app, trail, responses = load("ministack.app"), load("ministack.services.cloudtrail"), load("ministack.core.responses")
    account = responses.get_account_id()
    access_key = app.extract_access_key_id(headers, query) or ""
    identity, user_name = user_identity(access_key, account)
    status, answer = _last_answer()
    read_only = trail._is_readonly(method, name) == "true"
    now = time.time()
    event: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": identity,
        "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": region,
        "sourceIPAddress": responses.get_request_client_ip(),
        "userAgent": headers.get("user-agent", ""),
        "requestParameters": _hide(service, trail._scrub(app._ct_request_params(headers, body, query))) or None,
        "responseElements": None if read_only or status >= 400 else _hide(service, trail._scrub(answer)) or None,
        "requestID": request_id,
        "eventID": responses.new_uuid(),
        "readOnly": read_only,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": account,
        "eventCategory": "Management",
    }
    if status >= 400:
        event["errorCode"] = str(answer.get("__type") or status).rsplit("#", 1)[-1]
        event["errorMessage"] = str(answer.get("message") or answer.get("Message") or "")
    trail._get_event_queue().append(
        {
            "EventId": event["eventID"],
            "EventName": name,
            "EventSource": event["eventSource"],
            "EventTime": now,
            "Username": user_name,
            "AccessKeyId": access_key,
            "ReadOnly": "true" if read_only else "false",
            "Resources": app._ct_resources(service, method, path, body),
            "CloudTrailEvent": json.dumps(event),
        }
    )
    if service in _DELIVERED and not read_only:
        _deliver(service, event)


def _last_answer() -> tuple[int, dict[str, Any]]:
    answer = _answer.get()
    if not isinstance(answer, tuple) or len(answer) != 3:
        return 200, {}
    status, headers, body = answer
    kind = next((value for key, value in headers.items() if key.lower() == "content-type"), "")
    if "json" not in kind or not isinstance(body, bytes):
        return status, {}
    try:
        document = json.loads(body)
    except ValueError:
        return status, {}
    return status, document if isinstance(document, dict) else {}


def _hide(service: str, parameters: dict[str, Any]) -> dict[str, Any]:
    hidden = _SECRET_PARAMETERS.get(service, ())
    return {key: _HIDDEN if key in hidden else value for key, value in parameters.items()}


def _deliver(service: str, event: dict[str, Any]) -> None:
    load("ministack.services.eventbridge")._put_events(
        {
            "Entries": [
                {
                    "Source": f"aws.{service}",
                    "DetailType": "AWS API Call via CloudTrail",
                    "Detail": json.dumps(event),
                    "EventBusName": "default",
                }
            ]
        },
        allow_aws_source=True,
    )


def user_identity(access_key: str, account: str) -> tuple[dict[str, Any], str]:
    """Return the `userIdentity` of a caller and the user name under which `LookupEvents` finds it.

    Args:
        access_key: the access key ID that signed the call; empty for an anonymous call.
        account: the account that the call addressed.
    """
    evaluator, sts = load("ministack.core.iam_evaluator"), load("ministack.services.sts")
    if not access_key:
        return {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}, ""
    found = evaluator.resolve_credential(access_key, account)
    if isinstance(found, evaluator.CredentialResolutionError):
        return {"type": "Unknown", "accessKeyId": access_key}, ""
    identity: dict[str, Any] = {
        "principalId": found.principal_id,
        "arn": found.principal_arn,
        "accountId": found.account_id,
        "accessKeyId": access_key,
    }
    if found.principal_type == "AssumedRole":
        role, session_name = found.principal_arn.split(":", 5)[5].split("/", 2)[1:]
        issued = float((sts._sessions.get(access_key) or {}).get("IssuedAt") or time.time())
        identity["sessionContext"] = _session_context(found, role, issued)
        return {"type": "AssumedRole", **identity}, session_name
    if found.principal_type == "User":
        return {"type": "IAMUser", **identity, "userName": found.principal_name}, found.principal_name
    return {"type": found.principal_type, **identity}, "root" if found.principal_type == "Root" else ""


def _session_context(found: Any, role: str, issued: float) -> dict[str, Any]:
    record = load("ministack.services.iam")._roles.get_scoped(found.account_id, None, role) or {}
    partition = found.principal_arn.split(":", 2)[1]
    return {
        "sessionIssuer": {
            "type": "Role",
            "principalId": found.principal_id.split(":", 1)[0],
            "arn": record.get("Arn") or f"arn:{partition}:iam::{found.account_id}:role/{role}",
            "accountId": found.account_id,
            "userName": role,
        },
        "attributes": {
            "creationDate": datetime.fromtimestamp(issued, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "mfaAuthenticated": "false",
        },
    }
