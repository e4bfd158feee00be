"""The stand-in for SageMaker, Batch and EMR Serverless: it refuses what they refuse, and jobs go through their states for real."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from attestry.domain.job_facts import failed_job_facts, job_facts
from attestry.domain.job_requests import job_request, transform_request
from attestry.domain.jobs import JobPlace, JobSettings, JobSpec
from attestry.domain.manifest_sections import Resources
from attestry.domain.stages import Stage
from attestry.local.jobs import service as services
from attestry.local.jobs.integrations import INTEGRATIONS
from attestry.local.jobs.job import Job, Outcome, RefusedError
from attestry.local.jobs.models import UnknownMemberError, named_for_api, operation, problems
from attestry.local.jobs.service import KINDS, StandIn
from attestry.local.parity import Outcome as Parity
from attestry.local.parity import stood_in_for
from attestry.sandbox import confine
from infra.job_states import EXECUTORS, SERVICES, Jobs
from infra.pipeline_definition import pipeline_definition

BUCKET = "scratch"
IMAGE = f"000000000000.dkr.ecr.us-east-1.amazonaws.com/python@sha256:{'a' * 64}"
ROLE = "arn:aws:iam::000000000000:role/attestry-job-m"
DEFINITION = "arn:aws:batch:us-east-1:000000000000:job-definition/python:1"
APPLICATION = "00f1example"
SETTINGS = JobSettings(
    executors=("lambda", "sagemaker", "batch", "emr-serverless"),
    bucket=BUCKET,
    role_prefix="arn:aws:iam::000000000000:role/attestry-job-",
    batch_queue="arn:aws:batch:us-east-1:000000000000:job-queue/jobs",
    batch_definitions={IMAGE: DEFINITION},
    emr_applications={IMAGE: APPLICATION},
)
SECONDS = 30
needs_landlock = pytest.mark.skipif(confine.landlock_version() < 4, reason="the kernel has no Landlock that knows the network")

ROOT = "import os, sys, pathlib\nroot = pathlib.Path(sys.argv[-1])\n"
TRAIN = f"""{ROOT}
text = (root / "input/data/train/part.csv").read_text()
(root / "model/model.txt").write_text(text.upper())
(root / "output/data/log.txt").write_text("trained")
"""
FAIL = f"""{ROOT}
(root / "output").mkdir(exist_ok=True)
(root / "output" / sys.argv[1]).write_text("the labels are gone")
sys.exit(3)
"""
SLEEP = "import time\ntime.sleep(60)\n"


class MotoWorld:
    """Another AWS than the embedded one, and a folder of packages."""

    def __init__(self, packages: Path) -> None:
        self.packages = packages
        self.policies: list[str] = []

    def s3_as(self, role_arn: str, session: str, *, by: str, policy: str = "") -> Any:
        if role_arn != ROLE:
            raise RefusedError("ValidationException", f"could not assume role {role_arn}")
        self.policies.append(policy)
        return boto3.client("s3", region_name="us-east-1")

    def packages_of(self, tags: Mapping[str, str]) -> Path:
        assert tags["attestry:model"] == "m"
        return self.packages

    def image_of(self, service: str, made_of_it: str) -> str:
        if made_of_it not in (DEFINITION, APPLICATION):
            raise RefusedError("ClientException", f"{made_of_it} not found")
        return IMAGE


class Services:
    """The stand-in, and its scratch bucket."""

    def __init__(self, folder: Path) -> None:
        packages = folder / "packages"
        packages.mkdir()
        (packages / "of_the_environment.py").write_text("answer = 42\n")
        self.world = MotoWorld(packages)
        self.stand_in = StandIn(folder / "jobs", self.world)
        self.s3 = boto3.client("s3", region_name="us-east-1")
        self.s3.create_bucket(Bucket=BUCKET)

    def put(self, key: str, body: str | bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body.encode() if isinstance(body, str) else body)

    def read(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]

    def request(self, stage: Stage, executor: str, program: str, *, attempt: int = 1, seconds: int = 300) -> tuple[JobSpec, dict[str, Any]]:
        """Lay out a job whose entry point is a program of the test's, and return its request."""
        place = JobPlace(BUCKET, "m", "m-1-1-abc", stage, attempt)
        channel = {Stage.PROCESSING: "source", Stage.TRAINING: "train", Stage.VALIDATION: "holdout"}[stage]
        resources = Resources(timeout_seconds=seconds, instance="ml.m5.large", memory_mib=2048)
        spec = JobSpec(place, 1, "c" * 64, IMAGE, resources, {"depth": 3}, (channel,))
        for name in ("shim.zip", "spark_entry.py"):
            self.put(f"{place.prefix}in/attestry-job/{name}", program)
        self.put(f"{place.prefix}in/attestry-job/job.json", "{}")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            entry = tarfile.TarInfo("prepare.py")
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"\n"))
        self.put(f"{place.prefix}in/attestry-job/source.tar.gz", packed.getvalue())
        self.put(f"{place.prefix}in/{channel}/part.csv", "a,b\n1,2\n")
        return spec, dict(job_request(spec, executor, SETTINGS, urls={"ATTESTRY_JOB_URL": "http://127.0.0.1:1/"}).request)

    def run(self, service: str, request: Mapping[str, Any]) -> Job:
        job = self.stand_in.start(service, request)
        assert job.wait(SECONDS), "the job ended"
        return job

    def check_description(self, job: Job) -> None:
        kind = KINDS[job.service]
        described = self.stand_in.describe(job)
        answer = {"jobs": [described]} if kind.member == "jobs" else {kind.member: described} if kind.member else described
        assert problems(operation(kind.api, kind.describe).output_shape, answer) == []


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield Services(tmp_path)


def training_output(spec: JobSpec, name: str) -> str:
    """The key at which SageMaker leaves an archive of a training."""
    return f"{spec.place.prefix}out/{spec.place.job_name}/output/{name}.tar.gz"


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {member.name: stream.read() for member in tar if (stream := tar.extractfile(member)) is not None}


def test_a_training_is_given_its_channels_and_leaves_model_and_output_as_archives(aws: Services) -> None:
    spec, request = aws.request(Stage.TRAINING, "sagemaker", TRAIN)
    job = aws.run("sagemaker-training", request)
    assert (job.outcome, job.reason) == (Outcome.COMPLETED, "")
    assert members(aws.read(training_output(spec, "model"))) == {"model.txt": b"A,B\n1,2\n"}
    assert members(aws.read(training_output(spec, "output"))) == {"log.txt": b"trained"}
    aws.check_description(job)
    facts = job_facts("sagemaker-training", aws.stand_in.describe_for_states(job))
    assert (facts.outcome, facts.job_name, facts.container_digest) == ("SUCCEEDED", spec.place.job_name, "a" * 64)
    assert facts.billable_seconds is not None
    assert facts.billable_seconds >= 1


def test_the_script_imports_what_the_versions_environment_holds_and_nothing_of_the_registry(aws: Services) -> None:
    program = f"{ROOT}import of_the_environment\ntry:\n    import attestry.local\n    sys.exit(9)\nexcept ImportError:\n    pass\n" + TRAIN
    _, request = aws.request(Stage.TRAINING, "sagemaker", program)
    assert aws.run("sagemaker-training", request).outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("stage", "service", "argument"),
    [(Stage.TRAINING, "sagemaker-training", "failure"), (Stage.PROCESSING, "sagemaker-processing", "message")],
)
def test_a_job_that_fails_says_why_in_the_services_words(aws: Services, stage: Stage, service: str, argument: str) -> None:
    _, request = aws.request(stage, "sagemaker", FAIL)
    section = "AlgorithmSpecification" if stage is Stage.TRAINING else "AppSpecification"
    request[section]["ContainerArguments"] = [argument]
    job = aws.run(service, request)
    aws.check_description(job)
    facts = failed_job_facts(service, {"Error": "States.TaskFailed", "Cause": json.dumps(aws.stand_in.describe_for_states(job))})
    assert (facts.outcome, facts.exit_code) == ("FAILED", 3)
    assert "the labels are gone" in facts.failure


def test_a_processing_leaves_its_outputs_and_of_one_that_fails_its_log_alone(aws: Services) -> None:
    leave = f"{ROOT}for n in ('output', 'log'):\n    (root / 'processing' / n / (n + '.txt')).write_text(n)\n"
    spec, request = aws.request(Stage.PROCESSING, "sagemaker", leave)
    assert aws.run("sagemaker-processing", request).outcome is Outcome.COMPLETED
    assert {key.removeprefix(spec.place.prefix) for key in aws.keys(f"{spec.place.prefix}out/")} == {
        "out/output/output.txt",
        "out/log/log.txt",
    }
    spec, request = aws.request(Stage.PROCESSING, "sagemaker", f"{leave}sys.exit(1)\n", attempt=2)
    assert aws.run("sagemaker-processing", request).outcome is Outcome.FAILED
    assert {key.removeprefix(spec.place.prefix) for key in aws.keys(f"{spec.place.prefix}out/")} == {"out/log/log.txt"}


@pytest.mark.parametrize(
    ("stage", "executor", "service", "told"),
    [
        (Stage.TRAINING, "sagemaker", "sagemaker-training", "STOPPED"),
        (Stage.PROCESSING, "sagemaker", "sagemaker-processing", "STOPPED"),
        (Stage.PROCESSING, "emr-serverless", "emr-serverless", "STOPPED"),
        (Stage.TRAINING, "batch", "batch", "FAILED"),
    ],
)
def test_a_job_that_is_stopped_ends_in_the_services_state_for_that(
    aws: Services, stage: Stage, executor: str, service: str, told: str
) -> None:
    _, request = aws.request(stage, executor, SLEEP)
    if service == "batch":
        request["containerOverrides"]["command"] = ["python3", "-c", SLEEP]
    job = aws.stand_in.start(service, request)
    aws.check_description(job)
    job.stop()
    assert job.wait(SECONDS)
    assert job.outcome is Outcome.STOPPED
    aws.check_description(job)
    assert job_facts(service, aws.stand_in.describe_for_states(job)).outcome == told


def test_stopping_an_execution_stops_its_jobs_and_no_others(aws: Services) -> None:
    _, first = aws.request(Stage.TRAINING, "sagemaker", SLEEP)
    _, second = aws.request(Stage.TRAINING, "sagemaker", SLEEP, attempt=2)
    stopped = aws.stand_in.start("sagemaker-training", first, execution="arn:one")
    goes_on = aws.stand_in.start("sagemaker-training", second, execution="arn:two")
    aws.stand_in.stop_of_execution("arn:one")
    assert stopped.wait(SECONDS)
    assert not goes_on.is_over
    goes_on.stop()
    assert goes_on.wait(SECONDS)


@pytest.mark.parametrize(("stage", "service"), [(Stage.TRAINING, "sagemaker-training"), (Stage.PROCESSING, "sagemaker-processing")])
def test_a_job_ends_at_its_limit_and_its_service_says_so(aws: Services, stage: Stage, service: str) -> None:
    _, request = aws.request(stage, "sagemaker", SLEEP)
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 1}
    job = aws.run(service, request)
    aws.check_description(job)
    assert job_facts(service, aws.stand_in.describe_for_states(job)).outcome == "TIMED_OUT"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"TrainingJobName": "-no-name"}, "pattern"),
        ({"TrainingJobName": "n" * 64}, "length"),
        ({"Anything": 1}, "Unknown parameter"),
        ({"RoleArn": 7}, "RoleArn"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "MaxRuntimeInSeconds"),
        ({"ResourceConfig": {"InstanceType": "ml.of-no-kind", "InstanceCount": 1, "VolumeSizeInGB": 30}}, "ml.of-no-kind"),
        ({"RoleArn": "arn:aws:iam::000000000000:role/attestry-job-other"}, "could not assume role"),
    ],
)
def test_a_request_that_the_service_would_refuse_is_refused_and_starts_nothing(aws: Services, change: dict[str, Any], named: str) -> None:
    _, request = aws.request(Stage.TRAINING, "sagemaker", TRAIN)
    with pytest.raises(RefusedError, match=named) as caught:
        aws.stand_in.start("sagemaker-training", request | change)
    assert caught.value.code == "ValidationException"
    with pytest.raises(RefusedError, match="could not find"):
        aws.stand_in.find("sagemaker-training", str((request | change)["TrainingJobName"]))


def test_a_name_is_used_once(aws: Services) -> None:
    _, request = aws.request(Stage.TRAINING, "sagemaker", TRAIN)
    aws.run("sagemaker-training", request)
    with pytest.raises(RefusedError) as caught:
        aws.stand_in.start("sagemaker-training", request)
    assert caught.value.code == "ResourceInUse"


def test_more_jobs_than_the_quota_are_refused_by_sagemaker_and_wait_in_batch(aws: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "AT_ONCE", 1)
    _, first = aws.request(Stage.TRAINING, "sagemaker", SLEEP)
    _, second = aws.request(Stage.TRAINING, "sagemaker", TRAIN, attempt=2)
    running = aws.stand_in.start("sagemaker-training", first)
    with pytest.raises(RefusedError) as caught:
        aws.stand_in.start("sagemaker-training", second)
    assert caught.value.code == "ResourceLimitExceeded"
    running.stop()
    assert running.wait(SECONDS)
    assert aws.run("sagemaker-training", second).outcome is Outcome.COMPLETED

    _, batch = aws.request(Stage.TRAINING, "batch", "")
    batch["containerOverrides"]["command"] = ["python3", "-c", "import time; time.sleep(0.5)"]
    one, two = (aws.stand_in.start("batch", batch) for _ in range(2))
    assert two.wait(SECONDS)
    assert one.is_over
    assert two.started is not None
    assert one.ended is not None
    assert two.started >= one.ended


def test_a_batch_job_runs_its_command_with_its_variables_and_no_role(aws: Services) -> None:
    _, request = aws.request(Stage.TRAINING, "batch", "")
    told = "import os, sys; sys.exit(7 if os.environ['ATTESTRY_JOB_URL'] == 'http://127.0.0.1:1/' else 8)"
    request["containerOverrides"]["command"] = ["python3", "-c", told]
    job = aws.run("batch", request)
    aws.check_description(job)
    facts = job_facts("batch", aws.stand_in.describe_for_states(job))
    assert (facts.outcome, facts.exit_code, facts.container_digest) == ("FAILED", 7, "a" * 64)
    assert aws.world.policies == []


def test_a_definition_that_is_not_there_is_refused_by_batch(aws: Services) -> None:
    _, request = aws.request(Stage.TRAINING, "batch", "")
    with pytest.raises(RefusedError, match="not found"):
        aws.stand_in.start("batch", {**request, "jobDefinition": DEFINITION.replace("python", "other")})


def test_a_spark_entry_point_finds_folders_and_what_it_leaves_goes_where_spark_would_write(aws: Services) -> None:
    program = (
        "import pathlib, sys\ngiven, left = map(pathlib.Path, sys.argv[1:])\nassert pathlib.Path('source/prepare.py').is_file()\n"
        "assert pathlib.Path('job.json').is_file()\n"
        "(left / 'output/train').mkdir(parents=True)\n(left / 'output/train/part-0').write_text((given / 'source/part.csv').read_text())\n"
        "print('prepared')\n"
    )
    spec, request = aws.request(Stage.PROCESSING, "emr-serverless", program)
    job = aws.run("emr-serverless", request)
    assert (job.outcome, job.reason) == (Outcome.COMPLETED, "")
    assert aws.read(f"{spec.place.prefix}out/output/train/part-0") == b"a,b\n1,2\n"
    (log,) = [key for key in aws.keys(f"{spec.place.prefix}out/log/") if key.endswith("SPARK_DRIVER/stderr.gz")]
    assert gzip.decompress(aws.read(log)) == b"prepared\n"
    aws.check_description(job)
    assert job_facts("emr-serverless", aws.stand_in.describe_for_states(job)).outcome == "SUCCEEDED"
    assert all(json.loads(policy)["Statement"] for policy in aws.world.policies)


def test_the_same_client_token_starts_one_run(aws: Services) -> None:
    _, request = aws.request(Stage.PROCESSING, "emr-serverless", SLEEP)
    first, second = (aws.stand_in.start("emr-serverless", request) for _ in range(2))
    assert first is second
    first.stop()
    assert first.wait(SECONDS)


def test_a_batch_transform_is_held_against_the_model_of_its_api_and_then_says_that_no_image_is_run(aws: Services) -> None:
    spec, _ = aws.request(Stage.VALIDATION, "sagemaker", "")
    request = dict(transform_request(spec, SETTINGS, sagemaker_model="m", content_type="application/json").request)
    with pytest.raises(RefusedError, match="BatchStrategy"):
        aws.stand_in.start("sagemaker-transform", {**request, "BatchStrategy": "Any"})
    job = aws.run("sagemaker-transform", request)
    aws.check_description(job)
    assert "runs no images" in job_facts("sagemaker-transform", aws.stand_in.describe_for_states(job)).failure


@needs_landlock
def test_a_job_reads_nothing_of_this_machines_user_writes_outside_nothing_and_has_no_network(aws: Services, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    attack = f"""{ROOT}
import socket
done = []
try:
    done.append(pathlib.Path({str(secret)!r}).read_text())
except OSError:
    pass
try:
    pathlib.Path({str(tmp_path / "planted")!r}).write_text("x")
    done.append("wrote")
except OSError:
    pass
try:
    socket.create_connection(("127.0.0.1", 80), 1)
    done.append("connected")
except PermissionError:
    pass
done += [name for name in os.environ if name.startswith("AWS_") and "KEY" in name]
(root / "model/done.txt").write_text(",".join(done))
"""
    spec, request = aws.request(Stage.TRAINING, "sagemaker", attack)
    assert aws.run("sagemaker-training", request).outcome is Outcome.COMPLETED
    assert members(aws.read(training_output(spec, "model"))) == {"done.txt": b""}


def test_nothing_of_a_job_stays_on_this_machine(aws: Services, tmp_path: Path) -> None:
    _, request = aws.request(Stage.TRAINING, "sagemaker", TRAIN)
    aws.run("sagemaker-training", request)
    deadline = time.monotonic() + SECONDS
    while list((tmp_path / "jobs").iterdir()):
        assert time.monotonic() < deadline, "the job's folder is removed"
        time.sleep(0.05)


def test_members_are_named_for_the_api_and_back_while_keys_of_maps_stay() -> None:
    shape = operation("batch", "SubmitJob").input_shape
    named = {"JobName": "j", "JobQueue": "q", "JobDefinition": "d", "Tags": {"Team": "x"}, "Timeout": {"AttemptDurationSeconds": 60}}
    assert named_for_api(shape, named) == {
        "jobName": "j",
        "jobQueue": "q",
        "jobDefinition": "d",
        "tags": {"Team": "x"},
        "timeout": {"attemptDurationSeconds": 60},
    }
    with pytest.raises(UnknownMemberError, match="'Image'"):
        named_for_api(shape, {**named, "ContainerOverrides": {"Image": "x"}})


def test_every_job_state_of_the_pipeline_is_stood_in_for_and_printed_as_such() -> None:
    tasks = {service.resource for service in SERVICES.values()}
    assert set(INTEGRATIONS) == tasks
    definition = pipeline_definition(approval_seconds=86_400, jobs=Jobs(EXECUTORS))
    template = {"Resources": {"Machine": {"Type": "T", "Properties": {"DefinitionString": json.dumps(definition)}}}}
    found = list(stood_in_for(template))
    assert {difference.outcome for difference in found} == {Parity.STAND_IN}
    named = {difference.part.removeprefix("DefinitionString.") for difference in found}
    assert named == {name for name, state in definition["States"].items() if state.get("Resource", "") in tasks}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_full_quota_is_an_error_that_the_pipeline_waits_for(service: str) -> None:
    (integration,) = [found for found in INTEGRATIONS.values() if found.service == service]
    if full := KINDS[service].full:
        assert integration.name_of(full) in SERVICES[service].refusals
    assert integration.name_of("TooManyRequestsException") not in ("States.TaskFailed", "States.ALL")
