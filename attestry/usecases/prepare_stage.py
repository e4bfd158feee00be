"""Prepare a stage: bring its inputs to where nobody can change them, record what is going to run, and write the job that runs it.

On `lambda` the sandbox gets URLs that read exactly the recorded bytes and URLs that write its outputs, and no other right. TRAINING gets
the training set alone; VALIDATION gets hold-out features without labels. On the other executors the answer holds the request that starts
the job; see `attestry.usecases.jobs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from attestry.domain.environments import environment_id
from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, InvalidInputError, StageFailedError
from attestry.domain.events import timestamp
from attestry.domain.jobs import JobSettings, Service, archive_key
from attestry.domain.manifest import Manifest
from attestry.domain.principal import registry_principal
from attestry.domain.stages import PIPELINE, Stage, Standing, Status, may_begin
from attestry.domain.version import DataSet, EnvironmentRef, FileRef, Version, encode
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import digest_stream, sha256_hex
from attestry.evidence.recipe import reused_plan
from attestry.ports import MetaStore, ObjectStore, Put
from attestry.usecases.attest import Attestor
from attestry.usecases.jobs import StageRun
from attestry.usecases.judge import find_champion
from attestry.usecases.manifests import load_manifest
from attestry.usecases.records import Move, load_version, move_writes, stage_key
from attestry.usecases.reuse import asks_reuse, propose_reuse
from attestry.usecases.stage_plan import (
    Execution,
    Sandbox,
    criteria_facts,
    environment_of,
    plan_stage,
    settings_of,
)


class StagePreparer:
    """Prepares stages."""

    def __init__(
        self,
        meta: MetaStore,
        attestor: Attestor,
        store: ObjectStore,
        scratch: ObjectStore,
        sandbox: Sandbox,
        *,
        evaluation_lock: bytes,
        jobs: JobSettings | None = None,
        data_buckets: Mapping[str, ObjectStore] | None = None,
    ) -> None:
        """Take the ports.

        Args:
            meta: the table.
            attestor: signs with the function's own key.
            store: the model store.
            scratch: the scratch bucket.
            sandbox: configuration of the sandbox function.
            evaluation_lock: lock file of the registry's own evaluation environment.
            jobs: what the deployment says about jobs of other services; without it, there are none.
            data_buckets: buckets that manifests may name by `s3://`.
        """
        self._meta = meta
        self._attestor = attestor
        self._store = store
        self._scratch = scratch
        self._sandbox = sandbox
        self._evaluation_lock = evaluation_lock
        self._jobs = jobs or JobSettings()
        self._data_buckets = dict(data_buckets or {})

    def plan_environments(self, model: str, number: int) -> list[dict[str, str]]:
        """Put the lock files where the builder reads them, and return what it has to build: the script's and the registry's own.

        They are built side by side; where both have one lock file, as the examples do, it is built once.
        """
        version = load_version(self._meta, model, number)
        environment = environment_of(version)
        _, locked = version.code
        lock = self._store.read(locked.key, locked.version_id, max_bytes=locked.size)
        own_sha256 = sha256_hex(self._evaluation_lock)
        own = environment_id(own_sha256, environment.python, environment.platform)
        self._store.put_new(f"environments/{environment.id}/requirements.lock", lock, content_type="text/plain", retain=True)
        self._store.put_new(f"environments/{own}/requirements.lock", self._evaluation_lock, content_type="text/plain", retain=True)
        wanted = {environment.id: environment.lock_sha256, own: own_sha256}
        return [{"id": identity, "lock_sha256": sha256} for identity, sha256 in wanted.items()]

    def prepare(self, model: str, number: int, attempt: int, stage: Stage, execution: Execution, at: datetime) -> dict[str, Any]:
        """Begin the stage and return what the pipeline passes on.

        `skip` where an earlier attempt has done it, `held` where it must wait, `reused` where it is taken from an earlier version.

        Raises:
            ConflictError: the version is not where the stage may begin, or a later attempt has taken over.
            StageFailedError, InvalidInputError, IntegrityError: an input is not there or not what the manifest says.
        """
        version = load_version(self._meta, model, number)
        if version.standing is Standing.RETIRED:
            raise ConflictError(f"{version.reference} was {version.out_of_use}; its pipeline ends here")
        if attempt < version.attempt:
            raise ConflictError(f"attempt {attempt} of {version.reference} is over: attempt {version.attempt} goes on in its place")
        if _is_done(version, stage):
            return {"skip": True}
        if version.held and not self._has_begun(version, stage, attempt):
            return {"skip": False, "held": True}
        manifest = load_manifest(self._store, version)
        version = self._place_inputs(version, manifest, stage)
        run = StageRun(self._store, self._scratch, version, manifest, stage, attempt, self._jobs)
        planned = run.planned()
        version = self._begin(version, manifest, attempt, stage, execution, at, planned)
        answer: dict[str, Any] = {"skip": False, "executor": settings_of(manifest, stage).executor, "timeout_seconds": run.timeout_seconds}
        if asks_reuse(version, manifest, stage, attempt) and self._is_taken(version, stage, attempt):
            return answer | {"reused": True}
        evaluate = self._evaluation(version, manifest, stage, run.prefix, planned)
        if planned is None:
            return answer | {"job_url": run.write_sandbox_job(), "evaluate": evaluate}
        request = run.write_job()
        return answer | {"service": request.service.value, "request": request.task_arguments(), "job_url": "", "evaluate": evaluate}

    def _place_inputs(self, version: Version, manifest: Manifest, stage: Stage) -> Version:
        """Return the version with the inputs of the stage among its references; nothing is written to the table yet."""
        if stage is not Stage.PROCESSING:
            return version
        sources = [self._place_source(version, manifest, index) for index in range(len(manifest.data.source))]
        environment = self._built(environment_of(version))
        return replace(
            version, datasets=(*sources, *(d for d in version.datasets if not d.name.startswith("source/"))), environment=environment
        )

    def _place_source(self, version: Version, manifest: Manifest, index: int) -> DataSet:
        source = manifest.data.source[index]
        field = f"data.source[{index}]"
        key = f"datasets/{source.sha256}/{source.file_name}"
        origin, name, version_id = self._origin(version, manifest, index)
        found = origin.stat(name)
        if found is None:
            raise InvalidInputError.of(f"{field}.uri", "present", f"{source.uri} is not there")
        exactly = version_id or found.version_id
        # Digested before it is copied: what lies at a digest's place can never be replaced, so wrong bytes must not get there.
        with origin.open(name, exactly) as stream:
            actual = digest_stream(stream).sha256
        if actual != source.sha256:
            raise IntegrityError(f"{field}.sha256: {source.uri} has SHA-256 {actual}; the manifest says {source.sha256}")
        with origin.open(name, exactly) as stream:
            placed = self._store.put_new(key, stream, retain=True)
        ref = FileRef(source.file_name, key, placed.version_id, placed.size, placed.sha256)
        return DataSet(f"source/{source.name}", source.sha256, (ref,))

    def _origin(self, version: Version, manifest: Manifest, index: int) -> tuple[ObjectStore, str, str | None]:
        source = manifest.data.source[index]
        placed = next((i for i in version.inputs if i["name"] == source.name), None)
        if placed is not None:
            # The refresh that made the version has put it at its digest's place.
            return self._store, str(placed["key"]), str(placed["version_id"])
        if source.is_uploaded:
            return self._store, version.upload_folder + source.uri, None
        bucket, _, key = source.uri.removeprefix("s3://").partition("/")
        if bucket not in self._data_buckets:
            allowed = ", ".join(sorted(self._data_buckets)) or "none is configured"
            raise InvalidInputError.of(
                f"data.source[{index}].uri", "data_bucket", f"the registry may not read the bucket {bucket} (allowed: {allowed})"
            )
        return self._data_buckets[bucket], key, source.version_id

    def _built(self, environment: EnvironmentRef) -> EnvironmentRef:
        found = self._store.stat(f"environments/{environment.id}/environment.json")
        if found is None:
            raise StageFailedError("the environment was not built")
        description = json.loads(self._store.read(found.key, found.version_id, max_bytes=1024 * 1024))
        archive = self._store.stat(f"environments/{environment.id}/environment.zip")
        if archive is None or description["lock_sha256"] != environment.lock_sha256:
            raise IntegrityError(f"the environment {environment.id} is not the one of this lock file")
        ref = FileRef("environment.zip", archive.key, archive.version_id, int(description["size"]), description["archive_sha256"])
        packages = tuple(f"{p['name']}=={p['version']}" for p in description["packages"])
        return replace(environment, archive=ref, packages=packages)

    def _has_begun(self, version: Version, stage: Stage, attempt: int) -> bool:
        return self._meta.get(stage_key(version.model, version.number, stage, attempt)) is not None

    def _is_taken(self, version: Version, stage: Stage, attempt: int) -> bool:
        row = self._meta.get(stage_key(version.model, version.number, stage, attempt))
        return row is not None and "reused_from" in json.loads(row["plan"])

    def _begin(
        self,
        version: Version,
        manifest: Manifest,
        attempt: int,
        stage: Stage,
        execution: Execution,
        at: datetime,
        job: Mapping[str, Any] | None,
    ) -> Version:
        if self._has_begun(version, stage, attempt):
            head = load_version(self._meta, version.model, version.number)
            if head.stage is stage and head.status is Status.RUNNING:
                return head
            raise ConflictError(f"attempt {attempt} of {stage} has ended: {head.reference} is in {head.stage} {head.status}")
        if not may_begin(stage, version.stage, version.status):
            raise ConflictError(f"{version.reference} is in {version.stage} {version.status}; {stage} cannot begin")
        planned = plan_stage(version, manifest, attempt, stage, execution, self._sandbox, job)
        place = propose_reuse(self._meta, version, planned) if asks_reuse(version, manifest, stage, attempt) else None
        planned = reused_plan(planned, place) if place else planned
        plan = canonical_bytes(planned)
        plan_sha256 = sha256_hex(plan)
        row = {
            "stage": stage.value,
            "attempt": attempt,
            "status": Status.RUNNING.value,
            "begun": timestamp(at),
            "plan": plan.decode(),
            "plan_sha256": plan_sha256,
        }
        reason = "the stage before has succeeded" if attempt == 1 else f"attempt {attempt}"
        move = Move(
            stage,
            Status.RUNNING,
            version.standing,
            "stage.started",
            registry_principal("pipeline"),
            reason,
            at,
            plan_sha256,
            {"attempt": attempt, **criteria_facts(planned)},
        )
        changes = {"error": "", "datasets": encode(version.datasets), "environment": encode(version.environment)}
        try:
            moving = move_writes(version, move, self._attestor, changes)
            self._meta.transact([*moving, Put(stage_key(version.model, version.number, stage, attempt), row)])
        except ConditionFailedError as error:
            raise ConflictError(f"{version.reference} was moved by somebody else while {stage} began") from error
        return load_version(self._meta, version.model, version.number)

    def _evaluation(
        self, version: Version, manifest: Manifest, stage: Stage, prefix: str, job: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        if stage is Stage.TRAINING:
            return None
        environment = environment_of(version)
        lock_sha256 = sha256_hex(self._evaluation_lock)
        own = self._built(
            EnvironmentRef(
                environment_id(lock_sha256, environment.python, environment.platform), lock_sha256, environment.python, environment.platform
            )
        )
        common: dict[str, Any] = {
            "stage": stage.value,
            "prefix": f"{prefix}evaluated/",
            "environment": {"id": own.id, "archive_sha256": own.archive.sha256 if own.archive else ""},
        }
        left = archive_key(prefix, job["service"] if job else "", job["name"] if job else "", "output")
        if job and job["service"] == Service.EMR_SERVERLESS:
            common["output_prefix"] = f"{prefix}out/output/"
        if stage is Stage.PROCESSING:
            channels = {"training": manifest.data.training.channel, "holdout": manifest.data.holdout.channel}
            return {**common, "output_key": left, "label_column": manifest.data.label.column, "channels": channels}
        labels = version.dataset("holdout-labels").files[0]
        champion = find_champion(self._meta, self._store, version, manifest)
        compared = {g.metric: g.confidence for g in manifest.gates.no_worse_than_deployed if g.confidence is not None}
        return {
            **common,
            **({"champion": champion.to_item(), "compare": compared} if champion else {}),
            "predictions_key": left,
            "labels": labels.to_item(),
            "metrics": [{"name": m.name, "alias": m.key, "parameters": _plain(m.parameters)} for m in manifest.validation.metrics],
            "columns": {"prediction": manifest.validation.columns.prediction, "score": manifest.validation.columns.score},
        }


def _is_done(version: Version, stage: Stage) -> bool:
    if version.stage is Stage.REGISTERED:
        return False
    reached = PIPELINE.index(version.stage)
    wanted = PIPELINE.index(stage)
    return reached > wanted or (reached == wanted and version.status is Status.SUCCEEDED)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in parameters.items()}
