"""ETag, If-None-Match and If-Match (RFC 9110, sections 8.8.3 and 13.1).

An entity tag is `"<revision>-<digest>"`: the revision of the record that an answer shows, and 16 hex digits of the SHA-256 of its body.
With If-None-Match the whole tag counts, because an answer tells of other rows too. With If-Match the revision alone counts: it is what an
act's writes are conditional on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import InvalidInputError

IF_MATCH: Final = "if-match"
IF_NONE_MATCH: Final = "if-none-match"
_TAG = re.compile(r'"([0-9]{1,15})-[0-9a-f]{16}"')
_KEPT = ("cache-control", "etag", "x-request-id")


def write_etag(rev: int, body: str) -> str:
    """Return the entity tag of an answer."""
    return f'"{rev}-{hashlib.sha256(body.encode()).hexdigest()[:16]}"'


def expected_rev(headers: Mapping[str, str]) -> int | None:
    """Return the revision that a request's If-Match names; None where it names none, or any (`*`).

    Raises:
        InvalidInputError: no entity tag of ours, or several.
    """
    given = headers.get(IF_MATCH, "*").strip()
    if given == "*":
        return None
    found = _TAG.fullmatch(given)
    if found is None:
        raise InvalidInputError.of("If-Match", "etag", "one entity tag is needed, as the ETag of an answer has it, or *")
    return int(found[1])


def unless_known(shaped: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """Return an answer to a GET, or 304 where the request's If-None-Match has its entity tag; tags are compared weakly."""
    tag, given = shaped["headers"].get("etag"), headers.get(IF_NONE_MATCH, "").strip()
    known = {one.strip().removeprefix("W/") for one in given.split(",")}
    if tag is None or shaped["statusCode"] != 200 or not (given == "*" or tag in known):
        return shaped
    kept = {name: value for name, value in shaped["headers"].items() if name in _KEPT}
    return {"statusCode": 304, "headers": kept, "body": "", "isBase64Encoded": False}
