"""The policies of the template: nothing wider than needed, and the rules that the embedded AWS does not enforce."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from parliament import analyze_policy_string

from attestry.domain.console_request import console_roles
from attestry.domain.principal import ROLES
from attestry.usecases.collect import PRIVATE, RECEIPTS
from infra.api import ROUTES
from infra.config import Config
from infra.grants import NETWORK_INTERFACE_ACTIONS, WITHOUT_RESOURCE
from infra.identity import CONSOLE_ROLES, routes_of
from infra.keys import ATTESTERS, SIGNING_KEYS
from infra.permissions import PERMISSIONS
from infra.specs import specs
from tests.infra.template import ACCOUNT, REGION, Template, listed

FUNCTIONS = sorted(specs(Config()))
PARLIAMENT_ACKNOWLEDGED = {
    (
        "RESOURCE_MISMATCH",
        "states:DescribeExecution",
    ): "parliament asks for the ARNs of standard and of express executions at once; ours are standard",
    (
        "RESOURCE_MISMATCH",
        "dynamodb:ListStreams",
    ): "the policy that AWS itself offers for functions behind a stream gives it on the streams of the table",
    ("RESOURCE_STAR", "ec2:CreateNetworkInterface"): WITHOUT_RESOURCE["ec2:CreateNetworkInterface"],
    ("RESOURCE_STAR", "ec2:DeleteNetworkInterface"): WITHOUT_RESOURCE["ec2:DeleteNetworkInterface"],
    ("RESOURCE_STAR", "cloudwatch:DescribeAlarms"): WITHOUT_RESOURCE["cloudwatch:DescribeAlarms"],
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
    assert len(set(roles)) == len(roles) == len(FUNCTIONS)
    assert {*PERMISSIONS, "witness"} == set(FUNCTIONS)


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


def key_policies(template: Template) -> dict[str, list[dict[str, Any]]]:
    """Return the statements of the signing keys' policies, by alias."""
    aliases = {str(alias["TargetKeyId"]): str(alias["AliasName"]) for alias in template.raw_of_type("AWS::KMS::Alias").values()}
    policies = {p.owner: p.statements for p in template.policies() if p.kind == "key"}
    return {aliases[owner]: found for owner, found in policies.items() if any("kms:Sign" in listed(s["Action"]) for s in found)}


def function_role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/attestry-{name.replace('_', '-')}-function"


def principals(statements: list[dict[str, Any]], action: str) -> set[str]:
    return {str(p) for s in statements if action in listed(s["Action"]) for p in listed(s["Principal"]["AWS"])}


@pytest.mark.parametrize("name", sorted(SIGNING_KEYS))
def test_each_signing_key_signs_for_one_function_in_one_way(template: Template, name: str) -> None:
    statements = key_policies(template)[f"alias/attestry-{SIGNING_KEYS[name].name}"]
    signing = [s for s in statements if "kms:Sign" in listed(s["Action"])]
    assert [s["Principal"] for s in signing] == [{"AWS": function_role(name)}]
    ledger = name in ("sequence", "witness")
    how = ("ED25519_SHA_512", "RAW") if ledger else ("ECDSA_SHA_256", "DIGEST")
    assert signing[0]["Condition"] == {"StringEquals": {"kms:SigningAlgorithm": how[0], "kms:MessageType": how[1]}}
    root = [s for s in statements if s["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}]
    root_actions = {a for s in root for a in listed(s["Action"])}
    assert not root_actions & {"kms:*", "kms:Sign", "kms:CreateGrant", "kms:ReplicateKey"}
    assert "kms:PutKeyPolicy" in root_actions


def test_there_are_no_other_signing_keys_and_no_identity_may_sign(template: Template) -> None:
    assert set(key_policies(template)) == {f"alias/attestry-{key.name}" for key in SIGNING_KEYS.values()}
    assert holders(template, "kms:Sign") == set()
    keys = [k for k in template.of_type("AWS::KMS::Key").values() if k.get("KeyUsage") == "SIGN_VERIFY"]
    assert sorted(k["KeySpec"] for k in keys) == ["ECC_NIST_EDWARDS25519"] * 2 + ["ECC_NIST_P256"] * (len(SIGNING_KEYS) - 2)


def test_webhooks_secrets_are_derived_by_two_functions_and_by_no_identity(template: Template) -> None:
    (key,) = [p for p in template.policies() if p.kind == "key" and any("kms:GenerateMac" in listed(s["Action"]) for s in p.statements)]
    (derive,) = [s for s in key.statements if "kms:GenerateMac" in listed(s["Action"])]
    assert set(derive["Principal"]["AWS"]) == {function_role("deliver"), function_role("webhooks")}
    assert derive["Condition"] == {"StringEquals": {"kms:MacAlgorithm": "HMAC_SHA_256"}}
    assert holders(template, "kms:GenerateMac") == holders(template, "kms:VerifyMac") == set()
    (made,) = [k for k in template.of_type("AWS::KMS::Key").values() if k.get("KeyUsage") == "GENERATE_VERIFY_MAC"]
    assert made["KeySpec"] == "HMAC_256"


def test_one_function_tells_the_bus_and_one_takes_what_is_queued(template: Template) -> None:
    roles = template.of_type("AWS::IAM::Role")

    def names(action: str) -> set[str]:
        return {str(roles[owner]["RoleName"]) for owner in holders(template, action)}

    assert names("events:PutEvents") == {"attestry-tell-function"}
    (told,) = [s for s in function_statements(template, "tell") if "events:PutEvents" in listed(s["Action"])]
    assert told["Condition"] == {"StringEquals": {"events:source": "attestry"}}
    assert names("sqs:ReceiveMessage") == names("sqs:ChangeMessageVisibility") == {"attestry-deliver-function"}


@pytest.mark.parametrize(
    ("key", "more"), [("ledger", {"reconcile", "witness"}), ("witness", {"sequence"}), ("delegator", set()), ("attest-gate", set())]
)
def test_public_halves_are_read_by_who_checks_signatures(template: Template, key: str, more: set[str]) -> None:
    (own,) = [name for name, known in SIGNING_KEYS.items() if known.name == key]
    readers = {own, "bundle", "registry", "root", *more}
    found = principals(key_policies(template)[f"alias/attestry-{key}"], "kms:GetPublicKey")
    assert found == {f"arn:aws:iam::{ACCOUNT}:root", *(function_role(reader) for reader in readers)}


@pytest.mark.parametrize("name", ATTESTERS)
def test_who_moves_versions_attests_into_their_evidence_and_signs_with_its_own_key(template: Template, name: str) -> None:
    patterns = [
        str(r).split("/", 1)[1]
        for s in function_statements(template, name)
        if {"s3:PutObject", "s3:PutObjectRetention"} <= set(listed(s["Action"]))
        for r in listed(s["Resource"])
    ]
    assert any(fnmatchcase(f"{FOLDER}/evidence/attestations/{'0' * 64}.json", pattern) for pattern in patterns)
    functions = template.raw_of_type("AWS::Lambda::Function").values()
    (function,) = [f for f in functions if f["FunctionName"] == f"attestry-{name.replace('_', '-')}"]
    key = template.raw["Resources"][function["Environment"]["Variables"]["ATTESTRY_SIGNING_KEY"]["Fn::GetAtt"][0]]
    assert key["Properties"]["Description"].endswith(f"by {name}")


@pytest.mark.parametrize("action", ["states:SendTaskSuccess", "states:SendTaskFailure"])
def test_only_the_gate_sends_task_tokens(template: Template, action: str) -> None:
    roles = template.of_type("AWS::IAM::Role")
    assert {roles[owner].get("RoleName") for owner in holders(template, action)} == {"attestry-gate-function"}


def test_only_four_functions_start_the_pipeline_and_nothing_else(template: Template) -> None:
    roles = template.of_type("AWS::IAM::Role")
    names = {str(roles[owner].get("RoleName")) for owner in holders(template, "states:StartExecution")}
    people = {f"attestry-{role}" for role in CONSOLE_ROLES}
    assert names == {
        "attestry-gate-function",
        "attestry-operate-function",
        "attestry-register-function",
        "attestry-sweep-function",
        *people,
    }
    for name in names - people:
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
        rows = [str(r) for r in listed(statement["Resource"]) if ":table/" in str(r) and "/stream/" not in str(r)]
        if rows and any(action.startswith("dynamodb:") for action in listed(statement["Action"])):
            keys = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
            assert keys
            assert "*" not in listed(keys)
            assert "dynamodb:Scan" not in listed(statement["Action"])


def test_only_those_it_wakes_read_the_stream_which_carries_every_row(template: Template) -> None:
    roles = template.of_type("AWS::IAM::Role")
    for action in ("dynamodb:GetRecords", "dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:ListStreams"):
        assert {roles[owner]["RoleName"] for owner in holders(template, action)} == {
            "attestry-sequence-function",
            "attestry-deploy-function",
        }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_data_key_is_used_through_the_services_only(template: Template, name: str) -> None:
    for statement in function_statements(template, name):
        if any(action.startswith("kms:") for action in listed(statement["Action"])):
            services = listed(statement["Condition"]["StringEquals"]["kms:ViaService"])
            assert set(services) <= {f"{s}.{REGION}.amazonaws.com" for s in ("dynamodb", "s3", "sns")}


@pytest.mark.parametrize("action", ["s3:DeleteObject", "s3:BypassGovernanceRetention", "s3:PutBucketPolicy"])
def test_nobody_in_the_stack_deletes_objects_or_lifts_a_retention(template: Template, action: str) -> None:
    assert holders(template, action) == set()


@pytest.mark.parametrize("action", ["s3:DeleteObjectVersion", "s3:PutObjectLegalHold"])
def test_one_function_alone_disposes_and_holds(template: Template, action: str) -> None:
    roles = template.of_type("AWS::IAM::Role")
    assert {roles[owner].get("RoleName") for owner in holders(template, action)} == {"attestry-custody-function"}


def test_who_disposes_deletes_payload_only(template: Template) -> None:
    patterns = objects_of(template, "custody", "s3:DeleteObjectVersion")
    gone = (f"{FOLDER}/frozen/model/m.joblib", f"{FOLDER}/stages/PROCESSING/1/data/train/p.parquet", f"{BATCH}{PRIVATE}")
    stays = (f"{BATCH}{RECEIPTS}", f"{FOLDER}/evidence/0.json", f"{FOLDER}/stages/TRAINING/1/record.json", f"datasets/{'0' * 64}/x.csv")
    assert all(any(fnmatchcase(key, pattern) for pattern in patterns) for key in gone)
    assert not any(fnmatchcase(key, pattern) for key in stays for pattern in patterns)


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


def written_rows(template: Template, name: str, *actions: str) -> set[str]:
    """Return the partitions that a function may write."""
    wanted = set(actions or ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"))
    writes = [s for s in function_statements(template, name) if wanted & set(listed(s["Action"]))]
    return {key for s in writes for key in listed(s["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"])}


def objects_of(template: Template, name: str, action: str) -> set[str]:
    """Return the patterns of objects that a function may do something with."""
    statements = [s for s in function_statements(template, name) if action in listed(s["Action"])]
    return {str(r).split("/", 1)[1] for s in statements for r in listed(s["Resource"]) if "/" in str(r)}


def test_predict_writes_receipts_audits_and_what_canaries_and_shadows_need_and_no_other_row(template: Template) -> None:
    assert written_rows(template, "predict") == {"AUDIT", "CANARY#*", "KEY#*", "SHADOW#*", "SHADOWED#*"}


@pytest.mark.parametrize("name", ["registry", "bundle"])
def test_who_answers_reads_writes_no_row_but_audits(template: Template, name: str) -> None:
    reads = ("Get", "BatchGet", "Query", "List", "Describe", "Decrypt")
    assert written_rows(template, name) == {"AUDIT"}
    own = [s for s in function_statements(template, name) if "dynamodb:PutItem" not in listed(s["Action"])]
    acts = allowed([s for s in own if not any(":s3:::" in str(r) and "/bundles/" in str(r) for r in listed(s["Resource"]))])
    left = [a for a in acts - {"logs:CreateLogStream", "logs:PutLogEvents"} if not a.split(":")[1].startswith(reads)]
    assert set(left) <= {"kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"}


def test_a_bundle_goes_to_scratch_and_nowhere_else(template: Template) -> None:
    assert objects_of(template, "bundle", "s3:PutObject") == {"bundles/*"}
    assert objects_of(template, "registry", "s3:PutObject") == set()


def test_the_sequencer_takes_from_the_outbox_and_changes_no_record(template: Template) -> None:
    assert written_rows(template, "sequence", "dynamodb:PutItem", "dynamodb:UpdateItem") == {"CONFLICT", "LEAF#*", "LEDGER", "OUTBOX"}
    assert written_rows(template, "sequence", "dynamodb:DeleteItem") == {"AUDIT", "OUTBOX"}
    assert objects_of(template, "sequence", "s3:PutObject") == objects_of(template, "sequence", "s3:GetObject") == {"ledger/*"}


def test_only_the_sequencer_deletes_events_and_writes_leaves(template: Template) -> None:
    for name in FUNCTIONS:
        assert ("OUTBOX" in written_rows(template, name, "dynamodb:DeleteItem")) == (name == "sequence")
        assert bool({"LEDGER", "LEAF#*"} & written_rows(template, name)) == (name == "sequence")
        assert any(pattern.startswith("ledger/") for pattern in objects_of(template, name, "s3:PutObject")) == (name == "sequence")
        assert any(pattern.startswith("root/") for pattern in objects_of(template, name, "s3:PutObject")) == (name == "root")


def test_the_witness_reaches_its_own_table_and_nothing_else(template: Template) -> None:
    statements = function_statements(template, "witness")
    reached = {str(r) for s in statements for r in listed(s["Resource"]) if not any(a.startswith("kms:") for a in listed(s["Action"]))}
    (table,) = [name for name in template.of_type("AWS::DynamoDB::Table") if "Witness" in name]
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/attestry-witness:log-stream:*"
    assert reached == {f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}", group}
    for name in FUNCTIONS:
        used = {str(r) for s in function_statements(template, name) for r in listed(s["Resource"])}
        assert any(table in r for r in used) == (name == "witness")


def test_reconcile_reads_and_writes_findings_only(template: Template) -> None:
    assert written_rows(template, "reconcile") == {"FINDINGS#*", "OUTBOX", "RECONCILE"}
    assert objects_of(template, "reconcile", "s3:PutObject") == set()


def test_who_signs_artifacts_writes_the_signature_only(template: Template) -> None:
    statements = function_statements(template, "sign_artifact")
    assert not any(action.startswith(("dynamodb:", "states:", "lambda:", "sns:")) for action in allowed(statements))
    assert objects_of(template, "sign_artifact", "s3:PutObject") == {"models/*/evidence/model.sig"}


@pytest.mark.parametrize(
    ("function", "callers"),
    [
        ("sign_artifact", {"record_stage"}),
        ("record_stage", {"register", "sweep"}),
        ("witness", {"sequence"}),
        ("sequence", set()),
        ("tell", {"sequence"}),
        ("reconcile", set()),
        ("operate", {"mlflow", "sweep"}),
        ("custody", {"sweep"}),
    ],
)
def test_who_may_invoke_what(template: Template, function: str, callers: set[str]) -> None:
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:attestry-{function.replace('_', '-')}"
    found = {
        name
        for name in FUNCTIONS
        for s in function_statements(template, name)
        if "lambda:InvokeFunction" in listed(s["Action"]) and arn in listed(s["Resource"])
    }
    assert found == callers


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
        ("POST /v1/imports", {"scientist"}),
        ("POST /v1/models/{model}/versions", {"scientist"}),
        ("GET /v1/models/{model}/versions/{number}/files", set(ROLES) - {"consumer"}),
        ("POST /v1/models/{model}/versions/{number}/claim", {"scientist"}),
        ("POST /v1/models/{model}/versions/{number}/decision", {"approver", "validator"}),
        ("POST /v1/models/{model}/versions/{number}/validations", {"validator"}),
        ("POST /v1/models/{model}/versions/{number}/deployment", {"deployer"}),
        ("POST /v1/models/{model}/versions/{number}/retry", {"deployer", "scientist"}),
        ("POST /v1/models/{model}/rollback", {"deployer"}),
        ("POST /v1/models/{model}/predictions", {"consumer"}),
        ("POST /v1/people", {"admin"}),
        ("GET /v1/webhooks", {"admin", "auditor"}),
        ("POST /v1/webhooks", {"admin"}),
        ("DELETE /v1/webhooks/{webhook}", {"admin"}),
        ("POST /v1/webhooks/{webhook}/rotation", {"admin"}),
        ("GET /v1/people", {"admin", "auditor"}),
        ("POST /v1/policies", {"admin"}),
        *((call, {"scientist"}) for call in ("POST /v1/runs", "PATCH /v1/runs/{run}", "POST /v1/runs/{run}/metrics")),
        *((f"GET /v1/runs{end}", set(ROLES) - {"consumer", "deployer"}) for end in ("", "/{run}", "/{run}/metrics")),
        ("GET /v1/policies", set(ROLES) - {"consumer"}),
        ("GET /v1/policies/{policy}", set(ROLES) - {"consumer"}),
        ("POST /v1/policy-replay", {"admin", "approver", "auditor", "validator"}),
        ("GET /v1/predictions/{id}/trace", set(ROLES)),
        ("GET /v1/predictions/{id}/bundle", set(ROLES) - {"consumer"}),
        ("GET /v1/models/{model}/versions/{number}/bundle", set(ROLES) - {"consumer"}),
        ("GET /v1/models/{model}/versions/{number}/packet", set(ROLES) - {"consumer"}),
        ("GET /v1/findings", set(ROLES) - {"consumer"}),
        ("GET /v1/lineage", set(ROLES) - {"consumer"}),
        ("GET /v1/compliance", set(ROLES) - {"consumer"}),
        ("GET /v1/ledger/file", set(ROLES)),
        ("GET /v1/ledger/audit", set(ROLES)),
        ("GET /v1/ledger/audit/{number}", set(ROLES)),
        ("GET /v1/root", set(ROLES)),
        ("GET /v1/root/keys", {"admin"}),
        ("POST /v1/root", {"admin"}),
        ("POST /v1/models/{model}/versions/{number}/kill", {"admin", "approver", "deployer"}),
        ("POST /v1/models/{model}/versions/{number}/retirement", {"admin", "deployer"}),
        ("POST /v1/models/{model}/capture", {"admin", "deployer"}),
        ("POST /v1/models/{model}/versions/{number}/hold", {"admin", "approver", "deployer", "validator"}),
        ("POST /v1/models/{model}/versions/{number}/release", {"admin", "approver", "deployer", "validator"}),
        ("POST /v1/models/{model}/versions/{number}/redo", {"admin", "scientist", "validator"}),
        ("POST /v1/models/{model}/versions/{number}/transition", {"admin", "approver", "deployer", "scientist", "validator"}),
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
        f"{FOLDER}/frozen/manifest.json",
        f"{FOLDER}/frozen/artifact-manifest.json",
        f"{FOLDER}/stages/TRAINING/1/record.json",
        f"{FOLDER}/evidence/0.json",
        f"{BATCH}{RECEIPTS}",
        f"{KEY}/delegation.jwt",
        "ledger/tile/0/x001/067",
        "ledger/tile/entries/000.p/17",
        "ledger/checkpoints/000000000123",
        "ledger/audit/000000000001.jsonl",
        "root/1.root.json",
        "root/12.snapshot.json",
        "root/3.targets.json",
        f"root/{'0' * 64}.trusted_root.json",
    ],
)
def test_what_is_evidence_is_deleted_by_nobody(template: Template, key: str) -> None:
    rules = store_rules(template)
    assert covers(rules["DenyDelete"], key)
    assert covers(rules["DenyOverwrite"], key)


@pytest.mark.parametrize("key", [f"{FOLDER}/frozen/model/model.joblib", f"{FOLDER}/stages/PROCESSING/1/data/train/part-0.parquet"])
def test_what_a_version_left_is_hidden_by_nobody_and_deleted_by_who_disposes_alone(template: Template, key: str) -> None:
    rules = store_rules(template)
    assert covers(rules["DenyForeignDisposal"], key)
    assert rules["DenyForeignDisposal"]["Action"] == "s3:DeleteObjectVersion"
    assert rules["DenyForeignDisposal"]["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": function_role("custody")}}
    assert covers(rules["DenyBypass"], key)
    assert set(rules["DenyBypass"]["Action"]) == {"s3:DeleteObject", "s3:BypassGovernanceRetention"}
    assert "Condition" not in rules["DenyBypass"]
    assert covers(rules["DenyOverwrite"], key)


@pytest.mark.parametrize("key", [f"{BATCH}{PRIVATE}", *(f"{FOLDER}/predictions/payloads/{'a' * 52}/1.{x}" for x in ("request", "output"))])
def test_what_a_person_may_have_erased_is_written_once_but_can_be_deleted(template: Template, key: str) -> None:
    rules = store_rules(template)
    assert not covers(rules["DenyDelete"], key)
    assert covers(rules["DenyOverwrite"], key)


@pytest.mark.parametrize("key", ["ledger/checkpoint", "root/timestamp.json"])
def test_what_is_replaced_as_the_ledger_grows_cannot_be_deleted(template: Template, key: str) -> None:
    rules = store_rules(template)
    assert covers(rules["DenyDelete"], key)
    assert not covers(rules["DenyOverwrite"], key)


@pytest.mark.parametrize(
    ("sid", "key", "writer"),
    [("DenyForeignLedger", "ledger/checkpoint", "sequence"), ("DenyForeignRoot", "root/timestamp.json", "root")],
)
def test_ledger_and_root_are_written_by_one_function_each_and_by_no_administrator(
    template: Template, sid: str, key: str, writer: str
) -> None:
    rules = store_rules(template)
    for other in (key, key.replace("checkpoint", "tile/0/000").replace("timestamp", "9.root")):
        assert covers(rules[sid], other)
    assert rules[sid]["Principal"] == {"AWS": "*"}
    assert rules[sid]["Action"] == "s3:PutObject"
    assert rules[sid]["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": function_role(writer)}}


def test_the_store_cannot_be_overwritten_or_emptied_by_anybody(template: Template) -> None:
    rules = store_rules(template)
    for sid in ("DenyDelete", "DenyOverwrite"):
        assert rules[sid]["Effect"] == "Deny"
        assert rules[sid]["Principal"] == {"AWS": "*"}
    once = {r.split("/", 1)[1] for r in rules["DenyOverwrite"]["Resource"]}
    assert {"datasets/*", "environments/*", "models/*", "registered/*", "ledger/tile/*", "ledger/staging/*"} <= once
    assert set(rules["DenyDelete"]["Action"]) == {"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"}
    assert "Condition" not in rules["DenyDelete"]
    assert rules["DenyOverwrite"]["Condition"] == {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}


def test_a_caller_writes_below_its_own_prefix_only(template: Template) -> None:
    (policy,) = [p for p in template.policies() if p.owner.startswith("StoresStorePolicy")]
    (rule,) = [s for s in policy.statements if s.get("Sid") == "DenyForeignUpload"]
    assert {r.split("/", 1)[1] for r in rule["NotResource"]} == {
        "candidates/${aws:userid}/*",
        "datasets-in/*/*/${aws:userid}/*",
        "datasets/*",
        "environments/*",
        "ledger/*",
        "models/*",
        "registered/*",
        "root/*",
    }
    exempt = rule["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]
    assert exempt == [f"arn:aws:iam::{ACCOUNT}:role/attestry-{name}-function" for name in ("uploads", "register")]


def test_every_bucket_queue_and_topic_refuses_plain_http(template: Template) -> None:
    kinds = ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy")
    policies = [properties["PolicyDocument"] for kind in kinds for properties in template.of_type(kind).values()]
    assert len(policies) == 17
    for policy in policies:
        assert any(s["Effect"] == "Deny" and s.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}} for s in policy["Statement"])


def test_who_may_act_in_the_console_may_start_it_and_nobody_else(template: Template) -> None:
    assert console_roles() == CONSOLE_ROLES
    starting = {role for role in ROLES if "states:StartExecution" in allowed(template.role_policies(f"attestry-{role}"))}
    assert starting == set(CONSOLE_ROLES)


@pytest.mark.parametrize("name", sorted(PERMISSIONS))
def test_a_function_reads_rows_by_one_statement_since_two_allow_no_batch_over_the_partitions_of_both(template: Template, name: str) -> None:
    reading = [s for s in function_statements(template, name) if "dynamodb:BatchGetItem" in listed(s["Action"])]
    assert len(reading) <= 1
