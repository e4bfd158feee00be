"""The files and the request of a stage's run: for the sandbox function, and for jobs of other services.

The job file says what to run, on which exact bytes, and where outputs go. The sandbox and Batch get URLs for everything. SageMaker and
Spark read from scratch, where the run's inputs are laid out under `in/`: their machines hold a role that reaches nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attestry.domain.errors import InvalidInputError, StageFailedError
from attestry.domain.job_requests import JOB_CHANNEL, MODEL_CHANNEL, SHIM, SPARK_ENTRY, job_request
from attestry.domain.jobs import JobPlace, JobRequest, JobSettings, JobSpec, job_prefix
from attestry.domain.manifest import Manifest
from attestry.domain.manifest_executors import LAMBDA_MAX_SECONDS
from attestry.domain.stages import Stage
from attestry.domain.version import FileRef, Version
from attestry.evidence.digests import sha256_hex
from attestry.ports import ObjectStore
from attestry.usecases import shim_archive
from attestry.usecases.stage_plan import arguments_of, channels_of, container_of, environment_of, model_files, settings_of

JOB_URL_SECONDS = 15 * 60
WAIT_SECONDS = 24 * 3600
"""How long a job on Batch may wait for a machine before its URLs end. They end with the session that signed them too, whatever they say."""

MAX_URL_SECONDS = 7 * 24 * 3600
"""The longest life of a URL under Signature Version 4."""

OUTPUT_NAMES = {Stage.PROCESSING: "output", Stage.TRAINING: "model", Stage.VALIDATION: "output"}
MAX_OUTPUT_BYTES = 4 * 1024**3
MAX_LOG_BYTES = 1024 * 1024


class StageRun:
    """One run of a stage: its place in scratch, its files, its request.

    Args:
        store: the model store.
        scratch: the scratch bucket.
        version: the version, with the inputs of the stage among its data sets.
        manifest: its manifest.
        stage: PROCESSING, TRAINING or VALIDATION.
        attempt: from 1.
        settings: the deployment's about jobs.
    """

    def __init__(
        self,
        store: ObjectStore,
        scratch: ObjectStore,
        version: Version,
        manifest: Manifest,
        stage: Stage,
        attempt: int,
        settings: JobSettings,
    ) -> None:
        self._store, self._scratch = store, scratch
        self._version, self._manifest, self._stage, self._attempt, self._settings = version, manifest, stage, attempt, settings
        self._section = settings_of(manifest, stage)
        self.prefix = job_prefix(version.model, version.execution_id, stage, attempt)

    @property
    def timeout_seconds(self) -> int:
        """The limit of the script in seconds."""
        asked = self._section.resources.timeout_seconds
        return asked if self._section.executor != "lambda" else min(asked, LAMBDA_MAX_SECONDS)

    def spec(self) -> JobSpec:
        """Return what the job has to run.

        Raises:
            StageFailedError: the manifest names no container.
        """
        version = self._version
        place = JobPlace(self._settings.bucket, version.model, version.execution_id, self._stage, self._attempt, self._settings.deployment)
        channels = tuple(channels_of(version, self._manifest, self._stage))
        return JobSpec(
            place,
            version.number,
            version.candidate,
            container_of(self._manifest, self._stage),
            self._section.resources,
            arguments_of(self._section),
            (*channels, MODEL_CHANNEL) if self._stage is Stage.VALIDATION else channels,
        )

    def planned(self) -> dict[str, Any] | None:
        """Return what the plan says about the job; None where the sandbox runs the script.

        Raises:
            InvalidInputError: the deployment has no place for such a job.
        """
        if self._section.executor == "lambda":
            return None
        executor, spec = self._section.executor, self.spec()
        if executor not in self._settings.executors:
            enabled = " and ".join(self._settings.executors)
            raise InvalidInputError.of(f"{self._stage.value.lower()}.executor", "available", f"this registry runs stages on {enabled}")
        job_request(spec, executor, self._settings)
        return spec.planned(executor, self._settings)

    def write_sandbox_job(self) -> str:
        """Write the job file of the sandbox and return the URL that reads it.

        Raises:
            StageFailedError: the environment was not built.
        """
        lasting = self.timeout_seconds + JOB_URL_SECONDS
        environment = environment_of(self._version).archive
        if environment is None:
            raise StageFailedError("the environment was not built")
        document = self._document(lambda file: self._url(file, lasting)) | {
            "environment": self._url(environment, lasting),
            "outputs": self._posts(lasting),
        }
        return self._write_job(document, JOB_URL_SECONDS)

    def write_job(self) -> JobRequest:
        """Lay out what the job needs, and return the request that starts it; once more does no harm.

        Raises:
            InvalidInputError: the deployment has no place for such a job.
            IntegrityError: an input in scratch has other bytes.
        """
        executor, spec = self._section.executor, self.spec()
        self._put(f"in/{JOB_CHANNEL}/{SHIM}", shim_archive.shim_archive())
        if executor == "batch":
            return job_request(spec, executor, self._settings, urls=self._batch_urls())
        self._lay_out()
        self._put(f"in/{JOB_CHANNEL}/job.json", json.dumps(self._document(_mounted) | {"outputs": {}}).encode())
        if executor == "emr-serverless":
            self._put(f"in/{JOB_CHANNEL}/{SPARK_ENTRY}", shim_archive.SPARK_ENTRY)
        return job_request(spec, executor, self._settings)

    def _batch_urls(self) -> dict[str, str]:
        lasting = min(self.timeout_seconds + WAIT_SECONDS, MAX_URL_SECONDS)
        document = self._document(lambda file: self._url(file, lasting)) | {"outputs": self._posts(lasting)}
        return {
            "ATTESTRY_JOB_URL": self._write_job(document, lasting),
            "ATTESTRY_SHIM_URL": self._scratch.presign_get(f"{self.prefix}in/{JOB_CHANNEL}/{SHIM}", None, seconds=lasting),
            "ATTESTRY_SHIM_SHA256": sha256_hex(shim_archive.shim_archive()),
        }

    def _lay_out(self) -> None:
        """Copy the inputs to the run's folder, each as the bytes that are recorded of it."""
        self._copy(self._version.code[0], f"in/{JOB_CHANNEL}/source.tar.gz")
        for name, files in channels_of(self._version, self._manifest, self._stage).items():
            for file in files:
                self._copy(file, f"in/{name}/{file.path}")
        for file in model_files(self._version, self._stage):
            self._copy(file, f"in/{MODEL_CHANNEL}/{file.path}")

    def _copy(self, file: FileRef, below: str) -> None:
        with self._store.open(file.key, file.version_id) as stream:
            placed = self._scratch.put_new(self.prefix + below, stream)
        if placed.sha256 != file.sha256:
            raise StageFailedError(f"{file.path} is not what was recorded")

    def _document(self, name: Callable[[FileRef], dict[str, Any]]) -> dict[str, Any]:
        version, stage = self._version, self._stage
        return {
            "format": 1,
            "job": f"{version.execution_id}/{stage.value}/{self._attempt}",
            "stage": stage.value,
            "mode": "predict" if stage is Stage.VALIDATION else "script",
            "timeout_seconds": self.timeout_seconds,
            "max_output_bytes": MAX_OUTPUT_BYTES,
            "max_log_bytes": MAX_LOG_BYTES,
            "source": name(version.code[0]),
            "entry_point": self._section.script,
            "arguments": dict(arguments_of(self._section)),
            "channels": {c: [name(f) for f in files] for c, files in channels_of(version, self._manifest, stage).items()},
            "model": [name(f) for f in model_files(version, stage)],
        }

    def _posts(self, seconds: int) -> dict[str, Any]:
        output = OUTPUT_NAMES[self._stage]
        return {
            output: self._scratch.presign_post(f"{self.prefix}{output}.tar.gz", max_bytes=MAX_OUTPUT_BYTES, seconds=seconds),
            "log": self._scratch.presign_post(f"{self.prefix}log.txt", max_bytes=MAX_LOG_BYTES + 4096, seconds=seconds),
        }

    def _write_job(self, document: Mapping[str, Any], seconds: int) -> str:
        self._put("job.json", json.dumps(document).encode())
        return self._scratch.presign_get(f"{self.prefix}job.json", None, seconds=seconds)

    def _put(self, below: str, body: bytes) -> None:
        self._scratch.put(self.prefix + below, body)

    def _url(self, file: FileRef, seconds: int) -> dict[str, Any]:
        url = self._store.presign_get(file.key, file.version_id, seconds=seconds)
        return {**_mounted(file), "url": url}


def _mounted(file: FileRef) -> dict[str, Any]:
    return {"path": file.path, "sha256": file.sha256, "size": file.size}
