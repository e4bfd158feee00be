"""The OpenAPI 3.1 document, made of the table of operations.

document()        -> dict
document_text()   -> the text that is kept in docs/api/openapi.json
served_text()     -> the text that GET /v1/openapi.json answers
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from attestry.api.components import COMPONENTS
from attestry.api.headers import IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH, MATCHED, TAGGED, UNKEYED
from attestry.api.operation import Operation
from attestry.api.operations import OPERATIONS
from attestry.api.schema import Schema, ref

FORMAT: Final = "3.1.0"
EDITION: Final = "1"
"""Edition of the API: raised when an operation changes so that a client of the edition before would fail."""

PROBLEM: Final = "application/problem+json"
JSON: Final = "application/json"
COMMON_ERRORS: Final = (400, 403, 429, 500, 503)
"""Which every operation may answer."""

_DESCRIPTION: Final = (
    "A model registry in which every prediction can be traced, and proven, back to the model version that made it, the code, data and "
    "settings that made the version, and the people who approved it.\n\n"
    "Requests are signed with AWS Signature Version 4 for the service `execute-api`; or they carry a bearer token, where the deployment "
    "takes them, and then `/oidc` stands before each path. Errors of the registry are problem details "
    "(RFC 9457) with a stable `code`, and with `field` and `rule` for an input that breaks one. What the gateway itself refuses is "
    '`{"message": ...}`. Fields that nobody knows are refused in requests; in answers fields may be added, and a client passes over '
    "those that it does not know."
)


def document(operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": FORMAT,
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": "Attestry", "version": EDITION, "description": _DESCRIPTION, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "{api_url}", "variables": {"api_url": {"default": "/", "description": "SSM parameter `/attestry/api-url`."}}}],
        "security": [{"sigv4": []}, {"bearer": []}],
        "tags": [{"name": group} for group in dict.fromkeys(operation.group for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": dict(COMPONENTS),
            "responses": {str(status): _error(status) for status in sorted({s for o in operations for s in errors_of(o)})},
            "securitySchemes": {"sigv4": _SIGV4, "bearer": _BEARER},
        },
    }


def document_text() -> str:
    """Return the document as the text that is kept in docs/api/openapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


@cache
def served_text() -> str:
    """Return the document in as few bytes as it takes."""
    return json.dumps(document(), separators=(",", ":"), ensure_ascii=False)


_SIGV4: Mapping[str, str] = {
    "type": "apiKey",
    "name": "Authorization",
    "in": "header",
    "description": "AWS Signature Version 4 for `execute-api`.",
    "x-amazon-apigateway-authtype": "awsSigv4",
}

_BEARER: Mapping[str, str] = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A token of an identity provider that the deployment names; below `/oidc`.",
}


def _operation(operation: Operation) -> dict[str, Any]:
    parameters = [{"name": n, "in": "path", "required": True, "schema": s} for n, s in operation.path_parameters.items()]
    parameters += [{"name": p.name, "in": "query", "required": p.required, "schema": p.schema} for p in operation.query]
    parameters += [{"name": n, "in": "header", "required": False, "schema": s} for n, s in _headers(operation).items()]
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.group],
        "x-attestry-roles": list(operation.roles),
    }
    if operation.note:
        described["description"] = operation.note
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": operation.body}}}
    answers: dict[str, Any] = {
        str(s): {"description": HTTPStatus(s).phrase, "content": {JSON: {"schema": operation.answer}}} for s in operation.status
    }
    if operation.id in TAGGED:
        answers["200"]["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "For If-Match and If-None-Match."}}
        answers["304"] = {"description": "The caller knows the answer already."}
    errors = {str(s): {"$ref": f"#/components/responses/{s}"} for s in errors_of(operation)}
    return {**described, "responses": {**answers, **errors}}


def errors_of(operation: Operation) -> list[int]:
    """Return the HTTP statuses of all errors of an operation."""
    keyed = (409, 422) if "Idempotency-Key" in _headers(operation) else ()
    return sorted({*COMMON_ERRORS, *operation.errors, *keyed, *((412,) if operation.id in MATCHED else ())})


def _headers(operation: Operation) -> dict[str, Schema]:
    if operation.method == "GET":
        return {"If-None-Match": IF_NONE_MATCH} if operation.id in TAGGED else {}
    matched = {"If-Match": IF_MATCH} if operation.id in MATCHED else {}
    return {**matched, **({} if operation.id in UNKEYED else {"Idempotency-Key": IDEMPOTENCY_KEY})}


_ERRORS: Mapping[int, str] = {
    400: "The input breaks a rule; nothing was changed. `problems` has them all.",
    403: "The caller may not do this.",
    404: "What was named does not exist.",
    409: "The state of the record does not allow it, somebody else moved first, or bytes differ from what was recorded.",
    412: "The record does not stand as If-Match has it any more; nothing was changed.",
    422: "The idempotency key came with another request before; nothing was changed.",
    429: "Too many requests; come back after the seconds in Retry-After, where there is one.",
    500: "The registry failed; its log tells more under the ID in `instance`.",
    503: "A service does not answer, or the version is loading; come back after the seconds in Retry-After.",
}
_BY_GATEWAY = (403, 429, 503)
_AGAIN = (409, 429, 503)


def _error(status: int) -> dict[str, Any]:
    content = {PROBLEM: {"schema": ref("Problem")}}
    if status in _BY_GATEWAY:
        content[JSON] = {"schema": ref("GatewayRefusal")}
    described: dict[str, Any] = {"description": _ERRORS[status], "content": content}
    if status in _AGAIN:
        described["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds."}}
    return described
