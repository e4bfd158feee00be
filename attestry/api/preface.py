"""What docs/api.md says before the operations."""

from typing import Final

PREFACE: Final = """
# The HTTP API

This page is made of the code (`attestry api reference`), and so is the OpenAPI 3.1 document: `attestry api openapi`,
`GET /v1/openapi.json`, [api/openapi.json](api/openapi.json).

## Requests

A request is signed with AWS Signature Version 4 for the service `execute-api`; who calls is read from the signature and from nothing else.
The address is the SSM parameter `/attestry/api-url`. Bodies are JSON (RFC 8259) in UTF-8 of at most 1 MiB: no name twice in an object, no
NaN. A field that the operation does not have is refused (`unknown_field`).

## Lists

A list answers a page: `limit` rows at most (1 to 200; 100 unless it is said), and in `next` the `cursor` of the next page, null on the
last one. A cursor is opaque and bound to the route and the other parameters; with others it is refused (`cursor`). A parameter that is
given twice is refused (`once`).

## Answers and errors

Answers are JSON, `cache-control: no-store`, with the request's ID in `x-request-id`. Fields may be added to answers at any time; pass over
those that you do not know.

Errors of the registry are problem details (RFC 9457, `application/problem+json`):

| field | |
|---|---|
| `type` | `urn:attestry:problem:<code>` |
| `title` | the kind of error in words |
| `status` | the HTTP status |
| `detail` | what is wrong, for a person |
| `instance` | `urn:attestry:request:<ID>`: the registry's log tells more under this ID |
| `code` | stable name of the kind of error |
| `field`, `rule`, `line` | of the first thing that is wrong with the input |
| `problems` | everything that is wrong with the input, each with `field`, `rule`, `message`, `line` |
| `details` | facts that belong to the code |

Every operation may answer 400 (`invalid_input`: nothing was changed), 403 (`forbidden` and its kinds), 429 and 503 (come back after
`Retry-After` seconds), and 500 (`internal`; nothing is told but the request's ID). What the gateway itself refuses, because the caller has
no rights or there are too many requests at once, never reaches the registry and is `{"message": ...}`.
"""
