"""Record a stage: digest what the sandbox left, freeze it, write the record, and move the version on.

Nothing that the sandbox says is believed: its outputs are read once, digested while they are copied to the version's folder, and what it
reports about itself is kept as `claimed`. A stage that failed leaves the version in a named state with its error and its log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from attestry.domain.cause import is_reproduction
from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.events import shorten, timestamp
from attestry.domain.job_facts import JobFacts
from attestry.domain.jobs import archive_key, job_prefix
from attestry.domain.principal import registry_principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import DataSet, FileRef, Version, encode
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex
from attestry.evidence.recipe import recipe_of
from attestry.ports import MetaStore, Notifier, ObjectStore, Put, Update, When
from attestry.usecases.artifact_copy import copy_puts
from attestry.usecases.attest import Attestor
from attestry.usecases.freeze import Freezer, FrozenModel
from attestry.usecases.job_result import read_job, read_log, with_own_reason
from attestry.usecases.judge import judge_gates
from attestry.usecases.lineage import edge_puts
from attestry.usecases.manifests import load_manifest
from attestry.usecases.records import Move, load_version, move_writes, stage_key
from attestry.usecases.reproduce import is_compared, record_comparison
from attestry.usecases.reuse import load_run, prove_run
from attestry.usecases.sign_artifact import ArtifactSignature
from attestry.usecases.stage_failure import MAX_ERROR, failure_of, stage_to_fail
from attestry.usecases.stage_record import Recorded, evaluated_with, predicate_of, success_of, without_floats, write_record
from attestry.usecases.stage_result import StageResult

MAX_SUMMARY_BYTES = 4 * 1024 * 1024
HELD = "HELD"


SignArtifact = Callable[[str, str], ArtifactSignature]
"""Has the frozen folder of a version signed: its folder, and the version digest."""


class StageRecorder:
    """Records stages."""

    def __init__(
        self,
        meta: MetaStore,
        attestor: Attestor,
        store: ObjectStore,
        scratch: ObjectStore,
        notifier: Notifier,
        *,
        sign_artifact: SignArtifact,
    ) -> None:
        """Take the ports.

        Args:
            meta: the table.
            attestor: signs with the key of the function that records.
            store: the model store.
            scratch: the scratch bucket.
            notifier: tells people.
            sign_artifact: has a frozen folder signed.
        """
        self._meta = meta
        self._attestor = attestor
        self._store = store
        self._scratch = scratch
        self._notifier = notifier
        self._sign_artifact = sign_artifact

    def record(self, model: str, number: int, attempt: int, stage: Stage, result: StageResult, at: datetime) -> dict[str, str]:
        """Record the run of a stage; the same again is answered from the record.

        Returns:
            `{"outcome", "error"}`; the outcome HELD says that the stage did not begin, since somebody holds the version.

        Raises:
            ConflictError: the stage is said to have succeeded, and has not begun.
            UnavailableError: a service failed; the pipeline tries again.
        """
        version = load_version(self._meta, model, number)
        if version.standing is Standing.RETIRED:
            return self._end(version, stage, attempt, at, f"{version.reference} was {version.out_of_use}")
        if attempt < version.attempt:
            return self._end(version, stage, attempt, at, f"attempt {version.attempt} goes on in place of attempt {attempt}")
        if stage is Stage.APPROVAL and (version.stage is not Stage.VALIDATION or result.error is None):
            return _approval_outcome(version)
        row = self._meta.get(stage_key(model, number, stage, attempt))
        if row is None:
            return self._record_unbegun(version, stage, result, at)
        if row["status"] != Status.RUNNING.value:
            return self._compared(version, stage, {"outcome": row["status"], "error": row.get("error", "")}, at)
        plan = json.loads(row["plan"])
        planned = plan.get("job")
        raw = None if "reused_from" in plan else read_log(self._scratch, _prefix(version, stage, attempt), planned)
        log = self._keep_log(version, stage, attempt, raw)
        ran: JobFacts | None = None
        try:
            ran = with_own_reason(read_job(result.run, planned), raw) if planned and result.error is None else None
            taken = result.error is None and "reused_from" in plan
            recorded = (
                self._take_reused(version, stage, attempt, plan) if taken else self._take(version, stage, attempt, result, planned, ran)
            )
        except (InvalidInputError, IntegrityError, NotFoundError, ConflictError) as error:
            recorded = Recorded(Status.FAILED, error.message)
        if ran is not None:
            recorded = replace(recorded, facts={**recorded.facts, "ran": ran.to_item()})
        recorded = replace(recorded, error=shorten(recorded.error, MAX_ERROR))
        self._write(version, stage, attempt, row, recorded, result, log, at)
        answer = {"outcome": recorded.outcome.value, "error": recorded.error}
        return self._compared(load_version(self._meta, model, number), stage, answer, at) if is_reproduction(version.cause) else answer

    def _compared(self, version: Version, stage: Stage, answer: dict[str, str], at: datetime) -> dict[str, str]:
        """Return the answer; a run that was to reproduce a version ends here, with the verdict recorded on that version."""
        if not is_compared(version, stage):
            return answer
        verdict = record_comparison(self._meta, self._attestor, self._store, version, at)
        parent = f"{version.model}@{version.cause['parent']}"
        self._notifier.notify(f"{parent} was reproduced: {verdict or 'not recorded'}", {"version": parent, "run": version.reference})
        return {"outcome": "REPRODUCED", "error": ""}

    def _take(
        self, version: Version, stage: Stage, attempt: int, result: StageResult, planned: Mapping[str, Any] | None, ran: JobFacts | None
    ) -> Recorded:
        failure = failure_of(result, ran)
        if failure:
            return Recorded(Status.FAILED, failure)
        prefix = _prefix(version, stage, attempt)
        freezer = Freezer(self._store, self._scratch, version, prefix)
        if stage is Stage.PROCESSING:
            return self._take_data(freezer, attempt, result)
        if stage is Stage.TRAINING:
            service, name = (planned["service"], planned["name"]) if planned else ("", "")
            return self._take_model(freezer, version, archive_key(prefix, service, name, "model"))
        return self._take_validation(freezer, version, attempt, result)

    def _take_reused(self, version: Version, stage: Stage, attempt: int, plan: Mapping[str, Any]) -> Recorded:
        """Take the stage from the run that the plan names; whatever the pipeline passes on, nothing was run."""
        place = plan["reused_from"]
        run = load_run(self._meta, version.model, stage, place)
        if recipe_of(run.record) != recipe_of(plan):
            raise IntegrityError(f"{stage} of {run.reference} was run with other inputs")
        prove_run(self._attestor, run, place)
        freezer = Freezer(self._store, self._scratch, version, "")
        if stage is Stage.PROCESSING:
            recorded = self._data(version, freezer.take_data(attempt, run.datasets()), run.record["data"])
        else:
            recorded = self._model(version, freezer.take_model(load_manifest(self._store, version), run.model_files()))
        told = {"reused_from": {"version": run.reference, "record_sha256": place["record_sha256"]}}
        return replace(recorded, told={**recorded.told, **told}, rows=[*recorded.rows, *run.still_in_use()])

    def _take_data(self, freezer: Freezer, attempt: int, result: StageResult) -> Recorded:
        summary = self._summary(result)
        return self._data(freezer.version, freezer.freeze_data(attempt), summary)

    @staticmethod
    def _data(version: Version, datasets: Sequence[DataSet], summary: Mapping[str, Any]) -> Recorded:
        schema = [
            {"name": str(c["name"]), "type": str(c["type"])} for c in summary["schema"] if c["name"] in set(summary["feature_columns"])
        ]
        changes = {"datasets": encode((*version.datasets, *datasets)), "schema": schema}
        outputs = tuple({"name": d.name, "digest": d.digest, "files": [f.to_item() for f in d.files]} for d in datasets)
        return Recorded(Status.SUCCEEDED, outputs=outputs, changes=changes, facts={"data": without_floats(summary)})

    def _take_model(self, freezer: Freezer, version: Version, archive: str) -> Recorded:
        return self._model(version, freezer.freeze_model(load_manifest(self._store, version), archive))

    def _model(self, version: Version, frozen: FrozenModel) -> Recorded:
        changes: dict[str, Any] = {
            "frozen": [f.to_item() for f in frozen.files],
            "artifact": frozen.artifact.to_item(),
            "version_digest": frozen.artifact.sha256,
        }
        if frozen.folder != version.folder:
            changes |= {"folder": frozen.folder}
        output = {
            "name": "model",
            "digest": frozen.artifact.sha256,
            "files": [f.to_item() for f in frozen.files if f.path.startswith("model/")],
        }
        told = {"oms_sha256": self._sign_artifact(frozen.folder, frozen.artifact.sha256).sha256}
        rows = copy_puts(version.model, version.number, frozen.document)
        return Recorded(Status.SUCCEEDED, outputs=(output,), changes=changes, told=told, rows=rows)

    def _take_validation(self, freezer: Freezer, version: Version, attempt: int, result: StageResult) -> Recorded:
        summary = self._summary(result)
        predictions = freezer.keep("predictions.json", f"stages/{Stage.VALIDATION.value}/{attempt}/predictions.json")
        metrics = {str(name): float(value["value"]) for name, value in summary["metrics"].items()}
        manifest = load_manifest(self._store, version)
        champion, comparisons = str(summary.get("champion") or ""), summary.get("comparisons") or {}
        judged = judge_gates(self._meta, version, manifest, metrics, champion=champion, comparisons=comparisons)
        shown = {name: repr(value) for name, value in metrics.items()}
        outputs = ({"name": "predictions", "digest": predictions.sha256, "files": [predictions.to_item()]},)
        changes = {"metrics": shown, "gates": judged.results, "standing": version.standing.value}
        facts = {
            "metrics": shown,
            "gates": judged.results,
            "rows": int(summary["rows"]),
            "compared_with": judged.compared_with,
            "compared_holdout": dict(judged.compared_holdout),
            "evaluated_with": evaluated_with(summary),
            **({"comparisons": comparisons} if champion and champion == judged.compared_with else {}),
        }
        if not judged.passed:
            changes = {**changes, "standing": Standing.REJECTED.value}
            return Recorded(Status.REJECTED, judged.reason, outputs, changes, facts)
        return Recorded(Status.SUCCEEDED, "", outputs, changes, facts)

    def _summary(self, result: StageResult) -> dict[str, Any]:
        key = str((result.evaluation or {}).get("summary_key", ""))
        summary: dict[str, Any] = json.loads(self._scratch.read(key, max_bytes=MAX_SUMMARY_BYTES))
        return summary

    def _keep_log(self, version: Version, stage: Stage, attempt: int, raw: bytes | None) -> FileRef | None:
        key = f"{version.folder}/stages/{stage.value}/{attempt}/log.txt"
        if raw is None:
            return None
        try:
            kept = self._store.put_new(key, raw, content_type="text/plain; charset=utf-8")
        except IntegrityError:
            found = self._store.stat(key)
            if found is None:
                return None
            with self._store.open(key, found.version_id) as stream:
                return FileRef("log.txt", key, found.version_id, found.size, sha256_hex(stream.read()))
        return FileRef("log.txt", kept.key, kept.version_id, kept.size, kept.sha256)

    def _write(
        self,
        version: Version,
        stage: Stage,
        attempt: int,
        row: Mapping[str, Any],
        recorded: Recorded,
        result: StageResult,
        log: FileRef | None,
        at: datetime,
    ) -> None:
        told = write_record(row, recorded, result, log, at)
        record = canonical_bytes(told)
        folder = str(recorded.changes.get("folder", version.folder))
        kept = self._keep_record(f"{folder}/stages/{stage.value}/{attempt}/record.json", record)
        standing = Standing(recorded.changes.get("standing", version.standing))
        kind = {Status.SUCCEEDED: "stage.succeeded", Status.FAILED: "stage.failed", Status.REJECTED: "version.rejected"}[recorded.outcome]
        reason = shorten(recorded.error) or success_of(stage, recorded)
        data = {"attempt": attempt, "outputs": {o["name"]: o["digest"] for o in recorded.outputs}, **recorded.told}
        by, predicate = registry_principal("pipeline"), predicate_of(told, kept)
        move = Move(stage, recorded.outcome, standing, kind, by, reason, at, sha256_hex(record), data, predicate)
        changes = {**recorded.changes, "error": recorded.error}
        done = {
            "status": recorded.outcome.value,
            "ended": timestamp(at),
            "record": record.decode(),
            "record_sha256": sha256_hex(record),
            "record_key": kept.key,
            "record_version_id": kept.version_id,
            "error": recorded.error,
            "log": log.to_item() if log else None,
        }
        update = Update(
            stage_key(version.model, version.number, stage, attempt), done, When(exists=True, equals={"status": Status.RUNNING.value})
        )
        try:
            moving = move_writes(version, move, self._attestor, changes)
            self._meta.transact([*moving, update, *self._edges(version, stage, recorded), *recorded.rows])
        except ConditionFailedError as error:
            after = self._meta.get(stage_key(version.model, version.number, stage, attempt))
            if after is None or after["status"] == Status.RUNNING.value:
                raise ConflictError(f"{version.reference} was moved by somebody else while {stage} was recorded") from error
        if recorded.outcome is not Status.SUCCEEDED:
            self._notifier.notify(
                f"{version.reference}: {stage.value} {recorded.outcome.value.lower()}",
                {"model": version.model, "version": version.number, "stage": stage.value, "error": recorded.error},
            )

    def _edges(self, version: Version, stage: Stage, recorded: Recorded) -> list[Put]:
        """Return the rows that lead from the version's inputs to it, once its data are prepared."""
        if stage is not Stage.PROCESSING or recorded.outcome is not Status.SUCCEEDED:
            return []
        datasets = tuple(DataSet.from_item(d) for d in recorded.changes["datasets"])
        return edge_puts(replace(version, datasets=datasets), load_manifest(self._store, version).source.revision)

    def _keep_record(self, key: str, record: bytes) -> FileRef:
        """Write the record; one that a crashed try left is kept beside it, since records carry the time."""
        for suffix in ("", *(f".{n}" for n in range(1, 20))):
            name = key.removesuffix(".json") + suffix + ".json"
            try:
                kept = self._store.put_new(name, record, content_type="application/json", retain=True)
            except IntegrityError:
                continue
            return FileRef("record.json", kept.key, kept.version_id, kept.size, kept.sha256)
        raise IntegrityError(f"{key} was written by too many tries")

    def _end(self, version: Version, stage: Stage, attempt: int, at: datetime, why: str) -> dict[str, str]:
        """End a run that counts for nothing: the version is out of use, or a later attempt has begun. What the script made is not taken."""
        error = why[:MAX_ERROR]
        ended = {"status": Status.FAILED.value, "ended": timestamp(at), "error": error}
        running = When(exists=True, equals={"status": Status.RUNNING.value})
        with suppress(ConditionFailedError):
            self._meta.transact([Update(stage_key(version.model, version.number, stage, attempt), ended, running)])
        return {"outcome": Status.FAILED.value, "error": error}

    def _record_unbegun(self, version: Version, stage: Stage, result: StageResult, at: datetime) -> dict[str, str]:
        """Record that the pipeline failed before the stage could begin, for example because an environment did not build."""
        error = shorten(failure_of(result, None), MAX_ERROR)
        if version.status in (Status.FAILED, Status.REJECTED) or (version.stage is Stage.DEPLOYMENT and version.status is Status.SUCCEEDED):
            return {"outcome": version.status.value, "error": version.error}
        if not error:
            raise ConflictError(f"{stage.value} of {version.reference} has not begun in this attempt, so it cannot have ended")
        if version.held:
            return {"outcome": HELD, "error": ""}
        failed_stage = stage_to_fail(version, stage)
        if failed_stage is None:
            return {"outcome": Status.FAILED.value, "error": error}
        stage = failed_stage
        move = Move(stage, Status.FAILED, version.standing, "stage.failed", registry_principal("pipeline"), shorten(error), at)
        try:
            self._meta.transact(move_writes(version, move, self._attestor, {"error": error}))
        except ConditionFailedError as failed:
            raise ConflictError(f"{version.reference} was moved by somebody else while its failure was recorded") from failed
        self._notifier.notify(
            f"{version.reference}: {stage.value} failed",
            {"model": version.model, "version": version.number, "stage": stage.value, "error": error},
        )
        return {"outcome": Status.FAILED.value, "error": error}


def _prefix(version: Version, stage: Stage, attempt: int) -> str:
    return job_prefix(version.model, version.execution_id, stage, attempt)


def _approval_outcome(version: Version) -> dict[str, str]:
    if version.stage is Stage.APPROVAL and version.status is Status.RUNNING:
        return {"outcome": Status.FAILED.value, "error": "no decision was made in time; the version still waits and can be decided"}
    if version.approved:
        return {"outcome": Status.SUCCEEDED.value, "error": ""}
    if version.status is Status.REJECTED:
        return {"outcome": Status.REJECTED.value, "error": version.error}
    if version.held and version.status is Status.SUCCEEDED:
        return {"outcome": HELD, "error": ""}
    return {"outcome": Status.FAILED.value, "error": version.error}
