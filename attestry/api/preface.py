"""What docs/api.md says before the operations."""

from typing import Final

PREFACE: Final = """
# The HTTP API

This page is made of the code (`attestry api reference`), and so is the OpenAPI 3.1 document: `attestry api openapi`,
`GET /v1/openapi.json`, [api/openapi.json](api/openapi.json).

## Requests

A request is signed with AWS Signature Version 4 for the service `execute-api`. Where the deployment takes
[bearer tokens](access.md#bearer-tokens) (RFC 6750), every operation is there for them as well, below `/oidc`: `GET /oidc/v1/me`. Who
calls is read from signature or token and from nothing else. The address is the SSM parameter `/attestry/api-url`. Bodies are JSON
(RFC 8259) in UTF-8 of at most 1 MiB: no name twice in an object, no NaN. A field that the operation does not have is refused
(`unknown_field`).

## Lists

A list answers a page: `limit` rows at most (1 to 200; 100 unless it is said), and in `next` the `cursor` of the next page, null on the
last one. A cursor is opaque and bound to the route and the other parameters; with others it is refused (`cursor`). A parameter that is
given twice is refused (`once`).

## Doing it once, and only if it still stands so

- **`Idempotency-Key`**: every operation that changes something takes one, but for those that say otherwise: 1 to 255 visible ASCII
  characters that the caller makes up for one request, for example a UUID. The same request with the same key is done once within 24
  hours; the second time it is answered as the first time, with `idempotency-replayed: true`. With another body it is refused (422,
  `idempotency_key_reused`); while the first is being answered, 409 (`in_progress`) with `Retry-After`. Only answers of success are kept:
  after an error, which has changed nothing, the key may be tried again. A key is the caller's own.
- **`ETag`, `If-Match`**: what has an `ETag` can be acted on only while it stands as it was read: the act's transaction is conditional on
  the revision in the tag. Otherwise 412 (`precondition_failed`), and nothing is changed. Where no record could be meant, the header is
  refused.
- **`If-None-Match`**: 304 where the answer would be the same.

## How much

One process of the registry answers a caller 200 requests a second on average and 400 at once; bundles, reviews and replays count as 20 to
40 each, a trace as 5. Beyond that it is 429 (`too_many_requests`) with `Retry-After`. Each process counts for itself, so a caller whose
requests come at the same time, and so meet several processes, gets more; all callers together have the limit of the API's stage.

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
