"""Stages as jobs of other services, from request to record: the real use cases and the real shim, over stand-ins of the services."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from attestry.domain.errors import InvalidInputError, StageFailedError, UnavailableError
from attestry.domain.jobs import JobSettings
from attestry.domain.stages import Stage
from attestry.domain.version import Version
from attestry.evaluation.prepared_data import evaluate_processing
from attestry.usecases.prepare_stage import StagePreparer
from attestry.usecases.register import Registrar
from attestry.usecases.stage_plan import Sandbox
from attestry.usecases.stage_result import StageResult
from tests.flow import LOCK, PLATFORM, Flow, example_manifest, example_source
from tests.job_services import Batch, SageMaker, served

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/training@sha256:" + "a1" * 32
SETTINGS = JobSettings(
    executors=("lambda", "sagemaker", "batch", "emr-serverless"),
    bucket="scratch",
    role_prefix="arn:aws:iam::123456789012:role/attestry-job-",
    batch_queue="arn:aws:batch:eu-central-1:123456789012:job-queue/attestry",
    batch_definitions={IMAGE: "arn:aws:batch:eu-central-1:123456789012:job-definition/attestry-a1:1"},
    emr_applications={IMAGE: "00f1abcdefgh0009"},
)
ON: dict[str, dict[str, Any]] = {
    "sagemaker": {"executor": "sagemaker", "resources": {"instance": "ml.m5.xlarge", "timeout_seconds": 60}},
    "batch": {"executor": "batch", "resources": {"memory_mib": 4096, "cpu": 2, "timeout_seconds": 60}},
    "emr-serverless": {"executor": "emr-serverless", "resources": {"memory_mib": 16384, "timeout_seconds": 60}},
}
PROCESS = b"""
import os, pathlib
import pandas
data = pandas.read_csv(pathlib.Path(os.environ["SM_CHANNEL_SOURCE"], "breast_cancer.csv"))
data = pandas.concat([data] * 4, ignore_index=True)
for name, part in (("train", data[:4]), ("holdout", data[4:])):
    folder = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], name)
    folder.mkdir()
    part.to_parquet(folder / "part-0.parquet", index=False)
print("prepared")
"""
TRAIN = b"""
import os, pathlib
files = sorted(p.name for p in pathlib.Path(os.environ["SM_CHANNEL_TRAIN"]).iterdir())
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(" ".join(files))
print("trained")
"""
INFERENCE = b"""
def model_fn(folder):
    return open(folder + "/model.joblib").read()
def predict_fn(data, model):
    return {"label": [0] * len(data), "probability": [0.5] * len(data)}
"""


class JobFlow(Flow):
    """A registry that runs jobs of other services."""

    settings = SETTINGS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.use(self.settings)

    def use(self, settings: JobSettings) -> None:
        """Give the functions other settings, as a deployment does."""
        sandbox = Sandbox(2048, 10240, "arm64", "arn:aws:lambda:eu-central-1:123456789012:function:attestry-sandbox")
        self.registrar = Registrar(self.meta, self.attestor, self.store, self.pipeline, self.notifier, PLATFORM, jobs=settings)
        self.preparer = StagePreparer(
            self.meta, self.attestor, self.store, self.scratch, sandbox, evaluation_lock=LOCK + b"\n# evaluation\n", jobs=settings
        )

    def begin(self, stage: Stage, executor: str, *before: Stage, **section: Any) -> Version:
        """A version of which one stage runs elsewhere, with the stages before it done."""
        source = example_source(process=PROCESS, train=section.pop("train", TRAIN), inference=INFERENCE)

        def edit(draft: dict[str, Any]) -> None:
            draft["environment"]["container"] = IMAGE
            draft[stage.value.lower()] |= ON[executor] | section

        registration = self.register(self.upload(example_manifest(source, edit=edit), source))
        assert registration.version is not None, registration.errors
        self.build_environments(registration.version)
        for done in before:
            assert self.pass_stage(registration.version, done)["outcome"] == "SUCCEEDED"
        return self.head(registration.version)

    def row(self, version: Version, stage: Stage) -> dict[str, Any]:
        return self.meta.query(f"VERSION#{version.model}#{version.number}", prefix=f"STAGE#{stage.value}#")[0]

    def record_of(self, version: Version, stage: Stage) -> dict[str, Any]:
        return dict(json.loads(self.row(version, stage)["record"]))

    def recorded(self, version: Version, stage: Stage, run: Any, evaluation: Any = None) -> dict[str, str]:
        return self.record(version, stage, StageResult(run, evaluation, None, "2026-01-02T03:05:00.000Z"))


@pytest.fixture
def flow() -> JobFlow:
    return JobFlow()


@pytest.fixture
def sagemaker(flow: JobFlow, tmp_path: Path) -> SageMaker:
    return SageMaker(flow.scratch, tmp_path / "machines")


@pytest.fixture
def batch(flow: JobFlow) -> Iterator[Batch]:
    with served(flow.store, flow.scratch):
        yield Batch(IMAGE)


def evaluate(flow: JobFlow, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the function does that reads the prepared data."""
    folder.mkdir()
    key = evaluate_processing({**job["evaluate"], "stage": "PROCESSING"}, flow.store, flow.scratch, folder)
    return {"outcome": "SUCCEEDED", "error": "", "summary_key": key}


def test_data_prepared_on_sagemaker_are_evaluated_digested_and_frozen_as_from_the_sandbox(
    flow: JobFlow, sagemaker: SageMaker, tmp_path: Path
) -> None:
    version = flow.begin(Stage.PROCESSING, "sagemaker")
    job = flow.prepare(version, Stage.PROCESSING)
    assert (job["executor"], job["service"], job["skip"]) == ("sagemaker", "sagemaker-processing", False)
    run = sagemaker.run(job["service"], job["request"])
    assert flow.recorded(version, Stage.PROCESSING, run, evaluate(flow, job, tmp_path / "e")) == {"outcome": "SUCCEEDED", "error": ""}
    training = flow.head(version).dataset("training")
    with flow.store.open(training.files[0].key, training.files[0].version_id) as stream:
        assert len(pandas.read_parquet(stream)) == 4
    row = flow.row(version, Stage.PROCESSING)
    assert flow.store.read(row["log"]["key"], max_bytes=1000) == b"prepared\n"


def test_a_model_trained_on_sagemaker_is_frozen_and_the_jobs_facts_stand_in_record_attestation_and_plan(
    flow: JobFlow, sagemaker: SageMaker
) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    job = flow.prepare(version, Stage.TRAINING)
    run = sagemaker.run(job["service"], job["request"])
    assert flow.recorded(version, Stage.TRAINING, run)["outcome"] == "SUCCEEDED"
    frozen = {f.path: f for f in flow.head(version).frozen}
    assert flow.store.read(frozen["model/model.txt"].key, max_bytes=100) == b"part-0.parquet"
    record = flow.record_of(version, Stage.TRAINING)
    ran = record["ran"]
    assert (ran["instance_type"], ran["instance_count"], ran["billable_seconds"], ran["exit_code"]) == ("ml.m5.xlarge", 1, 420, 0)
    assert ran["job_arn"].endswith(f"training-job/{job['request']['TrainingJobName']}")
    assert (ran["container_digest"], record["claimed"]) == ("a1" * 32, {})
    assert (record["job"]["name"], record["job"]["network_isolation"]) == (ran["job_name"], True)
    assert record["resources"]["requested"]["instance"] == "ml.m5.xlarge"
    predicate = provenance(flow, version)
    assert predicate["runDetails"]["attestry_job"] == ran
    names = [d["name"] for d in predicate["buildDefinition"]["resolvedDependencies"]]
    assert "container" in names
    assert not {"environment", "lock file"} & set(names)
    assert flow.store.read(flow.row(version, Stage.TRAINING)["log"]["key"], max_bytes=100) == b"trained\n"


def provenance(flow: JobFlow, version: Version) -> dict[str, Any]:
    """The SLSA provenance of the version's last move."""
    transition = flow.meta.query(f"VERSION#{version.model}#{version.number}", prefix="TRANSITION#")[-1]
    envelope = json.loads(flow.store.read(transition["attestation"]["key"], max_bytes=10**6))
    return dict(json.loads(base64.b64decode(envelope["payload"]))["predicate"])


def test_the_hold_out_is_predicted_in_a_container_that_gets_features_and_model_and_no_labels(flow: JobFlow, sagemaker: SageMaker) -> None:
    version = flow.begin(Stage.VALIDATION, "sagemaker")
    real_processing(flow, version)
    assert flow.pass_stage(version, Stage.TRAINING)["outcome"] == "SUCCEEDED"
    job = flow.prepare(version, Stage.VALIDATION)
    run = sagemaker.run(job["service"], job["request"])
    assert "answer" in run, run
    given = sorted(k.partition("/in/")[2] for k in flow.scratch.versions if "/VALIDATION/1/in/" in k)
    assert given[3:] == ["attestry-model/model.joblib", "holdout/part-0.parquet"]
    with tarfile.open(fileobj=flow.scratch.open(job["evaluate"]["predictions_key"])) as archive:
        predictions = json.loads(archive.extractfile("predictions.json").read())  # type: ignore[union-attr]
    assert predictions == {"columns": {"label": [0] * 4, "probability": [0.5] * 4}, "rows": 4}
    evaluation = flow.run(flow.head(version), Stage.VALIDATION).evaluation
    assert flow.recorded(version, Stage.VALIDATION, run, evaluation) == {"outcome": "SUCCEEDED", "error": ""}
    assert provenance(flow, version)["attestry_job"]["exit_code"] == 0


def real_processing(flow: JobFlow, version: Version) -> None:
    """Leave prepared data that can be read: what the example's script would leave of the data."""
    flow.prepare(version, Stage.PROCESSING)
    result = flow.run(flow.head(version), Stage.PROCESSING)
    body = pandas.DataFrame({"a": [1, 2, 3, 4], "b": [3, 4, 5, 6]}).to_parquet()
    flow.scratch.put(f"{prefix(version, Stage.PROCESSING)}evaluated/holdout/part-0.parquet", body)
    assert flow.record(version, Stage.PROCESSING, result)["outcome"] == "SUCCEEDED"


def test_an_input_that_was_changed_in_the_store_is_not_laid_out(flow: JobFlow) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    flow.store.tamper(version.dataset("training").files[0].key, b"other rows")
    with pytest.raises(StageFailedError, match="is not what was recorded"):
        flow.prepare(version, Stage.TRAINING)


def test_a_job_on_batch_holds_urls_of_its_own_files_and_leaves_a_model(flow: JobFlow, batch: Batch) -> None:
    version = flow.begin(Stage.TRAINING, "batch", Stage.PROCESSING)
    job = flow.prepare(version, Stage.TRAINING)
    run = batch.run(job["request"])
    assert flow.recorded(version, Stage.TRAINING, run) == {"outcome": "SUCCEEDED", "error": ""}
    assert {f.path for f in flow.head(version).frozen} >= {"model/model.txt"}
    ran = flow.record_of(version, Stage.TRAINING)["ran"]
    assert (ran["billable_seconds"], ran["log_location"]["stream"]) == (600, "attestry/default/77")
    told = {e["name"] for e in batch.requests[0]["containerOverrides"]["environment"]}
    assert told == {"ATTESTRY_JOB_URL", "ATTESTRY_SHIM_SHA256", "ATTESTRY_SHIM_URL"}


FAILING = b"print('reading'); raise SystemExit('no column age')"


def test_a_failed_job_ends_the_stage_with_the_jobs_own_reason_and_its_log(flow: JobFlow, sagemaker: SageMaker) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING, train=FAILING)
    job = flow.prepare(version, Stage.TRAINING)
    run = sagemaker.run(job["service"], job["request"])
    outcome = flow.recorded(version, Stage.TRAINING, run)
    assert outcome["outcome"] == "FAILED"
    assert "AlgorithmError" in outcome["error"]
    assert "no column age" in outcome["error"]
    record = flow.record_of(version, Stage.TRAINING)
    assert (record["ran"]["exit_code"], record["ran"]["outcome"]) == (1, "FAILED")
    assert b"no column age" in flow.store.read(record["log"]["key"], max_bytes=1000)
    assert flow.head(version).status == "FAILED"


def test_where_a_service_repeats_no_reason_it_is_the_last_line_of_the_jobs_log(flow: JobFlow, batch: Batch) -> None:
    version = flow.begin(Stage.TRAINING, "batch", Stage.PROCESSING, train=FAILING)
    outcome = flow.recorded(version, Stage.TRAINING, batch.run(flow.prepare(version, Stage.TRAINING)["request"]))
    assert outcome["error"] == (
        "the batch job failed: Essential container in task exited: the script ended with exit code 1: no column age"
    )


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"service": "sagemaker-training", "error": {"Error": "States.Timeout", "Cause": ""}}, "States.Timeout"),
        ({"service": "sagemaker", "error": {"Error": "Attestry.ExecutorNotEnabled", "Cause": "not here"}}, "ExecutorNotEnabled: not here"),
        ({"service": "batch", "answer": {"Status": "SUCCEEDED"}}, "no answer of sagemaker-training"),
        ({"service": "sagemaker-training"}, "no answer of sagemaker-training"),
        ({"outcome": "SUCCEEDED", "exit_code": 0}, "no answer of sagemaker-training"),
        (None, "no answer of sagemaker-training"),
    ],
)
def test_a_stage_that_no_job_of_the_plan_has_ended_is_failed(flow: JobFlow, run: Any, said: str) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    flow.prepare(version, Stage.TRAINING)
    outcome = flow.recorded(version, Stage.TRAINING, run)
    assert outcome["outcome"] == "FAILED"
    assert said in outcome["error"]


def test_the_answer_of_another_job_is_no_result_of_this_stage(flow: JobFlow, sagemaker: SageMaker) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    job = flow.prepare(version, Stage.TRAINING)
    run = sagemaker.run(job["service"], job["request"])
    forged = {**run, "answer": {**run["answer"], "TrainingJobName": "attestry-of-another-version"}}
    outcome = flow.recorded(version, Stage.TRAINING, forged)
    assert outcome["outcome"] == "FAILED"
    assert "planned was" in outcome["error"]
    assert flow.head(version).frozen == ()


def test_a_job_that_is_told_to_have_succeeded_but_left_nothing_makes_no_version(flow: JobFlow, sagemaker: SageMaker) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    job = flow.prepare(version, Stage.TRAINING)
    run = sagemaker.run(job["service"], job["request"])
    for key in [k for k in flow.scratch.versions if k.endswith("model.tar.gz")]:
        del flow.scratch.versions[key]
    assert flow.recorded(version, Stage.TRAINING, run)["outcome"] == "FAILED"


def test_training_is_laid_out_with_the_training_set_and_nothing_of_the_hold_out(flow: JobFlow) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    flow.prepare(version, Stage.TRAINING)
    given = sorted(k.partition("/in/")[2] for k in flow.scratch.versions if "/TRAINING/1/in/" in k)
    assert given == ["attestry-job/job.json", "attestry-job/shim.zip", "attestry-job/source.tar.gz", "train/part-0.parquet"]
    assert "holdout" not in flow.scratch.read(f"{prefix(version)}in/attestry-job/job.json", max_bytes=10**6).decode()


def prefix(version: Version, stage: Stage = Stage.TRAINING) -> str:
    return f"jobs/{version.model}/{version.execution_id}/{stage.value}/1/"


def test_spark_is_given_source_program_and_shim_below_the_runs_own_place(flow: JobFlow, tmp_path: Path) -> None:
    version = flow.begin(Stage.PROCESSING, "emr-serverless")
    job = flow.prepare(version, Stage.PROCESSING)
    place = prefix(version, Stage.PROCESSING)
    given = sorted(k.removeprefix(f"{place}in/") for k in flow.scratch.versions)
    assert given == [
        *(f"attestry-job/{n}" for n in ("job.json", "shim.zip", "source.tar.gz", "spark_entry.py")),
        "source/breast_cancer.csv",
    ]
    for name in ("train", "holdout"):
        body = pandas.DataFrame({"a": [1, 2], "b": [3, 4], "malignant": [0, 1]}).to_parquet()
        flow.scratch.put(f"{place}out/output/{name}/part-00000.snappy.parquet", body)
        flow.scratch.put(f"{place}out/output/{name}/_SUCCESS", b"")
    run = {
        "service": "emr-serverless",
        "answer": {
            "Name": job["request"]["Name"],
            "State": "SUCCESS",
            "StateDetails": "done",
            "Arn": "arn:aws:emr-serverless:eu-central-1:123456789012:/applications/00f1/jobruns/00f1run",
            "TotalExecutionDurationSeconds": 333,
        },
    }
    evaluation = evaluate(flow, job, tmp_path / "e")
    assert flow.recorded(version, Stage.PROCESSING, run, evaluation) == {"outcome": "SUCCEEDED", "error": ""}
    assert [f.path for f in flow.head(version).dataset("training").files] == ["part-00000.snappy.parquet"]
    assert flow.record_of(version, Stage.PROCESSING)["ran"]["billable_seconds"] == 333


def crashes(flow: JobFlow, act: Callable[[], Any]) -> Iterator[str]:
    """Let each call of an act fail in turn, before and after it took effect, and yield its name; ends when the act has no more calls."""
    for nth in range(1, 100):
        for fail in (flow.faults.fail_before, flow.faults.fail_after):
            flow.faults.clear()
            fail(nth)
            try:
                act()
            except UnavailableError:
                yield flow.faults.calls[-1]
            else:
                flow.faults.clear()
                return
            finally:
                flow.faults.clear()


def test_preparing_goes_on_after_a_crash_at_any_call_and_asks_for_the_same_job(flow: JobFlow) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    failed = list(crashes(flow, lambda: flow.prepare(version, Stage.TRAINING)))
    assert {"MemoryMetaStore.transact", "MemoryObjectStore.put_new", "MemoryObjectStore.put"} <= set(failed)
    request = flow.prepare(version, Stage.TRAINING)["request"]
    assert flow.prepare(version, Stage.TRAINING)["request"] == request
    begun = [t for t in flow.meta.query(f"VERSION#{version.model}#1", prefix="TRANSITION#") if t["kind"] == "stage.started"]
    assert [t["to"]["stage"] for t in begun] == ["PROCESSING", "TRAINING"]


def test_recording_goes_on_after_a_crash_at_any_call_and_takes_the_job_once(flow: JobFlow, sagemaker: SageMaker) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    job = flow.prepare(version, Stage.TRAINING)
    run = sagemaker.run(job["service"], job["request"])
    failed = list(crashes(flow, lambda: flow.recorded(version, Stage.TRAINING, run)))
    assert "MemoryMetaStore.transact" in failed
    assert flow.recorded(version, Stage.TRAINING, run) == {"outcome": "SUCCEEDED", "error": ""}
    kinds = [t["kind"] for t in flow.meta.query(f"VERSION#{version.model}#1", prefix="TRANSITION#")]
    assert kinds.count("stage.succeeded") == 2
    assert flow.record_of(version, Stage.TRAINING)["ran"]["job_name"] == job["request"]["TrainingJobName"]


def refused(flow: JobFlow, stage: str, change: dict[str, Any]) -> set[tuple[str, str]]:
    source = example_source()

    def edit(draft: dict[str, Any]) -> None:
        draft["environment"]["container"] = IMAGE
        draft[stage] |= change

    return {(e.field, e.rule) for e in flow.register(flow.upload(example_manifest(source, edit=edit), source)).errors}


@pytest.mark.parametrize(
    ("settings", "stage", "change", "field"),
    [
        (replace(SETTINGS, executors=("lambda",)), "training", ON["sagemaker"], "training.executor"),
        (replace(SETTINGS, batch_queue=""), "training", ON["batch"], "training.executor"),
        (SETTINGS, "training", {"executor": "batch", "resources": {"spot": True}}, "training.resources.spot"),
        (replace(SETTINGS, batch_definitions={}), "training", ON["batch"], "environment.container"),
        (SETTINGS, "training", {**ON["batch"], "container": IMAGE[:-2] + "ff"}, "training.container"),
        (replace(SETTINGS, emr_applications={}), "processing", ON["emr-serverless"], "environment.container"),
    ],
)
def test_what_a_registry_does_not_run_is_refused_at_registration_by_name(
    flow: JobFlow, settings: JobSettings, stage: str, change: dict[str, Any], field: str
) -> None:
    flow.use(settings)
    assert refused(flow, stage, change) == {(field, "available")}


def test_an_executor_that_was_disabled_after_registration_starts_no_job(flow: JobFlow) -> None:
    version = flow.begin(Stage.TRAINING, "sagemaker", Stage.PROCESSING)
    flow.use(replace(SETTINGS, executors=("lambda", "batch")))
    with pytest.raises(InvalidInputError, match="runs stages on lambda and batch"):
        flow.prepare(version, Stage.TRAINING)
    assert flow.head(version).stage == Stage.PROCESSING
