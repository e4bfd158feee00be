"""What services say about jobs that ended: read from their own descriptions, in either spelling, and checked against the plan."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from attestry.domain.errors import IntegrityError
from attestry.domain.job_facts import check_job, failed_job_facts, job_facts
from tests.service_models import problems_of_answer

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/training@sha256:" + "a1" * 32
START, END = datetime(2026, 1, 2, 3, 0, tzinfo=UTC), datetime(2026, 1, 2, 3, 10, tzinfo=UTC)

TRAINING: dict[str, Any] = {
    "TrainingJobName": "attestry-credit-risk-training-1-0123456789abcdef",
    "TrainingJobArn": "arn:aws:sagemaker:eu-central-1:123456789012:training-job/credit-risk-training-1-0123456789abcdef",
    "ModelArtifacts": {"S3ModelArtifacts": "s3://scratch/jobs/x/model.tar.gz"},
    "TrainingJobStatus": "Completed",
    "SecondaryStatus": "Completed",
    "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
    "ResourceConfig": {"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    "CreationTime": START,
    "TrainingStartTime": START,
    "TrainingEndTime": END,
    "BillableTimeInSeconds": 420,
    "SecondaryStatusTransitions": [
        {"Status": "Training", "StartTime": START},
        {"Status": "Interrupted", "StartTime": START},
        {"Status": "Completed", "StartTime": END},
    ],
}
PROCESSING: dict[str, Any] = {
    "ProcessingJobName": "credit-risk-processing-1-0123456789abcdef",
    "ProcessingJobArn": "arn:aws:sagemaker:eu-central-1:123456789012:processing-job/credit-risk-processing-1-0123456789abcdef",
    "ProcessingJobStatus": "Failed",
    "FailureReason": "AlgorithmError: , exit code: 3",
    "ExitMessage": "the script ended with exit code 3: no such column 'age'",
    "AppSpecification": {"ImageUri": IMAGE},
    "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}},
    "CreationTime": START,
    "ProcessingStartTime": START,
    "ProcessingEndTime": END,
}
BATCH: dict[str, Any] = {
    "jobs": [
        {
            "jobName": "attestry-credit-risk-training-1-0123456789abcdef",
            "jobArn": "arn:aws:batch:eu-central-1:123456789012:job/5d",
            "jobId": "5d",
            "jobQueue": "q",
            "jobDefinition": "d:1",
            "status": "SUCCEEDED",
            "startedAt": 1767322800000,
            "stoppedAt": 1767323400000,
            "container": {
                "image": IMAGE,
                "exitCode": 0,
                "logStreamName": "d/default/77",
                "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/attestry/batch"}},
            },
            "attempts": [
                {
                    "startedAt": 1767322000000,
                    "stoppedAt": 1767322100000,
                    "statusReason": "Host EC2 (instance i-0a) terminated.",
                    "container": {"reason": "gone"},
                },
                {"startedAt": 1767322800000, "stoppedAt": 1767323400000, "container": {"exitCode": 0}},
            ],
        }
    ]
}
SPARK: dict[str, Any] = {
    "jobRun": {
        "applicationId": "00f1abcdefgh0009",
        "jobRunId": "00f1run",
        "name": "credit-risk-processing-1-0123456789abcdef",
        "arn": "arn:aws:emr-serverless:eu-central-1:123456789012:/applications/00f1abcdefgh0009/jobruns/00f1run",
        "createdBy": "arn:aws:sts::123456789012:assumed-role/attestry-pipeline/x",
        "createdAt": START,
        "updatedAt": END,
        "executionRole": "arn:aws:iam::123456789012:role/attestry-job-credit-risk",
        "state": "SUCCESS",
        "stateDetails": "Job completed successfully",
        "releaseLabel": "emr-7.9.0",
        "jobDriver": {"sparkSubmit": {"entryPoint": "s3://scratch/jobs/x/in/attestry-job/spark_entry.py"}},
        "configurationOverrides": {"monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": "s3://scratch/jobs/x/out/log/"}}},
        "totalExecutionDurationSeconds": 333,
        "billedResourceUtilization": {"vCPUHour": 1.25, "memoryGBHour": 5.0, "storageGBHour": 0.0},
        "imageConfiguration": {"imageUri": IMAGE.partition("@")[0] + ":v1", "resolvedImageDigest": "sha256:" + "a1" * 32},
    }
}
ALL = [
    ("sagemaker-training", "sagemaker", "DescribeTrainingJob", TRAINING),
    ("sagemaker-processing", "sagemaker", "DescribeProcessingJob", PROCESSING),
    ("batch", "batch", "DescribeJobs", BATCH),
    ("emr-serverless", "emr-serverless", "GetJobRun", SPARK),
]


def as_step_functions(value: Any) -> Any:
    """What a `.sync` task hands on: members with capitals, times as milliseconds or text."""
    if isinstance(value, dict):
        return {k[:1].upper() + k[1:] if k != "awslogs-group" else k: as_step_functions(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_step_functions(v) for v in value]
    return int(value.timestamp() * 1000) if isinstance(value, datetime) else value


@pytest.mark.parametrize(("service", "api", "operation", "answer"), ALL)
def test_the_descriptions_here_are_what_the_services_answer(service: str, api: str, operation: str, answer: dict[str, Any]) -> None:
    assert problems_of_answer(api, operation, answer) == []


@pytest.mark.parametrize(("service", "api", "operation", "answer"), ALL)
def test_an_answer_means_the_same_from_the_api_and_from_step_functions(
    service: str, api: str, operation: str, answer: dict[str, Any]
) -> None:
    told = as_step_functions(answer)
    assert job_facts(service, told) == job_facts(service, answer)
    flat = told.get("JobRun") or (told["Jobs"][0] if "Jobs" in told else told)
    assert job_facts(service, flat) == job_facts(service, answer)


def test_a_training_job_tells_machines_billed_seconds_digest_and_interruptions() -> None:
    facts = job_facts("sagemaker-training", TRAINING)
    assert facts.outcome == "SUCCEEDED"
    assert facts.failure == ""
    assert (facts.instance_type, facts.instance_count, facts.billable_seconds) == ("ml.p4d.24xlarge", 2, 420)
    assert facts.container_digest == "a1" * 32
    assert facts.interruptions == 1
    assert facts.log_location == {"group": "/aws/sagemaker/TrainingJobs", "stream": f"{facts.job_name}/"}
    assert (facts.started, facts.ended) == ("2026-01-02T03:00:00.000Z", "2026-01-02T03:10:00.000Z")
    assert json.loads(json.dumps(facts.to_item()))["exit_code"] == 0


def test_a_failed_job_ends_with_its_exit_code_and_the_reason_that_it_gives_itself() -> None:
    facts = job_facts("sagemaker-processing", PROCESSING)
    assert (facts.outcome, facts.exit_code, facts.billable_seconds) == ("FAILED", 3, 600)
    assert facts.failure.startswith("the sagemaker-processing job failed: AlgorithmError")
    assert "no such column 'age'" in facts.failure


def test_a_batch_job_pays_for_every_attempt_and_counts_those_that_lost_their_machine() -> None:
    facts = job_facts("batch", BATCH)
    assert (facts.billable_seconds, facts.interruptions, facts.exit_code) == (700, 1, 0)
    assert facts.log_location == {"group": "/attestry/batch", "stream": "d/default/77"}


def test_a_spark_run_tells_what_is_billed_and_the_digest_that_its_image_resolved_to() -> None:
    facts = job_facts("emr-serverless", SPARK)
    assert facts.usage == {"vcpu_hours": "1.25", "memory_gb_hours": "5.0", "storage_gb_hours": "0.0"}
    assert (facts.container_digest, facts.billable_seconds) == ("a1" * 32, 333)
    assert facts.log_location["uri"].endswith("/applications/00f1abcdefgh0009/jobs/00f1run/")


@pytest.mark.parametrize(
    ("service", "answer", "outcome"),
    [
        ("sagemaker-training", {**TRAINING, "TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}, "TIMED_OUT"),
        ("sagemaker-training", {**TRAINING, "TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxWaitTimeExceeded"}, "TIMED_OUT"),
        ("sagemaker-training", {**TRAINING, "TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}, "STOPPED"),
        ("batch", {**BATCH["jobs"][0], "status": "FAILED", "statusReason": "Job attempt duration exceeded timeout"}, "TIMED_OUT"),
        ("batch", {**BATCH["jobs"][0], "status": "FAILED", "statusReason": "Essential container in task exited"}, "FAILED"),
        ("emr-serverless", {**SPARK["jobRun"], "state": "CANCELLED", "stateDetails": "by a person"}, "STOPPED"),
    ],
)
def test_a_job_that_was_stopped_failed_or_ran_too_long_says_which(service: str, answer: dict[str, Any], outcome: str) -> None:
    facts = job_facts(service, answer)
    assert facts.outcome == outcome
    assert facts.failure


def test_the_cause_of_a_failed_task_is_the_jobs_description() -> None:
    cause = json.dumps(as_step_functions(PROCESSING))
    facts = failed_job_facts("sagemaker-processing", {"Error": "States.TaskFailed", "Cause": cause})
    assert facts == job_facts("sagemaker-processing", PROCESSING)


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        (
            {"Error": "SageMaker.ResourceLimitExceededException", "Cause": "The account-level limit is 0 Instances"},
            "FAILED",
            "account-level limit",
        ),
        ({"Error": "States.Timeout", "Cause": ""}, "TIMED_OUT", "States.Timeout"),
        ({"Error": "States.TaskFailed", "Cause": '{"TrainingJobStatus": "Fai'}, "FAILED", "TrainingJobStatus"),
        ({"Error": "States.TaskFailed", "Cause": "[1]"}, "FAILED", "States.TaskFailed"),
        ({}, "FAILED", "the task failed"),
    ],
)
def test_an_error_without_a_description_is_kept_as_it_was_said(error: dict[str, str], outcome: str, said: str) -> None:
    facts = failed_job_facts("sagemaker-training", error)
    assert (facts.outcome, facts.job_arn) == (outcome, "")
    assert said in facts.failure


def test_an_error_stands_above_a_description_of_success() -> None:
    facts = failed_job_facts("sagemaker-training", {"Error": "States.Timeout", "Cause": json.dumps(as_step_functions(TRAINING))})
    assert facts.outcome == "FAILED"


@pytest.mark.parametrize("status", ["InProgress", "", "Deleting", None])
def test_a_job_that_has_not_ended_is_no_result(status: str | None) -> None:
    with pytest.raises(IntegrityError, match="no job that has ended"):
        job_facts("sagemaker-training", {**TRAINING, "TrainingJobStatus": status})


PLANNED = {"service": "sagemaker-training", "name": TRAINING["TrainingJobName"], "container": IMAGE}


def test_the_answer_of_another_job_or_image_is_not_taken() -> None:
    check_job(job_facts("sagemaker-training", TRAINING), PLANNED)
    other = {**TRAINING, "TrainingJobName": "credit-risk-training-1-of-somebody-else"}
    with pytest.raises(IntegrityError, match="the name credit-risk-training-1-of-somebody-else"):
        check_job(job_facts("sagemaker-training", other), PLANNED)
    image = {**TRAINING, "AlgorithmSpecification": {"TrainingImage": IMAGE[:-2] + "ff", "TrainingInputMode": "File"}}
    with pytest.raises(IntegrityError, match="the image"):
        check_job(job_facts("sagemaker-training", image), PLANNED)
    with pytest.raises(IntegrityError, match="the service batch"):
        check_job(job_facts("batch", BATCH), PLANNED)
    with pytest.raises(IntegrityError, match="names no job"):
        check_job(job_facts("sagemaker-training", {"TrainingJobStatus": "Completed"}), PLANNED)
