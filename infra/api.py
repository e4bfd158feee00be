"""The HTTP API: every route is authorised by IAM (SigV4), and each goes to the function that may do just that.

Where the deployment takes bearer tokens, every route is there a second time below `/oidc`, behind an authorizer of ours: a route takes one
authorizer, and the gateway's own for JWTs knows one issuer and no elliptic curves. The same function answers both. The gateway imports
all of it as one document (`infra/api_body.py`), so that routes are no resources of the stack, of which there may be 500.

An HTTP API and not a REST API, because its request context carries the caller's ARN, user ID and address under IAM authorisation, and it
costs a third. Access logs name who called what and how it ended, never a header or a body.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from aws_cdk import Aws, RemovalPolicy
from aws_cdk import aws_apigatewayv2 as apigw
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from infra import mlflow_routes
from infra.api_body import SIGNED, JsonObject, Operation, Tree, bearer_scheme, lambda_uri, openapi
from infra.config import Config
from infra.function_maker import RETENTION_DAYS
from infra.functions import Functions


@dataclass(frozen=True)
class Route:
    """One route of the API and the function that answers it; `pattern` is the end of the ARN by which it is granted with others."""

    method: str
    path: str
    function: str
    pattern: str = ""

    @property
    def resource(self) -> str:
        """The route as the end of an `execute-api` ARN, its variables as `*`."""
        if self.pattern:
            return self.pattern
        parts = ["*" if part.startswith("{") else part for part in self.path.split("/")]
        return f"{self.method}{'/'.join(parts)}"


ROUTES = (
    Route("POST", "/v1/uploads", "uploads"),
    Route("GET", "/v1/submissions/{submission}", "uploads"),
    Route("POST", "/v1/imports", "uploads"),
    Route("POST", "/v1/models/{model}/versions", "uploads"),
    Route("GET", "/v1/models/{model}/versions/{number}/files", "registry"),
    Route("GET", "/v1/openapi.json", "describe"),
    Route("GET", "/v1/me", "registry"),
    Route("GET", "/v1/models", "registry"),
    Route("POST", "/v1/models", "catalogue"),
    Route("GET", "/v1/models/{model}", "registry"),
    Route("PATCH", "/v1/models/{model}", "catalogue"),
    Route("DELETE", "/v1/models/{model}", "catalogue"),
    Route("PUT", "/v1/models/{model}/tags/{key}", "catalogue"),
    Route("DELETE", "/v1/models/{model}/tags/{key}", "catalogue"),
    Route("GET", "/v1/models/{model}/aliases", "registry"),
    Route("PUT", "/v1/models/{model}/aliases/{alias}", "catalogue"),
    Route("DELETE", "/v1/models/{model}/aliases/{alias}", "catalogue"),
    Route("PATCH", "/v1/models/{model}/versions/{number}", "catalogue"),
    Route("DELETE", "/v1/models/{model}/versions/{number}", "catalogue"),
    Route("PUT", "/v1/models/{model}/versions/{number}/tags/{key}", "catalogue"),
    Route("DELETE", "/v1/models/{model}/versions/{number}/tags/{key}", "catalogue"),
    Route("GET", "/v1/models/{model}/versions/{number}/labels", "registry"),
    Route("GET", "/v1/models/{model}/versions/{number}/annotations", "registry"),
    Route("POST", "/v1/models/{model}/versions/{number}/annotations", "catalogue"),
    Route("POST", "/v1/search/models", "registry"),
    Route("POST", "/v1/search/versions", "registry"),
    Route("GET", "/v1/models/{model}/rollout", "registry"),
    Route("GET", "/v1/models/{model}/versions", "registry"),
    Route("GET", "/v1/models/{model}/versions/{number}", "registry"),
    Route("GET", "/v1/models/{model}/diff", "registry"),
    Route("GET", "/v1/models/{model}/versions/{number}/logs", "registry"),
    Route("GET", "/v1/models/{model}/versions/{number}/data", "registry"),
    Route("GET", "/v1/predictions/{id}/trace", "registry"),
    Route("GET", "/v1/models/{model}/versions/{number}/packet", "registry"),
    Route("GET", "/v1/lineage", "registry"),
    Route("GET", "/v1/compliance", "registry"),
    Route("GET", "/v1/findings", "registry"),
    Route("GET", "/v1/ledger/file", "registry"),
    Route("GET", "/v1/ledger/audit", "registry"),
    Route("GET", "/v1/ledger/audit/{number}", "registry"),
    Route("GET", "/v1/predictions/{id}/bundle", "bundle"),
    Route("GET", "/v1/models/{model}/versions/{number}/bundle", "bundle"),
    Route("GET", "/v1/root", "root"),
    Route("POST", "/v1/root", "root"),
    Route("GET", "/v1/root/keys", "root"),
    Route("POST", "/v1/models/{model}/versions/{number}/decision", "decide"),
    Route("POST", "/v1/models/{model}/versions/{number}/validations", "decide"),
    Route("POST", "/v1/models/{model}/conflicts", "decide"),
    Route("GET", "/v1/models/{model}/conflicts", "decide"),
    Route("POST", "/v1/models/{model}/versions/{number}/deployment", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/retry", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/claim", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/kill", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/retirement", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/hold", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/release", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/redo", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/legal-hold", "custody"),
    Route("POST", "/v1/models/{model}/versions/{number}/disposal", "custody"),
    Route("POST", "/v1/models/{model}/versions/{number}/transition", "operate"),
    Route("POST", "/v1/models/{model}/rollback", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/promotion", "operate"),
    Route("POST", "/v1/models/{model}/rollout", "operate"),
    Route("POST", "/v1/models/{model}/capture", "operate"),
    Route("POST", "/v1/models/{model}/refresh", "operate"),
    Route("POST", "/v1/models/{model}/versions/{number}/reproduction", "operate"),
    Route("GET", "/v1/models/{model}/refreshes", "registry"),
    Route("POST", "/v1/models/{model}/predictions", "predict"),
    Route("POST", "/v1/models/{model}/scorings", "predict"),
    Route("GET", "/v1/people", "people"),
    Route("POST", "/v1/people", "people"),
    Route("POST", "/v1/policies", "people"),
    Route("GET", "/v1/access/grants", "people"),
    Route("POST", "/v1/access/grants", "people"),
    Route("POST", "/v1/access/withdrawals", "people"),
    Route("GET", "/v1/access/who-can", "people"),
    Route("GET", "/v1/access/check", "people"),
    Route("GET", "/v1/access/policies", "people"),
    Route("POST", "/v1/access/policies", "people"),
    Route("GET", "/v1/access/placements", "people"),
    Route("POST", "/v1/access/placements", "people"),
    Route("GET", "/v1/webhooks", "webhooks"),
    Route("POST", "/v1/webhooks", "webhooks"),
    Route("DELETE", "/v1/webhooks/{webhook}", "webhooks"),
    Route("POST", "/v1/webhooks/{webhook}/rotation", "webhooks"),
    Route("POST", "/v1/webhooks/{webhook}/ping", "webhooks"),
    Route("POST", "/v1/runs", "runs"),
    Route("GET", "/v1/runs", "runs"),
    Route("GET", "/v1/runs/{run}", "runs"),
    Route("PATCH", "/v1/runs/{run}", "runs"),
    Route("POST", "/v1/runs/{run}/metrics", "runs"),
    Route("GET", "/v1/runs/{run}/metrics", "runs"),
    Route("GET", "/v1/policies", "registry"),
    Route("GET", "/v1/policies/{policy}", "registry"),
    Route("POST", "/v1/policy-replay", "registry"),
    *(Route(route.method, route.path, "mlflow", route.pattern) for route in mlflow_routes.EVERY),
)

TOKEN_TREE = "/oidc"  # noqa: S105 - a path
SCORING_PATH = "/v1/models/{model}/scorings"
"""There only where files are scored."""

TOKEN_CACHE_SECONDS = 60
"""For how long the gateway takes a token for checked; the functions see to it that it has not ended meanwhile."""

_ACCESS_LOG = {
    "time": "$context.requestTime",
    "request": "$context.requestId",
    "route": "$context.routeKey",
    "status": "$context.status",
    "answered": "$context.integration.status",
    "caller": "$context.identity.userArn",
    "login": "$context.authorizer.login",
    "address": "$context.identity.sourceIp",
    "milliseconds": "$context.responseLatency",
    "bytes": "$context.responseLength",
    "error": "$context.integrationErrorMessage",
}


class Api(Construct):
    """The HTTP API.

    Attributes:
        api: the API.
        url: where it answers.
        url_parameter: the SSM parameter that tells clients the URL.
        access_log: a JSON object per request. `status` is what the caller got, `answered` the status that a function of ours gave, so
            the two differ where the gateway answered in its place; `deployment` is the prefix, for metrics made of the log.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config, functions: Functions, key: kms.Key) -> None:
        super().__init__(scope, construct_id)
        self.api = apigw.HttpApi(self, "Http", create_default_stage=False)
        answering = {route.function for route in ROUTES} & functions.by_name.keys()
        trees = [Tree("signed", SIGNED, _operations("", answering, config))]
        if config.with_tokens:
            authorizer = functions.by_name["authenticate"]
            scheme = bearer_scheme(_uri(authorizer), TOKEN_CACHE_SECONDS)
            trees.append(Tree("bearer", scheme, _operations(TOKEN_TREE, answering, config)))
            self._let_invoke(authorizer, "authorizers/*")
        for name in sorted(answering):
            self._let_invoke(functions.by_name[name], "*/*")
        self._import(openapi(config.prefix, "Attestry", {name: _uri(functions.by_name[name]) for name in answering}, trees))
        self.access_log = self._add_stage(config, key)
        self.url = self.api.api_endpoint
        self.url_parameter = ssm.StringParameter(
            self, "Url", parameter_name=f"/{config.prefix}/api-url", string_value=self.url, description="Where the Attestry API answers"
        )

    def _import(self, document: JsonObject) -> None:
        resource = self.api.node.default_child
        assert isinstance(resource, apigw.CfnApi)  # noqa: S101 - narrows CDK's type
        resource.body = document
        # What the importer does not understand it leaves out, and a route without its scheme would be open.
        resource.fail_on_warnings = True
        for told in ("Name", "ProtocolType"):
            resource.add_property_deletion_override(told)  # the document says it

    def _let_invoke(self, function: lambda_.Function, what: str) -> None:
        """Let the gateway invoke a function; one permission for all its routes."""
        arn = f"arn:{Aws.PARTITION}:execute-api:{Aws.REGION}:{Aws.ACCOUNT_ID}:{self.api.api_id}/{what}"
        function.add_permission("Api", principal=iam.ServicePrincipal("apigateway.amazonaws.com"), source_arn=arn)

    def _add_stage(self, config: Config, key: kms.Key) -> logs.LogGroup:
        stage = apigw.HttpStage(
            self,
            "Stage",
            http_api=self.api,
            stage_name="$default",
            auto_deploy=True,
            throttle=apigw.ThrottleSettings(rate_limit=config.throttle_rate, burst_limit=config.throttle_burst),
            detailed_metrics_enabled=True,
        )
        log = logs.LogGroup(
            self,
            "AccessLog",
            log_group_name=f"/aws/vendedlogs/{config.prefix}/api",
            encryption_key=key,
            retention=RETENTION_DAYS[config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if config.deletion_protection else RemovalPolicy.DESTROY,
        )
        resource = stage.node.default_child
        assert isinstance(resource, apigw.CfnStage)  # noqa: S101 - narrows CDK's type
        line = json.dumps({"deployment": config.prefix, **_ACCESS_LOG})
        resource.access_log_settings = apigw.CfnStage.AccessLogSettingsProperty(destination_arn=log.log_group_arn, format=line)
        return log


def _operations(start: str, answering: Collection[str], config: Config) -> tuple[Operation, ...]:
    """Return the routes of a tree, less those of options that are off."""
    there = [route for route in ROUTES if route.function in answering and (config.batch_scoring or route.path != SCORING_PATH)]
    return tuple(Operation(route.method, f"{start}{route.path}", route.function) for route in there)


def _uri(function: lambda_.Function) -> str:
    return lambda_uri(Aws.PARTITION, Aws.REGION, function.function_arn)
