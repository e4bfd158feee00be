"""Requests and answers of the HTTP API."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

from attestry.aws.answers import relayed
from attestry.aws.errors import AccessRefusedError
from attestry.aws.http import Answer, Request, read_request, serve
from attestry.domain.errors import (
    AttestryError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotReadyError,
    Problem,
    SelfApprovalError,
    UnavailableError,
)

SECRET = "AWS4-HMAC-SHA256 Credential=AKID/secret-signature"


def event(route: str = "POST /v1/things/{name}", **changes: Any) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": route,
        "headers": {"authorization": SECRET},
        "pathParameters": {"name": "a%20b", "number": "3"},
        "requestContext": {"requestId": "req-1", "http": {"sourceIp": "192.0.2.1"}, "authorizer": {"iam": {"userArn": "arn"}}},
        "body": '{"x": 1}',
        "isBase64Encoded": False,
        **changes,
    }


def answer(route: Any, given: dict[str, Any] | None = None, **options: Any) -> tuple[int, Any, dict[str, str]]:
    shaped = serve(given or event(), None, {"POST /v1/things/{name}": route}, guard=None, **options)
    return shaped["statusCode"], json.loads(shaped["body"]), shaped["headers"]


def raising(error: BaseException) -> Any:
    def route(_: Request) -> None:
        raise error

    return route


def test_a_route_gets_path_query_body_and_the_gateways_context() -> None:
    seen: list[Request] = []
    answer(lambda r: seen.append(r) or {}, event(queryStringParameters={"deep": "true", "from": "2"}))
    request = seen[0]
    assert (request.text("name"), request.number("number")) == ("a b", 3)
    assert (request.query_flag("deep"), request.query_number("from"), request.query_flag("absent")) == (True, 2, False)
    assert request.body("x") == {"x": 1}
    assert request.context["authorizer"] == {"iam": {"userArn": "arn"}}
    assert request.request_id == "req-1"


def test_a_body_may_come_in_base64() -> None:
    given = event(body=base64.b64encode('{"x": "ü"}'.encode()).decode(), isBase64Encoded=True)
    assert read_request(given).body("x") == {"x": "ü"}


def test_a_route_answers_with_its_status_and_headers() -> None:
    status, body, headers = answer(lambda _: Answer({"a": 1}, 201, {"location": "/x"}))
    assert (status, body) == (201, {"a": 1})
    assert headers == {
        "content-type": "application/json",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-request-id": "req-1",
        "location": "/x",
    }


def test_an_answer_that_is_encoded_already_goes_as_it_stands() -> None:
    text = '{"output": [1.0,  1e-7]}'
    assert serve(event(), None, {"POST /v1/things/{name}": lambda _: Answer(text, encoded=True)}, guard=None)["body"] == text


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b"\xff", "json"),
        (b"[1]", "type"),
        (b'"text"', "type"),
        (b'{"x": NaN}', "json"),
        (b'{"x": 1e999}', "json"),
        (b'{"x": 1, "x": 2}', "json"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json"),
        (b'{"x": "' + b"y" * 1_100_000 + b'"}', "max_bytes"),
        (b'{"y": 1}', "unknown_field"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_body_is_refused_by_rule(raw: bytes, rule: str) -> None:
    given = event(body=base64.b64encode(raw).decode(), isBase64Encoded=True)
    status, body, _ = answer(lambda r: r.body("x"), given)
    assert (status, body["code"], body["rule"]) == (400, "invalid_input", rule)


def test_a_body_that_is_not_the_base64_it_claims_is_refused() -> None:
    assert answer(lambda r: {}, event(body="***", isBase64Encoded=True))[1]["rule"] == "base64"


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "x", "", "99999999999999", "٣", "1e3"])
def test_a_number_in_the_path_is_a_number_from_1(text: str) -> None:
    status, body, _ = answer(lambda r: r.number("number"), event(pathParameters={"number": text}))
    assert (status, body["field"], body["rule"]) == (400, "number", "number")


def test_a_missing_query_parameter_is_named() -> None:
    assert answer(lambda r: r.query_number("from"))[1]["field"] == "from"


def test_a_flag_is_true_or_false() -> None:
    assert answer(lambda r: r.query_flag("deep"), event(queryStringParameters={"deep": "yes"}))[1]["rule"] == "boolean"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidInputError.of("a.b", "required", "is missing"), 400, "invalid_input"),
        (SelfApprovalError("no"), 403, "self_approval"),
        (ConflictError("moved"), 409, "conflict"),
    ],
)
def test_an_error_of_the_registry_is_answered_with_its_status(error: Exception, status: int, code: str) -> None:
    got, body, _ = answer(raising(error))
    assert (got, body["code"], body["detail"]) == (status, code, str(error))


@pytest.mark.parametrize(("error", "seconds"), [(NotReadyError("loading", retry_after_seconds=7), "7"), (UnavailableError("busy"), "1")])
def test_a_503_tells_when_to_come_back(error: Exception, seconds: str) -> None:
    status, _, headers = answer(raising(error))
    assert (status, headers["retry-after"]) == (503, seconds)


@pytest.mark.parametrize("error", [RuntimeError("secret detail"), KeyError("secret detail"), AccessRefusedError("secret detail")])
def test_what_went_wrong_inside_goes_to_the_log_and_not_to_the_caller(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = answer(raising(error))
    assert status == 500
    assert "secret detail" not in json.dumps(body)
    assert "req-1" in body["detail"]
    assert "secret detail" in caplog.text


def test_an_answer_that_is_no_json_is_an_error_inside() -> None:
    assert answer(lambda _: {"x": float("nan")})[0] == 500
    assert answer(lambda _: {"x": object()})[0] == 500


def test_a_route_that_does_not_exist_is_404() -> None:
    assert answer(lambda _: {}, event("GET /v1/other"))[0] == 404


def test_headers_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer(lambda _: {})
    answer(raising(RuntimeError("x")))
    answer(raising(AccessRefusedError("x")))
    assert caplog.records
    assert not any("secret-signature" in str(vars(record)) for record in caplog.records)


def test_an_error_is_problem_details_with_the_registry_s_own_members() -> None:
    error = InvalidInputError([Problem("a.b", "required", "is missing", 3), Problem("c", "type", "is a text", None)])
    status, body, headers = answer(raising(error))
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert body.pop("detail") == str(error)
    assert body == {
        "type": "urn:attestry:problem:invalid_input",
        "title": "Invalid input",
        "status": 400,
        "instance": "urn:attestry:request:req-1",
        "code": "invalid_input",
        "field": "a.b",
        "rule": "required",
        "line": 3,
        "problems": [
            {"field": "a.b", "rule": "required", "message": "is missing", "line": 3},
            {"field": "c", "rule": "type", "message": "is a text", "line": None},
        ],
    }


def test_half_a_surrogate_pair_in_an_answer_does_not_fail_the_platform() -> None:
    given = event(body='{"\\ud800": 1}')
    shaped = serve(given, None, {"POST /v1/things/{name}": lambda _: {"told": "\ud800"}}, guard=None)
    assert json.loads(shaped["body"].encode("utf-8")) == {"told": "?"}


@pytest.mark.parametrize(
    "error",
    [
        InvalidInputError.of("a", "type", "is a text"),
        SelfApprovalError("no", details={"login": "dana"}),
        ConflictError("moved"),
        NotReadyError("loading", retry_after_seconds=7),
    ],
    ids=lambda error: error.code,
)
def test_an_error_that_another_function_answered_with_is_told_as_its_own(error: AttestryError) -> None:
    again = relayed(error.to_dict(), error.status)
    assert (again.to_dict(), again.status) == (error.to_dict(), error.status)
    assert isinstance(again, ForbiddenError) == isinstance(error, ForbiddenError)
