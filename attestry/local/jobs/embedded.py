"""What the stand-in takes from the embedded AWS: S3 with the rights of a job's role, and packages and images of the registry."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from attestry.aws.meta_store import DynamoMetaStore
from attestry.local.jobs.job import JobFailedError, RefusedError
from attestry.local.patching import load
from attestry.local.settings import ACCOUNT, HOST, REGION
from attestry.sandbox.environments import EnvironmentCache
from attestry.sandbox.job import Input
from attestry.sandbox.workspace import Workspace
from attestry.usecases.records import load_version

_FUNCTION = "attestry-prepare-stage"
_URL_SECONDS = 600
_SESSION_NAME = 64
_SESSION_SECONDS = 12 * 3600
_S3 = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 3, "mode": "standard"})


class EmbeddedWorld:
    """The embedded AWS, seen from its own process.

    Args:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self._endpoint = f"http://{HOST}:{port}"
        self._root = boto3.Session(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
        self._lock = threading.Lock()
        self._cache: EnvironmentCache | None = None
        self._used: set[str] = set()

    def s3_as(self, role_arn: str, session: str, *, by: str, policy: str = "") -> Any:
        """Return an S3 client with the rights of a role, which a service assumes, narrowed by a session policy.

        No caller of STS is a service, so the session is made here, as the emulator makes those of functions.

        Raises:
            RefusedError: there is no such role, or it does not trust the service.
        """
        name = role_arn.rpartition("/")[2]
        role = load("ministack.services.iam")._roles.get_scoped(ACCOUNT, None, name)
        if role is None or not _trusts(role["AssumeRolePolicyDocument"], by):
            raise RefusedError("ValidationException", f"could not assume role {role_arn}: it does not exist, or does not trust {by}")
        keys = (f"ASIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30), secrets.token_urlsafe(60))
        made = {
            "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session[:_SESSION_NAME]}",
            "UserId": f"{role.get('RoleId', name)}:{session[:_SESSION_NAME]}",
            "SecretAccessKey": keys[1],
            "SessionToken": keys[2],
            "Expiration": time.time() + _SESSION_SECONDS,
            "AccountId": ACCOUNT,
            "PrincipalType": "AssumedRole",
            "SessionPolicies": {"Policy": policy} if policy else None,
        }
        load("ministack.services.sts").register_session(keys[0], made)
        return boto3.Session(*keys, region_name=REGION).client("s3", endpoint_url=self._endpoint, config=_S3)

    def packages_of(self, tags: Mapping[str, str]) -> Path:
        """Return the folder of the packages of the version that a job's tags name.

        Raises:
            JobFailedError: it has no environment archive.
        """
        variables = self._variables()
        try:
            model, number = tags["attestry:model"], int(tags["attestry:version"])
        except (KeyError, ValueError) as error:
            raise JobFailedError("ClientError: the stand-in runs jobs of the registry alone, whose tags name a version") from error
        environment = load_version(DynamoMetaStore(self._client("dynamodb"), variables["ATTESTRY_TABLE"]), model, number).environment
        archive = environment.archive if environment else None
        if archive is None:
            raise JobFailedError("ClientError: the stand-in runs no images, and the version has no environment archive: name a lock file")
        place = {"Bucket": variables["ATTESTRY_STORE"], "Key": archive.key, "VersionId": archive.version_id}
        url = self._root.client("s3", endpoint_url=self._endpoint, config=_S3).generate_presigned_url("get_object", place, _URL_SECONDS)
        with self._lock:
            self._cache = self._cache or EnvironmentCache(Workspace())
            # Kept for as long as the server runs: a job that goes on must not lose what it imports.
            self._used.add(archive.sha256)
            return self._cache.get(Input("environment.zip", url, archive.size, archive.sha256), in_use=self._used)

    def image_of(self, service: str, made_of_it: str) -> str:
        """Return the image of a job definition or an application, by the registry's own setting.

        Raises:
            RefusedError: there is none of that name.
        """
        name = {"batch": "batch_definitions", "emr-serverless": "emr_applications"}[service]
        known: dict[str, str] = json.loads(self._variables().get("ATTESTRY_JOBS", "{}")).get(name, {})
        for image, made in known.items():
            if made == made_of_it:
                return image
        if service == "batch":
            raise RefusedError("ClientException", f"JobDefinition {made_of_it} not found")
        raise RefusedError("ResourceNotFoundException", f"Application {made_of_it} does not exist")

    def _variables(self) -> dict[str, str]:
        """Return what the function that makes requests was told; the same goes for who answers them."""
        found = self._client("lambda").get_function_configuration(FunctionName=_FUNCTION)
        return dict(found["Environment"]["Variables"])

    def _client(self, service: str) -> Any:
        return self._root.client(service, endpoint_url=self._endpoint)  # type: ignore[call-overload]  # the stubs want a literal


def _trusts(document: Any, service: str) -> bool:
    """Return whether a trust policy lets a service of this account assume the role."""
    policy = json.loads(document) if isinstance(document, str) else document
    for statement in policy["Statement"]:
        named = statement.get("Principal", {})
        services = named.get("Service", []) if isinstance(named, dict) else []
        account = statement.get("Condition", {}).get("StringEquals", {}).get("aws:SourceAccount", ACCOUNT)
        if statement["Effect"] == "Allow" and service in ([services] if isinstance(services, str) else services) and account == ACCOUNT:
            return True
    return False
