"""Idempotency-Key: a request that is sent twice is done once, and answered twice alike (draft-ietf-httpapi-idempotency-key-header).

IDEMPOTENCY#<digest>/HEAD     begun, request (SHA-256 of query and body), and once it was answered status, content and headers; expires

Rules:
- A key counts for one caller, as the platform authenticated them, on one route with its parameters; nobody meets the key of somebody else.
- The row is there before the act begins, by a conditional write, and has the answer when it has ended; it is kept for 24 hours.
- The same key with another body or query is refused (422), and while the first request is being answered so is the second (409).
- Only answers of success are kept. An error has changed nothing, so the row goes and the key may be tried again.
- A process that died leaves a row without an answer; once no function could still be at work the key may be used again, and the act, which
  is idempotent itself, is done again.
- Of the answer no more is kept than what the caller was told, and nothing of the request but its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from attestry.aws.answers import Answer
from attestry.domain.errors import ConditionFailedError, InProgressError, InvalidInputError, KeyReusedError, UnavailableError
from attestry.ports import ABSENT, Clock, Delete, Item, Key, MetaStore, Put, Update, When

if TYPE_CHECKING:
    from attestry.aws.http import Request

HEADER: Final = "idempotency-key"
REPLAYED: Final = "idempotency-replayed"
KEPT: Final = timedelta(hours=24)
LEASE: Final = timedelta(seconds=40)
"""Longer than any function of the API runs."""

MAX_ANSWER_BYTES: Final = 256 * 1024
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class IdempotentAnswers:
    """What was answered to requests with a key.

    Args:
        meta: the table.
        clock: the time.
    """

    def __init__(self, meta: MetaStore, clock: Clock) -> None:
        self._meta = meta
        self._clock = clock

    def answer(self, request: Request, act: Callable[[], Answer]) -> Answer:
        """Return the answer to a request: that of the act, or that of the same request before.

        Raises:
            InvalidInputError: the key is no 1 to 255 visible ASCII characters.
            KeyReusedError: it came with another request.
            InProgressError: the first request is being answered.
        """
        key, digest = row_key(request), request_digest(request)
        now = self._clock.now()
        begun: Item = {"begun": now.isoformat(), "request": digest, "expires": int((now + KEPT).timestamp())}
        known = self._begin(key, begun, now)
        if known is not None:
            return known
        try:
            answer = act()
        except Exception:
            # Where AWS did not answer, it is unknown whether the act took effect: a retry, which has to wait for nobody, finds out.
            self._forget(key, begun)
            raise
        self._keep(key, begun, answer)
        return answer

    def _begin(self, key: Key, begun: Item, now: datetime) -> Answer | None:
        try:
            self._meta.transact([Put(key, begun, ABSENT)])
        except ConditionFailedError:
            row = self._meta.get(key)
            if row is None:
                raise InProgressError("the same key was in use a moment ago; send the request again", retry_after_seconds=1) from None
        else:
            return None
        if int(row["expires"]) > now.timestamp():
            if row["request"] != begun["request"]:
                raise KeyReusedError("this idempotency key came with another request before; a new request needs a new key") from None
            if "status" in row:
                return _again(row)
            left = datetime.fromisoformat(str(row["begun"])) + LEASE - now
            if left > timedelta(0):
                raise InProgressError(
                    "the same request is being answered", retry_after_seconds=min(5, int(left.total_seconds()) + 1)
                ) from None
        try:
            self._meta.transact([Put(key, begun, When(exists=True, equals={"begun": row["begun"]}))])
        except ConditionFailedError as error:
            raise InProgressError("the same request is being answered", retry_after_seconds=1) from error
        return None

    def _keep(self, key: Key, begun: Item, answer: Answer) -> None:
        content = json.dumps(answer.body, separators=(",", ":"), allow_nan=False)
        if answer.status >= 300 or len(content) > MAX_ANSWER_BYTES:
            self._forget(key, begun)
            return
        told = {"status": answer.status, "content": content, "headers": dict(answer.headers)}
        try:
            self._meta.transact([Update(key, told, When(exists=True, equals={"begun": begun["begun"]}))])
        except (ConditionFailedError, UnavailableError):
            # The act is done and the caller is told so. Whoever sends it again does it again, as without a key.
            return

    def _forget(self, key: Key, begun: Item) -> None:
        try:
            self._meta.transact([Delete(key, When(exists=True, equals={"begun": begun["begun"]}))])
        except (ConditionFailedError, UnavailableError):
            return


def row_key(request: Request) -> Key:
    """Return the key of the row of a request's idempotency key.

    Raises:
        InvalidInputError: it is no 1 to 255 visible ASCII characters.
    """
    given = request.headers[HEADER]
    if not _KEY.fullmatch(given):
        raise InvalidInputError.of("Idempotency-Key", "idempotency_key", "the key is 1 to 255 visible ASCII characters")
    principal = request.principal
    who = [principal.issuer, principal.subject] if principal is not None else []
    told = json.dumps([who, request.route, sorted(request.parameters.items()), given])
    return Key(f"IDEMPOTENCY#{hashlib.sha256(told.encode()).hexdigest()}")


def request_digest(request: Request) -> str:
    """Return the SHA-256, hex, of what tells one request on a route from another: query, body, and what it is conditional on."""
    told = json.dumps([sorted(request.query.items()), request.headers.get("if-match", "")])
    return hashlib.sha256(told.encode() + b"\n" + request.raw).hexdigest()


def _again(row: Mapping[str, Any]) -> Answer:
    return Answer(json.loads(row["content"]), int(row["status"]), {**row["headers"], REPLAYED: "true"})
