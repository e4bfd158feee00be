"""Deploying the synthesised template to the embedded AWS, by CloudFormation as on AWS."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from attestry.local.errors import DeploymentError
from attestry.local.settings import ACCOUNT, REGION
from attestry.local.synthesis import Asset, Synthesis
from attestry.local.template import Filtered, filter_template

BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
_BOOTSTRAP_VERSION = "30"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_POLL_SECONDS = 0.2
_DEPLOY_SECONDS = 300.0
_UNKNOWN_TYPES = re.compile(r"Unrecognized resource types: \[([^\]]*)\]")
_FAILED_FOR_GOOD = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED")
_NOTHING_TO_DO = "No updates are to be performed"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Services:
    """Clients of the embedded AWS with the rights of the account's root."""

    session: boto3.Session
    endpoint_url: str
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def client(self, service: str) -> Any:
        """Return the client of a service, which is made once: some take half a second, and every resource is asked for."""
        if service not in self._made:
            # The stubs want a literal name; which service it is, the callers know.
            make = cast("Callable[..., Any]", self.session.client)
            config = Config(retries={"max_attempts": 3, "mode": "standard"})
            self._made[service] = make(service, endpoint_url=self.endpoint_url, config=config)
        return self._made[service]


@dataclass(frozen=True)
class Deployed:
    """A deployed stack.

    Attributes:
        stack: its name.
        outputs: output key to value.
        resources: logical to physical ID.
        filtered: the template that was deployed.
    """

    stack: str
    outputs: Mapping[str, str]
    resources: Mapping[str, str]
    filtered: Filtered


def deploy(services: Services, synthesis: Synthesis, say: Say) -> Deployed:
    """Create or update the stack.

    Args:
        services: clients.
        synthesis: what CDK gave.
        say: is told what happens.

    Raises:
        DeploymentError: CloudFormation refused the template or failed.
    """
    bootstrap(services)
    for asset in synthesis.assets:
        upload(services, asset)
    say(f"uploaded {len(synthesis.assets)} assets")
    cloudformation = services.client("cloudformation")
    filtered = filter_template(synthesis.template, unknown_types(services, synthesis.template))
    url = _upload_template(services, filtered.template)
    _change_stack(cloudformation, synthesis.stack, url)
    _wait(cloudformation, synthesis.stack)
    say(f"deployed {len(filtered.template['Resources'])} resources")
    return describe(services, synthesis.stack, filtered)


def describe(services: Services, stack: str, filtered: Filtered) -> Deployed:
    """Return what the stack consists of."""
    cloudformation = services.client("cloudformation")
    outputs = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    resources = [
        entry
        for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
        for entry in page["StackResourceSummaries"]
    ]
    return Deployed(
        stack,
        {entry["OutputKey"]: entry["OutputValue"] for entry in outputs},
        {entry["LogicalResourceId"]: entry["PhysicalResourceId"] for entry in resources},
        filtered,
    )


def bootstrap(services: Services) -> None:
    """Make what `cdk bootstrap` makes and a deployment needs: the parameter with the version, and the bucket of assets."""
    services.client("ssm").put_parameter(Name=BOOTSTRAP_PARAMETER, Value=_BOOTSTRAP_VERSION, Type="String", Overwrite=True)
    s3 = services.client("s3")
    try:
        s3.head_bucket(Bucket=_bucket("cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"))
    except ClientError:
        s3.create_bucket(Bucket=_bucket("cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"))


def _bucket(name: str) -> str:
    return name.replace("${AWS::AccountId}", ACCOUNT).replace("${AWS::Region}", REGION).replace("${AWS::Partition}", "aws")


def upload(services: Services, asset: Asset) -> None:
    """Put an asset where the template expects it, unless it is there: keys are digests."""
    s3, bucket = services.client("s3"), _bucket(asset.bucket)
    try:
        s3.head_object(Bucket=bucket, Key=asset.key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        body = archive(asset.source) if asset.zipped else asset.source.read_bytes()
        s3.put_object(Bucket=bucket, Key=asset.key, Body=body)


def archive(folder: Path) -> bytes:
    """Return a folder as a zip whose bytes depend on names and contents alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                file.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def unknown_types(services: Services, template: Mapping[str, Any]) -> set[str]:
    """Return the resource types of a template that the emulator does not know, asked of it by a template of one resource per type."""
    types = sorted({resource["Type"] for resource in template["Resources"].values()})
    probe = {"Resources": {f"R{index}": {"Type": kind} for index, kind in enumerate(types)}}
    try:
        services.client("cloudformation").validate_template(TemplateBody=json.dumps(probe))
    except ClientError as error:
        if found := _UNKNOWN_TYPES.search(error.response["Error"]["Message"]):
            return {kind.strip() for kind in found.group(1).split(",")}
        raise DeploymentError(f"the embedded AWS refuses the template: {error.response['Error']['Message']}") from error
    return set()


def _upload_template(services: Services, template: Mapping[str, Any]) -> str:
    bucket = _bucket("cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}")
    key = "embedded.template.json"
    services.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(template).encode())
    return f"{services.endpoint_url}/{bucket}/{key}"


def _change_stack(cloudformation: Any, stack: str, url: str) -> None:
    if _status(cloudformation, stack) in _FAILED_FOR_GOOD:
        # Such a stack takes no update; what has to be kept, its template keeps.
        cloudformation.delete_stack(StackName=stack)
        _wait_until_gone(cloudformation, stack)
    arguments = {"StackName": stack, "TemplateURL": url, "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]}
    try:
        if _status(cloudformation, stack) in (None, "DELETE_COMPLETE"):
            cloudformation.create_stack(**arguments, OnFailure="DO_NOTHING")
        else:
            cloudformation.update_stack(**arguments)
    except ClientError as error:
        message = error.response["Error"]["Message"]
        if _NOTHING_TO_DO not in message:
            raise DeploymentError(f"the embedded AWS refuses the template: {message}") from error


def _wait_until_gone(cloudformation: Any, stack: str) -> None:
    deadline = time.monotonic() + _DEPLOY_SECONDS
    while time.monotonic() < deadline:
        if _status(cloudformation, stack) in (None, "DELETE_COMPLETE"):
            return
        time.sleep(_POLL_SECONDS)
    raise DeploymentError(f"the failed stack {stack} cannot be deleted")


def _status(cloudformation: Any, stack: str) -> str | None:
    try:
        return str(cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
    except ClientError:
        return None


def _wait(cloudformation: Any, stack: str) -> None:
    deadline = time.monotonic() + _DEPLOY_SECONDS
    while time.monotonic() < deadline:
        status = _status(cloudformation, stack)
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            return
        if status is None or status.endswith(("_FAILED", "ROLLBACK_COMPLETE", "DELETE_COMPLETE")):
            raise DeploymentError(f"the stack ended in {status}:\n{_failures(cloudformation, stack)}")
        time.sleep(_POLL_SECONDS)
    raise DeploymentError(f"the stack is not deployed after {_DEPLOY_SECONDS:.0f} s")


def _failures(cloudformation: Any, stack: str) -> str:
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    failed = [event for event in reversed(events) if event["ResourceStatus"].endswith("_FAILED")]
    return "\n".join(
        f"  {event['LogicalResourceId']} ({event['ResourceType']}): {event.get('ResourceStatusReason', '')}" for event in failed
    )
