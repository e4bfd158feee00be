"""Runs one job from its document to its uploaded outputs, and always answers.

The story of a job: end what an earlier one left, fetch and check the inputs, run the script confined and watched, end all that it
started, take over its output folders, upload them and the log, wipe. Nothing here holds credentials, and nothing that is
answered here is believed by the registry where it can be computed from the outputs.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attestry.sandbox import confine
from attestry.sandbox.child import Child, Ending, Watch, run
from attestry.sandbox.contract import Folders, base_environment, script_arguments, script_environment
from attestry.sandbox.environments import EnvironmentCache
from attestry.sandbox.errors import BadJobError, LeftoverProcessError, SandboxError, UploadError
from attestry.sandbox.fetch import fetch_document, fetch_file
from attestry.sandbox.job import MAX_JOB_BYTES, Input, Job, read_job
from attestry.sandbox.log import BoundedLog
from attestry.sandbox.machine import cpu_count, describe_machine, gpu_count, total_memory_mib
from attestry.sandbox.outcome import Result, judge
from attestry.sandbox.outputs import upload_log, upload_outputs
from attestry.sandbox.processes import end_descendants
from attestry.sandbox.unpack import remove_tree, unpack_tar
from attestry.sandbox.workspace import Workspace, has_machine_of_its_own, remove_foreign_entries

Answer = dict[str, Any]

RESERVE_SECONDS = 20.0
"""Kept back of the function's own time to collect and upload; a tenth of the time where that is less."""
WORKER_MIB = 192
"""Memory that this process itself may need, of what the function has."""
PROCESSES_PER_FUNCTION = 512


class Sandbox:
    """A worker that runs one job after another.

    Args:
        workspace: the worker's folder; default a new one.
        memory_mib: the function's configured memory; default that of the machine.
        own_machine: whether temporary directory and processes belong to this worker alone; default: whether this is Lambda on AWS.
            If so, whatever a script leaves anywhere is found, removed and held against it.
    """

    def __init__(self, workspace: Workspace | None = None, *, memory_mib: int | None = None, own_machine: bool | None = None) -> None:
        confine.shield_worker()
        self._workspace = workspace or Workspace()
        self._memory_mib = memory_mib or total_memory_mib()
        self._own_machine = has_machine_of_its_own() if own_machine is None else own_machine
        self._environments = EnvironmentCache(self._workspace, alone=self._own_machine)

    def run(self, document: Mapping[str, Any], deadline: float) -> Answer:
        """Run a job.

        Args:
            document: the job document, format 1.
            deadline: when the answer has to be there, in seconds on the monotonic clock.

        Returns:
            `{"outcome": "SUCCEEDED|FAILED|TIMED_OUT", "exit_code": int|None, "error": str, "started", "ended", "machine", "isolation"}`;
            it raises nothing.
        """
        started = _now()
        try:
            result = self._run(read_job(document), deadline)
        except SandboxError as fault:
            result = Result("FAILED", None, str(fault))
        except Exception as fault:  # noqa: BLE001 (an exception would end the worker; the caller needs an answer in every case)
            result = Result("FAILED", None, f"the sandbox failed: {type(fault).__name__}: {fault}")
        return self.answer(result, started)

    def run_from_url(self, url: str, deadline: float) -> Answer:
        """Run the job whose document is behind a presigned URL; see `run`."""
        started = _now()
        try:
            document = fetch_document(url, max_bytes=MAX_JOB_BYTES)
        except SandboxError as fault:
            return self.answer(Result("FAILED", None, str(fault)), started)
        return self.run(document, deadline)

    def answer(self, result: Result, started: str) -> Answer:
        """Return the answer about a job that ends at this moment."""
        return {
            "outcome": result.outcome,
            "exit_code": result.exit_code,
            "error": result.error,
            "started": started,
            "ended": _now(),
            "machine": describe_machine(memory_mib=self._memory_mib),
            "isolation": {"landlock": confine.landlock_version(), "own_machine": self._own_machine},
        }

    def _run(self, job: Job, deadline: float) -> Result:
        if not end_descendants(os.getpid()):
            raise LeftoverProcessError("processes of an earlier script cannot be ended; nothing is run beside them")
        folders = Folders(self._workspace.folder("job"))
        log = BoundedLog(job.max_log_bytes)
        try:
            folders.make()
            try:
                result = self._run_in(job, folders, log, deadline)
            except SandboxError as fault:
                result = Result("FAILED", None, str(fault))
            if result.error:
                log.write(f"\n[attestry: {result.error}]\n".encode())
            try:
                upload_log(job, folders, log)
            except UploadError as fault:
                result = result.also_failed(str(fault))
        finally:
            self._workspace.folder("job")
        return result

    def _run_in(self, job: Job, folders: Folders, log: BoundedLog, deadline: float) -> Result:
        if job.environment is None:
            raise BadJobError("environment: missing")
        packages = self._environments.get(job.environment)
        _fetch_inputs(job, folders)
        ending, seconds = self._run_script(job, folders, packages, log, deadline)
        result = judge(ending, log, seconds=seconds, memory_mib=max(64, self._memory_mib - WORKER_MIB))
        if foreign := self._remove_foreign():
            result = result.also_failed(f"the script wrote outside its folders: {', '.join(foreign[:5])}")
        if result.outcome == "SUCCEEDED":
            try:
                upload_outputs(job, folders)
            except SandboxError as fault:
                result = result.also_failed(str(fault))
        return result

    def _run_script(self, job: Job, folders: Folders, packages: Path, log: BoundedLog, deadline: float) -> tuple[Ending, float]:
        left = deadline - time.monotonic()
        seconds = min(job.timeout_seconds, left - min(RESERVE_SECONDS, left / 10))
        if seconds <= 0:
            raise SandboxError("no time is left to run the script in: the function's own limit is too near")
        memory = max(64, self._memory_mib - WORKER_MIB) << 20
        holdout = folders.channel(next(iter(job.channels))) if job.mode == "predict" else folders.input
        writable = folders.writable() if job.mode == "script" else [folder for folder in folders.writable() if folder != folders.model]
        child = Child(
            mode=job.mode,
            source=folders.source,
            packages=packages,
            entry_point=job.entry_point,
            arguments=script_arguments(job.arguments),
            variables=base_environment(folders, os.environ) | script_environment(job, folders, cpus=cpu_count(), gpus=gpu_count()),
            readable=[folders.input, folders.model],
            writable=writable,
            limits=confine.Limits(
                job.max_output_bytes, memory + confine.RESERVED_BYTES, PROCESSES_PER_FUNCTION if self._own_machine else None
            ),
            extra={"model": str(folders.model), "holdout": str(holdout), "predictions": str(folders.output / "predictions.json")},
        )
        watch = Watch(time.monotonic() + seconds, memory, folders.writable(), 3 * job.max_output_bytes)
        return run(child, watch, log), seconds

    def _remove_foreign(self) -> list[str]:
        if not self._own_machine:
            return []
        return remove_foreign_entries(Path(tempfile.gettempdir()), self._workspace.root)


def run_job(document: Mapping[str, Any], work_dir: Path, deadline: float) -> Answer:
    """Run one job in a folder of its own below `work_dir`, and remove that folder; see `Sandbox.run`."""
    work_dir.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(work_dir)
    try:
        return Sandbox(workspace).run(document, deadline)
    finally:
        workspace.close()


def _fetch_inputs(job: Job, folders: Folders) -> None:
    archive = folders.archives / "source.tar.gz"
    fetch_file(job.source, archive)
    unpack_tar(archive, folders.source)
    remove_tree(archive)
    if not (folders.source / job.entry_point).is_file():
        raise SandboxError(f"the source has no file {job.entry_point!r}")
    for name, files in job.channels.items():
        folders.channel(name).mkdir()
        _fetch_all(files, folders.channel(name))
    _fetch_all(job.model, folders.model)


def _fetch_all(files: tuple[Input, ...], folder: Path) -> None:
    for file in files:
        fetch_file(file, folder / file.path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
