"""What the template gives stages that run elsewhere than on Lambda: permissions, roles, queues, networks."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from parliament import analyze_policy_string

from attestry.domain.jobs import EXECUTORS as REGISTRY_EXECUTORS
from attestry.domain.jobs import JobSettings, Service, job_role_name
from infra.config import Config, ConfigError
from infra.grants import WITHOUT_RESOURCE
from infra.job_states import EXECUTORS, SERVICES
from infra.names import Names
from tests.infra.conftest import ALL_EXECUTORS, IMAGE, SPARK_IMAGE, Synthesis
from tests.infra.template import ACCOUNT, REGION, Template, listed

MODELS = ("tumour-diagnosis", "diabetes-progression")
PARLIAMENT_ACKNOWLEDGED = {
    ("RESOURCE_MISMATCH", "batch:SubmitJob"): "a definition's ARN ends in its revision, and a job that is submitted has none yet",
}


@pytest.fixture(scope="session")
def jobs(all_executors: Synthesis) -> Template:
    return all_executors.template


def statements_of(template: Template, owner: str) -> list[dict[str, Any]]:
    return [s for p in template.policies() if p.kind == "identity" and p.owner.startswith(owner) for s in p.statements]


def may(statements: list[dict[str, Any]], action: str, resource: str) -> bool:
    return any(action in listed(s["Action"]) and any(fnmatchcase(resource, r) for r in listed(s["Resource"])) for s in statements)


def pipeline(template: Template) -> list[dict[str, Any]]:
    return statements_of(template, "PipelinePipelineRole")


def test_by_default_the_pipeline_may_start_no_job_and_pass_no_role(template: Template) -> None:
    actions = {action for s in pipeline(template) for action in listed(s["Action"])}
    assert {action.split(":")[0] for action in actions} == {"lambda", "logs"}
    kinds = {resource["Type"].split("::")[1] for resource in template.raw["Resources"].values()}
    assert not kinds & {"Batch", "EMRServerless", "SageMaker"}
    assert not [r for r in template.of_type("AWS::IAM::Role").values() if "-job-" in r.get("RoleName", "")]
    functions = {
        f["FunctionName"]: f["Environment"]["Variables"] for f in template.of_type("AWS::Lambda::Function").values() if "Environment" in f
    }
    assert functions["attestry-prepare-stage"]["ATTESTRY_JOBS"] == functions["attestry-register"]["ATTESTRY_JOBS"] == "{}"


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("sagemaker:CreateTrainingJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/attestry-m-1"),
        ("sagemaker:StopTrainingJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/attestry-m-1"),
        ("sagemaker:DescribeTrainingJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/attestry-m-1"),
        ("sagemaker:CreateProcessingJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:processing-job/attestry-m-1"),
        ("sagemaker:StopProcessingJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:processing-job/attestry-m-1"),
        ("sagemaker:CreateTransformJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:transform-job/attestry-m-1"),
        ("sagemaker:AddTags", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:transform-job/attestry-m-1"),
        ("batch:TerminateJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job/8a1c"),
        ("batch:DescribeJobs", "*"),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/attestry-job-tumour-diagnosis"),
        *(
            ("events:PutRule", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/StepFunctionsGetEventsFor{rule}")
            for rule in (
                "SageMakerTrainingJobsRule",
                "SageMakerProcessingJobsRule",
                "SageMakerTransformJobsRule",
                "BatchJobsRule",
                "EMRServerlessJobRule",
            )
        ),
    ],
)
def test_the_pipeline_starts_watches_and_stops_jobs_of_this_deployment(jobs: Template, action: str, resource: str) -> None:
    assert may(pipeline(jobs), action, resource)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("sagemaker:CreateTrainingJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/somebody-elses"),
        ("sagemaker:StopTrainingJob", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/somebody-elses"),
        ("sagemaker:CreateEndpoint", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/attestry-x"),
        ("batch:SubmitJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/somebody-elses"),
        ("batch:SubmitJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/somebody-elses:1"),
        ("batch:RegisterJobDefinition", f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/attestry-x"),
        ("emr-serverless:StartJobRun", f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/somebodyelses"),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/attestry-admin"),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/attestry-record-stage-function"),
        ("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/attestry-job-x"),
        ("events:PutRule", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/any"),
    ],
)
def test_the_pipeline_reaches_nothing_of_others(jobs: Template, action: str, resource: str) -> None:
    assert not may(pipeline(jobs), action, resource)


def test_the_pipeline_submits_to_the_queues_and_definitions_of_the_deployment_alone(jobs: Template) -> None:
    named = {r for s in pipeline(jobs) if "batch:SubmitJob" in listed(s["Action"]) for r in listed(s["Resource"])}
    queues = {f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/{name}" for name in jobs.of_type("AWS::Batch::JobQueue")}
    definitions = {f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/{name}:1" for name in jobs.of_type("AWS::Batch::JobDefinition")}
    assert named == queues | definitions
    runs = {r for s in pipeline(jobs) if "emr-serverless:StartJobRun" in listed(s["Action"]) for r in listed(s["Resource"])}
    (application,) = jobs.of_type("AWS::EMRServerless::Application")
    assert runs == {f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/{application.lower()}"}


def test_a_jobs_role_is_passed_to_the_services_that_run_jobs_and_to_no_other(jobs: Template) -> None:
    (statement,) = [s for s in pipeline(jobs) if "iam:PassRole" in listed(s["Action"])]
    services = ["sagemaker.amazonaws.com", "emr-serverless.amazonaws.com"]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": services}}


@pytest.mark.parametrize("enabled", ["sagemaker", "batch", "emr-serverless"])
def test_an_executor_that_is_not_enabled_adds_no_permission(enabled: str) -> None:
    from infra.job_access import run_jobs

    config = Config.from_context({**ALL_EXECUTORS, "attestry:executors": f"lambda,{enabled}"})
    statements = run_jobs(config, Names("attestry"), queues=["q"], definitions=["d"], applications=["a"])
    services = {action.split(":")[0] for s in statements for action in s.actions}
    assert services == {enabled, "events"} | ({"iam"} if enabled != "batch" else set())
    assert run_jobs(Config(), Names("attestry"), queues=[], definitions=[], applications=[]) == []


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_one_job_role_which_its_services_alone_assume(jobs: Template, model: str) -> None:
    (role,) = [r for r in jobs.of_type("AWS::IAM::Role").values() if r.get("RoleName") == f"attestry-job-{model}"]
    trusted = set()
    for statement in role["AssumeRolePolicyDocument"]["Statement"]:
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
        assert statement["Action"] == "sts:AssumeRole"
        trusted |= set(listed(statement["Principal"]["Service"]))
    assert trusted == {"sagemaker.amazonaws.com", "emr-serverless.amazonaws.com"}


SCRATCH = "arn:aws:s3:::{scratch}"
RUN = "jobs/tumour-diagnosis/tumour-diagnosis-1-1-0123456789ab"


@pytest.mark.parametrize(
    ("action", "key", "allowed"),
    [
        ("s3:GetObject", f"{RUN}/TRAINING/1/in/train/part-0.parquet", True),
        ("s3:PutObject", f"{RUN}/TRAINING/1/out/model.tar.gz", True),
        ("s3:PutObject", f"{RUN}/TRAINING/1/in/train/part-0.parquet", False),
        # What an evaluation made of a job's outputs, labels of the hold-out among it, is neither read nor forged.
        ("s3:GetObject", f"{RUN}/PROCESSING/1/evaluated/holdout-labels/part-0.parquet", False),
        ("s3:PutObject", f"{RUN}/VALIDATION/1/evaluated/summary.json", False),
        ("s3:PutObject", f"{RUN}/TRAINING/1/job.json", False),
        ("s3:GetObject", "jobs/diabetes-progression/e/TRAINING/1/in/train/part-0.parquet", False),
        # A model whose name goes on where another's ends is another model.
        ("s3:GetObject", "jobs/tumour-diagnosis-two/e/TRAINING/1/in/train/part-0.parquet", False),
        ("s3:GetObject", "bundles/x", False),
    ],
)
def test_a_jobs_role_reads_what_is_laid_out_for_its_model_and_writes_beside_it(
    jobs: Template, action: str, key: str, *, allowed: bool
) -> None:
    (scratch,) = [name for name in jobs.of_type("AWS::S3::Bucket") if "Scratch" in name]
    statements = jobs.role_policies("attestry-job-tumour-diagnosis")
    assert may(statements, action, f"arn:aws:s3:::{scratch.lower()}/{key}") == allowed


def test_a_jobs_role_reaches_no_table_key_store_or_function(jobs: Template) -> None:
    statements = jobs.role_policies("attestry-job-tumour-diagnosis")
    actions = {action for s in statements for action in listed(s["Action"])}
    assert {action.split(":")[0] for action in actions} == {"ecr", "kms", "logs", "s3"}
    assert {a for a in actions if a.startswith("kms:")} == {"kms:Decrypt", "kms:GenerateDataKey"}
    assert not [r for s in statements for r in listed(s["Resource"]) if "storesstore" in str(r)]


def test_jobs_of_batch_hold_no_credentials_and_run_the_configured_image(jobs: Template) -> None:
    (definition,) = jobs.of_type("AWS::Batch::JobDefinition").values()
    container = definition["ContainerProperties"]
    assert "JobRoleArn" not in container
    assert container["Image"] == IMAGE
    assert container["NetworkConfiguration"] == {"AssignPublicIp": "DISABLED"}
    (application,) = jobs.of_type("AWS::EMRServerless::Application").values()
    assert application["ImageConfiguration"] == {"ImageUri": SPARK_IMAGE}


def test_batch_and_spark_run_in_the_isolated_subnets(jobs: Template) -> None:
    subnets = set(jobs.of_type("AWS::EC2::Subnet"))
    for environment in jobs.of_type("AWS::Batch::ComputeEnvironment").values():
        assert set(environment["ComputeResources"]["Subnets"]) == subnets
    (application,) = jobs.of_type("AWS::EMRServerless::Application").values()
    assert set(application["NetworkConfiguration"]["SubnetIds"]) == subnets
    kinds = {resource["Type"] for resource in jobs.raw["Resources"].values()}
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route"}


def test_credentials_of_another_account_open_no_endpoint_of_the_isolated_network(jobs: Template) -> None:
    interfaces = [e for e in jobs.of_type("AWS::EC2::VPCEndpoint").values() if e["VpcEndpointType"] == "Interface"]
    assert len(interfaces) == 3
    for endpoint in interfaces:
        for statement in endpoint["PolicyDocument"]["Statement"]:
            assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}


def test_the_preparing_functions_are_told_where_jobs_run(jobs: Template) -> None:
    functions = {
        f["FunctionName"]: f["Environment"]["Variables"] for f in jobs.of_type("AWS::Lambda::Function").values() if "Environment" in f
    }
    told = json.loads(functions["attestry-prepare-stage"]["ATTESTRY_JOBS"])
    assert told["executors"] == ["lambda", "sagemaker", "batch", "emr-serverless"]
    assert told["role_prefix"] == f"arn:aws:iam::{ACCOUNT}:role/attestry-job-"
    assert told["network_isolation"] is True
    assert "subnets" not in told
    assert set(told["batch_definitions"]) == {IMAGE}
    assert set(told["emr_applications"]) == {SPARK_IMAGE}
    assert {"batch_queue", "batch_spot_queue", "bucket", "kms_key"} <= set(told)
    assert functions["attestry-register"]["ATTESTRY_JOBS"] == functions["attestry-prepare-stage"]["ATTESTRY_JOBS"]
    settings = JobSettings.from_item(told)
    assert settings.deployment == "attestry"
    assert settings.role_of("tumour-diagnosis") == f"arn:aws:iam::{ACCOUNT}:role/attestry-job-tumour-diagnosis"


def test_by_default_the_registry_reads_its_setting_as_lambda_alone() -> None:
    assert JobSettings.from_item({}).executors == ("lambda",)


def test_parliament_finds_nothing_in_the_policies_of_jobs(jobs: Template) -> None:
    owned = [p for p in jobs.policies() if p.kind == "identity" and p.owner.startswith(("Executors", "PipelinePipelineRole"))]
    found = [(p.owner, f.issue, str(f.detail)) for p in owned for f in analyze_policy_string(json.dumps(p.document)).findings]
    assert len(owned) == 4
    assert len(found) == len(PARLIAMENT_ACKNOWLEDGED)
    assert [f for f in found if not any(f[1] == issue and part in f[2] for issue, part in PARLIAMENT_ACKNOWLEDGED)] == []


def test_no_policy_of_jobs_has_a_star_where_aws_knows_something_narrower(jobs: Template) -> None:
    for policy in jobs.policies():
        if policy.kind == "identity":
            assert [a for s in policy.statements for a in listed(s["Action"]) if "*" in a] == []
            wide = {a for s in policy.statements if "*" in listed(s["Resource"]) for a in listed(s["Action"])}
            assert wide <= set(WITHOUT_RESOURCE), policy.owner


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"attestry:executors": "sagemaker"}, "executors"),
        ({"attestry:executors": "lambda,kubernetes"}, "executors"),
        ({"attestry:jobModels": "Not A Name"}, "jobModels"),
        ({"attestry:jobModels": "one,one"}, "jobModels"),
        ({"attestry:batchImages": "models:latest"}, "batchImages"),
        ({"attestry:batchImages": ""}, "batchImages"),
        ({"attestry:emrImages": ""}, "emrImages"),
        ({"attestry:emrImages": f"example.org/spark@sha256:{'b' * 64}"}, "emrImages"),
        ({"attestry:jobSubnets": "subnet-0123456789abcdef0"}, "jobSubnets"),
        ({"attestry:vpcIsolation": "false"}, "jobSubnets"),
        ({"attestry:batchQueue": "my-queue"}, "batchQueue"),
        ({"attestry:jobLimitHours": "121"}, "jobLimitHours"),
        ({"attestry:approvalTimeoutDays": "360"}, "approvalTimeoutDays"),
        ({"attestry:emrApplications": '{"spark:latest": "00f1"}'}, "emrApplications"),
    ],
)
def test_a_setting_of_the_executors_that_cannot_be_is_refused_by_name(changed: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=f"attestry:{named} "):
        Config.from_context({**ALL_EXECUTORS, **changed})


def test_what_the_account_has_of_its_own_is_used_instead_of_making_it() -> None:
    own = {
        "attestry:batchQueue": f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/gpus",
        "attestry:batchDefinitions": json.dumps({IMAGE: f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/gpu:3"}),
        "attestry:batchImages": "",
    }
    config = Config.from_context({**ALL_EXECUTORS, **own})
    assert config.batch_definitions == ((IMAGE, f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/gpu:3"),)


@pytest.mark.parametrize("model", ["m", "tumour-diagnosis", "m" * 51, "m" * 52, "m" * 63, "a-" * 31 + "b"])
def test_roles_are_named_as_the_registry_names_them(model: str) -> None:
    names = Names("attestry")
    assert names.job_role(model) == job_role_name(names.job_role_prefix, model)
    assert len(names.job_role(model)) <= 64


def test_executors_and_services_are_those_that_the_registry_knows() -> None:
    assert set(EXECUTORS) == set(REGISTRY_EXECUTORS)
    assert set(SERVICES) == {service.value for service in Service}
