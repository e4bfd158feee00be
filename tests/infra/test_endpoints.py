"""What the template gives deployments to SageMaker: one role for each model, and rights over the deployment's own endpoints alone."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from parliament import analyze_policy_string

from attestry.domain.endpoints import EndpointSettings, endpoint_name
from infra.config import Config, ConfigError
from infra.job_states import Jobs
from infra.names import Names
from infra.pipeline_definition import ENDPOINT_SECONDS, pipeline_definition
from tests.infra.conftest import Synthesis
from tests.infra.template import ACCOUNT, REGION, Template, listed
from tests.infra.test_executors import may

ON = {"attestry:deploymentTargets": "function,sagemaker", "attestry:endpointModels": "tumour-diagnosis"}
ENDPOINT = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{endpoint_name('attestry', 'tumour-diagnosis', 'production')}"
SERVE_ROLE = f"arn:aws:iam::{ACCOUNT}:role/attestry-serve-tumour-diagnosis"


@pytest.fixture(scope="module")
def on(all_executors: Synthesis) -> Template:
    return all_executors.template


def role_of(function: str) -> str:
    return f"attestry-{function}-function"


def functions_that_may(template: Template, prefix: str) -> set[str]:
    found = set()
    for role in template.of_type("AWS::IAM::Role").values():
        name = str(role.get("RoleName", ""))
        if not name.endswith("-function"):
            continue
        actions = {a for s in template.role_policies(name) for a in listed(s["Action"])}
        if any(fnmatchcase(action, prefix) for action in actions):
            found.add(name.removeprefix("attestry-").removesuffix("-function"))
    return found


def test_deploy_alone_makes_endpoints_and_predict_alone_calls_them(on: Template) -> None:
    assert functions_that_may(on, "sagemaker:Create*") == {"deploy"}
    assert functions_that_may(on, "sagemaker:Delete*") == {"deploy"}
    assert functions_that_may(on, "sagemaker:Update*") == {"deploy"}
    assert functions_that_may(on, "sagemaker:InvokeEndpoint*") == {"predict"}
    assert functions_that_may(on, "iam:PassRole") == {"deploy", "gate"}  # the gate passes on the runbook's role


@pytest.mark.parametrize(
    ("function", "action", "resource", "allowed"),
    [
        ("predict", "sagemaker:InvokeEndpoint", ENDPOINT, True),
        ("predict", "sagemaker:InvokeEndpoint", ENDPOINT.replace("attestry-", "payments-"), False),
        ("deploy", "sagemaker:UpdateEndpoint", ENDPOINT, True),
        ("deploy", "sagemaker:DeleteEndpoint", ENDPOINT.replace("attestry-", "payments-"), False),
        ("deploy", "sagemaker:CreateModel", ENDPOINT.replace(":endpoint/", ":model/"), True),
        ("deploy", "sagemaker:CreateTrainingJob", ENDPOINT.replace(":endpoint/", ":training-job/"), False),
        ("deploy", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/attestry-job-tumour-diagnosis", False),
        ("deploy", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/attestry-deploy-function", False),
        ("deploy", "iam:PassRole", SERVE_ROLE, True),
        ("gate", "iam:PassRole", SERVE_ROLE, False),
        ("gate", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/attestry-approval-runbook", True),
    ],
)
def test_the_functions_reach_the_endpoints_of_this_deployment_and_no_others(
    on: Template, function: str, action: str, resource: str, *, allowed: bool
) -> None:
    assert may(on.role_policies(role_of(function)), action, resource) == allowed


def test_the_role_of_a_models_containers_is_passed_to_sagemaker_and_to_nobody_else(on: Template) -> None:
    (passing,) = [s for s in on.role_policies(role_of("deploy")) if "iam:PassRole" in listed(s["Action"])]
    assert fnmatchcase(SERVE_ROLE, str(passing["Resource"]))
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


FOLDER = "models/tumour-diagnosis/1-abc"


@pytest.mark.parametrize(
    ("action", "bucket", "key", "allowed"),
    [
        ("s3:GetObject", "Store", f"{FOLDER}/frozen/model/model.joblib", True),
        ("s3:GetObject", "Store", f"{FOLDER}/stages/PROCESSING/1/data/holdout-labels/part-0.parquet", False),
        ("s3:GetObject", "Store", f"{FOLDER}/evidence/packet-000007.json", False),
        ("s3:GetObject", "Store", "models/tumour-diagnosis-two/1-abc/frozen/model/model.joblib", False),
        ("s3:PutObject", "Store", f"{FOLDER}/frozen/model/model.joblib", False),
        ("s3:PutObject", "Scratch", "captured/tumour-diagnosis/production/x.jsonl", True),
        ("s3:PutObject", "Scratch", "captured/other/production/x.jsonl", False),
        ("s3:PutObject", "Scratch", "jobs/tumour-diagnosis/e/TRAINING/1/in/x", False),
    ],
)
def test_a_models_containers_read_what_was_frozen_of_it_and_change_nothing(
    on: Template, action: str, bucket: str, key: str, *, allowed: bool
) -> None:
    (name,) = [logical for logical in on.of_type("AWS::S3::Bucket") if logical.startswith(f"Stores{bucket}")]
    assert may(on.role_policies("attestry-serve-tumour-diagnosis"), action, f"arn:aws:s3:::{name.lower()}/{key}") == allowed


def test_a_models_containers_reach_no_table_function_or_signing_key(on: Template) -> None:
    actions = {a for s in on.role_policies("attestry-serve-tumour-diagnosis") for a in listed(s["Action"])}
    assert {a.partition(":")[0] for a in actions} == {"ecr", "kms", "logs", "s3"}
    assert {a for a in actions if a.startswith("kms:")} == {"kms:Decrypt", "kms:GenerateDataKey"}


def test_the_functions_are_told_what_the_registry_reads(on: Template) -> None:
    told = {
        name: json.loads(variables["ATTESTRY_ENDPOINTS"])
        for name, variables in environments(on).items()
        if "ATTESTRY_ENDPOINTS" in variables
    }
    assert set(told) == {"attestry-deploy", "attestry-predict", "attestry-register"}
    settings = EndpointSettings.from_item(told["attestry-deploy"])
    assert settings.models == ("tumour-diagnosis",)
    assert settings.role_of("tumour-diagnosis") == SERVE_ROLE


def environments(template: Template) -> dict[str, dict[str, Any]]:
    return {f["FunctionName"]: f.get("Environment", {}).get("Variables", {}) for f in template.of_type("AWS::Lambda::Function").values()}


def test_without_the_setting_there_is_nothing_of_it(template: Template) -> None:
    assert not [role for role in template.of_type("AWS::IAM::Role").values() if "serve" in str(role.get("RoleName", ""))]
    assert not [name for name, variables in environments(template).items() if "ATTESTRY_ENDPOINTS" in variables]
    assert functions_that_may(template, "sagemaker:*") == set()
    assert functions_that_may(template, "iam:PassRole") == set()


def test_parliament_finds_nothing_in_the_policy_of_containers(on: Template) -> None:
    (policy,) = [p for p in on.policies() if p.kind == "identity" and p.owner.startswith("EndpointsServe")]
    found = [(f.issue, str(f.detail)) for f in analyze_policy_string(json.dumps(policy.document)).findings]
    assert [f for f in found if "ecr:GetAuthorizationToken" not in f[1]] == []


def test_the_pipeline_waits_for_an_endpoint_only_where_there_are_any() -> None:
    waiting, none = (pipeline_definition(approval_seconds=60, jobs=Jobs(endpoints=on)) for on in (True, False))
    assert waiting["States"]["Wait for the endpoint"]["Next"] == "Go on with DEPLOYMENT"
    assert waiting["States"]["Go on with DEPLOYMENT"]["Next"] == "DEPLOYMENT passed?"
    assert waiting["TimeoutSeconds"] - none["TimeoutSeconds"] == ENDPOINT_SECONDS
    assert not {"Wait for the endpoint", "Go on with DEPLOYMENT"} & set(none["States"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"attestry:deploymentTargets": "sagemaker"}, "deploymentTargets"),
        ({"attestry:deploymentTargets": "function,kubernetes"}, "deploymentTargets"),
        ({"attestry:endpointModels": "Not A Name"}, "endpointModels"),
        ({"attestry:endpointModels": "one,one"}, "endpointModels"),
        ({"attestry:endpointModels": ""}, "endpointModels"),
        ({"attestry:deploymentTargets": "function"}, "endpointModels"),
    ],
)
def test_a_setting_of_the_targets_that_cannot_be_is_refused_by_name(changed: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=f"attestry:{named} "):
        Config.from_context({**ON, **changed})


@pytest.mark.parametrize("model", ["m", "tumour-diagnosis", "m" * 51, "m" * 63])
def test_roles_of_containers_are_named_as_the_registry_names_them(model: str) -> None:
    names = Names("attestry")
    settings = EndpointSettings(role_prefix=f"arn:aws:iam::{ACCOUNT}:role/{names.serve_role_prefix}")
    assert settings.role_of(model) == f"arn:aws:iam::{ACCOUNT}:role/{names.serve_role(model)}"
    assert len(names.serve_role(model)) <= 64
