"""A server without a stack, for tests of the emulator's patches."""

from __future__ import annotations

import io
import json
import time
import zipfile
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from attestry.local import process
from attestry.local.settings import ACCOUNT, REGION, DataDirectory, RootKey


@dataclass
class BareServer:
    """A running server and its root key."""

    data: DataDirectory
    server: process.Server
    key: RootKey

    def root(self) -> boto3.Session:
        return boto3.Session(self.key.key_id, self.key.secret, region_name=REGION)

    def client(self, service: str, session: boto3.Session | None = None) -> Any:
        return (session or self.root()).client(service, endpoint_url=self.server.endpoint_url, config=Config(retries={"max_attempts": 0}))

    def user(self, name: str, *policies: dict[str, Any], tags: dict[str, str] | None = None) -> boto3.Session:
        iam = self.client("iam")
        iam.create_user(UserName=name, Tags=[{"Key": key, "Value": value} for key, value in (tags or {}).items()])
        if policies:
            iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(document(*policies)))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION)

    def role(self, name: str, trust: dict[str, Any], *policies: dict[str, Any]) -> str:
        iam = self.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document(trust)))["Role"]["Arn"]
        if policies:
            iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=json.dumps(document(*policies)))
        return str(arn)

    def assume(self, session: boto3.Session, role_arn: str, name: str) -> boto3.Session:
        found = self.client("sts", session).assume_role(RoleArn=role_arn, RoleSessionName=name)["Credentials"]
        return boto3.Session(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], region_name=REGION)

    def function(self, name: str, source: str, **settings: Any) -> str:
        role = self.role(f"{name}-function", {**allow("sts:AssumeRole"), "Principal": {"Service": "lambda.amazonaws.com"}})
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("main.py", source)
        client = self.client("lambda")
        arn = client.create_function(
            FunctionName=name, Runtime="python3.13", Handler="main.handler", Role=role, Code={"ZipFile": archive.getvalue()}, **settings
        )["FunctionArn"]
        wait_for(lambda: client.get_function_configuration(FunctionName=name)["State"] == "Active")
        return str(arn)


def allow(action: str, resource: str | None = None, **more: Any) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": action, **more}
    return statement if resource is None else {**statement, "Resource": resource}


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def account_principal() -> dict[str, str]:
    return {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}


def refused(call: Any, **arguments: Any) -> str:
    """The error code of a call that must fail; empty when it does not."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def wait_for(condition: Any, seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
