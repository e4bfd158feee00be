"""Gateway and roles against the table of operations, which infra does not import. MLflow's surface is not ours to describe."""

from __future__ import annotations

import json
import re

import pytest
from jsonschema import Draft4Validator
from schemathesis.specs.openapi.definitions import OPENAPI_30

from attestry.api.operation import ALL
from attestry.api.operations import BY_ROUTE, OPERATIONS
from infra.api import ROUTES, TOKEN_CACHE_SECONDS, TOKEN_TREE
from infra.config import Config, ConfigError
from infra.identity import routes_of
from infra.mlflow_routes import WEBHOOK_CHANGES, WEBHOOK_READS
from lambdas import mlflow
from tests.api_world import ROUTES as SERVED
from tests.infra.conftest import Synthesis
from tests.infra.template import ACCOUNT, REGION, Template


def test_the_gateway_has_exactly_the_operations_and_sends_each_to_the_function_that_serves_it() -> None:
    native = [route for route in ROUTES if route.function != "mlflow"]
    assert {f"{route.method} {route.path}": route.function for route in native} == SERVED
    assert {f"{route.method} {route.path}" for route in native} == set(BY_ROUTE)


def test_the_gateway_has_exactly_the_routes_of_mlflow_that_are_served() -> None:
    assert sorted(f"{route.method} {route.path}" for route in ROUTES if route.function == "mlflow") == sorted(mlflow.ROUTES)


@pytest.mark.parametrize("role", ALL)
def test_a_role_may_call_exactly_the_operations_that_name_it(role: str) -> None:
    assert {f"{r.method} {r.path}" for r in routes_of(role) if r.function != "mlflow"} == {o.route for o in OPERATIONS if role in o.roles}


def test_where_tokens_are_taken_every_route_is_there_twice_mlflows_too_and_by_nobody_s_leave_but_its_authorizer_s(
    with_tokens: Template,
) -> None:
    routes = with_tokens.routes()
    prefix = "attestry-"
    for route in ROUTES:
        answered = f"{prefix}{route.function.replace('_', '-')}"
        assert routes.pop(f"{route.method} {route.path}") == ("AWS_IAM", answered)
        assert routes.pop(f"{route.method} {TOKEN_TREE}{route.path}") == ("CUSTOM", answered)
    assert not routes


def test_where_webhooks_are_off_mlflows_routes_for_them_are_there_on_both_trees_to_say_so(open_network: Synthesis) -> None:
    routes = open_network.template.routes()
    assert not [route for route, (_, function) in routes.items() if function == "registry-two-webhooks"]
    for route in (*WEBHOOK_READS, *WEBHOOK_CHANGES):
        assert routes[f"{route.method} {route.path}"] == ("AWS_IAM", "registry-two-mlflow")
        assert routes[f"{route.method} {TOKEN_TREE}{route.path}"] == ("CUSTOM", "registry-two-mlflow")


def test_one_authorizer_of_ours_guards_the_tree_of_tokens(with_tokens: Template) -> None:
    schemes = with_tokens.api_document()["components"]["securitySchemes"]
    assert schemes["signed"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    authorizer = schemes["bearer"]["x-amazon-apigateway-authorizer"]
    assert ":function:attestry-authenticate/" in authorizer.pop("authorizerUri")
    assert authorizer == {
        "type": "request",
        "authorizerPayloadFormatVersion": "2.0",
        "enableSimpleResponses": True,
        "identitySource": "$request.header.Authorization",
        "authorizerResultTtlInSeconds": TOKEN_CACHE_SECONDS,
    }
    assert schemes.keys() == {"signed", "bearer"}
    assert TOKEN_CACHE_SECONDS <= 60


def test_an_import_that_meets_anything_unknown_fails_the_deployment(with_tokens: Template) -> None:
    """The importer leaves out what it does not know, and a route that lost its scheme would be open."""
    (api,) = with_tokens.of_type("AWS::ApiGatewayV2::Api").values()
    assert api["FailOnWarnings"] is True
    assert api.keys() == {"Body", "FailOnWarnings"}


def test_the_document_is_valid_openapi_because_the_importer_warns_of_what_is_not(with_tokens: Template) -> None:
    assert [error.message for error in Draft4Validator(OPENAPI_30).iter_errors(with_tokens.api_document())] == []


def test_each_operation_of_the_document_declares_the_variables_of_its_path(with_tokens: Template) -> None:
    for path, item in with_tokens.api_document()["paths"].items():
        declared = [parameter["name"] for parameter in item.get("parameters", [])]
        assert declared == re.findall(r"\{([^}]+)\}", path)


def test_the_gateway_may_invoke_what_answers_it_and_nothing_else(with_tokens: Template) -> None:
    permissions = with_tokens.of_type("AWS::Lambda::Permission").values()
    let = {p["FunctionName"]: p["SourceArn"] for p in permissions if p["Principal"] == "apigateway.amazonaws.com"}
    functions = {f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}" for _, name in with_tokens.routes().values()}
    authorizer = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:attestry-authenticate"
    assert let.keys() == functions | {authorizer}
    assert let.pop(authorizer).endswith("/authorizers/*")
    assert all(re.fullmatch(rf"arn:aws:execute-api:{REGION}:{ACCOUNT}:\w+/\*/\*", source) for source in let.values())


def test_the_pool_lets_nobody_sign_up_and_asks_for_a_second_factor(with_tokens: Template) -> None:
    (pool,) = with_tokens.of_type("AWS::Cognito::UserPool").values()
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    assert (pool["MfaConfiguration"], pool["EnabledMfas"]) == ("ON", ["SOFTWARE_TOKEN_MFA"])
    (client,) = with_tokens.of_type("AWS::Cognito::UserPoolClient").values()
    assert (client["AllowedOAuthFlows"], client["GenerateSecret"]) == (["code"], False)
    assert client["SupportedIdentityProviders"] == ["saml"]


def test_a_group_of_the_pool_stands_for_each_role(with_tokens: Template) -> None:
    groups = {group["GroupName"] for group in with_tokens.of_type("AWS::Cognito::UserPoolGroup").values()}
    assert groups == {f"attestry-{role}" for role in ALL}


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
