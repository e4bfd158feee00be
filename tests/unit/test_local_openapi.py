"""What the embedded gateway imports of an OpenAPI document: all of it, or nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from attestry.local.openapi import ImportRefusedError, read_openapi
from infra.api_body import SIGNED, Operation, Tree, bearer_scheme, lambda_uri, openapi

REGISTRY = lambda_uri("aws", "eu-west-1", "arn:aws:lambda:eu-west-1:123456789012:function:registry")
TOKENS = lambda_uri("aws", "eu-west-1", "arn:aws:lambda:eu-west-1:123456789012:function:authenticate")
SHOW = Operation("GET", "/v1/models/{model}", "registry")
FILES = Operation("GET", "/files/{path+}", "registry")


def document() -> dict[str, Any]:
    by_token = Operation("GET", "/oidc/v1/models/{model}", "registry")
    trees = [Tree("signed", SIGNED, (SHOW, FILES)), Tree("bearer", bearer_scheme(TOKENS, 60), (by_token,))]
    return openapi("attestry", "a registry", {"registry": REGISTRY}, trees)


def show(changed: dict[str, Any]) -> dict[str, Any]:
    return dict(changed["paths"]["/v1/models/{model}"])["get"]


def test_a_document_makes_its_routes_each_authorised_and_answered_as_it_says() -> None:
    found = read_openapi(document())
    assert (found.title, found.description) == ("attestry", "a registry")
    assert found.in_force() == {
        "GET /v1/models/{model}": ("AWS_IAM", "", REGISTRY),
        "GET /files/{path+}": ("AWS_IAM", "", REGISTRY),
        "GET /oidc/v1/models/{model}": ("CUSTOM", TOKENS, REGISTRY),
    }
    assert found.integrations["registry"]["IntegrationType"] == "AWS_PROXY"
    assert found.authorizers["bearer"]["IdentitySource"] == ["$request.header.Authorization"]
    assert found.authorizers.keys() == {"bearer"}


def without_security(changed: dict[str, Any]) -> None:
    del show(changed)["security"]


def with_no_requirement(changed: dict[str, Any]) -> None:
    show(changed)["security"] = []


def with_an_empty_requirement(changed: dict[str, Any]) -> None:
    show(changed)["security"] = [{}]


def with_an_unknown_scheme(changed: dict[str, Any]) -> None:
    show(changed)["security"] = [{"nobody": []}]


def with_either_of_two_schemes(changed: dict[str, Any]) -> None:
    show(changed)["security"] = [{"signed": []}, {"bearer": []}]


def with_a_scheme_that_may_be_left_out(changed: dict[str, Any]) -> None:
    show(changed)["security"] = [{"signed": []}, {}]


def with_two_schemes_at_once(changed: dict[str, Any]) -> None:
    show(changed)["security"] = [{"signed": [], "bearer": []}]


def with_a_scheme_that_is_none(changed: dict[str, Any]) -> None:
    del changed["components"]["securitySchemes"]["signed"]["x-amazon-apigateway-authtype"]


def with_an_authorizer_of_another_kind(changed: dict[str, Any]) -> None:
    changed["components"]["securitySchemes"]["bearer"]["x-amazon-apigateway-authorizer"]["type"] = "jwt"


OPEN = (
    without_security,
    with_a_scheme_that_may_be_left_out,
    with_two_schemes_at_once,
    with_no_requirement,
    with_an_empty_requirement,
    with_an_unknown_scheme,
    with_either_of_two_schemes,
    with_a_scheme_that_is_none,
    with_an_authorizer_of_another_kind,
)


@pytest.mark.parametrize("change", OPEN, ids=lambda change: change.__name__)
def test_a_document_that_would_leave_a_route_open_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(document())
    change(changed)
    with pytest.raises(ImportRefusedError):
        read_openapi(changed)


def test_what_is_not_read_is_refused_and_not_passed_over() -> None:
    for path, value in (
        (("paths", "/v1/models/{model}", "get", "x-amazon-apigateway-request-validator"), "all"),
        (("paths", "/v1/models/{model}", "x-amazon-apigateway-any-method"), {}),
        (("components", "x-amazon-apigateway-integrations", "registry", "credentials"), "arn"),
        (("components", "securitySchemes", "bearer", "x-amazon-apigateway-authorizer", "authorizerCredentials"), "arn"),
        (("paths", "/v1/models/{model}", "get", "x-amazon-apigateway-integration"), {"$ref": "#/components/x/nothing"}),
        (("openapi",), "3.1.0"),
    ):
        changed: dict[str, Any] = copy.deepcopy(document())
        place = changed
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
        with pytest.raises(ImportRefusedError):
            read_openapi(changed)
