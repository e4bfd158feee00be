"""A stage that ran as a job is proven offline; a record of another job or image than was planned is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from attestry.domain.jobs import JobSettings, archive_key, job_prefix
from attestry.domain.stages import Stage
from attestry.domain.version import Version
from attestry.usecases import record_stage
from attestry.usecases.stage_result import StageResult
from tests.evidence_world import EvidenceWorld
from tests.flow import tar_gz
from tests.unit.test_insider_attacks import broken, judged
from tests.unit.test_refresh import by_hand, refresh

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/training@sha256:" + "a1" * 32
SETTINGS = JobSettings(("lambda", "sagemaker"), "scratch", "arn:aws:iam::123456789012:role/attestry-job-")


def world_with_job(**sections: Any) -> EvidenceWorld:
    """A version up to its validation whose training ran on SageMaker."""
    world = EvidenceWorld()
    flow = world.flow
    flow.registrar._jobs = flow.preparer._jobs = SETTINGS
    honest = flow.run

    def run(version: Version, stage: Stage, **given: Any) -> StageResult:
        result = honest(version, stage, **given)
        if stage is not Stage.TRAINING:
            return result
        row = flow.meta.query(f"VERSION#{version.model}#{version.number}", prefix="STAGE#TRAINING#")[0]
        name = json.loads(row["plan"])["job"]["name"]
        prefix = job_prefix(version.model, version.execution_id, stage, 1)
        flow.scratch.put(archive_key(prefix, "sagemaker-training", name, "model"), tar_gz({"model.joblib": b"weights"}))
        answer = {
            "TrainingJobName": name,
            "TrainingJobArn": f"arn:aws:sagemaker:eu-central-1:123456789012:training-job/{name}",
            "TrainingJobStatus": "Completed",
            "AlgorithmSpecification": {"TrainingImage": IMAGE},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
            "BillableTimeInSeconds": 420,
        }
        return StageResult({"service": "sagemaker-training", "answer": answer}, None, None, result.entered)

    def edit(draft: dict[str, Any]) -> None:
        draft["environment"]["container"] = IMAGE
        draft["training"] |= {"executor": "sagemaker", "resources": {"instance": "ml.m5.xlarge"}}
        draft |= sections

    flow.run = run  # type: ignore[method-assign]
    world.validate(edit=edit)
    return world


def test_a_version_that_was_trained_as_a_job_is_proven_from_its_bundle() -> None:
    assert judged(world_with_job()).verdict == "PROVEN"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["ran"].update(container_digest="ff" * 32), "run from another image"),
        (lambda r: r["ran"].update(job_name="attestry-somebody-elses"), "run by another job"),
        (lambda r: r["ran"].update(service="batch"), "run by another job"),
        (lambda r: r.pop("ran"), "run by another job"),
        (lambda r: r["job"].update(container=IMAGE[:-2] + "ff"), "did not run what was planned"),
        (lambda r: r.pop("job"), "did not run what was planned"),
    ],
)
def test_a_record_of_another_job_than_was_planned_is_refused(
    change: Callable[[Any], Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording function is subverted: it writes and attests a record of its own liking."""
    honest = record_stage.write_record

    def forged(*given: Any) -> dict[str, Any]:
        record = json.loads(json.dumps(honest(*given)))
        if record["stage"] == "TRAINING":
            change(record)
        return dict(record)

    monkeypatch.setattr(record_stage, "write_record", forged)
    assert said in broken(judged(world_with_job()), "provenance")


def test_a_record_that_claims_a_job_where_the_sandbox_ran_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = record_stage.write_record

    def forged(*given: Any) -> dict[str, Any]:
        record = honest(*given)
        return {**record, "ran": {"job_name": "x"}} if record["stage"] == "TRAINING" else record

    monkeypatch.setattr(record_stage, "write_record", forged)
    world = EvidenceWorld()
    world.validate()
    assert "names a job that its executor does not have" in broken(judged(world), "provenance")


def test_a_training_job_is_taken_from_the_version_before_without_another_one_and_that_is_proven() -> None:
    world = world_with_job(refresh={"reuse": ["training"]})
    world.open()
    world.approve()
    world.swap()
    refresh(world.flow, by_hand())
    world.version = world.flow.refresher._parent(world.head.model, 2)
    world.flow.pass_stage(world.version, Stage.PROCESSING)
    answer = world.flow.prepare(world.version, Stage.TRAINING)
    assert answer["reused"] is True
    assert "request" not in answer
    assert world.flow.record(world.head, Stage.TRAINING, StageResult(None, None, None, ""))["outcome"] == "SUCCEEDED"
    row = world.meta.query(f"VERSION#{world.head.model}#2", prefix="STAGE#TRAINING#")[0]
    record = json.loads(row["record"])
    assert "job" not in record
    assert "ran" not in record
    assert record["container"] == IMAGE
    world.flow.pass_stage(world.version, Stage.VALIDATION)
    assert judged(world).verdict == "PROVEN"


def test_a_recorder_that_calls_a_run_of_its_own_liking_a_reuse_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = record_stage.write_record

    def forged(*given: Any) -> dict[str, Any]:
        record = honest(*given)
        place = {"number": 1, "attempt": 1, "transition": 5, "record_sha256": "aa" * 32, "through": []}
        return {**record, "reused_from": place} if record["stage"] == "TRAINING" else record

    monkeypatch.setattr(record_stage, "write_record", forged)
    world = EvidenceWorld()
    world.validate()
    assert "did not run what was planned" in broken(judged(world), "provenance")
