"""The registry on the embedded AWS as its people and its functions use it, and the versions that the flow tests share.

A pipeline costs seconds and two environments about a minute, so each version is made once for the session, by the fixture that is
named after what became of it. Tests read them; a test that changes one puts it back.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError

from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.object_store import S3ObjectStore
from attestry.aws.signer import KmsSigner
from attestry.client.api import RegistryClient
from attestry.client.submit import PreparedSubmission, prepare_submission, submit
from attestry.client.wait import Followed, wait_for_version
from attestry.domain.version import Version
from attestry.local.settings import ACCOUNT, REGION
from attestry.local.stack import LocalStack, Person
from attestry.usecases.attest import Attestor
from attestry.usecases.records import load_version

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "manifests" / "tumour-diagnosis"
SMALL_MODEL = "radius-threshold"
LABEL = "malignant"
SECONDS = 480
"""How long anything may take; two environments are built in the first minute."""

APPROVERS = tuple(f"approver-{n:02d}" for n in range(1, 16))
STRANGER = "oscar"
"""May assume the approver's role, but is nobody whom the registry knows."""

POLICY = {
    "format": 1,
    "name": "examples",
    "rules": [
        {
            "name": "high-risk",
            "applies": {"models": ["tumour-diagnosis"], "risk_tiers": ["high"], "environments": ["production"]},
            "approval": {"persons": 1, "roles": {"approver": 1}},
            "gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.95}], "required": ["model.owner"]},
        }
    ],
}
"""Asks for somewhat less than the example's manifest does."""

PROCESS = """
import os, pandas as pd
frame = pd.concat(pd.read_csv(os.path.join(os.environ["SM_CHANNEL_SOURCE"], n)) for n in os.listdir(os.environ["SM_CHANNEL_SOURCE"]))
for name, part in (("train", frame[frame.index % 4 > 0]), ("holdout", frame[frame.index % 4 == 0])):
    os.makedirs(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], name))
    part.to_parquet(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], name, "part-0.parquet"), index=False)
"""
TRAIN = """
import json, os
settings = json.loads(os.environ["SM_HPS"])
with open(os.path.join(os.environ["SM_MODEL_DIR"], "model.json"), "w") as file:
    json.dump({"threshold": settings["threshold"], "seconds_to_load": settings["seconds_to_load"]}, file)
print("threshold", settings["threshold"])
"""
INFERENCE = """
import json, os, time
import pandas as pd

def model_fn(model_dir):
    with open(os.path.join(model_dir, "model.json")) as file:
        model = json.load(file)
    time.sleep(model["seconds_to_load"])
    return model

def predict_fn(data, model):
    radius = data["mean_radius"].astype(float)
    return pd.DataFrame({"malignant": (radius > model["threshold"]).astype(int), "probability": (radius / 30).clip(0, 1)})
"""


def run(folder: Path, *command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def commit(folder: Path, message: str = "A model") -> None:
    """Commit everything in a project."""
    run(folder, "git", "add", "--all")
    author = ("-c", "user.name=dana", "-c", "user.email=dana@example.com", "-c", "commit.gpgsign=false")
    run(folder, "git", *author, "commit", "--quiet", "--allow-empty", "--message", message)


def refusal(call: Callable[..., Any], **arguments: Any) -> str:
    """The error code of an AWS call, or an empty text when it went through."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def until(holds: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Wait until it holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} within {seconds:.0f} s"
        time.sleep(0.1)
    return found


def at_once(calls: int, act: Callable[[int], Any]) -> list[Any]:
    """Do the same in parallel, and return what each gave."""
    with ThreadPoolExecutor(calls) as pool:
        return list(pool.map(act, range(calls)))


@dataclass(frozen=True)
class Answer:
    """What the API answered to one request, without any retry."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    seconds: float

    @property
    def body(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.raw or b"null")

    @property
    def code(self) -> str:
        """The registry's code of the error; `gateway` for what the gateway itself refused."""
        if self.status < 400:
            return ""
        return str(self.body["code"]) if isinstance(self.body, dict) and "code" in self.body else "gateway"

    @property
    def fields(self) -> dict[str, str]:
        """Field and rule of every problem with the input."""
        return {p["field"]: p["rule"] for p in self.body["problems"]}


@dataclass(frozen=True)
class Upload:
    """A submission of which everything is there but the manifest."""

    submission: str
    manifest_key: str
    finish: Callable[[], None]


@dataclass
class Registry:
    """The registry, seen from outside by profile, and from inside as root or as one of its functions' roles."""

    stack: LocalStack
    folder: Path
    _sessions: dict[str, boto3.Session] = field(default_factory=dict)
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)
    _projects: int = 0

    def session(self, profile: str) -> boto3.Session:
        """A session of a person's profile, or of one that `assume` gave."""
        if profile not in self._sessions:
            self._sessions[profile] = self.stack.session(profile)
        return self._sessions[profile]

    def client(self, profile: str) -> RegistryClient:
        """The registry's client with a profile's credentials."""
        return RegistryClient(self.session(profile), self.stack.api_url, patience_seconds=SECONDS)

    def aws(self, service: str, profile: str = "root") -> Any:
        """A client of a service that tries once, so that a refusal is seen as it comes."""
        if (service, profile) not in self._clients:
            self._clients[service, profile] = self._make_client(service, profile)
        return self._clients[service, profile]

    def _make_client(self, service: str, profile: str) -> Any:
        settings: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "read_timeout": 120, "max_pool_connections": 32}
        if service == "s3":
            settings |= {"signature_version": "s3v4", "s3": {"addressing_style": "path"}}
        return self.session(profile).client(service, config=Config(**settings), endpoint_url=self.stack.endpoint_url)

    def assume(self, role: str, session_name: str, *, profile: str = "root") -> str:
        """Assume a role under a session name of the caller's choice, and return the profile that it makes."""
        name = f"{profile} as {role}/{session_name}"
        if name not in self._sessions:
            arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
            given = self.aws("sts", profile).assume_role(RoleArn=arn, RoleSessionName=session_name)["Credentials"]
            keys = (given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
            self._sessions[name] = boto3.Session(*keys, region_name=REGION)
        return name

    def as_function(self, function: str) -> str:
        """The profile of a function's own role; only the account's root of the embedded AWS can assume it besides Lambda."""
        name = f"attestry-{function.replace('_', '-')}"
        return self.assume(f"{name}-function", name)

    def call(self, profile: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request to the API; a body of bytes goes as it is."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(method, self.stack.api_url + path, data=data, headers={"Content-Type": "application/json", **(headers or {})})
        credentials = self.session(profile).get_credentials()
        assert credentials is not None
        SigV4Auth(credentials.get_frozen_credentials(), "execute-api", REGION).add_auth(request)
        begun = time.monotonic()
        sent = urllib.request.Request(request.url, data or None, dict(request.headers), method=method)
        try:
            with urllib.request.urlopen(sent, timeout=60) as answer:
                status, headers, raw = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, raw = error.code, error.headers, error.read()
        return Answer(status, {k.lower(): v for k, v in headers.items()}, raw, time.monotonic() - begun)

    def attestry(self, profile: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run `attestry` with a person's profile; it has to succeed."""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self.stack.environment(profile)}
        return subprocess.run([sys.executable, "-m", "attestry.cli.main", *arguments], env=environment, capture_output=True, check=True)

    def invoke(self, function: str, payload: Mapping[str, Any], **arguments: Any) -> Any:
        """Invoke a function of the registry and return its answer; one that is at its concurrency is asked again."""
        client = self.aws("lambda")
        name = f"attestry-{function.replace('_', '-')}"

        def once() -> Any:
            try:
                return client.invoke(FunctionName=name, Payload=json.dumps(payload).encode(), **arguments)
            except client.exceptions.TooManyRequestsException:
                return None

        answer = until(once, f"{name} was free")
        body = json.loads(answer["Payload"].read() or b"null")
        assert "FunctionError" not in answer, body
        return body

    @property
    def meta(self) -> DynamoMetaStore:
        """The table, as root."""
        return DynamoMetaStore(self.aws("dynamodb"), self.stack.outputs["MetaTable"])

    @property
    def store(self) -> S3ObjectStore:
        """The model store, as root."""
        return S3ObjectStore(self.aws("s3"), self.bucket)

    def attestor(self, function: str) -> Attestor:
        """What attests moves with the key of a function, in that function's role."""
        configuration = self.aws("lambda").get_function_configuration(FunctionName=f"attestry-{function.replace('_', '-')}")
        key = configuration["Environment"]["Variables"]["ATTESTRY_SIGNING_KEY"]
        return Attestor(KmsSigner(self.aws("kms", self.as_function(function)), key), self.store)

    @property
    def bucket(self) -> str:
        """Name of the model store's bucket."""
        return self.stack.outputs["StoreBucket"]

    def head(self, model: str, number: int) -> Version:
        """The version as the table has it."""
        return load_version(self.meta, model, number)

    def rows(self, model: str, number: int, prefix: str) -> list[dict[str, Any]]:
        """Rows of a version's partition."""
        return self.meta.query(f"VERSION#{model}#{number}", prefix=prefix)

    def kinds(self, model: str, number: int) -> list[str]:
        """What happened to a version, in order."""
        return [str(row["kind"]) for row in self.rows(model, number, "TRANSITION#")]

    def keys(self, prefix: str) -> list[str]:
        """Keys of the model store."""
        pages = self.aws("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def example_project(self) -> Path:
        """The example of manifests/ in a git repository of its own, with its data."""
        folder = self._project()
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("data", "__pycache__"), dirs_exist_ok=True)
        return self._finish(folder)

    def small_project(self, *, model: str = SMALL_MODEL, edit: Callable[[dict[str, Any]], None] | None = None, **scripts: str) -> Path:
        """A project with the example's data and environment, and with scripts that take no time.

        Args:
            model: the model's name.
            edit: changes the manifest.
            scripts: other texts of `process`, `train` or `inference`.
        """
        folder = self._project()
        manifest = yaml.safe_load((EXAMPLE / "manifest.yaml").read_text())
        manifest["model"]["name"] = model
        manifest["processing"]["parameters"] = {}
        manifest["training"]["hyperparameters"] = {"threshold": 15.0, "seconds_to_load": 0}
        manifest["gates"] = {"metrics": [{"metric": "recall_score", "minimum": 0.5}]}
        manifest["validation"]["metrics"] = [{"name": "recall_score"}, {"name": "roc_auc_score"}]
        if edit:
            edit(manifest)
        (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
        for name, text in {"process": PROCESS, "train": TRAIN, "inference": INFERENCE, **scripts}.items():
            (folder / f"{name}.py").write_text(text)
        shutil.copy(EXAMPLE / "requirements.lock", folder)
        shutil.copy(EXAMPLE / "get_data.py", folder)
        return self._finish(folder)

    def submit(self, project: Path, *, profile: str = "dana") -> tuple[str, int]:
        """Submit a project, and return the version that it became."""
        submitted = submit(self.client(profile), project)
        return submitted.model, submitted.version

    def rest(self, model: str, number: int, *, through_approval: bool = False) -> Followed:
        """Wait until a version waits for approval or has ended, or with `through_approval` until it has ended."""
        return wait_for_version(self.client("grace"), model, number, through_approval=through_approval, timeout_seconds=SECONDS)

    def until_recorded(self, model: str, number: int, stage: str, attempt: int) -> None:
        """Wait until the run of a stage has ended."""

        def ended() -> bool:
            runs = self.rows(model, number, f"STAGE#{stage}#{attempt:03d}")
            return any(run["status"] != "RUNNING" for run in runs)

        until(ended, f"attempt {attempt} of {stage} ended")

    def made(self, project: Path) -> tuple[str, int]:
        """Submit a project, and return the version once it waits for its approval."""
        model, number = self.submit(project)
        followed = self.rest(model, number)
        assert followed.rest == "WAITING", followed.version["error"]
        return model, number

    def approve(self, model: str, number: int) -> None:
        """Approve a version as another person, and wait until it is in place."""
        self.client("erin").decide(model, number, "approve", "the gates hold")
        followed = self.rest(model, number, through_approval=True)
        assert followed.rest == "DEPLOYED", followed.version["error"]

    def upload_by_hand(self, files: Mapping[str, bytes], *, submission: str, profile: str = "dana") -> str:
        """Put files below the caller's own prefix as the S3 console does, in this order; return the last one's key."""
        user_id, s3, key = self.aws("sts", profile).get_caller_identity()["UserId"], self.aws("s3", profile), ""
        for name, content in files.items():
            key = f"candidates/{user_id}/{submission}/{name}"
            s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        return key

    def upload(self, prepared: PreparedSubmission, manifest: bytes, *, profile: str = "dana") -> Upload:
        """Upload a submission through the API with another manifest, up to that."""
        client = self.client(profile)
        contents = {f.name: f.content if isinstance(f.content, bytes) else f.content.read_bytes() for f in prepared.files}
        contents["manifest.json"] = manifest
        announced = [{"name": n, "size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()]
        grant = client.announce_upload(announced)
        places = {place["name"]: place for place in grant["uploads"]}

        def put(name: str) -> None:
            answer = client.http.put(places[name]["url"], places[name]["headers"], contents[name])
            assert answer.status_code == 200, answer.text

        for name in contents.keys() - {"manifest.json"}:
            put(name)
        return Upload(str(grant["submission"]), places["manifest.json"]["key"], lambda: put("manifest.json"))

    def outcome(self, manifest_key: str) -> dict[str, Any]:
        """The status object beside a manifest, once it is there."""
        key = f"{manifest_key}.status.json"
        found: dict[str, Any] = json.loads(until(lambda: self._object(key), f"{key} was written"))
        return found

    def decide_in_console(self, profile: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Start `RegistryDecision` as the AWS console does, and return the execution once it has ended."""
        states, root = self.aws("stepfunctions", profile), self.aws("stepfunctions")
        arn = states.start_execution(stateMachineArn=self.stack.outputs["DecisionArn"], input=json.dumps(body))["executionArn"]
        described: dict[str, Any] = until(
            lambda: (found := root.describe_execution(executionArn=arn))["status"] != "RUNNING" and found, "RegistryDecision ended"
        )
        return described

    def forget_processes(self, function: str) -> None:
        """Have the next call of a function begin in a new execution environment, as after a while without calls."""
        client, name = self.aws("lambda"), f"attestry-{function.replace('_', '-')}"
        seconds = client.get_function_configuration(FunctionName=name)["Timeout"]
        client.update_function_configuration(FunctionName=name, Timeout=seconds)

        def is_updated() -> bool:
            found = client.get_function_configuration(FunctionName=name)
            return (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful")

        until(is_updated, f"{name} was updated")

    def _object(self, key: str) -> bytes | None:
        s3 = self.aws("s3")
        try:
            body: bytes = s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return body

    def _project(self) -> Path:
        self._projects += 1
        folder = self.folder / f"project-{self._projects}"
        folder.mkdir()
        return folder

    def _finish(self, folder: Path) -> Path:
        shutil.copytree(example_data(), folder / "data")
        (folder / ".gitignore").write_text("data/\n")
        run(folder, "git", "init", "--quiet", "--initial-branch=main")
        run(folder, "git", "remote", "add", "origin", "https://git.example.com/models.git")
        commit(folder)
        return folder


@cache
def example_data() -> Path:
    """The folder with the example's data, which its own script writes."""
    folder = Path(tempfile.mkdtemp(prefix="attestry-flows-"))
    shutil.copy(EXAMPLE / "get_data.py", folder)
    run(folder, sys.executable, "get_data.py")
    return folder / "data"


def example_rows() -> list[dict[str, float]]:
    """Measurements as a consumer sends them."""
    with (example_data() / "breast_cancer.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items() if k != LABEL} for row in csv.DictReader(stream)]


@pytest.fixture(scope="session")
def registry(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with its people: who submits, who approves, and somebody whom it does not know."""
    people = [Person("dana", ("scientist", "approver")), *(Person(login, ("approver",)) for login in (*APPROVERS, STRANGER))]
    registry = Registry(stack.add_people(*people), tmp_path_factory.mktemp("projects"))
    admin = registry.client("admin")
    for login in ("dana", "erin", "frank", "grace", *APPROVERS):
        admin.add_person(login, [login])
    return registry


@pytest.fixture(scope="session")
def policy(registry: Registry) -> dict[str, Any]:
    """What the registry asks of the example's versions, published from the command line by an admin."""
    registry.stack.add_people(Person("alex", ("admin",)))
    registry.client("admin").add_person("alex", ["alex"])
    file = registry.folder / "policy.json"
    file.write_text(json.dumps(POLICY))
    publish = ("policy", "publish", str(file), "--reason", "minutes of the committee", "--json")
    published: dict[str, Any] = json.loads(registry.attestry("alex", *publish).stdout)
    return published


@pytest.fixture(scope="session")
def deployed(registry: Registry, policy: dict[str, Any]) -> tuple[str, int]:
    """The example's first version, held against a policy, approved by another person and in place."""
    model, number = registry.made(registry.example_project())
    registry.approve(model, number)
    return model, number


@pytest.fixture(scope="session")
def prepared(registry: Registry) -> PreparedSubmission:
    """A small submission before it leaves; tests send it with manifests of their own."""
    return prepare_submission(registry.small_project())
