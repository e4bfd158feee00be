"""The plan of a stage: what is going to run, on what, and for VALIDATION by which rules its outcome is judged.

It is recorded, and its digest is an event, before anything runs. The record of the stage holds every line of it again, so that a setting,
a threshold or a policy that was changed afterwards shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import StageFailedError
from attestry.domain.manifest import Manifest, Processing, Training, Validation
from attestry.domain.mapping_codec import encode_dataclass
from attestry.domain.principal import registry_principal
from attestry.domain.stages import Stage
from attestry.domain.version import DataSet, EnvironmentRef, FileRef, Version
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex


@dataclass(frozen=True)
class Sandbox:
    """What a job runs on, as the function is configured.

    Attributes:
        memory_mib: memory in MiB.
        disk_mib: ephemeral disk in MiB.
        architecture: machine architecture.
        function: ARN of the function; empty where it is not told.
    """

    memory_mib: int
    disk_mib: int
    architecture: str
    function: str = ""

    def to_item(self) -> dict[str, Any]:
        """Return the configuration for the record; AWS Lambda gives one vCPU per 1,769 MiB and no GPU."""
        return {
            "memory_mib": self.memory_mib,
            "disk_mib": self.disk_mib,
            "architecture": self.architecture,
            "vcpu": f"{self.memory_mib / 1769:.2f}",
            "gpu": "none",
        }


@dataclass(frozen=True)
class Execution:
    """The execution of the pipeline that asks."""

    arn: str
    name: str
    started: str


def plan_stage(
    version: Version,
    manifest: Manifest,
    attempt: int,
    stage: Stage,
    execution: Execution,
    sandbox: Sandbox,
    job: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the plan, JSON values.

    Args:
        version: the version, with the inputs of the stage among its data sets.
        manifest: its manifest.
        attempt: which attempt this is, from 1.
        stage: PROCESSING, TRAINING or VALIDATION.
        execution: who runs it.
        sandbox: where it runs, on `lambda`.
        job: the job that runs it elsewhere, as `JobSpec.planned` tells; None on `lambda`.

    Raises:
        StageFailedError: the version has no environment.
    """
    settings = settings_of(manifest, stage)
    environment = environment_of(version)
    plan: dict[str, Any] = {
        "format": 1,
        "model": version.model,
        "number": version.number,
        "candidate": version.candidate,
        "version_digest": version.version_digest,
        "stage": stage.value,
        "attempt": attempt,
        "execution": {"arn": execution.arn, "name": execution.name, "started": execution.started},
        "executor": settings.executor,
        "builder": job["service"] if job else sandbox.function or settings.executor,
        "code": {
            "repository": manifest.source.repository,
            "revision": manifest.source.revision,
            "script": settings.script,
            "archive_sha256": manifest.source.sha256,
            "dirty_diff_sha256": manifest.source.dirty.diff_sha256 if manifest.source.dirty else None,
        },
        "environment": {k: v for k, v in environment.to_item().items() if k not in ("key", "version_id")},
        "container": job["container"] if job else None,
        "parameters": dict(arguments_of(settings)),
        "inputs": [_input(version, manifest, d) for d in inputs_of(version, stage)],
        "resources": {
            "requested": _requested(settings),
            "configured": {} if job else sandbox.to_item(),
        },
        "ran_by": version.submitter.to_item(),
        "code_author": manifest.source.author,
        "written_by": registry_principal("pipeline").to_item(),
    }
    if job:
        plan["job"] = dict(job)
    return {**plan, "criteria": _criteria(version, manifest)} if stage is Stage.VALIDATION else plan


def _requested(settings: Processing | Training | Validation) -> dict[str, Any]:
    asked = encode_dataclass(settings.resources)
    return asked if settings.executor != "lambda" else {name: asked[name] for name in ("memory_mib", "timeout_seconds")}


def criteria_facts(plan: Mapping[str, Any]) -> dict[str, str]:
    """Return what the event of the beginning says about the rules that the outcome will be judged by."""
    criteria = plan.get("criteria")
    return {name: criteria[name] for name in ("gates_sha256", "policy_sha256")} if criteria else {}


def _criteria(version: Version, manifest: Manifest) -> dict[str, Any]:
    """Return the gates with their thresholds, the approval policy, and what the metrics are computed from."""
    mapping = manifest.to_mapping()
    policy = ApprovalPolicy.from_item(version.approval_policy)
    return {
        "gates": mapping["gates"],
        "gates_sha256": sha256_hex(canonical_bytes(mapping["gates"])),
        "policy": policy.to_item(),
        "policy_sha256": policy.digest,
        "task": mapping["validation"]["task"],
        "metrics": mapping["validation"]["metrics"],
        "columns": mapping["validation"]["columns"],
        "holdout": version.dataset("holdout").digest,
        "labels": version.dataset("holdout-labels").digest,
    }


def _input(version: Version, manifest: Manifest, dataset: DataSet) -> dict[str, Any]:
    files = [f.to_item() for f in dataset.files]
    return {"name": dataset.name, "uri": _uri(version, manifest, dataset), "digest": dataset.digest, "files": files}


def _uri(version: Version, manifest: Manifest, dataset: DataSet) -> str:
    """Return where the data set came from: for source data what the manifest names, for prepared data its digest."""
    source = next((s for s in manifest.data.source if f"source/{s.name}" == dataset.name), None)
    if source is None:
        return f"urn:attestry:dataset:sha256:{dataset.digest}"
    brought = next((i for i in version.inputs if i["name"] == source.name), None)
    if brought is not None:
        return f"urn:attestry:object:{quote(str(brought['from']))}"
    return f"urn:attestry:object:{quote(version.upload_folder + source.uri)}" if source.is_uploaded else source.uri


def environment_of(version: Version) -> EnvironmentRef:
    """Return the environment of the version's scripts.

    Raises:
        StageFailedError: it has none.
    """
    if version.environment is None:
        raise StageFailedError(f"{version.reference} has no environment")
    return version.environment


def settings_of(manifest: Manifest, stage: Stage) -> Processing | Training | Validation:
    """Return the manifest's section of the stage."""
    if stage is Stage.PROCESSING:
        return manifest.processing
    return manifest.training if stage is Stage.TRAINING else manifest.validation


def arguments_of(settings: Processing | Training | Validation) -> Mapping[str, Any]:
    """Return what the script is called with."""
    return settings.hyperparameters if isinstance(settings, Training) else settings.parameters


def container_of(manifest: Manifest, stage: Stage) -> str:
    """Return the image that the stage runs in, on executors other than `lambda`.

    Raises:
        StageFailedError: the manifest names none.
    """
    image = settings_of(manifest, stage).container or manifest.environment.container
    if image is None:
        raise StageFailedError(f"the manifest names no container for {stage}")
    return image


def channels_of(version: Version, manifest: Manifest, stage: Stage) -> dict[str, tuple[FileRef, ...]]:
    """Return the channels that the script of the stage is given, each with its files; all source data are one channel."""
    inputs = inputs_of(version, stage)
    if stage is Stage.PROCESSING:
        return {"source": tuple(f for d in inputs for f in d.files)}
    name = manifest.data.training.channel if stage is Stage.TRAINING else manifest.data.holdout.channel
    return {name: inputs[0].files}


def model_files(version: Version, stage: Stage) -> tuple[FileRef, ...]:
    """Return the files of the frozen model, with paths below its folder, for the stage that predicts with it."""
    if stage is not Stage.VALIDATION:
        return ()
    return tuple(replace(f, path=f.path.removeprefix("model/")) for f in version.frozen if f.path.startswith("model/"))


def inputs_of(version: Version, stage: Stage) -> list[DataSet]:
    """Return the data sets that the script of the stage is given."""
    if stage is Stage.PROCESSING:
        return [d for d in version.datasets if d.name.startswith("source/")]
    return [version.dataset("training" if stage is Stage.TRAINING else "holdout")]
