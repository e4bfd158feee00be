"""Gateway and roles against the table of operations, which infra does not import. MLflow's surface is not ours to describe."""

from __future__ import annotations

import json

import pytest

from attestry.api.operation import ALL
from attestry.api.operations import BY_ROUTE, OPERATIONS
from infra.api import ROUTES, SCORING_PATH, SIGNED_ALONE
from infra.config import Config, ConfigError
from infra.identity import routes_of
from infra.mlflow_routes import WEBHOOKS
from lambdas import mlflow
from tests.api_world import ROUTES as SERVED
from tests.infra.template import Template


def test_the_gateway_has_exactly_the_operations_and_sends_each_to_the_function_that_serves_it() -> None:
    native = [route for route in ROUTES if route.function != "mlflow"]
    assert {f"{route.method} {route.path}": route.function for route in native} == SERVED
    assert {f"{route.method} {route.path}" for route in native} == set(BY_ROUTE)


def test_the_gateway_has_exactly_the_routes_of_mlflow_that_are_served() -> None:
    assert sorted(f"{route.method} {route.path}" for route in ROUTES if route.function == "mlflow") == sorted(mlflow.ROUTES)


@pytest.mark.parametrize("role", ALL)
def test_a_role_may_call_exactly_the_operations_that_name_it(role: str) -> None:
    assert {f"{r.method} {r.path}" for r in routes_of(role) if r.function != "mlflow"} == {o.route for o in OPERATIONS if role in o.roles}


def test_where_tokens_are_taken_every_route_is_there_twice_and_by_nobody_s_leave_but_its_authorizer_s(with_tokens: Template) -> None:
    routes = {p["RouteKey"]: p for p in with_tokens.of_type("AWS::ApiGatewayV2::Route").values()}
    (authorizer,) = with_tokens.of_type("AWS::ApiGatewayV2::Authorizer").values()
    assert (authorizer["AuthorizerType"], authorizer["EnableSimpleResponses"]) == ("REQUEST", True)
    assert authorizer["IdentitySource"] == ["$request.header.Authorization"]
    assert authorizer["AuthorizerResultTtlInSeconds"] <= 60
    for route in ROUTES:
        if route.function == "webhooks" or route.path == SCORING_PATH or route.path.startswith(WEBHOOKS):  # off in this configuration
            continue
        signed = routes.pop(f"{route.method} {route.path}")
        assert signed["AuthorizationType"] == "AWS_IAM"
        if route.function not in SIGNED_ALONE:
            by_token = routes.pop(f"{route.method} /oidc{route.path}")
            assert (by_token["AuthorizationType"], by_token["Target"]) == ("CUSTOM", signed["Target"])
    assert not routes
    assert len(with_tokens.raw["Resources"]) <= 500  # what CloudFormation takes


def test_the_pool_lets_nobody_sign_up_and_asks_for_a_second_factor(with_tokens: Template) -> None:
    (pool,) = with_tokens.of_type("AWS::Cognito::UserPool").values()
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    assert (pool["MfaConfiguration"], pool["EnabledMfas"]) == ("ON", ["SOFTWARE_TOKEN_MFA"])
    (client,) = with_tokens.of_type("AWS::Cognito::UserPoolClient").values()
    assert (client["AllowedOAuthFlows"], client["GenerateSecret"]) == (["code"], False)
    assert client["SupportedIdentityProviders"] == ["saml"]


def test_the_authorizer_is_told_whose_tokens_count(with_tokens: Template) -> None:
    functions = {f["FunctionName"]: f for f in with_tokens.of_type("AWS::Lambda::Function").values()}
    told = json.dumps(functions["attestry-authenticate"]["Environment"]["Variables"]["ATTESTRY_OIDC"])
    assert "https://login.example.com" in told
    assert "cognito-idp" in told


@pytest.mark.parametrize(
    "settings",
    [
        {"attestry:samlMetadataUrl": "https://idp.example.com/metadata"},
        {"attestry:oidcIssuers": [{"alias": "corp", "issuer": "http://login.example.com", "audiences": ["a"]}]},
        {"attestry:oidcIssuers": [{"alias": "corp", "issuer": "https://login.example.com", "audiences": []}]},
        {"attestry:oidcIssuers": "[1]"},
    ],
)
def test_an_issuer_that_is_described_badly_stops_the_synthesis(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Config.from_context(settings)
