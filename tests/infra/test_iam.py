"""The policies of the template: nothing wider than needed, and the rules that the embedded AWS does not enforce."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from parliament import analyze_policy_string

from attestry.domain.principal import ROLES
from attestry.usecases.collect import PRIVATE, RECEIPTS
from infra.api import ROUTES
from infra.config import Config
from infra.functions import specs
from infra.identity import routes_of
from infra.permissions import NETWORK_INTERFACE_ACTIONS, PERMISSIONS, WITHOUT_RESOURCE
from tests.infra.template import ACCOUNT, REGION, Template, listed

FUNCTIONS = sorted(specs(Config()))
PARLIAMENT_ACKNOWLEDGED = {
    (
        "RESOURCE_MISMATCH",
        "states:DescribeExecution",
    ): "parliament asks for the ARNs of standard and of express executions at once; ours are standard",
    ("RESOURCE_STAR", "ec2:CreateNetworkInterface"): WITHOUT_RESOURCE["ec2:CreateNetworkInterface"],
    ("RESOURCE_STAR", "ec2:DeleteNetworkInterface"): WITHOUT_RESOURCE["ec2:DeleteNetworkInterface"],
    ("UNKNOWN_CONDITION_FOR_ACTION", "lambda:SourceFunctionArn"): "a key that Lambda sets on calls of a function's code to any service",
}


def function_statements(template: Template, name: str) -> list[dict[str, Any]]:
    return template.role_policies(f"attestry-{name.replace('_', '-')}-function")


def allowed(statements: list[dict[str, Any]]) -> set[str]:
    return {action for s in statements if s["Effect"] == "Allow" for action in listed(s["Action"])}


def holders(template: Template, action: str) -> set[str]:
    return {policy.owner for policy in template.policies() if policy.kind == "identity" and action in allowed(policy.statements)}


def test_every_function_has_its_own_role(template: Template) -> None:
    roles = [function["Role"] for function in template.of_type("AWS::Lambda::Function").values()]
    assert len(set(roles)) == len(roles) == len(FUNCTIONS) == len(PERMISSIONS)


def test_parliament_finds_nothing_in_any_policy(template: Template) -> None:
    left, used = [], set()
    for policy in template.policies():
        if policy.kind in ("identity", "resource"):
            for finding in analyze_policy_string(json.dumps(policy.document)).findings:
                known = [key for key in PARLIAMENT_ACKNOWLEDGED if key[0] == finding.issue and key[1] in str(finding.detail)]
                used.update(known)
                if not known:
                    left.append((policy.owner, finding.issue, finding.detail))
    assert left == []
    assert used == set(PARLIAMENT_ACKNOWLEDGED)


def test_no_identity_policy_has_a_star_in_an_action(template: Template) -> None:
    for policy in template.policies():
        if policy.kind == "identity":
            assert [a for s in policy.statements for a in listed(s.get("Action", "*")) if "*" in a] == [], policy.owner


def test_a_star_resource_stands_only_where_aws_has_no_narrower_one(template: Template) -> None:
    for policy in template.policies():
        if policy.kind == "identity":
            wide = {a for s in policy.statements if "*" in listed(s["Resource"]) for a in listed(s["Action"])}
            assert wide <= set(WITHOUT_RESOURCE), policy.owner


def test_no_identity_policy_is_written_by_exclusion(template: Template) -> None:
    for policy in template.policies():
        if policy.kind == "identity":
            assert all("NotAction" not in s and "NotResource" not in s for s in policy.statements), policy.owner


def test_no_role_has_a_managed_policy(template: Template) -> None:
    assert all("ManagedPolicyArns" not in role for role in template.of_type("AWS::IAM::Role").values())
    assert template.of_type("AWS::IAM::Policy") == template.of_type("AWS::IAM::ManagedPolicy") == {}


def test_only_the_delegate_function_may_sign(template: Template) -> None:
    signing = [p for p in template.policies() if p.kind == "key" and any("kms:Sign" in listed(s["Action"]) for s in p.statements)]
    assert len(signing) == 1
    signers = [s for s in signing[0].statements if "kms:Sign" in listed(s["Action"])]
    assert [s["Principal"] for s in signers] == [{"AWS": f"arn:aws:iam::{ACCOUNT}:role/attestry-delegate-function"}]
    assert signers[0]["Condition"] == {"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256"}}
    root = [s for s in signing[0].statements if s["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}]
    root_actions = {a for s in root for a in listed(s["Action"])}
    assert not root_actions & {"kms:*", "kms:Sign", "kms:CreateGrant", "kms:ReplicateKey"}
    assert "kms:PutKeyPolicy" in root_actions
    assert holders(template, "kms:Sign") == set()


@pytest.mark.parametrize("action", ["states:SendTaskSuccess", "states:SendTaskFailure"])
def test_only_the_gate_sends_task_tokens(template: Template, action: str) -> None:
    roles = template.of_type("AWS::IAM::Role")
    assert {roles[owner].get("RoleName") for owner in holders(template, action)} == {"attestry-gate-function"}


def test_only_four_functions_start_the_pipeline_and_nothing_else(template: Template) -> None:
    roles = template.of_type("AWS::IAM::Role")
    names = {str(roles[owner].get("RoleName")) for owner in holders(template, "states:StartExecution")}
    assert names == {
        "attestry-gate-function",
        "attestry-operate-function",
        "attestry-register-function",
        "attestry-sweep-function",
        "attestry-approver",
    }
    for name in names - {"attestry-approver"}:
        started = [listed(s["Resource"]) for s in template.role_policies(name) if "states:StartExecution" in listed(s["Action"])]
        assert started == [[f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:attestry-pipeline"]]


@pytest.mark.parametrize("name", ["sandbox", "inference"])
def test_functions_that_run_registered_code_may_write_their_log_and_nothing_else(template: Template, name: str) -> None:
    statements = function_statements(template, name)
    assert allowed(statements) == {"logs:CreateLogStream", "logs:PutLogEvents", *NETWORK_INTERFACE_ACTIONS}
    denied = [s for s in statements if s["Effect"] == "Deny"]
    assert len(denied) == 1
    assert set(listed(denied[0]["Action"])) == set(NETWORK_INTERFACE_ACTIONS)
    assert denied[0]["Condition"] == {
        "ArnEquals": {"lambda:SourceFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:attestry-{name}"}
    }


@pytest.mark.parametrize("name", ["sandbox", "inference"])
def test_without_a_vpc_they_may_only_write_their_log(open_network: Any, name: str) -> None:
    statements = open_network.template.role_policies(f"registry-two-{name}-function")
    assert allowed(statements) == {"logs:CreateLogStream", "logs:PutLogEvents"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_writes_its_own_log_group_only(template: Template, name: str) -> None:
    logs = [s for s in function_statements(template, name) if any(a.startswith("logs:") for a in listed(s["Action"]))]
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/attestry-{name.replace('_', '-')}"
    assert [s["Resource"] for s in logs] == [f"{group}:log-stream:*"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_are_limited_by_their_partition_keys(template: Template, name: str) -> None:
    for statement in function_statements(template, name):
        if any(action.startswith("dynamodb:") for action in listed(statement["Action"])):
            keys = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
            assert keys
            assert "*" not in listed(keys)
            assert "dynamodb:Scan" not in listed(statement["Action"])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_data_key_is_used_through_the_services_only(template: Template, name: str) -> None:
    for statement in function_statements(template, name):
        if any(action.startswith("kms:") for action in listed(statement["Action"])):
            services = listed(statement["Condition"]["StringEquals"]["kms:ViaService"])
            assert set(services) <= {f"{s}.{REGION}.amazonaws.com" for s in ("dynamodb", "s3", "sns")}


@pytest.mark.parametrize(
    "action",
    ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutBucketPolicy", "s3:PutObjectLegalHold"],
)
def test_nobody_in_the_stack_deletes_objects_or_lifts_a_retention(template: Template, action: str) -> None:
    assert holders(template, action) == set()


def test_build_environment_reaches_environments_only(template: Template) -> None:
    statements = function_statements(template, "build_environment")
    assert not any(action.startswith(("dynamodb:", "states:", "lambda:", "sns:")) for action in allowed(statements))
    objects = {r for s in statements for r in listed(s["Resource"]) if ":s3:::" in r and "/" in r}
    assert {r.split("/", 1)[1] for r in objects} == {"environments/*"}


def test_evaluate_has_no_table_and_writes_results_only(template: Template) -> None:
    statements = function_statements(template, "evaluate")
    assert not any(action.startswith("dynamodb:") for action in allowed(statements))
    written = {r.split("/", 1)[1] for s in statements if "s3:PutObject" in listed(s["Action"]) for r in listed(s["Resource"])}
    assert written == {"jobs/*/evaluated/*"}


def test_who_makes_urls_for_scripts_cannot_read_the_holdout_labels(template: Template) -> None:
    labels = "models/m/1-abc-x/stages/PROCESSING/1/data/holdout-labels/part-0.parquet"
    job = "jobs/m-1-1-abc/PROCESSING/1/evaluated/holdout-labels/part-0.parquet"

    def readable(name: str) -> list[str]:
        reads = [s for s in function_statements(template, name) if "s3:GetObject" in listed(s["Action"])]
        return [str(r).split("/", 1)[1] for s in reads for r in listed(s["Resource"]) if "/" in r]

    assert not any(fnmatchcase(key, pattern) for key in (labels, job) for pattern in readable("prepare_stage"))
    assert any(fnmatchcase(labels, pattern) for pattern in readable("evaluate"))


def test_predict_writes_receipts_and_no_other_row(template: Template) -> None:
    writes = [s for s in function_statements(template, "predict") if "dynamodb:PutItem" in listed(s["Action"])]
    assert [s["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"] for s in writes] == [["KEY#*"]]


def test_registry_reads_and_writes_nothing(template: Template) -> None:
    reads = ("Get", "BatchGet", "Query", "List", "Describe", "Decrypt")
    acts = allowed(function_statements(template, "registry")) - {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert [action for action in acts if not action.split(":")[1].startswith(reads)] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_assumed_under_the_users_own_name_only(template: Template, role: str) -> None:
    found = [r for r in template.of_type("AWS::IAM::Role").values() if r.get("RoleName") == f"attestry-{role}"]
    (statement,) = found[0]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"] == {"StringEquals": {"sts:RoleSessionName": "${aws:username}"}}
    assert statement["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert statement["Action"] == "sts:AssumeRole"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_calls_exactly_its_routes(template: Template, role: str) -> None:
    calls = [s for s in template.role_policies(f"attestry-{role}") if "execute-api:Invoke" in listed(s["Action"])]
    ends = {str(resource).split("/$default/", 1)[1] for resource in listed(calls[0]["Resource"])}
    assert ends == {route.resource for route in routes_of(role)}


@pytest.mark.parametrize(
    ("call", "roles"),
    [
        ("POST /v1/uploads", {"scientist"}),
        ("POST /v1/models/{model}/versions/{number}/claim", {"scientist"}),
        ("POST /v1/models/{model}/versions/{number}/decision", {"approver"}),
        ("POST /v1/models/{model}/versions/{number}/deployment", {"deployer"}),
        ("POST /v1/models/{model}/versions/{number}/retry", {"deployer", "scientist"}),
        ("POST /v1/models/{model}/rollback", {"deployer"}),
        ("POST /v1/models/{model}/predictions", {"consumer"}),
        ("POST /v1/people", {"admin"}),
        ("GET /v1/people", {"admin", "auditor"}),
        ("GET /v1/predictions/{id}/trace", set(ROLES)),
    ],
)
def test_who_may_call_what(call: str, roles: set[str]) -> None:
    assert {role for role in ROLES if any(f"{route.method} {route.path}" == call for route in routes_of(role))} == roles


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reaches_its_own_routes_and_no_other(template: Template, role: str) -> None:
    """`*` in an ARN matches slashes as well, so the pattern of a short route covers longer ones unless these are denied."""
    calls = [s for s in template.role_policies(f"attestry-{role}") if "execute-api:Invoke" in listed(s["Action"])]
    patterns = {
        effect: [str(r).split("/$default/", 1)[1] for s in calls if s["Effect"] == effect for r in listed(s["Resource"])]
        for effect in ("Allow", "Deny")
    }
    for route in ROUTES:
        example = f"{route.method}{route.path.replace('{', '').replace('}', '')}"
        allowed, denied = (any(fnmatchcase(example, p) for p in patterns[effect]) for effect in ("Allow", "Deny"))
        assert (allowed and not denied) == (route in routes_of(role)), (role, route)


def store_rules(template: Template) -> dict[str, dict[str, Any]]:
    (policy,) = [p for p in template.policies() if p.owner.startswith("StoresStorePolicy")]
    return {s["Sid"]: s for s in policy.statements if "Sid" in s}


def covers(rule: dict[str, Any], key: str) -> bool:
    """Return whether a rule of the store's policy is about an object; `*` matches slashes in ARNs, as it does in `fnmatch`."""
    return any(fnmatchcase(key, str(resource).split("/", 1)[1]) for resource in listed(rule["Resource"]))


FOLDER = "models/m/1-abc-m-1-1-0123456789ab"
KEY = f"{FOLDER}/predictions/{'a' * 52}"
BATCH = f"{KEY}/000000000001-000000000009"


@pytest.mark.parametrize(
    "key",
    [
        f"datasets/{'0' * 64}/part-0.csv",
        "environments/e/environment.zip",
        f"registered/{'0' * 64}/source.tar.gz",
        f"{FOLDER}/frozen/model/model.joblib",
        f"{FOLDER}/frozen/artifact-manifest.json",
        f"{FOLDER}/stages/TRAINING/1/record.json",
        f"{FOLDER}/stages/PROCESSING/1/data/train/part-0.parquet",
        f"{FOLDER}/evidence/0.json",
        f"{BATCH}{RECEIPTS}",
        f"{KEY}/delegation.jwt",
    ],
)
def test_what_is_evidence_is_deleted_by_nobody(template: Template, key: str) -> None:
    rules = store_rules(template)
    assert covers(rules["DenyDelete"], key)
    assert covers(rules["DenyOverwrite"], key)


@pytest.mark.parametrize("key", [f"{BATCH}{PRIVATE}", *(f"{FOLDER}/predictions/payloads/{'a' * 52}/1.{x}" for x in ("request", "output"))])
def test_what_a_person_may_have_erased_is_written_once_but_can_be_deleted(template: Template, key: str) -> None:
    rules = store_rules(template)
    assert not covers(rules["DenyDelete"], key)
    assert covers(rules["DenyOverwrite"], key)


def test_the_store_cannot_be_overwritten_or_emptied_by_anybody(template: Template) -> None:
    rules = store_rules(template)
    for sid in ("DenyDelete", "DenyOverwrite"):
        assert rules[sid]["Effect"] == "Deny"
        assert rules[sid]["Principal"] == {"AWS": "*"}
    assert {r.split("/", 1)[1] for r in rules["DenyOverwrite"]["Resource"]} == {"datasets/*", "environments/*", "models/*", "registered/*"}
    assert set(rules["DenyDelete"]["Action"]) == {"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"}
    assert "Condition" not in rules["DenyDelete"]
    assert rules["DenyOverwrite"]["Condition"] == {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}


def test_a_caller_writes_below_its_own_prefix_only(template: Template) -> None:
    (policy,) = [p for p in template.policies() if p.owner.startswith("StoresStorePolicy")]
    (rule,) = [s for s in policy.statements if s.get("Sid") == "DenyForeignUpload"]
    assert {r.split("/", 1)[1] for r in rule["NotResource"]} == {
        "candidates/${aws:userid}/*",
        "datasets/*",
        "environments/*",
        "models/*",
        "registered/*",
    }
    exempt = rule["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]
    assert exempt == [f"arn:aws:iam::{ACCOUNT}:role/attestry-{name}-function" for name in ("uploads", "register")]


def test_every_bucket_queue_and_topic_refuses_plain_http(template: Template) -> None:
    kinds = ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy")
    policies = [properties["PolicyDocument"] for kind in kinds for properties in template.of_type(kind).values()]
    assert len(policies) == 10
    for policy in policies:
        assert any(s["Effect"] == "Deny" and s.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}} for s in policy["Statement"])
