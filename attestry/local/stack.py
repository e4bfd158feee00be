"""The embedded registry: `up`, `down`, `status`, and what a running one offers.

    stack = up(".attestry")
    stack.session("dana").client("sts").get_caller_identity()
    down(".attestry")

A server belongs to a data directory, survives the process that started it, and listens on the loopback address only. `up` is
idempotent: it starts what does not run, deploys what changed, and leaves the rest alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.session

from attestry.client.api import RegistryClient
from attestry.client.root_steps import PIN
from attestry.local import issuer, people, process, synthesis
from attestry.local.demo_root import make_demo_root
from attestry.local.deploy import Deployed, Services, deploy
from attestry.local.errors import DataDirectoryError, DeploymentError, NotRunningError
from attestry.local.parity import Difference, Parity, match_properties
from attestry.local.people import Person
from attestry.local.settings import API_URL_PARAMETER, DEFAULT_PORT, REGION, DataDirectory, RootKey, write_private
from attestry.sandbox.workspace import remove_dead_workers

PREFIX = "attestry"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LocalStack:
    """A running embedded registry.

    Attributes:
        data: its data directory.
        endpoint_url: endpoint of every AWS service.
        api_url: start of the registry's HTTP API.
        outputs: outputs of the stack, by key.
        resources: physical IDs of the stack's resources, by logical ID.
        people: logins and their roles.
        parity: how it differs from the synthesised template.
    """

    data: DataDirectory
    endpoint_url: str
    api_url: str
    outputs: Mapping[str, str]
    resources: Mapping[str, str]
    people: tuple[Person, ...]
    parity: Parity = field(repr=False)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.endpoint_url.rsplit(":", 1)[1])

    @property
    def root_pin(self) -> Path:
        """The root of trust that verifiers of this registry pin; a demo root."""
        return self.data.root / PIN

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of the profiles that act as a registry role."""
        return tuple(profile for person in self.people for profile in person.profiles())

    def session(self, profile: str) -> boto3.Session:
        """Return a session with the credentials and the endpoint of a profile, without regard to the environment.

        Args:
            profile: one of `profiles`, or `root` for the account's root.
        """
        session = botocore.session.Session(profile=profile)
        session.set_config_variable("config_file", str(self.data.aws_config))
        session.set_config_variable("credentials_file", str(self.data.aws_credentials))
        return boto3.Session(botocore_session=session)

    def environment(self, profile: str) -> dict[str, str]:
        """Return the variables with which any AWS client, the command line of the registry included, acts as a profile."""
        return {
            "AWS_CONFIG_FILE": str(self.data.aws_config),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.data.aws_credentials),
            "AWS_PROFILE": profile,
        }

    def add_people(self, *added: Person) -> LocalStack:
        """Return the stack with more people, or with other roles of those it has.

        Raises:
            LocalError: a login or a role that cannot be.
        """
        with _alone(self.data):
            key = self.data.prepare()
            everybody = people.ensure(_services(self.endpoint_url, key), self.data, key, PREFIX, added)
        return LocalStack(self.data, self.endpoint_url, self.api_url, self.outputs, self.resources, everybody, self.parity)


@dataclass(frozen=True)
class Status:
    """Whether a server runs on a data directory.

    Attributes:
        running: whether it does.
        pid: its process, if so.
        endpoint_url: endpoint of every AWS service, if so.
        api_url: start of the registry's HTTP API, if it runs and the stack is deployed.
        log: where it logs.
    """

    running: bool
    pid: int | None
    endpoint_url: str | None
    api_url: str | None
    log: str


def up(data_dir: str | os.PathLike[str], port: int | None = None, progress: Progress | None = None) -> LocalStack:
    """Start the embedded AWS where it does not run, deploy the registry where something changed, and return it.

    Args:
        data_dir: data directory; made when it does not exist.
        port: port of the loopback address; by default the one used last on this directory, else 4580.
        progress: is told what happens, a sentence each.

    Raises:
        PortTakenError: another program listens on the port.
        DataDirectoryError: the directory holds something else, was made by another version, or its server uses another port.
        StartFailedError: the server did not come up.
        SynthesisError: the CDK application failed.
        DeploymentError: the template was not taken.
    """
    say = progress or (lambda _: None)
    data = DataDirectory.at(data_dir)
    with _alone(data):
        key = data.prepare()
        server = _running(data, port, key, say, meanwhile=lambda: _synthesise_if_changed(data, say))
        services = _services(server.endpoint_url, key)
        record = _deploy_if_changed(services, data, say)
        issuer.install(services, data)
        api_url = _api_url(server.endpoint_url, record)
        services.client("ssm").put_parameter(Name=API_URL_PARAMETER, Value=api_url, Type="String", Overwrite=True)
        everybody = people.ensure(services, data, key, PREFIX)
        stack = _stack(data, server.endpoint_url, record, everybody)
        make_demo_root(RegistryClient(stack.session("admin"), api_url), data.root, at=datetime.now(UTC), say=say)
        say(f"ready at {api_url}")
        return stack


def down(data_dir: str | os.PathLike[str]) -> bool:
    """Stop the server of a data directory; its data stays.

    Returns:
        Whether one was running.

    Raises:
        LocalError: it does not stop.
    """
    stopped = process.stop(DataDirectory.at(data_dir))
    # Functions that ended with the server cannot clear what they unpacked.
    remove_dead_workers()
    return stopped


def status(data_dir: str | os.PathLike[str]) -> Status:
    """Return whether a server runs on a data directory."""
    data = DataDirectory.at(data_dir)
    server = process.find(data)
    if server is None:
        return Status(False, None, None, None, str(data.log))
    record = _read_record(data)
    return Status(True, server.pid, server.endpoint_url, _api_url(server.endpoint_url, record) if record else None, str(data.log))


def connect(data_dir: str | os.PathLike[str]) -> LocalStack:
    """Return the running, deployed registry of a data directory.

    Raises:
        NotRunningError: there is none.
    """
    data = DataDirectory.at(data_dir)
    server, record = process.find(data), _read_record(data)
    if server is None or record is None:
        raise NotRunningError(f"no embedded registry runs on {data.path}; start one with `attestry up`")
    everybody = tuple(Person(login, tuple(roles)) for login, roles in json.loads(data.people.read_text(encoding="utf-8")).items())
    return _stack(data, server.endpoint_url, record, everybody)


@contextmanager
def _alone(data: DataDirectory) -> Iterator[None]:
    """Let one process at a time change what runs on a data directory."""
    data.refuse_foreign()
    data.path.mkdir(parents=True, exist_ok=True)
    with (data.path / "up.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _running(data: DataDirectory, port: int | None, key: RootKey, say: Progress, meanwhile: Callable[[], None]) -> process.Server:
    found = process.find(data)
    if found is None:
        wanted = port or _last_port(data) or DEFAULT_PORT
        say(f"starting the embedded AWS on port {wanted}")
        return process.start(data, wanted, key, meanwhile)
    if port not in (None, found.port):
        raise DataDirectoryError(
            f"{data.path} is in use by a server on port {found.port}; stop it with `attestry down`, or leave --port out"
        )
    say(f"the embedded AWS runs on port {found.port}")
    return found


def _last_port(data: DataDirectory) -> int | None:
    try:
        return int(json.loads(data.lock.read_text(encoding="utf-8"))["port"])
    except (OSError, ValueError, KeyError):
        return None


def _services(endpoint_url: str, key: RootKey) -> Services:
    return Services(boto3.Session(key.key_id, key.secret, region_name=REGION), endpoint_url)


def _synthesise_if_changed(data: DataDirectory, say: Progress) -> None:
    """Fill the output folder that `_deploy_if_changed` reads, where the sources are others than at the last deployment."""
    root = synthesis.project_root()
    digest, record = synthesis.sources_digest(root), _read_record(data)
    if record is None or record["digest"] != digest:
        _synthesise(data, root, digest, say)


def _synthesise(data: DataDirectory, root: Path, digest: str, say: Progress) -> synthesis.Synthesis:
    return synthesis.synthesise_once(root, Path(os.environ.get("ATTESTRY_SYNTHESIS_DIR") or data.synthesis), digest, say)


def _deploy_if_changed(services: Services, data: DataDirectory, say: Progress) -> dict[str, Any]:
    root = synthesis.project_root()
    digest = synthesis.sources_digest(root)
    record = _read_record(data)
    if record and record["digest"] == digest and _is_deployed(services, record["stack"]):
        say("nothing changed since the last deployment")
        return record
    synthesised = _synthesise(data, root, digest, say)
    say(f"deploying {len(synthesised.template['Resources'])} resources")
    deployed = deploy(services, synthesised, say)
    say("comparing what is deployed with the template, and setting what is missing")
    parity = match_properties(services, synthesised.template, deployed, _read_parity(data))
    write_private(data.parity, parity.to_json())
    say(parity.summary())
    return _write_record(data, digest, deployed)


def _is_deployed(services: Services, stack: str) -> bool:
    client = services.client("cloudformation")
    try:
        found = client.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
    except client.exceptions.ClientError:
        return False
    return found in ("CREATE_COMPLETE", "UPDATE_COMPLETE")


def _read_record(data: DataDirectory) -> dict[str, Any] | None:
    try:
        record = json.loads(data.deployment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _read_parity(data: DataDirectory) -> Parity | None:
    return Parity.from_json(data.parity.read_text(encoding="utf-8")) if data.parity.exists() else None


def _write_record(data: DataDirectory, digest: str, deployed: Deployed) -> dict[str, Any]:
    apis = [
        deployed.resources[name]
        for name, resource in deployed.filtered.template["Resources"].items()
        if resource["Type"] == "AWS::ApiGatewayV2::Api"
    ]
    if len(apis) != 1:
        raise DeploymentError(f"the stack has {len(apis)} HTTP APIs, one is needed")
    record = {
        "digest": digest,
        "stack": deployed.stack,
        "api": apis[0],
        "outputs": dict(deployed.outputs),
        "resources": dict(deployed.resources),
    }
    write_private(data.deployment, json.dumps(record, indent=2))
    return record


def _api_url(endpoint_url: str, record: Mapping[str, Any]) -> str:
    return f"{endpoint_url}/_aws/execute-api/{record['api']}/$default"


def _stack(data: DataDirectory, endpoint_url: str, record: Mapping[str, Any], everybody: Iterable[Person]) -> LocalStack:
    parity = _read_parity(data) or Parity((), 0)
    return LocalStack(data, endpoint_url, _api_url(endpoint_url, record), record["outputs"], record["resources"], tuple(everybody), parity)


__all__ = ["Difference", "LocalStack", "Parity", "Person", "Status", "connect", "down", "status", "up"]
