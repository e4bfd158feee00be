"""The HTTP API's requests and answers (payload format 2.0), for every function that serves routes.

    ROUTES = {"GET /v1/models/{model}": show_model}

    def handler(event, context):
        return serve(event, context, ROUTES)

A route's function takes a `Request` and returns an `Answer` or the body of one. Errors become answers here and nowhere else: those of
the registry with their status, everything unexpected as 500 with the request's ID. Headers are never logged: they carry signatures.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, unquote_plus

from attestry.aws.answers import Answer, InternalError, error_answer, shape
from attestry.aws.idempotency import HEADER, IdempotentAnswers
from attestry.aws.logging import Invocation, configure_logging
from attestry.aws.preconditions import IF_MATCH, IF_NONE_MATCH, unless_known
from attestry.aws.rate_limit import SHARES
from attestry.domain.errors import AttestryError, ForbiddenError, InvalidInputError, NotFoundError, UnprovenIdentityError
from attestry.domain.paging import Page, read_page
from attestry.evidence.canonical import parse_strict

if TYPE_CHECKING:
    from attestry.access.standing import Standing
    from attestry.access.warrant import Warrant
    from attestry.domain.principal import Principal
    from attestry.ports import MetaStore

__all__ = ["MAX_BODY_BYTES", "Answer", "Request", "error_answer", "read_request", "serve"]

MAX_BODY_BYTES: Final = 1024 * 1024
BEARER_TREE: Final = "/oidc"
"""Before the paths of the routes whose callers come with a bearer token."""

_MAX_NUMBER = 10**9
_HEADERS = (IF_MATCH, IF_NONE_MATCH, HEADER)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A request as the gateway authenticated and routed it.

    Attributes:
        route: method and path template, for example `GET /v1/models/{model}`.
        parameters: values of the path's parameters, percent-decoded.
        query: the query's parameters, of several equal names the gateway's comma-joined text.
        raw: the body's bytes.
        context: the gateway's request context: the caller's identity and address.
        request_id: the gateway's ID of the request.
        headers: those that a request may be conditional on or be told again by, names in lower case; no other is kept.
        max_body_bytes: limit of the body.
        raw_query: the query as the client sent it, percent-encoded.
        tree: what stands before the path of the route: `BEARER_TREE`, or nothing where the caller signed.
        principal: who calls, with the roles that count on what is asked for; None before the gate.
        warrant: decides on what only the function finds out; None before the gate.
        table: what the request reads through where its rows were read with those that the gate decided on; None where not.
    """

    route: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    raw: bytes
    context: Mapping[str, Any]
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    max_body_bytes: int = MAX_BODY_BYTES
    raw_query: str = ""
    tree: str = ""
    principal: Principal | None = None
    warrant: Warrant | None = None
    table: MetaStore | None = None

    def body(self, *allowed: str) -> dict[str, Any]:
        """Return the JSON object in the body; with `allowed`, other fields than these are refused.

        Raises:
            InvalidInputError: too large, no JSON object, or an unknown field.
        """
        if len(self.raw) > self.max_body_bytes:
            size = len(self.raw)
            raise InvalidInputError.of("", "max_bytes", f"the body has {size} bytes; the limit is {self.max_body_bytes}")
        body = parse_strict(self.raw)
        if not isinstance(body, dict):
            raise InvalidInputError.of("", "type", "the body is a JSON object")
        unknown = sorted(set(body) - set(allowed)) if allowed else []
        if unknown:
            known = ", ".join(allowed)
            raise InvalidInputError.of(unknown[0], "unknown_field", f"there is no such field here; the fields are {known}")
        return body

    def no_body(self) -> None:
        """Check that there is nothing in the body, or an empty object.

        Raises:
            InvalidInputError: there is.
        """
        for name in self.body() if self.raw else ():
            raise InvalidInputError.of(name, "unknown_field", "there is no such field here; this operation takes none")

    def require(self, model: str, action: str | None = None, **context: str) -> Principal:
        """Have it decided whether the caller may do this to a model that the function has found out, and return the caller.

        Args:
            model: its name; empty for the registry as a whole.
            action: another action than that of the route.
            context: further facts for policies.

        Raises:
            ForbiddenError: policies deny it, or the request passed no gate.
        """
        return self._warrant().require(model, action, **context)

    def readable(self, models: list[str]) -> list[str]:
        """Return those of some models that the caller may read, in their order.

        Raises:
            UnprovenIdentityError: the request passed no gate.
        """
        return self._warrant().readable(models)

    @property
    def standing(self) -> Standing:
        """Return what the caller holds.

        Raises:
            UnprovenIdentityError: the request passed no gate.
        """
        return self._warrant().standing

    def _warrant(self) -> Warrant:
        if self.warrant is None:
            raise UnprovenIdentityError("the request passed no gate, so nobody knows whose it is")
        return self.warrant

    def text(self, name: str) -> str:
        """Return a parameter of the path."""
        return self.parameters[name]

    def number(self, name: str) -> int:
        """Return a parameter of the path that is a positive number.

        Raises:
            InvalidInputError: it is not.
        """
        return _number(name, self.parameters[name])

    def query_text(self, name: str, default: str | None = None) -> str:
        """Return a parameter of the query.

        Raises:
            InvalidInputError: it is missing and has no default.
        """
        value = self.query.get(name) or default
        if value is None:
            raise InvalidInputError.of(name, "required", "the query needs this parameter")
        return value

    def query_number(self, name: str, default: int | None = None) -> int:
        """Return a parameter of the query that is a positive number.

        Raises:
            InvalidInputError: it is not a number, or missing without a default.
        """
        return _number(name, self.query_text(name, None if default is None else str(default)))

    def page(self) -> Page:
        """Return the page of a list that the query asks for by `limit` and `cursor`.

        Raises:
            InvalidInputError: no limit, or no cursor of this list.
        """
        told = sorted((name, value) for name, value in self.query.items() if name not in ("limit", "cursor"))
        bound = json.dumps([self.route, sorted(self.parameters.items()), told])
        return read_page(self.query.get("limit"), self.query.get("cursor"), bound=bound)

    def query_flag(self, name: str) -> bool:
        """Return a parameter of the query that is `true` or `false`; absent is false.

        Raises:
            InvalidInputError: it is neither.
        """
        value = self.query_text(name, "false")
        if value not in ("true", "false"):
            raise InvalidInputError.of(name, "boolean", "`true` or `false` is needed")
        return value == "true"


Route = Callable[[Request], Any]
Denied = Callable[[Request, AttestryError], None]
Refusal = Callable[[AttestryError], Answer]


@dataclass(frozen=True)
class Named:
    """What a request names, as far as that is known before it is decided whether it is let.

    Attributes:
        model: the identity of the model that the function will most likely find out.
        table: what the request reads through; it takes the rows that are named along with those that the gate decides on.
    """

    model: str
    table: MetaStore


class Guard(Protocol):
    """The gate that every request passes."""

    def admit(self, request: Request, named: Named | None = None) -> Request:
        """Return the request with its principal and warrant.

        Args:
            request: the request.
            named: what it names, where the gate is to read that as well.

        Raises:
            ForbiddenError: it is denied.
        """


def serve(
    event: Mapping[str, Any],
    context: Invocation | None,
    routes: Mapping[str, Route],
    *,
    guard: Guard | None,
    named: Callable[[Request], Named | None] | None = None,
    answers: IdempotentAnswers | None = None,
    matched: Collection[str] = (),
    max_body_bytes: int = MAX_BODY_BYTES,
    on_denied: Denied | None = None,
    on_error: Refusal | None = None,
    repeats: bool = False,
) -> dict[str, Any]:
    """Answer an HTTP API event; never raises, because an exception would end the process and a signing key with it.

    Args:
        event: the event in payload format 2.0.
        context: the Lambda context.
        routes: method and path template to the function that answers.
        guard: decides who is let; None only where nothing is behind the routes.
        named: tells what a request names, so that the gate reads it as well; where it tells None, the function reads it afterwards.
        answers: what was answered to requests with an idempotency key; None where such a key is refused.
        matched: routes that heed If-Match; on the others it is refused, since it must not be passed over.
        max_body_bytes: limit of the body, checked after base64.
        on_denied: told of a request that was refused to its caller, once the answer is made; what it raises is logged and changes nothing.
        on_error: gives errors body and status of a protocol that is not this API's own.
        repeats: the protocol gives parameters of the query several times, and the routes read them from `Request.raw_query` alone.
    """
    configure_logging(context)
    request_id = str((event.get("requestContext") or {}).get("requestId", ""))
    request: Request | None = None
    try:
        request = read_request(event, max_body_bytes, repeats=repeats)
        route = routes.get(request.route)
        if route is None:
            raise NotFoundError(f"there is no route {request.route}")
        SHARES.take(request.context, request.route)
        request = guard.admit(request, named(request) if named else None) if guard is not None else request
        answer = _answer(request, route, answers, matched)
        shaped = unless_known(shape(answer, request_id), request.headers)
    except AttestryError as error:
        answer = _refused(error, request_id, on_error)
        shaped = shape(answer, request_id)
        if on_denied is not None and request is not None and isinstance(error, ForbiddenError):
            _tell_denied(on_denied, request, error)
    except Exception as unexpected:  # noqa: BLE001 - it is logged with its trace, as the cause of what is answered
        internal = InternalError("unexpected error")
        internal.__cause__ = unexpected
        answer = _refused(internal, request_id, on_error)
        shaped = shape(answer, request_id)
    logger.info("answered", extra={"route": event.get("routeKey"), "status": answer.status, "gateway_request_id": request_id})
    return shaped


def _answer(request: Request, route: Route, answers: IdempotentAnswers | None, matched: Collection[str]) -> Answer:
    """Return the answer of a route, with what the request's headers ask for."""

    def act() -> Answer:
        result = route(request)
        if request.warrant is not None:
            request.warrant.require_settled()
        return result if isinstance(result, Answer) else Answer(result)

    changes = not request.route.startswith("GET ")
    if changes and IF_MATCH in request.headers and request.route not in matched:
        raise InvalidInputError.of("If-Match", "not_here", "this operation has no record that If-Match could be about")
    if not changes or HEADER not in request.headers:
        return act()
    if answers is None:
        raise InvalidInputError.of("Idempotency-Key", "not_here", "this operation takes no idempotency key")
    return answers.answer(request, act)


def read_request(event: Mapping[str, Any], max_body_bytes: int = MAX_BODY_BYTES, *, repeats: bool = False) -> Request:
    """Return the request that an event carries.

    Raises:
        InvalidInputError: the body is not the base64 that it is said to be, or the query has a parameter twice.
    """
    context = event.get("requestContext") or {}
    given = {str(name).lower(): value for name, value in (event.get("headers") or {}).items()}
    body = event.get("body") or ""
    try:
        raw = base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode()
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError.of("", "base64", "the body is not base64") from error
    if not repeats:
        _check_once(str(event.get("rawQueryString") or ""))
    parameters = {name: unquote(value) for name, value in (event.get("pathParameters") or {}).items()}
    tree, route = _split_tree(str(event.get("routeKey", "")))
    return Request(
        route=route,
        parameters=parameters,
        query=dict(event.get("queryStringParameters") or {}),
        raw=raw,
        context=context,
        request_id=str(context.get("requestId", "")),
        headers={name: str(given[name]) for name in _HEADERS if name in given},
        max_body_bytes=max_body_bytes,
        raw_query=str(event.get("rawQueryString") or ""),
        tree=tree,
    )


def _refused(error: AttestryError, request_id: str, on_error: Refusal | None) -> Answer:
    """Return the answer for an error, which `error_answer` has told the log, in the protocol that the caller speaks."""
    ours = error_answer(error, request_id)
    if on_error is None:
        return ours
    theirs = on_error(error)
    kept = {name: value for name, value in ours.headers.items() if name != "content-type"}
    return Answer(theirs.body, theirs.status, {**kept, **theirs.headers})


def _split_tree(key: str) -> tuple[str, str]:
    """Return the tree of a route's key, and the route: the same operation, whether the gateway checks a signature or a token before it."""
    method, _, path = key.partition(" ")
    return (BEARER_TREE, f"{method} {path.removeprefix(BEARER_TREE)}") if path.startswith(f"{BEARER_TREE}/") else ("", key)


def _tell_denied(on_denied: Denied, request: Request, error: AttestryError) -> None:
    try:
        on_denied(request, error)
    except Exception:
        logger.exception("a denied request could not be noted down", extra={"gateway_request_id": request.request_id})


def _check_once(query: str) -> None:
    """Refuse a parameter that is there twice: the gateway joins the values, and readers differ in which one counts."""
    seen: set[str] = set()
    for part in query.split("&") if query else ():
        name = unquote_plus(part.partition("=")[0])
        if name and name in seen:
            raise InvalidInputError.of(name, "once", "a parameter of the query is given once")
        seen.add(name)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) < _MAX_NUMBER and len(text) < 11):
        raise InvalidInputError.of(name, "number", f"a number from 1 is needed, not {text!r:.40}")
    return int(text)
