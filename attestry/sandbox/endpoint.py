"""Serves one version in a container of SageMaker's: `python3 shim.zip serve` answers `GET /ping` and `POST /invocations` on port 8080.

Rules:

1. The folder that SageMaker laid out is the version's frozen folder, or the container ends: the artifact manifest must hash to the version
   digest that the request which made the container names, every file must be what that manifest says, and the model's folder holds nothing
   else. SageMaker reads the files again for each machine, so this is checked for each.
2. `/ping` says 200 once the model is loaded, and not before; SageMaker sends no request until then.
3. A request names the version digest that it wants answered, and an answer the one that was checked. What goes wrong is an answer as well.
4. The script runs in a process of its own and answers one request at a time. A process that died is started again.

The container is the boundary: it has no network and no credentials, and what it answers is believed as little as what the sandbox does.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from attestry.sandbox.artifact import MANIFEST, MAX_MANIFEST_BYTES, MODEL, SOURCE, Frozen, check_entry_point, read_artifact_manifest
from attestry.sandbox.errors import BadJobError, SandboxError, ServingError, TamperedFileError
from attestry.sandbox.machine import cpu_count, gpu_count, total_memory_mib
from attestry.sandbox.model_process import ModelProcess
from attestry.sandbox.unpack import unpack_tar

PORT = 8080
MODEL_ROOT = "/opt/ml/model"
ARTIFACT_MANIFEST = "artifact-manifest.json"
DIGEST_VARIABLE = "ATTESTRY_VERSION_DIGEST"
SCRIPT_VARIABLE = "ATTESTRY_INFERENCE_SCRIPT"
MAX_BODY_BYTES = 6 << 20
REQUEST_SECONDS = 20.0
LOAD_SECONDS = 3600.0
_CHUNK_BYTES = 1 << 20


class EndpointServer:
    """One version, checked and answering.

    Args:
        root: the version's frozen folder.
        work: a folder of its own, for the unpacked source.
        shim: the program that starts this process, and the script's.
        environ: the variables of the container.
    """

    def __init__(self, root: Path, work: Path, shim: str, environ: Mapping[str, str]) -> None:
        self.digest = environ.get(DIGEST_VARIABLE, "")
        self._script = environ.get(SCRIPT_VARIABLE, "")
        self._root, self._source, self._shim = root, work / "source", shim
        self._environ = {name: value for name, value in environ.items() if not name.startswith(("AWS_", "ATTESTRY_", "ECS_"))}
        self._lock = threading.Lock()
        self._process: ModelProcess | None = None

    def check(self) -> None:
        """Check every byte of the version, and unpack its source.

        Raises:
            SandboxError: something is not as it was frozen.
        """
        manifest = self._root / ARTIFACT_MANIFEST
        if not manifest.is_file() or manifest.stat().st_size > MAX_MANIFEST_BYTES:
            raise BadJobError(f"{ARTIFACT_MANIFEST} is not among the files that were given")
        frozen = read_artifact_manifest(manifest.read_bytes(), self.digest)
        _check_files(self._root, frozen)
        check_entry_point(self._root / MANIFEST, self._script)
        unpack_tar(self._root / SOURCE, self._source)
        if not (self._source / self._script).is_file():
            raise BadJobError(f"the source has no file {self._script!r}")

    def load(self) -> None:
        """Load the model.

        Raises:
            ServingError: it does not load.
        """
        with self._lock:
            self._loaded()

    @property
    def ready(self) -> bool:
        """Return whether the model is loaded."""
        return self._process is not None and self._process.alive

    def answer(self, body: bytes) -> dict[str, Any]:
        """Return the answer to a request; it raises nothing."""
        try:
            request = json.loads(body)
            if not isinstance(request, dict) or request.get("version_digest") != self.digest:
                raise ServingError(f"this container serves the version {self.digest} and no other")
            instances, columns = request.get("instances"), request.get("columns")
            if not isinstance(instances, list) or not instances or not all(isinstance(i, dict) for i in instances):
                raise ServingError("instances: a list of objects is needed")
            with self._lock:
                output = self._loaded().predict(
                    instances, columns if isinstance(columns, list) else None, time.monotonic() + REQUEST_SECONDS
                )
        except (SandboxError, ValueError) as error:
            return {"status": "FAILED", "error": str(error)[:2000], "version_digest": self.digest}
        return {"status": "OK", "output": output, "version_digest": self.digest}

    def close(self) -> None:
        """End the script's process."""
        if self._process is not None:
            self._process.end()

    def _loaded(self) -> ModelProcess:
        if self._process is not None and self._process.alive:
            return self._process
        process = ModelProcess(self._start, memory_bytes=total_memory_mib() << 20)
        try:
            if not process.wait_ready(time.monotonic() + LOAD_SECONDS):
                raise ServingError(f"model_fn took longer than {LOAD_SECONDS:.0f} s")
        except ServingError:
            process.end()
            raise
        self._process = process
        return process

    def _start(self, requests: int, answers: int) -> tuple[subprocess.Popen[bytes], int]:
        """Start the script's process; its output goes where this process's goes, which SageMaker keeps as the log."""
        reader, writer = os.pipe()
        model = str(self._root / MODEL.rstrip("/"))
        told = json.dumps({"model": model, "requests": requests, "answers": answers})
        contract = {"SM_MODEL_DIR": model, "SM_NUM_CPUS": str(cpu_count()), "SM_NUM_GPUS": str(gpu_count())}
        try:
            process = subprocess.Popen(  # noqa: S603 (the arguments are ours)
                [sys.executable, self._shim, "model", str(self._source / self._script), told],
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env={**self._environ, **contract},
                cwd=self._source,
                start_new_session=True,
                pass_fds=(requests, answers),
            )
        finally:
            os.close(writer)
        return process, reader


def serve(shim: str, environ: Mapping[str, str], work: Path, root: Path = Path(MODEL_ROOT), port: int = PORT) -> int:
    """Check, load and serve until the container is stopped; return the exit code.

    Args:
        shim: the program that starts the script's process.
        environ: the variables of the container.
        work: a folder of its own.
        root: where SageMaker laid the version's files out.
        port: where it asks.
    """
    server = EndpointServer(root, work, shim, environ)
    try:
        server.check()
        server.load()
    except SandboxError as error:
        sys.stderr.write(f"attestry: this version is not served: {error}\n")
        return 1
    with ThreadingHTTPServer(("0.0.0.0", port), _handler(server)) as http:  # noqa: S104 (SageMaker asks from outside the container)
        sys.stdout.write(f"attestry: serves {server.digest} on port {http.server_port}\n")
        sys.stdout.flush()
        http.serve_forever()
    return 0


def _handler(server: EndpointServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """The two paths that SageMaker asks for."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Say whether the model is loaded."""
            self._tell(200 if self.path == "/ping" and server.ready else 503 if self.path == "/ping" else 404, b"")

        def do_POST(self) -> None:
            """Answer a request."""
            length = self.headers.get("Content-Length", "")
            if self.path != "/invocations" or not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                self._tell(413 if length.isdigit() else 411, b"")
                return
            self._tell(200, json.dumps(server.answer(self.rfile.read(int(length))), allow_nan=False).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is the base class's)
            """Log nothing: requests are counted elsewhere."""

        def _tell(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _check_files(root: Path, frozen: Frozen) -> None:
    """Check what lies in a frozen folder against its artifact manifest (rule 1)."""
    for path, (size, sha256) in sorted(frozen.files.items()):
        file = root / path
        if file.is_symlink() or not file.is_file():
            raise TamperedFileError(f"{path} of this version is missing")
        if file.stat().st_size != size or _digest(file) != sha256:
            raise TamperedFileError(f"{path} is not what the artifact manifest says")
    for file in sorted((root / MODEL.rstrip("/")).rglob("*")):
        path = file.relative_to(root).as_posix()
        if (file.is_symlink() or not file.is_dir()) and path not in frozen.files:
            raise TamperedFileError(f"{path} is not a file of this version")


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
