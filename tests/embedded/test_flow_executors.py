"""Stages on other executors: the manifest changes by a line, the pipeline takes the branch of that executor, the stand-in runs the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from attestry.client.wait import wait_for_version
from attestry.local.synthesis import EXAMPLE_IMAGE
from tests.embedded.flow_versions import execution_arn
from tests.embedded.flows import SMALL_MODEL, Registry, example_rows, until

pytest_plugins = ("tests.embedded.flows", "tests.embedded.flow_versions")
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

ON_SAGEMAKER = {"instance": "ml.m5.large", "timeout_seconds": 300}
ON_BATCH = {"cpu": 1, "memory_mib": 2048, "timeout_seconds": 300}
ON_SPARK = {"cpu": 4, "memory_mib": 16384, "timeout_seconds": 300}
SECONDS = 600
"""How long a version may take; the first one of a session builds two environments, which each kind of process unpacks once."""

FAILING = """
import sys
print("the third epoch diverged")
sys.exit(3)
"""
SLEEPING = """
import time
print("sleeping", flush=True)
time.sleep(300)
"""


@dataclass(frozen=True)
class Ran:
    """A version and what its rows say.

    Attributes:
        model, number: the version.
        shown: as the API shows it.
        states: names of the states that its execution went through.
        records: the record of each stage that ran a script.
    """

    model: str
    number: int
    shown: Mapping[str, Any]
    states: list[str]
    records: Mapping[str, Mapping[str, Any]]


def moved(**stages: tuple[str, Mapping[str, Any]]) -> Any:
    """Return an edit that moves stages to executors: by stage, executor and resources."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["environment"]["container"] = EXAMPLE_IMAGE
        for stage, (executor, resources) in stages.items():
            manifest[stage]["executor"], manifest[stage]["resources"] = executor, dict(resources)

    return edit


def job_of(registry: Registry, model: str, number: int, stage: str) -> Mapping[str, Any]:
    """The job that a stage's plan names."""
    (row,) = registry.rows(model, number, f"STAGE#{stage}#001")
    job: Mapping[str, Any] = json.loads(row["plan"])["job"]
    return job


def ran(registry: Registry, model: str, number: int) -> Ran:
    """Wait until a version rests, and return what became of it."""
    followed = wait_for_version(registry.client("grace"), model, number, timeout_seconds=SECONDS)
    arn = execution_arn(registry, model, number)
    events = registry.aws("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=arn)
    details = [event.get("stateEnteredEventDetails") for page in events for event in page["events"]]
    records = {}
    for stage in ("PROCESSING", "TRAINING", "VALIDATION"):
        key = f"{followed.version['folder']}/stages/{stage}/1/record.json"
        if key in registry.keys(key):
            records[stage] = json.loads(registry.aws("s3").get_object(Bucket=registry.bucket, Key=key)["Body"].read())
    return Ran(model, number, followed.version, [entry["name"] for entry in details if entry], records)


@pytest.fixture(scope="module")
def made_elsewhere(registry: Registry) -> Ran:
    """A version all of whose stages run elsewhere than on Lambda: Batch prepares, SageMaker trains and validates."""
    stages = {"processing": ("batch", ON_BATCH), "training": ("sagemaker", ON_SAGEMAKER), "validation": ("sagemaker", ON_SAGEMAKER)}
    model, number = registry.submit(registry.small_project(model="made-elsewhere", edit=moved(**stages)))
    return ran(registry, model, number)


def test_each_stage_takes_the_branch_of_its_executor(made_elsewhere: Ran) -> None:
    assert made_elsewhere.shown["error"] == ""
    ran_in = [name for name in made_elsewhere.states if " on " in name or name in ("PROCESSING", "TRAINING", "VALIDATION")]
    assert ran_in == ["PROCESSING on Batch", "TRAINING on SageMaker", "VALIDATION on SageMaker"]
    assert (made_elsewhere.shown["stage"], made_elsewhere.shown["status"]) == ("APPROVAL", "RUNNING")


def test_the_record_of_a_stage_says_what_its_service_said_of_the_job(registry: Registry, made_elsewhere: Ran) -> None:
    for stage, service in (("PROCESSING", "batch"), ("TRAINING", "sagemaker-training"), ("VALIDATION", "sagemaker-processing")):
        told = made_elsewhere.records[stage]["ran"]
        planned = job_of(registry, made_elsewhere.model, made_elsewhere.number, stage)
        assert (told["service"], told["outcome"], told["job_name"]) == (service, "SUCCEEDED", planned["name"])
        assert told["container_digest"] == EXAMPLE_IMAGE.partition("@sha256:")[2]
        assert told["billable_seconds"] >= 1
    assert made_elsewhere.records["TRAINING"]["ran"]["instance_type"] == "ml.m5.large"


def test_what_the_service_described_is_answered_by_its_own_client_too(registry: Registry, made_elsewhere: Ran) -> None:
    name = job_of(registry, made_elsewhere.model, made_elsewhere.number, "TRAINING")["name"]
    described = registry.aws("sagemaker").describe_training_job(TrainingJobName=name)
    assert described["TrainingJobStatus"] == "Completed"
    assert described["EnableNetworkIsolation"] is True
    assert described["RoleArn"].endswith(f"/attestry-job-{made_elsewhere.model}")


def test_a_version_made_elsewhere_is_approved_predicts_and_is_traced(registry: Registry, made_elsewhere: Ran) -> None:
    registry.approve(made_elsewhere.model, made_elsewhere.number)
    answer = registry.client("frank-consumer").predict(made_elsewhere.model, example_rows()[:2])
    trace = registry.client("grace").trace(answer["prediction_id"])
    assert answer["version"] == made_elsewhere.number
    assert trace["verdict"] in ("PROVEN", "SIGNED-UNANCHORED")
    assert [step["step"] for step in trace.get("steps", []) if step.get("verdict") == "BROKEN"] == []


@pytest.mark.long
def test_data_are_prepared_under_the_contract_of_emr_serverless(registry: Registry) -> None:
    model, number = registry.submit(registry.small_project(model=SMALL_MODEL, edit=moved(processing=("emr-serverless", ON_SPARK))))
    version = ran(registry, model, number)
    assert version.shown["error"] == ""
    assert "PROCESSING on EMR Serverless" in version.states
    assert "TRAINING" in version.states
    assert version.records["PROCESSING"]["ran"]["outcome"] == "SUCCEEDED"
    assert version.shown["status"] == "RUNNING"


def test_a_job_that_fails_ends_its_stage_with_the_scripts_own_reason(registry: Registry) -> None:
    model, number = registry.submit(registry.small_project(edit=moved(training=("sagemaker", ON_SAGEMAKER)), train=FAILING))
    version = ran(registry, model, number)
    assert (version.shown["stage"], version.shown["status"]) == ("TRAINING", "FAILED")
    assert "the sagemaker-training job failed" in version.shown["error"]
    assert "the third epoch diverged" in version.shown["error"]
    assert [key for key in registry.keys(version.shown["folder"]) if "/frozen/" in key] == []


@pytest.mark.long
def test_a_job_that_somebody_stops_ends_its_stage_as_stopped(registry: Registry) -> None:
    model, number = registry.submit(registry.small_project(edit=moved(training=("sagemaker", ON_SAGEMAKER)), train=SLEEPING))
    name = running_training(registry, model, number)
    registry.aws("sagemaker").stop_training_job(TrainingJobName=name)
    version = ran(registry, model, number)
    assert (version.shown["stage"], version.shown["status"]) == ("TRAINING", "FAILED")
    assert "the sagemaker-training job was stopped" in version.shown["error"]


@pytest.mark.long
def test_stopping_the_execution_stops_the_job(registry: Registry) -> None:
    model, number = registry.submit(registry.small_project(edit=moved(training=("sagemaker", ON_SAGEMAKER)), train=SLEEPING))
    name = running_training(registry, model, number)
    registry.aws("stepfunctions").stop_execution(executionArn=execution_arn(registry, model, number))
    sagemaker = registry.aws("sagemaker")
    until(lambda: sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Stopped", "the job was stopped", 30)


def test_the_pipelines_role_starts_no_job_of_another_name_and_passes_no_other_role(registry: Registry, made_elsewhere: Ran) -> None:
    name = job_of(registry, made_elsewhere.model, made_elsewhere.number, "TRAINING")["name"]
    request = registry.aws("sagemaker").describe_training_job(TrainingJobName=name)
    members = ("AlgorithmSpecification", "RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
    begun = {member: request[member] for member in members} | {"TrainingJobName": f"{name[:50]}-again"}
    assert failure_of_task(registry, begun | {"TrainingJobName": "somebody-elses"}).startswith("User: ")
    other = begun | {"RoleArn": begun["RoleArn"].rpartition("/")[0] + "/attestry-admin"}
    assert "iam:PassRole" in failure_of_task(registry, other)
    assert "pattern" in failure_of_task(registry, begun | {"TrainingJobName": "attestry-", "StoppingCondition": {}})


def running_training(registry: Registry, model: str, number: int) -> str:
    """Wait until the job of a version's training runs, and return its name."""
    until(lambda: registry.rows(model, number, "STAGE#TRAINING#001"), "TRAINING began", SECONDS)
    name = str(job_of(registry, model, number, "TRAINING")["name"])
    sagemaker = registry.aws("sagemaker")

    def runs() -> bool:
        try:
            return "TrainingStartTime" in sagemaker.describe_training_job(TrainingJobName=name)
        except sagemaker.exceptions.ClientError:
            return False

    until(runs, "the training runs", SECONDS)
    return name


def failure_of_task(registry: Registry, request: Mapping[str, Any]) -> str:
    """Run one `.sync` task with the pipeline's role, and return the cause of its failure."""
    states = registry.aws("stepfunctions")
    machine = states.describe_state_machine(stateMachineArn=registry.stack.outputs["PipelineArn"])
    resource = "arn:aws:states:::sagemaker:createTrainingJob.sync"
    task = {"Type": "Task", "Resource": resource, "Arguments": "{% $states.input %}", "TimeoutSeconds": 30, "End": True}
    definition = {"QueryLanguage": "JSONata", "StartAt": "Job", "States": {"Job": task}}
    name = f"job-{len(states.list_state_machines()['stateMachines'])}"
    made = states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=machine["roleArn"])["stateMachineArn"]
    begun = states.start_execution(stateMachineArn=made, input=json.dumps(request))["executionArn"]

    def over() -> Mapping[str, Any] | None:
        described: Mapping[str, Any] = states.describe_execution(executionArn=begun)
        return described if described["status"] != "RUNNING" else None

    ended = until(over, "the task ended", 60)
    assert ended["status"] == "FAILED"
    return str(ended["cause"])
