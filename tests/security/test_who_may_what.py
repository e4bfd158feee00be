"""Who may what, in force: each registry role calls its routes and no other, and nobody passes for somebody else."""

from __future__ import annotations

import json
import re

import pytest

from tests.embedded.flow_versions import FUNCTIONS, PROFILES
from tests.embedded.flows import STRANGER, Registry, refusal

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

VERSION = "/v1/models/{model}/versions/{number}"
COMMON = (
    "GET /v1/me",
    "GET /v1/openapi.json",
    "GET /v1/models",
    "GET /v1/models/{model}",
    "GET /v1/predictions/{id}/trace",
    "GET /v1/ledger/file",
    "GET /v1/ledger/audit",
    "GET /v1/ledger/audit/{number}",
    "GET /v1/root",
    "GET /v1/access/check",
)
READS = (
    *COMMON,
    "GET /v1/submissions/{submission}",
    "GET /v1/models/{model}/versions",
    f"GET {VERSION}",
    f"GET {VERSION}/logs",
    f"GET {VERSION}/data",
    f"GET {VERSION}/files",
    "GET /v1/models/{model}/diff",
    f"GET {VERSION}/packet",
    f"GET {VERSION}/bundle",
    "GET /v1/predictions/{id}/bundle",
    "GET /v1/lineage",
    "GET /v1/compliance",
    "GET /v1/findings",
    "GET /v1/models/{model}/conflicts",
    "GET /v1/models/{model}/refreshes",
    "GET /v1/models/{model}/rollout",
    "GET /v1/policies",
    "GET /v1/policies/{policy}",
    "GET /v1/models/{model}/aliases",
    f"GET {VERSION}/labels",
    f"GET {VERSION}/annotations",
    "POST /v1/search/models",
    "POST /v1/search/versions",
)
RUN_READS = ("GET /v1/runs", "GET /v1/runs/{run}", "GET /v1/runs/{run}/metrics")
RUN_LOGS = ("POST /v1/runs", "PATCH /v1/runs/{run}", "POST /v1/runs/{run}/metrics")
KILL, RETIREMENT, CAPTURE = f"POST {VERSION}/kill", f"POST {VERSION}/retirement", "POST /v1/models/{model}/capture"
REVIEWS = tuple(f"GET /v1/access/{name}" for name in ("grants", "who-can", "policies", "placements"))
ACCESS = tuple(f"POST /v1/access/{name}" for name in ("grants", "withdrawals", "policies", "placements"))
REPLAY = "POST /v1/policy-replay"
HOLDS = (f"POST {VERSION}/hold", f"POST {VERSION}/release")
LEGAL_HOLD, DISPOSAL = f"POST {VERSION}/legal-hold", f"POST {VERSION}/disposal"
REDO, TRANSITION = f"POST {VERSION}/redo", f"POST {VERSION}/transition"
CONFLICT, REFRESH, REPRODUCTION = "POST /v1/models/{model}/conflicts", "POST /v1/models/{model}/refresh", f"POST {VERSION}/reproduction"
ROLLOUT, PROMOTION = "POST /v1/models/{model}/rollout", f"POST {VERSION}/promotion"
REMARK, ALIASES = f"POST {VERSION}/annotations", tuple(f"{m} /v1/models/{{model}}/aliases/{{alias}}" for m in ("PUT", "DELETE"))
CATALOGUE = (
    "POST /v1/models",
    *(f"{method} {path}" for path in ("/v1/models/{model}", VERSION) for method in ("PATCH", "DELETE")),
    *(f"{method} {path}/tags/{{key}}" for path in ("/v1/models/{model}", VERSION) for method in ("PUT", "DELETE")),
)
MODELS, VERSIONS, FILES = "/api/2.0/mlflow/registered-models", "/api/2.0/mlflow/model-versions", "/api/2.0/mlflow-artifacts"
MLFLOW_READS = (
    *(f"GET {MODELS}/{act}" for act in ("get", "search", "get-latest-versions", "alias")),
    *(f"GET {VERSIONS}/{act}" for act in ("get", "search", "get-download-uri")),
    *(f"GET {FILES}/{place}" for place in ("artifacts", "artifacts/{path+}", "presigned/{path+}")),
    f"POST {MODELS}/get-latest-versions",
)
MLFLOW_CHANGES = (
    *(f"POST {MODELS}/{act}" for act in ("create", "rename", "set-tag")),
    *(f"PATCH {place}/update" for place in (MODELS, VERSIONS)),
    *(f"DELETE {MODELS}/{act}" for act in ("delete", "delete-tag")),
    *(f"{act} {VERSIONS}/{tag}" for act, tag in (("DELETE", "delete-tag"), ("POST", "set-tag"))),
)
MLFLOW_ALIASES, MLFLOW_DELETE = tuple(f"{method} {MODELS}/alias" for method in ("POST", "DELETE")), f"DELETE {VERSIONS}/delete"
HOOKS = "/api/2.0/mlflow/webhooks"
HOOK_READS = (f"GET {HOOKS}", f"GET {HOOKS}/{{webhook_id}}")
HOOK_CHANGES = (f"POST {HOOKS}", f"PATCH {HOOKS}/{{webhook_id}}", f"DELETE {HOOKS}/{{webhook_id}}", f"POST {HOOKS}/{{webhook_id}}/test")
MLFLOW_CREATE, MLFLOW_MOVE = f"POST {VERSIONS}/create", f"POST {VERSIONS}/transition-stage"
MAY: dict[str, tuple[str, ...]] = {
    "dana": (
        *READS,
        *CATALOGUE,
        *ALIASES,
        REMARK,
        "POST /v1/uploads",
        "POST /v1/imports",
        "POST /v1/models/{model}/versions",
        f"POST {VERSION}/claim",
        f"POST {VERSION}/retry",
        REDO,
        TRANSITION,
        REFRESH,
        REPRODUCTION,
    ),
    "erin": (*READS, *ALIASES, REMARK, f"POST {VERSION}/decision", KILL, REPLAY, *HOLDS, TRANSITION, CONFLICT, LEGAL_HOLD, DISPOSAL),
    "frank": (
        *READS,
        *ALIASES,
        REMARK,
        f"POST {VERSION}/deployment",
        f"POST {VERSION}/retry",
        "POST /v1/models/{model}/rollback",
        KILL,
        RETIREMENT,
        CAPTURE,
        *HOLDS,
        TRANSITION,
        REFRESH,
        REPRODUCTION,
        ROLLOUT,
        PROMOTION,
    ),
    "frank-consumer": (*COMMON, "POST /v1/models/{model}/predictions", "POST /v1/models/{model}/scorings"),
    "grace": (*READS, REMARK, *REVIEWS, "GET /v1/people", "GET /v1/webhooks", REPLAY, REPRODUCTION, LEGAL_HOLD),
    "admin": (
        *READS,
        *CATALOGUE,
        *ALIASES,
        REMARK,
        "GET /v1/people",
        "POST /v1/people",
        "GET /v1/webhooks",
        "POST /v1/webhooks",
        "DELETE /v1/webhooks/{webhook}",
        "POST /v1/webhooks/{webhook}/rotation",
        "POST /v1/webhooks/{webhook}/ping",
        "GET /v1/root/keys",
        "POST /v1/root",
        "POST /v1/policies",
        *REVIEWS,
        *ACCESS,
        KILL,
        RETIREMENT,
        CAPTURE,
        REPLAY,
        CONFLICT,
        *HOLDS,
        REDO,
        TRANSITION,
        LEGAL_HOLD,
        DISPOSAL,
    ),
}
for _profile, _more in {
    "dana": (*RUN_READS, *RUN_LOGS, *MLFLOW_CHANGES, *MLFLOW_ALIASES, MLFLOW_CREATE, MLFLOW_MOVE, MLFLOW_DELETE),
    "erin": (*RUN_READS, *MLFLOW_ALIASES, MLFLOW_MOVE),
    "frank": (*MLFLOW_ALIASES, MLFLOW_MOVE, MLFLOW_DELETE),
    "frank-consumer": (),
    "grace": (*RUN_READS, *HOOK_READS),
    "admin": (*RUN_READS, *MLFLOW_CHANGES, *MLFLOW_ALIASES, MLFLOW_MOVE, MLFLOW_DELETE, *HOOK_READS, *HOOK_CHANGES),
}.items():
    MAY[_profile] = (*MAY[_profile], *MLFLOW_READS, *_more)
"""Profile to routes: dana is a scientist, erin an approver, frank a deployer, frank-consumer a consumer, grace an auditor."""

IN_CONSOLE = ("admin", "dana", "erin", "frank")

VALIDATION = f"POST {VERSION}/validations"
"""For validators alone, of whom none is there from the start."""

ROUTES = sorted({VALIDATION, *(route for routes in MAY.values() for route in routes)})
VALUES = {
    "model": "no-such-model",
    "number": "1",
    "run": "0" * 32,
    "id": "no-such-prediction",
    "submission": "0" * 24,
    "policy": "none",
    "webhook": "none",
    "webhook_id": "none",
    "key": "none",
    "alias": "none",
    "path+": "models/none/1/x",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("profile", MAY)
def test_a_role_calls_its_own_routes_and_no_other(registry: Registry, profile: str, route: str) -> None:
    method, path = route.split(" ")
    answer = registry.call(profile, method, path.format(**VALUES), {} if method == "POST" else None)
    assert (answer.status == 403 and answer.code == "gateway") == (route not in MAY[profile]), answer.raw


def test_the_table_above_has_every_route_that_is_deployed(registry: Registry) -> None:
    api = registry.aws("apigatewayv2")
    deployed = [r for a in api.get_apis()["Items"] for r in api.get_routes(ApiId=a["ApiId"])["Items"]]
    authorised = {r["RouteKey"]: r["AuthorizationType"] for r in deployed}
    by_token = {route.replace(" /", " /oidc/", 1) for route in ROUTES}
    assert authorised == dict.fromkeys(ROUTES, "AWS_IAM") | dict.fromkeys(by_token, "CUSTOM")


@pytest.mark.parametrize("route", ROUTES)
def test_a_user_without_a_role_calls_nothing(registry: Registry, route: str) -> None:
    method, path = route.split(" ")
    assert registry.call("dana-user", method, path.format(**VALUES), {} if method == "POST" else None).status == 403


@pytest.mark.parametrize("profile", PROFILES)
def test_nobody_invokes_a_function_beside_the_api(registry: Registry, profile: str) -> None:
    client = registry.aws("lambda", profile)
    names = [f"attestry-{function.replace('_', '-')}" for function in FUNCTIONS]
    assert {refusal(client.invoke, FunctionName=name, Payload=b"{}") for name in names} == {"AccessDeniedException"}


@pytest.mark.parametrize("name", ["erin", "grace", "admin"])
def test_who_may_approve_cannot_do_so_under_another_name(registry: Registry, name: str) -> None:
    sts = registry.aws("sts", "dana-user")
    arn = "arn:aws:iam::000000000000:role/attestry-approver"
    assert refusal(sts.assume_role, RoleArn=arn, RoleSessionName=name) == "AccessDenied"


@pytest.mark.parametrize("role", ["approver", "deployer", "admin"])
def test_a_role_that_was_not_given_is_not_assumed(registry: Registry, role: str) -> None:
    sts = registry.aws("sts", "grace-user")
    arn = f"arn:aws:iam::000000000000:role/attestry-{role}"
    assert refusal(sts.assume_role, RoleArn=arn, RoleSessionName="grace") == "AccessDenied"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_role_of_the_registry_leads_to_no_other_role(registry: Registry, profile: str) -> None:
    sts = registry.aws("sts", profile)
    arn = "arn:aws:iam::000000000000:role/attestry-approver"
    assert refusal(sts.assume_role, RoleArn=arn, RoleSessionName="erin") == "AccessDenied"


@pytest.mark.parametrize("profile", [p for p in PROFILES if p != "erin"])
def test_an_upload_under_another_s_prefix_is_refused(registry: Registry, profile: str) -> None:
    erin = registry.aws("sts", "erin").get_caller_identity()["UserId"]
    s3 = registry.aws("s3", profile)
    assert refusal(s3.put_object, Bucket=registry.bucket, Key=f"candidates/{erin}/probe/manifest.yaml", Body=b"x") == "AccessDenied"


def test_a_person_s_second_role_has_a_prefix_of_its_own(registry: Registry) -> None:
    user_ids = {registry.aws("sts", profile).get_caller_identity()["UserId"] for profile in ("dana", "dana-approver")}
    assert len(user_ids) == 2


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("folder", ["datasets", "environments", "models", "registered"])
def test_nobody_writes_into_the_registry_s_own_folders(registry: Registry, profile: str, folder: str) -> None:
    s3 = registry.aws("s3", profile)
    assert refusal(s3.put_object, Bucket=registry.bucket, Key=f"{folder}/probe", Body=b"x", IfNoneMatch="*") == "AccessDenied"


@pytest.mark.parametrize("profile", PROFILES)
def test_nobody_reads_the_store_beside_the_api(registry: Registry, profile: str) -> None:
    registry.aws("s3").put_object(Bucket=registry.bucket, Key="models/probe/frozen/model/x", Body=b"x")
    s3 = registry.aws("s3", profile)
    assert refusal(s3.get_object, Bucket=registry.bucket, Key="models/probe/frozen/model/x") == "AccessDenied"


@pytest.mark.parametrize("profile", [p for p in PROFILES if p not in IN_CONSOLE])
def test_only_who_may_act_there_starts_a_decision_in_the_console(registry: Registry, profile: str) -> None:
    states = registry.aws("stepfunctions", profile)
    code = refusal(states.start_execution, stateMachineArn=registry.stack.outputs["DecisionArn"], input="{}")
    assert code == "AccessDeniedException"


@pytest.mark.parametrize("profile", PROFILES)
def test_nobody_starts_the_pipeline_beside_the_registry(registry: Registry, profile: str) -> None:
    states = registry.aws("stepfunctions", profile)
    code = refusal(states.start_execution, stateMachineArn=registry.stack.outputs["PipelineArn"], input="{}")
    assert code == "AccessDeniedException"


def test_who_calls_is_read_from_the_signature_and_not_from_headers(registry: Registry) -> None:
    me = registry.call("dana", "GET", "/v1/me").body
    assert (me["login"], me["person"], me["roles"]) == ("dana", "dana", ["scientist"])
    assert re.fullmatch(r"arn:aws:sts::\d{12}:assumed-role/attestry-scientist/dana", me["subject"])


def test_a_login_that_nobody_mapped_is_no_person(registry: Registry) -> None:
    assert registry.call(STRANGER, "GET", "/v1/me").body["person"] is None


def test_a_login_stays_with_its_person(registry: Registry) -> None:
    answer = registry.call("admin", "POST", "/v1/people", {"person": "grace", "logins": ["erin"]})
    assert answer.status == 409
    assert registry.call("erin", "GET", "/v1/me").body["person"] == "erin"


@pytest.mark.parametrize(("profile", "status"), [("dana", 403), ("frank", 403), ("erin", 200), ("grace", 200)])
def test_the_labels_that_candidates_are_judged_by_are_shown_to_reviewers_alone(
    registry: Registry, deployed: tuple[str, int], profile: str, status: int
) -> None:
    model, number = deployed
    assert registry.call(profile, "GET", f"/v1/models/{model}/versions/{number}/data?set=holdout-labels").status == status


def test_a_made_up_identity_in_the_body_is_refused_as_an_unknown_field(registry: Registry) -> None:
    body = {"files": [], "principal": {"login": "erin"}}
    answer = registry.call("dana", "POST", "/v1/uploads", body)
    assert (answer.status, answer.fields) == (400, {"principal": "unknown_field"})


def test_a_submission_is_shown_to_its_uploader_alone(registry: Registry) -> None:
    manifest = {"name": "manifest.json", "size": 2, "sha256": "0" * 64}
    submission = json.loads(registry.call("dana", "POST", "/v1/uploads", {"files": [manifest]}).raw)["submission"]
    path = f"/v1/submissions/{submission}"
    assert [registry.call(profile, "GET", path).status for profile in ("dana", "dana-approver", "erin")] == [200, 404, 404]
