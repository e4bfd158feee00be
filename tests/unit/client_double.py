"""A local HTTP server that speaks the API's contract, for tests of the client and the command line.

It answers what a test tells it to, keeps what it was asked, and takes uploads as the store does: exactly the announced bytes, once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SUBMISSION = "a" * 24


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Told:
    """An answer to give; `body` is JSON-ready, bytes go as they are."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


class ApiDouble(ThreadingHTTPServer):
    """The server.

    Attributes:
        answers: `METHOD /path` to its answers in turn; the last one stays.
        functions: `METHOD /path` to what answers a body, where answers alone do not do.
        asked: every request of the API, in order.
        stored: objects by key.
        registration: what a submission comes to, in turn.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[Told]] = {}
        self.functions: dict[str, Callable[[Any], Told]] = {}
        self.asked: list[Asked] = []
        self.stored: dict[str, bytes] = {}
        self.registration: list[Mapping[str, Any]] = []
        self.refuse_uploads = 0
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, route: str, body: Any, status: int = 200, **headers: str) -> None:
        """Add an answer for a route."""
        told = Told(body, status, {k.replace("_", "-"): v for k, v in headers.items()})
        self.answers.setdefault(route, []).append(told)

    def refuse(self, route: str, status: int, code: str, message: str = "no", **more: Any) -> None:
        """Add an error of the registry for a route."""
        self.answer(route, problem(code, message, **more), status)

    def serve_file(self, path: str, content: bytes, *, announced: bytes | None = None) -> dict[str, Any]:
        """Serve a file of a data set, and return its entry; `announced` are the bytes that the record tells of."""
        self.answers[f"GET /files/{path}"] = [Told(content)]
        recorded = content if announced is None else announced
        sha256 = hashlib.sha256(recorded).hexdigest()
        return {"path": path, "sha256": sha256, "size": len(recorded), "url": f"{self.url}/files/{path}"}

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)


def problem(code: str, message: str, **more: Any) -> dict[str, Any]:
    """Problem details, as the registry answers them."""
    return {"type": f"urn:attestry:problem:{code}", "title": code, "code": code, "detail": message, **more}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiDouble

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        where = urlsplit(self.path)
        path = unquote(where.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "PUT" and path.startswith("/store/"):
            self._tell(self._put(path, raw))
            return
        query = {k: v[0] for k, v in parse_qs(where.query).items()}
        body = json.loads(raw) if raw else None
        self.server.asked.append(Asked(self.command, path, query, dict(self.headers), body))
        self._tell(self._answer(path, body))

    def _answer(self, path: str, body: Any) -> Told:
        route = f"{self.command} {path}"
        if route in self.server.functions:
            return self.server.functions[route](body)
        if route in self.server.answers:
            answers = self.server.answers[route]
            return answers.pop(0) if len(answers) > 1 else answers[0]
        if route in ("POST /v1/uploads", "POST /v1/imports"):
            return Told(self._grant(body["files"]), 201)
        if route == f"GET /v1/submissions/{SUBMISSION}":
            states = self.server.registration
            return Told(states.pop(0) if len(states) > 1 else states[0])
        return Told(problem("not_found", f"there is no route {route}"), 404)

    def _grant(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        prefix = f"candidates/AIDAEXAMPLE/{SUBMISSION}/"
        uploads = []
        for file in files:
            checksum = base64.b64encode(bytes.fromhex(file["sha256"])).decode()
            headers = {"If-None-Match": "*", "x-amz-checksum-sha256": checksum, "Content-Length": str(file["size"])}
            key = prefix + file["name"]
            uploads.append({"name": file["name"], "key": key, "url": f"{self.server.url}/store/{key}", "headers": headers})
        return {"submission": SUBMISSION, "prefix": prefix, "uploads": uploads}

    def _put(self, path: str, raw: bytes) -> Told:
        key = path.removeprefix("/store/")
        if self.server.refuse_uploads:
            self.server.refuse_uploads -= 1
            return Told(b"", 503)
        if self.headers["If-None-Match"] != "*" or int(self.headers["Content-Length"]) != len(raw):
            return Told(b"SignatureDoesNotMatch", 403)
        if base64.b64decode(self.headers["x-amz-checksum-sha256"]) != hashlib.sha256(raw).digest():
            return Told(b"BadDigest", 400)
        if key in self.server.stored:
            return Told(b"PreconditionFailed", 412)
        self.server.stored[key] = raw
        return Told(b"")

    def _tell(self, told: Told) -> None:
        content = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass
