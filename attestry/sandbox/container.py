"""Runs a stage's script in a container of the user's, under the contract of the sandbox.

What the services provide differs, what the script is given does not: inputs under `SM_CHANNEL_*`, outputs under `SM_MODEL_DIR` and
`SM_OUTPUT_DATA_DIR`, hyperparameters as `--name value`. A place says how inputs come and outputs go:

- `MountedPlace`: SageMaker has laid the inputs out as folders and takes folders back (processing and training).
- `UrlPlace`: presigned URLs, on Batch.

Every input is checked against size and SHA-256 that the job file names, wherever it came from. The container itself is the boundary here:
it has no rights but the job's, so nothing is taken away from the script as in the sandbox, and the memory is the container's. What the
script leaves is packed as in the sandbox, and believed as little.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from attestry.sandbox import confine
from attestry.sandbox.child import Watch, attend
from attestry.sandbox.collect import list_files
from attestry.sandbox.contract import Folders, script_arguments, script_environment
from attestry.sandbox.errors import BadJobError, FetchError, SandboxError, TamperedFileError, UploadError
from attestry.sandbox.fetch import fetch_document, fetch_file
from attestry.sandbox.job import MAX_JOB_BYTES, Input, Job, read_container_job
from attestry.sandbox.log import BoundedLog
from attestry.sandbox.machine import cpu_count, gpu_count, total_memory_mib
from attestry.sandbox.outcome import Result, judge
from attestry.sandbox.outputs import pack_outputs, upload_log, upload_outputs
from attestry.sandbox.processes import send
from attestry.sandbox.unpack import unpack_tar

JOB_CHANNEL = "attestry-job"
MODEL_CHANNEL = "attestry-model"
MAX_REASON_BYTES = 1000
"""SageMaker shows the first 1,024 characters of what a job says about its end."""

_OWN_VARIABLES = ("AWS_", "ATTESTRY_", "ECS_")
"""Beginnings of names that are the job's and not the script's: credentials, and where to ask for them, above all."""


class Place(Protocol):
    """How inputs come and outputs go."""

    folders: Folders

    def load(self) -> Job:
        """Return the job."""

    def bring(self, job: Job) -> None:
        """Have all inputs in their folders, checked, the source's archive among the archives."""

    def deliver(self, job: Job) -> None:
        """Hand over what the script left."""

    def tell(self, log: BoundedLog, reason: str) -> None:
        """Hand over the log, and the reason of a failure."""

    def variables(self) -> dict[str, str]:
        """Return variables that the service alone knows."""


@dataclass(frozen=True)
class MountedFolders(Folders):
    """Folders of which a service has laid out some.

    Attributes:
        inputs: holds one folder for each channel.
        models: `SM_MODEL_DIR`.
        data: `SM_OUTPUT_DATA_DIR`.
    """

    inputs: Path
    models: Path
    data: Path

    @property
    def input(self) -> Path:
        """Holds one folder for each channel."""
        return self.inputs

    @property
    def model(self) -> Path:
        """`SM_MODEL_DIR`."""
        return self.models

    @property
    def output(self) -> Path:
        """`SM_OUTPUT_DATA_DIR`."""
        return self.data

    def make(self) -> None:
        """Make those that the service has not."""
        for folder in (self.input, self.model, self.output, self.temporary, self.archives):
            folder.mkdir(parents=True, exist_ok=True)


class MountedPlace:
    """A container of SageMaker.

    Args:
        kind: `processing` or `training`.
        root: the folder that the service prepares, `/opt/ml`.
        work: an empty folder of our own.
    """

    def __init__(self, kind: str, root: Path, work: Path) -> None:
        self._kind, self._root = kind, root
        if kind == "processing":
            base = root / "processing"
            models = base / "input" / MODEL_CHANNEL
            self.folders: Folders = MountedFolders(work, base / "input", models if models.is_dir() else work / "model", work / "output")
            self._log, self._reason = base / "log" / "log.txt", root / "output" / "message"
        else:
            data = root / "output" / "data"
            self.folders = MountedFolders(work, root / "input" / "data", root / "model", data)
            self._log, self._reason = data / "log.txt", root / "output" / "failure"

    def load(self) -> Job:
        """Return the job of the mounted job file.

        Raises:
            BadJobError: it is not there, or breaks the format.
        """
        try:
            document = json.loads((self.folders.input / JOB_CHANNEL / "job.json").read_bytes()[:MAX_JOB_BYTES])
        except (OSError, ValueError) as error:
            raise BadJobError(f"the job file cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise BadJobError("the job file is no JSON object")
        return read_container_job(document, mounted=True)

    def bring(self, job: Job) -> None:
        """Check what is mounted: exactly the files that the job names."""
        source = self.folders.input / JOB_CHANNEL / job.source.path
        check_file(source, job.source)
        shutil.copyfile(source, self.folders.archives / "source.tar.gz")
        for name, files in job.channels.items():
            _check_folder(self.folders.channel(name), files)
        if job.mode == "predict":
            _check_folder(self.folders.model, job.model)

    def deliver(self, job: Job) -> None:
        """Leave one archive for the service to upload; of a training it packs the model itself."""
        if self._kind == "training":
            if not list_files(self.folders.model, max_bytes=job.max_output_bytes) and self._is_first_host():
                raise SandboxError("the script left nothing in SM_MODEL_DIR")
            return
        target = self._root / "processing" / "output"
        target.mkdir(parents=True, exist_ok=True)
        for _, archive in pack_outputs(job, self.folders, ("output",)):
            shutil.move(str(archive), target / archive.name)

    def tell(self, log: BoundedLog, reason: str) -> None:
        """Leave the log, and the reason where the service looks for it."""
        note_reason(log, reason)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(log.content())
        if reason:
            self._reason.parent.mkdir(parents=True, exist_ok=True)
            self._reason.write_bytes(reason.encode()[:MAX_REASON_BYTES])

    def variables(self) -> dict[str, str]:
        """Return the hosts of a training, as the service lists them."""
        hosts = self._hosts()
        if not hosts:
            return {}
        return {"SM_HOSTS": json.dumps(hosts["hosts"]), "SM_CURRENT_HOST": str(hosts["current_host"])}

    def _hosts(self) -> dict[str, Any]:
        try:
            found = json.loads((self._root / "input" / "config" / "resourceconfig.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and {"hosts", "current_host"} <= found.keys() else {}

    def _is_first_host(self) -> bool:
        hosts = self._hosts()
        return not hosts or hosts["current_host"] == sorted(hosts["hosts"])[0]


class UrlPlace:
    """A container that holds nothing but URLs.

    Args:
        url: presigned GET of the job file.
        work: an empty folder of our own.
    """

    def __init__(self, url: str, work: Path) -> None:
        self._url = url
        self._job: Job | None = None
        self.folders = Folders(work)

    def load(self) -> Job:
        """Return the job behind the URL.

        Raises:
            FetchError: it cannot be read.
            BadJobError: it breaks the format.
        """
        self._job = read_container_job(fetch_document(self._url, max_bytes=MAX_JOB_BYTES), mounted=False)
        return self._job

    def bring(self, job: Job) -> None:
        """Fetch all inputs."""
        fetch_file(job.source, self.folders.archives / "source.tar.gz")
        for name, files in job.channels.items():
            self.folders.channel(name).mkdir()
            for file in files:
                fetch_file(file, self.folders.channel(name) / file.path)
        for file in job.model:
            fetch_file(file, self.folders.model / file.path)

    def deliver(self, job: Job) -> None:
        """Upload what the script left."""
        upload_outputs(job, self.folders)

    def tell(self, log: BoundedLog, reason: str) -> None:
        """Upload the log, whose last line is the reason; a container has no other place for it."""
        note_reason(log, reason)
        if self._job is not None:
            upload_log(self._job, self.folders, log)

    def variables(self) -> dict[str, str]:
        """Return nothing: one machine is all there is."""
        return {}


class ToldLog(BoundedLog):
    """A log whose bytes go to standard output as well, where the service keeps all of them."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        super().write(chunk)
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def run_in_container(place: Place, shim: str, environ: Mapping[str, str]) -> int:
    """Run the job of a place from its inputs to its outputs, and return the exit code that the container ends with.

    Args:
        place: how inputs come and outputs go.
        shim: path of the archive that this runs from, for the process that predicts.
        environ: the container's variables.
    """
    confine.shield_worker()
    log = ToldLog(1 << 20)
    try:
        job = place.load()
        log = ToldLog(job.max_log_bytes)
        result = _run(place, job, log, shim, environ)
    except SandboxError as fault:
        result = Result("FAILED", None, str(fault))
    except OSError as fault:
        result = Result("FAILED", None, f"the container cannot run the job: {fault}")
    try:
        place.tell(log, result.error)
    except (OSError, UploadError) as fault:
        result = result.also_failed(f"the log could not be handed over: {fault}")
    if result.outcome == "SUCCEEDED":
        return 0
    return result.exit_code if result.exit_code and 0 < result.exit_code < 128 else 1


def note_reason(log: BoundedLog, reason: str) -> None:
    """Write why a job failed at the end of its log."""
    if reason:
        log.write(f"\n[attestry: {reason}]\n".encode())


def check_file(file: Path, wanted: Input) -> None:
    """Check a file that a service has mounted.

    Raises:
        TamperedFileError: it is another than the job names, or not there.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise TamperedFileError(f"{wanted.path} is not there: {error}") from error
    if (size, digest.hexdigest()) != (wanted.size, wanted.sha256):
        raise TamperedFileError(
            f"{wanted.path} has {size} bytes and SHA-256 {digest.hexdigest()}, recorded were {wanted.size} and {wanted.sha256}"
        )


def _check_folder(folder: Path, wanted: Sequence[Input]) -> None:
    found = {path for path, _ in list_files(folder, max_bytes=sys.maxsize)} if folder.is_dir() else set()
    strange = sorted(found - {file.path for file in wanted})
    if strange:
        raise TamperedFileError(f"{folder.name} holds {strange[0]!r}, which the job does not name")
    for file in wanted:
        check_file(folder / file.path, file)


def _run(place: Place, job: Job, log: BoundedLog, shim: str, environ: Mapping[str, str]) -> Result:
    folders = place.folders
    folders.make()
    place.bring(job)
    unpack_tar(folders.archives / "source.tar.gz", folders.source)
    if not (folders.source / job.entry_point).is_file():
        raise FetchError(f"the source has no file {job.entry_point!r}")
    variables = container_variables(folders, environ) | script_environment(job, folders, cpus=cpu_count(), gpus=gpu_count())
    process, reader = _start(_command(job, folders, shim), folders.source, variables | place.variables())
    signal.signal(signal.SIGTERM, lambda *_: send(-process.pid, signal.SIGTERM))
    watch = Watch(time.monotonic() + job.timeout_seconds)
    result = judge(attend(process, reader, watch, log), log, seconds=job.timeout_seconds, memory_mib=total_memory_mib())
    if result.outcome == "SUCCEEDED":
        place.deliver(job)
    return result


def container_variables(folders: Folders, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a script gets besides the contract's: the image's own, without what is the job's."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_OWN_VARIABLES)}
    path = os.pathsep.join(part for part in (str(folders.source), kept.get("PYTHONPATH", "")) if part)
    home = str(folders.temporary)
    return kept | {"HOME": home, "TMPDIR": home, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}


def _command(job: Job, folders: Folders, shim: str) -> list[str]:
    """Return what is started: the interpreter that the script's suffix names, or this archive where it calls the script's functions."""
    script = str(folders.source / job.entry_point)
    arguments = script_arguments(job.arguments)
    if job.mode == "predict":
        holdout = folders.channel(next(iter(job.channels)))
        configuration = {"holdout": str(holdout), "model": str(folders.model), "predictions": str(folders.output / "predictions.json")}
        return [sys.executable, shim, "predict", script, json.dumps(configuration)]
    if script.endswith((".R", ".r")):
        if shutil.which("Rscript") is None:
            raise SandboxError(f"{job.entry_point} is an R script, and the container has no Rscript")
        return ["Rscript", script, *arguments]
    return [sys.executable, script, *arguments]


def _start(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 (an interpreter, and arguments of the manifest; no shell reads them)
            list(command), stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=dict(variables), cwd=folder, start_new_session=True
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    os.set_blocking(reader, False)
    return process, reader
