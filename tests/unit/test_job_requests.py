"""The requests that start jobs: what the services' own models take, names that are the same again, and rights that end at the job."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.domain.job_requests import BATCH_BOOT, MODEL_CHANNEL, job_request, transform_request
from attestry.domain.jobs import JobPlace, JobSettings, JobSpec, Service, job_role_name, service_of
from attestry.domain.manifest_sections import Resources
from attestry.domain.stages import Stage
from tests.service_models import problems_of_request

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/training@sha256:" + "a1" * 32
KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
SETTINGS = JobSettings(
    executors=("lambda", "sagemaker", "batch", "emr-serverless"),
    bucket="attestry-scratch-123456789012",
    role_prefix="arn:aws:iam::123456789012:role/attestry-job-",
    kms_key=KEY,
    subnets=("subnet-0a", "subnet-0b"),
    security_groups=("sg-01",),
    batch_queue="arn:aws:batch:eu-central-1:123456789012:job-queue/attestry",
    batch_spot_queue="arn:aws:batch:eu-central-1:123456789012:job-queue/attestry-spot",
    batch_definitions={IMAGE: "arn:aws:batch:eu-central-1:123456789012:job-definition/attestry-a1a1:1"},
    emr_applications={IMAGE: "00f1abcdefgh0009"},
    emr_log_group="/attestry/spark",
)
MACHINE = Resources(instance="ml.m5.xlarge", timeout_seconds=3600)
URLS = {"ATTESTRY_JOB_URL": "https://s3/j?x=1", "ATTESTRY_SHIM_SHA256": "b2" * 32, "ATTESTRY_SHIM_URL": "https://s3/s?x=2"}
RUNS = [
    ("sagemaker", Stage.PROCESSING),
    ("sagemaker", Stage.TRAINING),
    ("sagemaker", Stage.VALIDATION),
    ("batch", Stage.PROCESSING),
    ("batch", Stage.TRAINING),
    ("batch", Stage.VALIDATION),
    ("emr-serverless", Stage.PROCESSING),
]


def spec(stage: Stage, resources: Resources = MACHINE, *, model: str = "credit-risk", attempt: int = 1, **changes: Any) -> JobSpec:
    place = JobPlace(SETTINGS.bucket, model, f"{model[:50]}-7-1-0123456789ab", stage, attempt)
    channels = {Stage.PROCESSING: ("source",), Stage.TRAINING: ("train",), Stage.VALIDATION: ("holdout", MODEL_CHANNEL)}[stage]
    return replace(JobSpec(place, 7, "c4" * 32, IMAGE, resources, {"n": 3, "scale": True, "name": "x"}, channels), **changes)


def uris_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {uri for item in value.values() for uri in uris_in(item)}
    if isinstance(value, (list, tuple)):
        return {uri for item in value for uri in uris_in(item)}
    return {part.strip() for part in str(value).split() if part.startswith("s3://")} if isinstance(value, str) else set()


@pytest.mark.parametrize(("executor", "stage"), RUNS)
def test_the_services_own_models_take_every_request(executor: str, stage: Stage) -> None:
    made = job_request(spec(stage), executor, SETTINGS, urls=URLS)
    assert made.service is service_of(executor, stage)
    assert problems_of_request(made.service, made.request) == []


@pytest.mark.parametrize(("executor", "stage"), RUNS)
def test_a_deployment_without_key_network_and_log_group_makes_requests_that_are_taken_too(executor: str, stage: Stage) -> None:
    bare = replace(SETTINGS, kms_key="", subnets=(), security_groups=(), emr_log_group="")
    made = job_request(spec(stage), executor, bare, urls=URLS)
    assert problems_of_request(made.service, made.request) == []
    assert "Kms" not in json.dumps(made.request)
    assert "VpcConfig" not in json.dumps(made.request)


def test_batch_transform_is_taken_by_its_model() -> None:
    made = transform_request(spec(Stage.VALIDATION), SETTINGS, sagemaker_model="credit-risk-7", content_type="application/jsonlines")
    assert problems_of_request(made.service, made.request) == []
    assert made.request["TransformInput"]["SplitType"] == made.request["TransformOutput"]["AssembleWith"] == "Line"


@given(st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True), st.sampled_from(RUNS), st.integers(1, 999))
def test_whatever_the_model_is_called_its_jobs_have_names_that_the_services_take(model: str, run: tuple[str, Stage], attempt: int) -> None:
    executor, stage = run
    made = job_request(spec(stage, model=model, attempt=attempt), executor, SETTINGS, urls=URLS)
    assert problems_of_request(made.service, made.request) == []
    assert len(made.name) <= 63


def test_the_same_run_asks_for_the_same_job_and_another_run_for_another() -> None:
    first = job_request(spec(Stage.TRAINING), "sagemaker", SETTINGS)
    assert job_request(spec(Stage.TRAINING), "sagemaker", SETTINGS) == first
    others = [
        spec(Stage.TRAINING, attempt=2),
        spec(Stage.PROCESSING),
        spec(Stage.TRAINING, place=replace(spec(Stage.TRAINING).place, execution_id="credit-risk-8-1-0123456789ab")),
        spec(Stage.TRAINING, place=replace(spec(Stage.TRAINING).place, bucket="another-registry")),
    ]
    assert len({first.name, *(o.place.job_name for o in others)}) == 5


def test_long_model_names_that_begin_alike_have_different_jobs_and_roles() -> None:
    one, other = "a" * 60 + "-x", "a" * 60 + "-y"
    assert spec(Stage.TRAINING, model=one).place.job_name != spec(Stage.TRAINING, model=other).place.job_name
    roles = {job_role_name("attestry-job-", one), job_role_name("attestry-job-", other)}
    assert len(roles) == 2
    assert all(len(name) <= 64 for name in roles)
    assert SETTINGS.role_of("credit-risk") == "arn:aws:iam::123456789012:role/attestry-job-credit-risk"


@pytest.mark.parametrize(("executor", "stage"), RUNS)
def test_a_job_is_given_nothing_but_its_own_place_in_its_models_scratch(executor: str, stage: Stage) -> None:
    wanted = spec(stage)
    uris = uris_in(dict(job_request(wanted, executor, SETTINGS, urls=URLS).request))
    assert all(uri.startswith(f"s3://{SETTINGS.bucket}/jobs/credit-risk/{wanted.place.execution_id}/{stage.value}/1/") for uri in uris)
    assert bool(uris) is (executor != "batch")


@pytest.mark.parametrize("isolation", [True, False])
def test_training_and_validation_have_no_network_on_sagemaker_whatever_the_deployment_says(isolation: bool) -> None:
    settings = replace(SETTINGS, network_isolation=isolation)
    assert job_request(spec(Stage.TRAINING), "sagemaker", settings).request["EnableNetworkIsolation"] is True
    network = {s: job_request(spec(s), "sagemaker", settings).request["NetworkConfig"] for s in (Stage.PROCESSING, Stage.VALIDATION)}
    assert network[Stage.VALIDATION]["EnableNetworkIsolation"] is True
    assert network[Stage.PROCESSING]["EnableNetworkIsolation"] is isolation


def test_a_batch_job_is_given_no_role_and_no_right_but_its_urls() -> None:
    request = job_request(spec(Stage.TRAINING), "batch", SETTINGS, urls=URLS).request
    assert "arn:aws:iam" not in json.dumps(request)
    assert {e["name"]: e["value"] for e in request["containerOverrides"]["environment"]} == URLS


def test_a_spark_run_of_one_version_cannot_write_where_another_versions_outputs_are_taken_from() -> None:
    request = job_request(spec(Stage.PROCESSING), "emr-serverless", SETTINGS).request
    statements = json.loads(request["executionIamPolicy"]["policy"])["Statement"]
    writing = [s for s in statements if "s3:PutObject" in s["Action"]]
    own = f"arn:aws:s3:::{SETTINGS.bucket}/{spec(Stage.PROCESSING).place.prefix}"
    assert [s["Resource"] for s in writing] == [f"{own}out/*"]
    assert len(request["executionIamPolicy"]["policy"]) <= 2048


def test_spot_training_has_a_longest_wait_and_a_place_for_checkpoints() -> None:
    resources = replace(MACHINE, spot=True, max_wait_seconds=7200)
    request = job_request(spec(Stage.TRAINING, resources), "sagemaker", SETTINGS).request
    assert problems_of_request("sagemaker-training", request) == []
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"]["MaxWaitTimeInSeconds"] == 7500 > request["StoppingCondition"]["MaxRuntimeInSeconds"]
    assert request["CheckpointConfig"]["S3Uri"].endswith("/TRAINING/1/checkpoints/")


def test_spot_on_batch_takes_its_own_queue_and_starts_again_only_when_the_machine_was_taken_away() -> None:
    request = job_request(spec(Stage.TRAINING, replace(MACHINE, spot=True)), "batch", SETTINGS, urls=URLS).request
    assert request["jobQueue"] == SETTINGS.batch_spot_queue
    assert [e["action"] for e in request["retryStrategy"]["evaluateOnExit"]] == ["RETRY", "EXIT"]
    assert job_request(spec(Stage.TRAINING), "batch", SETTINGS, urls=URLS).request["retryStrategy"] == {"attempts": 1}


def test_machines_processors_and_memory_are_those_of_the_manifest() -> None:
    asked = replace(MACHINE, instance_count=4, volume_gib=200)
    cluster = job_request(spec(Stage.TRAINING, asked), "sagemaker", SETTINGS).request
    assert (cluster["ResourceConfig"]["InstanceCount"], cluster["ResourceConfig"]["VolumeSizeInGB"]) == (4, 200)
    assert cluster["EnableInterContainerTrafficEncryption"] is True
    needed = job_request(spec(Stage.TRAINING, Resources(memory_mib=61000, cpu=8, gpu=2)), "batch", SETTINGS, urls=URLS).request
    assert needed["containerOverrides"]["resourceRequirements"] == [
        {"type": "VCPU", "value": "8"},
        {"type": "MEMORY", "value": "61000"},
        {"type": "GPU", "value": "2"},
    ]
    spark = job_request(
        spec(Stage.PROCESSING, Resources(memory_mib=16384, cpu=4, instance_count=20, volume_gib=100)), "emr-serverless", SETTINGS
    )
    told = spark.request["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    for part in (
        "executor.instances=20",
        "executor.cores=4",
        "executor.memory=14895m",
        "executor.memoryOverhead=1489m",
        "executor.disk=100G",
    ):
        assert part in told


def test_step_functions_is_given_capital_members_and_the_callers_own_words_as_they_are() -> None:
    made = job_request(spec(Stage.TRAINING), "batch", SETTINGS, urls=URLS).task_arguments()
    assert made["ContainerOverrides"]["ResourceRequirements"][0] == {"Type": "VCPU", "Value": "1"}
    assert made["Tags"]["attestry:model"] == "credit-risk"
    training = job_request(spec(Stage.TRAINING), "sagemaker", SETTINGS)
    assert training.task_arguments() == training.request
    assert training.request["HyperParameters"] == {"n": "3", "scale": "true", "name": "x"}


@pytest.mark.parametrize(
    ("executor", "stage", "settings", "resources", "field"),
    [
        ("batch", Stage.TRAINING, replace(SETTINGS, batch_queue=""), MACHINE, "training.executor"),
        ("batch", Stage.TRAINING, replace(SETTINGS, batch_spot_queue=""), replace(MACHINE, spot=True), "training.executor"),
        ("batch", Stage.PROCESSING, replace(SETTINGS, batch_definitions={}), MACHINE, "processing.container"),
        ("emr-serverless", Stage.PROCESSING, replace(SETTINGS, emr_applications={}), MACHINE, "processing.container"),
        ("emr-serverless", Stage.TRAINING, SETTINGS, MACHINE, "training.executor"),
        ("sagemaker", Stage.TRAINING, SETTINGS, Resources(), "training.resources.instance"),
        ("lambda", Stage.TRAINING, SETTINGS, MACHINE, "training.executor"),
    ],
)
def test_what_the_deployment_cannot_run_is_refused_by_the_manifests_field(
    executor: str, stage: Stage, settings: JobSettings, resources: Resources, field: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        job_request(spec(stage, resources), executor, settings, urls=URLS)
    assert refused.value.problems[0].field == field


def test_a_shim_that_is_not_the_one_that_was_named_is_not_run(tmp_path: Any) -> None:
    file = tmp_path / "shim.zip"
    file.write_bytes(b"print('never')")
    environment = {"ATTESTRY_SHIM_URL": file.as_uri(), "ATTESTRY_SHIM_SHA256": "00" * 32, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", BATCH_BOOT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not the one that was named" in done.stderr
    assert done.stdout == ""


def test_the_settings_are_read_from_what_the_deployment_tells_its_functions() -> None:
    told = {"executors": ["lambda", "batch"], "bucket": "b", "batch_definitions": {IMAGE: "arn"}, "network_isolation": False}
    settings = JobSettings.from_item(json.loads(json.dumps(told)))
    assert settings == JobSettings(("lambda", "batch"), "b", batch_definitions={IMAGE: "arn"}, network_isolation=False)
    assert JobSettings.from_item({}).executors == ("lambda",)
    with pytest.raises(InvalidInputError, match="kubernetes"):
        JobSettings.from_item({"executors": ["kubernetes"]})
    with pytest.raises(InvalidInputError, match="quue"):
        JobSettings.from_item({"batch_quue": "q"})


def test_a_job_is_named_after_its_deployment_because_the_pipeline_may_start_no_others() -> None:
    settings = replace(SETTINGS, role_prefix="arn:aws:iam::123456789012:role/models/blue-job-")
    assert settings.deployment == "blue"
    assert replace(spec(Stage.TRAINING).place, deployment="blue").job_name.startswith("blue-credit-risk-training-1-")


def test_services_are_told_apart_by_the_stage() -> None:
    assert service_of("sagemaker", Stage.VALIDATION) is Service.SAGEMAKER_PROCESSING
    with pytest.raises(InvalidInputError, match="emr-serverless starts no job for VALIDATION"):
        service_of("emr-serverless", Stage.VALIDATION)
