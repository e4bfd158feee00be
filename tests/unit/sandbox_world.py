"""What the sandbox meets in its tests: a store behind presigned-like URLs, archives, and a worker process of its own."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attestry.sandbox.archive_environment import compile_modules

ROOT = Path(__file__).parents[2]
WORKER = """
import json, os, sys, time
os.environ["AWS_SECRET_ACCESS_KEY"] = "worker-secret"
sys.path.insert(0, sys.argv[1])
from attestry.sandbox.run import Sandbox
from attestry.sandbox.workspace import Workspace
from pathlib import Path
own = sys.argv[3] == "own"
sandbox = Sandbox(Workspace(Path(sys.argv[2])), memory_mib=1536, own_machine=own)
answers = os.dup(1)
os.dup2(2, 1)
for line in sys.stdin:
    request = json.loads(line)
    answer = sandbox.run(request["job"], time.monotonic() + request["seconds"])
    os.write(answers, json.dumps(answer).encode() + b"\\n")
"""

SERVER = """
import json, os, sys, time
os.environ["AWS_SECRET_ACCESS_KEY"] = "worker-secret"
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from attestry.sandbox import serving
from attestry.sandbox.workspace import Workspace
serving.REQUEST_SECONDS = 5.0
server = serving.ModelServer(Workspace(Path(sys.argv[2])), memory_mib=700, kept=int(sys.argv[3]))
answers = os.dup(1)
os.dup2(2, 1)
for line in sys.stdin:
    request = json.loads(line)
    answer = server.handle(request["event"], time.monotonic() + request["seconds"])
    os.write(answers, json.dumps(answer, allow_nan=False).encode() + b"\\n")
server.close()
"""


class Store:
    """Objects behind URLs: GET reads them, POST takes a form as S3 does, within a limit of bytes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.objects: dict[str, bytes] = {}
        self.max_bytes: dict[str, int] = {}
        self.posts: list[dict[str, str]] = []

    def input(self, path: str, body: bytes) -> dict[str, Any]:
        """Store an object and return it as a job names it."""
        digest = hashlib.sha256(body).hexdigest()
        self.objects[f"{digest}/{path}"] = body
        return {"path": path, "url": f"{self.address}/{digest}/{path}", "sha256": digest, "size": len(body)}

    def output(self, key: str, max_bytes: int = 1 << 30) -> dict[str, Any]:
        """Return a place to post to."""
        self.max_bytes[key] = max_bytes
        return {"url": f"{self.address}/bucket", "fields": {"key": key, "policy": "p0licy", "x-amz-signature": "s"}}

    def tar(self, key: str) -> dict[str, bytes]:
        """Return the files of a stored tar.gz."""
        with tarfile.open(fileobj=io.BytesIO(self.objects[key])) as tar:
            return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]


@contextmanager
def serve_store() -> Iterator[Store]:
    """Serve a store on loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = store.objects.get(urlsplit(self.path).path.lstrip("/"))
            self._answer(200 if body is not None else 404, body or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fields, file = _parse_form(self.headers["Content-Type"], body)
            store.posts.append(fields)
            if len(file) > store.max_bytes.get(fields["key"], -1):
                self._answer(400, b"<Error><Code>EntityTooLarge</Code><Message>too large</Message></Error>")
                return
            store.objects[fields["key"]] = file
            self._answer(204, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store = Store(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


def _parse_form(content_type: str, body: bytes) -> tuple[dict[str, str], bytes]:
    boundary = re.search(r"boundary=(\S+)", content_type).group(1).encode()  # type: ignore[union-attr]
    fields: dict[str, str] = {}
    file = b""
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, value = part[2:-2].partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head).group(1).decode()  # type: ignore[union-attr]
        if name == "file":
            file = value
        else:
            fields[name] = value.decode()
    return fields, file


def tar_gz(files: dict[str, str | bytes]) -> bytes:
    """Return a tar.gz of these files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return sink.getvalue()


def zipped(files: dict[str, str | bytes]) -> bytes:
    """Return a zip of these files."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def zip_with_link(name: str, target: str) -> bytes:
    """Return a zip with a symbolic link."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return sink.getvalue()


def installed_packages(*names: str) -> bytes:
    """Return an environment archive of packages that are installed beside the tests, with all that they need, compiled."""
    files: dict[str, Path] = {}
    queue = list(names)
    seen = set()
    while queue:
        name = re.split(r"[^A-Za-z0-9._-]", queue.pop())[0].lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        queue += [r for r in distribution.requires or [] if "extra ==" not in r]
        for file in distribution.files or []:
            if ".." not in file.parts and "tests" not in file.parts:
                files[file.as_posix()] = Path(str(distribution.locate_file(file)))
    sink = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path, source in sorted(files.items()):
            if source.is_file():
                target = Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
        compile_modules(Path(folder))
        for found in sorted(Path(folder).rglob("*")):
            if found.is_file():
                archive.write(found, found.relative_to(folder).as_posix())
    return sink.getvalue()


class Process:
    """A process that answers one JSON line for each, as a warm function answers calls."""

    def __init__(self, code: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-c", code, str(ROOT), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process died"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


class Worker(Process):
    """A process that runs jobs one after another."""

    def __init__(self, store: Store, folder: Path, *, own_machine: bool = False, environment: dict[str, str] | None = None) -> None:
        self.store = store
        self.folder = folder
        folder.mkdir(exist_ok=True)
        super().__init__(WORKER, str(folder), "own" if own_machine else "shared", environment=environment)
        self._empty = zipped({"tinypkg/__init__.py": "VALUE = 42\n"})

    def job(self, script: str | dict[str, str], **changes: Any) -> dict[str, Any]:
        """Return a job that runs a script as `train.py`, or a source of several files."""
        store = self.store
        files = {"train.py": script} if isinstance(script, str) else script
        job = {
            "format": 1,
            "job": "e/TRAINING/1",
            "stage": "TRAINING",
            "mode": "script",
            "timeout_seconds": 20,
            "max_output_bytes": 64 << 20,
            "max_log_bytes": 65536,
            "environment": store.input("environment.zip", self._empty),
            "source": store.input("source.tar.gz", tar_gz(dict(files))),
            "entry_point": "train.py",
            "arguments": {},
            "channels": {},
            "model": [],
            "outputs": {name: store.output(name) for name in ("model", "output", "log")},
        }
        for name in ("model", "output", "log"):
            store.objects.pop(name, None)
        return {**job, **changes}

    def run(self, job: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
        """Run a job and return the answer."""
        return self.ask({"job": job, "seconds": seconds})

    def log(self) -> str:
        """Return the log of the last job."""
        return self.store.objects["log"].decode()


class Server(Process):
    """A process that serves versions."""

    def __init__(self, store: Store, folder: Path, *, kept: int = 2) -> None:
        self.store = store
        self.folder = folder
        super().__init__(SERVER, str(folder), str(kept))

    def version(self, script: str, environment: dict[str, Any], model: dict[str, bytes] | None = None) -> dict[str, Any]:
        """Return version digest and load request of a frozen version."""
        files: dict[str, bytes] = {f"model/{name}": body for name, body in (model or {"coefficient": b"2"}).items()}
        files["source.tar.gz"] = tar_gz({"inference.py": script})
        files["manifest.json"] = json.dumps({"validation": {"script": "inference.py"}}).encode()
        listed = [{"path": p, "size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for p, b in files.items()]
        manifest = json.dumps({"files": listed, "environment": {"archive_sha256": environment["sha256"]}}).encode()
        return {
            "version_digest": hashlib.sha256(manifest).hexdigest(),
            "load": {
                "artifact_manifest": {"url": self.store.input("artifact-manifest.json", manifest)["url"]},
                "files": [{"path": p, "url": self.store.input(p, b)["url"]} for p, b in files.items()],
                "environment": dict(environment),
                "entry_point": "inference.py",
                "deadline_seconds": 20,
            },
        }

    def call(
        self, version: dict[str, Any], instances: list[dict[str, Any]] | None = None, *, load: bool = True, **more: Any
    ) -> dict[str, Any]:
        """Call the server as the predict and deploy functions do, once."""
        event = {**version, "instances": instances, **more}
        if not load:
            event["load"] = None
        return self.ask({"event": event, "seconds": 25})
