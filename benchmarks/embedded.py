"""An embedded registry for benchmarks: the real template, handlers and adapters, and a first version made by the real pipeline."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attestry.aws.clients import Clients
from attestry.aws.logging import configure_logging
from attestry.aws.row_parser import read_rows_as_sent
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.client.api import RegistryClient
from attestry.client.submit import submit
from attestry.client.wait import wait_for_version
from attestry.local import process
from attestry.local.process import free_port
from attestry.local.settings import DataDirectory
from attestry.local.stack import LocalStack, down, up
from benchmarks.counting import CountingSession

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "manifests" / "tumour-diagnosis"
MODEL = "tumour-diagnosis"
LABEL = "malignant"
SECONDS = 300

Say = Callable[[str], None]
INVOCATION: Any = SimpleNamespace(function_name="benchmark", aws_request_id="benchmark", get_remaining_time_in_millis=lambda: 600_000)
"""Stands in for Lambda's context."""


@dataclass(frozen=True)
class FirstVersion:
    """The version that the pipeline made.

    Attributes:
        submitted: when the submission began.
        version: the version at its approval, as the API shows it.
        execution_arn: the pipeline's execution.
    """

    submitted: datetime
    version: Mapping[str, Any]
    execution_arn: str


class EmbeddedRegistry:
    """A registry in a folder of its own; to be closed.

    Attributes:
        stack: the running stack.
        calls: the session of the account's root, listened to.
        start_seconds: how long it took to start from nothing.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        """Start it: about 25 s where the template has to be synthesised."""
        self._folder = folder
        self._data = folder / "registry"
        self._say = say
        os.environ.setdefault("ATTESTRY_SYNTHESIS_DIR", str(ROOT / "build" / "embedded-cdk.out"))
        say("starting a registry on the embedded AWS")
        began = time.monotonic()
        self.stack: LocalStack = up(self._data, free_port())
        self.start_seconds = time.monotonic() - began
        # The adapters take a loopback endpoint from here to mean that buckets have no names of their own.
        os.environ["AWS_ENDPOINT_URL"] = self.stack.endpoint_url
        quiet_logs()
        root = self.stack.session("root")
        read_rows_as_sent(root._session)  # as functions do, whose clients come of a session of their own (`attestry.aws.clients`)
        self.calls = CountingSession(root)
        for person in ("dana", "erin", "frank", "grace"):
            self.client("admin").add_person(person, [person])

    def close(self) -> None:
        """End it without saving what it holds, since nobody reads that again: with 10,000 versions it takes minutes."""
        os.environ.pop("AWS_ENDPOINT_URL", None)
        server = process.find(DataDirectory.at(self._data))
        if server is not None:
            os.killpg(server.pid, signal.SIGKILL)
        down(self._data)

    def restart(self) -> float:
        """Stop it, start it again on what it holds, and return how long the start took, in seconds."""
        down(self._data)
        began = time.monotonic()
        self.stack = up(self._data)
        return time.monotonic() - began

    def client(self, profile: str) -> RegistryClient:
        """Return the API as a person."""
        return RegistryClient(self.stack.session(profile), self.stack.api_url)

    def world(self, function: str, **changed: str) -> World:
        """Return the world of a function: its own environment, as deployed, and the real adapters, listened to."""
        name = f"attestry-{function.replace('_', '-')}"
        found = self.calls.session.client("lambda").get_function_configuration(FunctionName=name)
        return World(Settings({**found["Environment"]["Variables"], **changed}), Clients(self.calls.session, call_seconds=120))

    def invoke(self, function: str, payload: Mapping[str, Any]) -> Any:
        """Have a deployed function answer."""
        clients = Clients(self.stack.session("root"), call_seconds=SECONDS)
        answer = clients.functions.invoke(FunctionName=f"attestry-{function.replace('_', '-')}", Payload=json.dumps(payload).encode())
        return json.loads(answer["Payload"].read())

    def event(self, route: str, profile: str, *, body: Any = None, query: Mapping[str, str] | None = None, **path: Any) -> dict[str, Any]:
        """Return what the gateway would hand to a function for a person's request."""
        who = self._identity(profile)
        return {
            "version": "2.0",
            "routeKey": route,
            "pathParameters": {name: str(value) for name, value in path.items()},
            "queryStringParameters": dict(query or {}),
            "requestContext": {"requestId": "benchmark", "http": {"sourceIp": "127.0.0.1"}, "authorizer": {"iam": who}},
            "body": None if body is None else json.dumps(body),
            "isBase64Encoded": False,
        }

    @cached_property
    def project(self) -> Path:
        """The example in a git repository of its own."""
        project = self._folder / MODEL
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("data", "__pycache__"))
        (project / ".gitignore").write_text("data/\n")
        _run([sys.executable, "get_data.py"], project)
        _run(["git", "init", "--quiet", "--initial-branch=main"], project)
        _run(["git", "remote", "add", "origin", "https://git.example.com/models/tumour-diagnosis.git"], project)
        _run(["git", "add", "--all"], project)
        author = ["-c", "user.name=dana", "-c", "user.email=dana@example.com", "-c", "commit.gpgsign=false"]
        _run(["git", *author, "commit", "--quiet", "--message", "A first model"], project)
        return project

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """The example's rows without their label."""
        with (self.project / "data" / "breast_cancer.csv").open(newline="") as stream:
            return [{k: float(v) for k, v in row.items() if k != LABEL} for row in csv.DictReader(stream)]

    @cached_property
    def first_version(self) -> FirstVersion:
        """Version 1 at its approval, made by one execution of the real pipeline; includes the build of its environments."""
        project = self.project
        self._say("running the example through the pipeline (it builds two environments)")
        submitted = datetime.now(UTC)
        dana = self.client("dana")
        made = submit(dana, project)
        followed = wait_for_version(dana, made.model, made.version, timeout_seconds=SECONDS)
        if followed.rest != "WAITING":
            raise RuntimeError(f"the example's version is {followed.rest}: {followed.version['error']}")
        machine = self.stack.outputs["PipelineArn"]
        arn = f"{machine.replace(':stateMachine:', ':execution:')}:{followed.version['execution_id']}"
        return FirstVersion(submitted, followed.version, arn)

    def await_deployed(self, number: int) -> None:
        """Wait until a version stands deployed."""
        deadline = time.monotonic() + SECONDS
        while self.client("frank").version(MODEL, number)["standing"] != "DEPLOYED":
            if time.monotonic() > deadline:
                raise RuntimeError(f"version {number} is not deployed after {SECONDS} s")
            time.sleep(0.3)

    def _identity(self, profile: str) -> dict[str, str]:
        known = self._identities
        if profile not in known:
            told = self.stack.session(profile).client("sts").get_caller_identity()
            known[profile] = {"userArn": told["Arn"], "userId": told["UserId"], "accountId": told["Account"]}
        return known[profile]

    @cached_property
    def _identities(self) -> dict[str, dict[str, str]]:
        return {}


def quiet_logs() -> None:
    """Let handlers in this process format their log lines as ever, and nobody read them."""
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the log handler keeps it as long as the process lives
    with redirect_stdout(nowhere):
        configure_logging(INVOCATION)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
