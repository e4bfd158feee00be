"""The registry's roles as IAM roles: each may call exactly its routes.

One person must not pass for two: whoever may assume a shared role can choose the session's name, so the trust policies require
`sts:RoleSessionName` to be the caller's own IAM user name. The registry reads the login from that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from aws_cdk import Aws, Duration
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra import mlflow_routes
from infra.api import ROUTES, Api, Route
from infra.config import Config
from infra.names import Names
from infra.pipeline import Pipeline
from infra.runbook import approve_in_systems_manager
from infra.stores import OWN_PREFIXES, UPLOADS, Stores

_REVIEWS = tuple(f"/v1/access/{name}" for name in ("grants", "who-can", "policies", "placements"))
_NOT_FOR_ALL = ("/v1/people", "/v1/root/keys", "/v1/webhooks", *_REVIEWS)
READS = tuple(route for route in ROUTES if route.method == "GET" and route.path not in _NOT_FOR_ALL and route.function != "mlflow")
_DECISION = "POST /v1/models/{model}/versions/{number}/decision"
_VALIDATION = "POST /v1/models/{model}/versions/{number}/validations"
_CONFLICT = "POST /v1/models/{model}/conflicts"
_KILL = "POST /v1/models/{model}/versions/{number}/kill"
_RETIREMENT = "POST /v1/models/{model}/versions/{number}/retirement"
_HOLDS = tuple(f"POST /v1/models/{{model}}/versions/{{number}}/{act}" for act in ("hold", "release"))
_LEGAL_HOLD = "POST /v1/models/{model}/versions/{number}/legal-hold"
_DISPOSAL = "POST /v1/models/{model}/versions/{number}/disposal"
_REDO = "POST /v1/models/{model}/versions/{number}/redo"
_TRANSITION = "POST /v1/models/{model}/versions/{number}/transition"
_CAPTURE = "POST /v1/models/{model}/capture"
_REPRODUCTION = "POST /v1/models/{model}/versions/{number}/reproduction"
_REFRESH = "POST /v1/models/{model}/refresh"
_REPLAY = "POST /v1/policy-replay"
_SEARCH = tuple(f"POST /v1/search/{what}" for what in ("models", "versions"))
_ALIASES = tuple(f"{method} /v1/models/{{model}}/aliases/{{alias}}" for method in ("PUT", "DELETE"))
_RUNS = "/v1/runs"
_LOGS = (f"POST {_RUNS}", f"PATCH {_RUNS}/{{run}}", f"POST {_RUNS}/{{run}}/metrics")
_REMARK = "POST /v1/models/{model}/versions/{number}/annotations"
_SUBJECTS = ("/v1/models/{model}", "/v1/models/{model}/versions/{number}")
_CATALOGUE = (
    "POST /v1/models",
    *(f"{method} {path}" for path in _SUBJECTS for method in ("PATCH", "DELETE")),
    *(f"{method} {path}/tags/{{key}}" for path in _SUBJECTS for method in ("PUT", "DELETE")),
)
"""What people say about models and versions. Deleting is refused by the registry itself where a model is governed."""
_CALLS: Mapping[str, tuple[str, ...]] = {
    "scientist": (
        *_CATALOGUE,
        *_ALIASES,
        _REMARK,
        *_SEARCH,
        *_LOGS,
        "POST /v1/uploads",
        "POST /v1/imports",
        "POST /v1/models/{model}/versions",
        "POST /v1/models/{model}/versions/{number}/claim",
        "POST /v1/models/{model}/versions/{number}/retry",
        _REDO,
        _TRANSITION,
        _REFRESH,
        _REPRODUCTION,
    ),
    "validator": (_REMARK, *_SEARCH, _REPRODUCTION, _DECISION, _VALIDATION, _CONFLICT, _REPLAY, *_HOLDS, _REDO, _TRANSITION, _LEGAL_HOLD),
    "approver": (*_ALIASES, _REMARK, *_SEARCH, _DECISION, _CONFLICT, _KILL, _REPLAY, *_HOLDS, _TRANSITION, _LEGAL_HOLD, _DISPOSAL),
    "deployer": (
        *_ALIASES,
        _REMARK,
        *_SEARCH,
        "POST /v1/models/{model}/versions/{number}/deployment",
        "POST /v1/models/{model}/versions/{number}/retry",
        "POST /v1/models/{model}/versions/{number}/promotion",
        "POST /v1/models/{model}/rollback",
        "POST /v1/models/{model}/rollout",
        _REFRESH,
        _REPRODUCTION,
        _KILL,
        _RETIREMENT,
        _CAPTURE,
        *_HOLDS,
        _TRANSITION,
    ),
    "consumer": ("POST /v1/models/{model}/predictions", "POST /v1/models/{model}/scorings"),
    "auditor": (
        _REMARK,
        *_SEARCH,
        _REPRODUCTION,
        "GET /v1/people",
        "GET /v1/webhooks",
        _REPLAY,
        _LEGAL_HOLD,
        *(f"GET {path}" for path in _REVIEWS),
    ),
    "admin": (
        *_CATALOGUE,
        *_ALIASES,
        _REMARK,
        *_SEARCH,
        _CONFLICT,
        "GET /v1/people",
        "POST /v1/people",
        "POST /v1/policies",
        "GET /v1/webhooks",
        "POST /v1/webhooks",
        "DELETE /v1/webhooks/{webhook}",
        *(f"POST /v1/webhooks/{{webhook}}/{act}" for act in ("rotation", "ping")),
        *(f"GET {path}" for path in _REVIEWS),
        *(f"POST /v1/access/{name}" for name in ("grants", "withdrawals", "policies", "placements")),
        "GET /v1/root/keys",
        "POST /v1/root",
        _KILL,
        _RETIREMENT,
        _CAPTURE,
        _REPLAY,
        *_HOLDS,
        _REDO,
        _TRANSITION,
        _LEGAL_HOLD,
        _DISPOSAL,
    ),
}
_CONSUMER_READS = (
    "/v1/me",
    "/v1/openapi.json",
    "/v1/access/check",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/predictions/{id}/trace",
    "/v1/ledger/audit",
    "/v1/ledger/audit/{number}",
    "/v1/ledger/file",
    "/v1/root",
)
"""The audited acts are among what every role may ask for, because the function refuses all but auditors and admins and notes that down:
what the gateway refuses is no audited act."""
APPROVER_ROLES = ("approver", "validator")
CONSOLE_ROLES = ("admin", "approver", "deployer", "scientist", "validator")
"""Roles that may start `RegistryDecision`; what each may do there is the registry's own table (`attestry/domain/operations.py`)."""


def routes_of(role: str) -> tuple[Route, ...]:
    """Return the routes that a registry role may call."""
    reads = [route for route in READS if role != "consumer" or route.path in _CONSUMER_READS]
    if role == "deployer":
        # What was tried before a version was made is no concern of who puts versions in place.
        reads = [route for route in reads if not route.path.startswith(_RUNS)]
    calls = [route for route in ROUTES if f"{route.method} {route.path}" in _CALLS[role]]
    mlflow = [Route(route.method, route.path, "mlflow", route.pattern) for route in mlflow_routes.CALLS[role]]
    return (*reads, *calls, *mlflow)


def routes_beyond(role: str) -> tuple[Route, ...]:
    """Return the routes that are not the role's own but that its patterns reach: `*` in an ARN matches slashes as well."""
    own = routes_of(role)
    return tuple(route for route in ROUTES if route not in own and any(fnmatchcase(route.resource, mine.resource) for mine in own))


class Identity(Construct):
    """The IAM roles that people and services assume.

    Attributes:
        roles: IAM role by registry role.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config, api: Api, pipeline: Pipeline, stores: Stores) -> None:
        super().__init__(scope, construct_id)
        names = Names(config.prefix)
        self._api = api
        self.roles: dict[str, iam.Role] = {}
        for role in _CALLS:
            statements = [*self._call(role)]
            if role == "scientist":
                statements += _upload_by_hand(stores)
            if role in CONSOLE_ROLES:
                statements += _act_in_console(names, pipeline)
            if role in APPROVER_ROLES and config.with_runbook:
                statements += approve_in_systems_manager(names)
            self.roles[role] = iam.Role(
                self,
                role.capitalize(),
                role_name=names.role(role),
                description=f"Attestry: people and services that act as {role}",
                assumed_by=_trusted(config),
                inline_policies={"registry": iam.PolicyDocument(statements=statements)},
                max_session_duration=Duration.hours(8),
            )

    def _call(self, role: str) -> list[iam.PolicyStatement]:
        start = f"arn:{Aws.PARTITION}:execute-api:{Aws.REGION}:{Aws.ACCOUNT_ID}:{self._api.api.api_id}/$default"
        own, beyond = (sorted({f"{start}/{r.resource}" for r in routes}) for routes in (routes_of(role), routes_beyond(role)))
        call = iam.PolicyStatement(sid="CallRoutes", actions=["execute-api:Invoke"], resources=own)
        stop = iam.PolicyStatement(sid="NotBeyond", effect=iam.Effect.DENY, actions=["execute-api:Invoke"], resources=beyond)
        find = iam.PolicyStatement(sid="FindApi", actions=["ssm:GetParameter"], resources=[self._api.url_parameter.parameter_arn])
        return [call, *([stop] if beyond else []), find]


def _trusted(config: Config) -> iam.PrincipalBase:
    everyone = iam.AccountPrincipal(config.trusted_account) if config.trusted_account else iam.AccountRootPrincipal()
    return iam.PrincipalWithConditions(everyone, {"StringEquals": {"sts:RoleSessionName": "${aws:username}"}})


def _upload_by_hand(stores: Stores) -> list[iam.PolicyStatement]:
    """Return what the S3 console needs to put files below the caller's own prefix and to read the outcome there."""
    own = f"{UPLOADS}/${{aws:userid}}/*"
    places = [stores.store.arn_for_objects(pattern) for pattern in OWN_PREFIXES]
    through = {"StringEquals": {"kms:ViaService": f"s3.{Aws.REGION}.{Aws.URL_SUFFIX}"}}
    key = stores.store.encryption_key
    assert key is not None  # noqa: S101 - the store is made with a key
    return [
        iam.PolicyStatement(sid="UploadByHand", actions=["s3:PutObject", "s3:GetObject"], resources=places),
        iam.PolicyStatement(
            sid="ListOwnUploads",
            actions=["s3:ListBucket"],
            resources=[stores.store.bucket_arn],
            conditions={"StringLike": {"s3:prefix": own}},
        ),
        iam.PolicyStatement(
            sid="EncryptUploads", actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[key.key_arn], conditions=through
        ),
    ]


def _act_in_console(names: Names, pipeline: Pipeline) -> list[iam.PolicyStatement]:
    return [
        iam.PolicyStatement(
            sid="StartDecision",
            actions=["states:StartExecution", "states:DescribeStateMachine"],
            resources=[pipeline.decision.state_machine_arn],
        ),
        iam.PolicyStatement(
            sid="SeeDecision",
            actions=["states:DescribeExecution", "states:GetExecutionHistory"],
            resources=[names.executions_arn(names.decision)],
        ),
    ]
