"""Page tokens: where a search goes on, bound to the search that it belongs to.

MLflow's tokens are offsets, which skip and repeat rows as others change the table. Ours hold the cursor of the registry's own search,
and a digest of the question: with a token of another filter or order, a page would be a riddle, so it is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Final

from attestry.mlflow.errors import invalid

MAX_TOKEN: Final = 8192
MAX_PAGE: Final = 1000
"""Models or versions in one answer, whatever `max_results` allows: a function's answer has at most 6 MiB."""


def question(of: str, text: str, order_by: Sequence[str]) -> str:
    """Return the digest of a search, which its tokens carry.

    Args:
        of: what is searched: `models` or `versions`.
        text: the filter.
        order_by: the clauses.
    """
    return hashlib.sha256(json.dumps([of, text, list(order_by)]).encode()).hexdigest()[:16]


def write_token(digest: str, cursor: str) -> str:
    """Return the token that goes on from a cursor; empty where there is none."""
    if not cursor:
        return ""
    return base64.urlsafe_b64encode(json.dumps({"question": digest, "cursor": cursor}).encode()).decode()


def read_token(token: str, digest: str) -> str:
    """Return the cursor of a token; empty for no token.

    Raises:
        MlflowError: no token of this registry, or one of another search; code INVALID_PARAMETER_VALUE.
    """
    if not token:
        return ""
    try:
        if len(token) > MAX_TOKEN:
            raise ValueError("too long")
        held = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        asked, cursor = held["question"], held["cursor"]
    except (ValueError, binascii.Error, KeyError, TypeError, RecursionError) as error:
        raise invalid("Invalid page token, it is none that this registry gave") from error
    if asked != digest or not isinstance(cursor, str) or not cursor:
        raise invalid("Invalid page token, it belongs to a search with another filter or order")
    return cursor
