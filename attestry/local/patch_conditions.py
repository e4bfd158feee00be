"""Patch: condition keys of DynamoDB, EventBridge, KMS and Lambda that the emulator has no value for.

What AWS does (Service Authorization Reference) and the emulator does not:
- `dynamodb:LeadingKeys` holds the partition keys of the items that a call names, of an index where it queries one; in a
  transaction each item is checked with its own.
- `kms:SigningAlgorithm` and `kms:MessageType` hold what a call of Sign or Verify asks for, `kms:MacAlgorithm` what one of GenerateMac does.
- A call of SQS with several messages needs the right to the same call with one.
- `events:source` holds the source of the events that a call of PutEvents puts.
- `lambda:SourceFunctionArn` is the function whose code makes the call.

`kms:ViaService` needs no patch: it is absent from calls that people and functions make themselves, and the emulator's services do
not call KMS.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attestry.local.patching import load, replace

_LEADING_KEYS = "dynamodb:LeadingKeys"
_TRANSACTIONS = ("dynamodb:TransactWriteItems", "dynamodb:TransactGetItems")
_MEMBERS = ("ConditionCheck", "Put", "Update", "Delete", "Get")
_EQUALITY = re.compile(r"([#\w.-]+)\s*=\s*(:\w+)")
_SESSION_FUNCTION = "AttestryFunctionArn"
_BODIES = 4
_BATCHES = {f"sqs:{act}Batch": f"sqs:{act}" for act in ("ChangeMessageVisibility", "DeleteMessage", "SendMessage")}
"""Calls of SQS that take several messages, to the action that a policy names: there are no actions for batches."""


class KeyedArn(str):
    """ARN of a table together with the partition key of the item that is checked on it."""

    __slots__ = ("leading_key",)
    leading_key: str


def apply() -> None:
    """Patch the condition keys.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    actions, evaluator = load("ministack.core.iam_actions"), load("ministack.core.iam_evaluator")
    replace(actions, "dynamodb_service_context", "0f0021bdc8a3f13c", _context_of_rows)
    replace(actions, "dynamodb_transaction_checks", "684e748338e8727f", _checks_with_keys)
    replace(evaluator, "enforce", "cf64b1ee5b099c8f", _enforce_with_keys)
    replace(actions, "request_tag_context", "d46adb816e024778", _context_of_signing)
    replace(evaluator, "_principal_keys", "82f8fd4f1d91e592", _keys_of_function)


@functools.lru_cache(_BODIES)
def _body(body: bytes) -> Mapping[str, Any]:
    """Return a request, which is asked for several times for one call."""
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _context_of_rows(original: Callable[..., Any]) -> Callable[..., Any]:
    def context(body: bytes) -> dict[str, Any]:
        found: dict[str, Any] = original(body)
        request = _body(body)
        keys = [] if "TransactItems" in request else list(leading_keys(request))
        return {**found, _LEADING_KEYS: keys} if keys else found

    return context


def leading_keys(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield the partition keys that a DynamoDB request names; a transaction's members are requests of their own."""
    table = str(request.get("TableName", ""))
    name = _partition_key(table, request.get("IndexName"))
    for part in ("Key", "Item"):
        yield from _values(request.get(part), name)
    names, values = request.get("ExpressionAttributeNames") or {}, request.get("ExpressionAttributeValues") or {}
    for attribute, value in _EQUALITY.findall(str(request.get("KeyConditionExpression") or "")):
        if names.get(attribute, attribute) == name:
            yield from _values({name: values.get(value)}, name)
    for table, part in (request.get("RequestItems") or {}).items():
        name = _partition_key(table, None)
        for entry in part.get("Keys", []) if isinstance(part, dict) else part:
            if isinstance(part, dict):
                yield from _values(entry, name)
            else:
                yield from _values(entry.get("PutRequest", {}).get("Item") or entry.get("DeleteRequest", {}).get("Key"), name)


def _values(item: Any, name: str) -> Iterator[str]:
    value = item.get(name) if isinstance(item, Mapping) else None
    if isinstance(value, Mapping):
        yield from (str(inner) for inner in value.values())


def _partition_key(table: str, index: Any) -> str:
    record = load("ministack.services.dynamodb")._tables.get(table.rsplit("/", 1)[-1]) or {}
    for found in record.get("GlobalSecondaryIndexes") or [] if index else []:
        if found.get("IndexName") == index:
            return next((str(part["AttributeName"]) for part in found["KeySchema"] if part["KeyType"] == "HASH"), "")
    return str(record.get("pk_name") or "")


def _checks_with_keys(original: Callable[..., Any]) -> Callable[..., Any]:
    def checks(iam_action: str, body: bytes, region: str, account_id: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = original(iam_action, body, region, account_id)
        if iam_action not in _TRANSACTIONS:
            return found
        details = [
            detail
            for item in _body(body).get("TransactItems", [])
            for member in _MEMBERS
            if isinstance(detail := item.get(member), dict) and detail.get("TableName")
        ]
        return [(action, _keyed(arn, detail)) for (action, arn), detail in zip(found, details, strict=True)]

    return checks


def _keyed(arn: str, detail: Mapping[str, Any]) -> str:
    keyed = KeyedArn(arn)
    keyed.leading_key = next(leading_keys(detail), "")
    return keyed


def _enforce_with_keys(original: Callable[..., Any]) -> Callable[..., Any]:
    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        if isinstance(resource_arn, KeyedArn):
            service_context = {**(service_context or {}), _LEADING_KEYS: [resource_arn.leading_key]}
        return original(access_key_id, _BATCHES.get(iam_action, iam_action), service, region, resource_arn, service_context)

    return enforce


def _context_of_signing(original: Callable[..., Any]) -> Callable[..., Any]:
    def context(service: str, iam_action: str, body: bytes, *args: Any) -> dict[str, Any]:
        found: dict[str, Any] = original(service, iam_action, body, *args)
        if iam_action in ("kms:Sign", "kms:Verify"):
            request = _body(body)
            asked = {"kms:SigningAlgorithm": request.get("SigningAlgorithm"), "kms:MessageType": request.get("MessageType", "RAW")}
            return {**found, **{key: value for key, value in asked.items() if value}}
        if iam_action == "kms:GenerateMac":
            return {**found, "kms:MacAlgorithm": str(_body(body).get("MacAlgorithm", ""))}
        if iam_action == "events:PutEvents":
            # AWS judges each entry by itself; of entries with several sources, which nobody here sends, none is let.
            entries = _body(body).get("Entries")
            sources = {str(entry.get("Source", "")) for entry in entries if isinstance(entry, dict)} if isinstance(entries, list) else set()
            return {**found, "events:source": "\n".join(sorted(sources))}
        return found

    return context


def keep_function(session: dict[str, Any], function_arn: str) -> None:
    """Note on the session of a function's role whose code uses it."""
    session[_SESSION_FUNCTION] = ":".join(function_arn.split(":")[:7])


def _keys_of_function(original: Callable[..., Any]) -> Callable[..., Any]:
    def keys(credential: Any) -> dict[str, Any]:
        found: dict[str, Any] = original(credential)
        session = load("ministack.services.sts")._sessions.get(credential.access_key_id) or {}
        if _SESSION_FUNCTION in session:
            found["lambda:sourcefunctionarn"] = session[_SESSION_FUNCTION]
        return found

    return keys
