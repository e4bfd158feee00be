"""Signs MLflow's requests: AWS Signature Version 4 for `execute-api`, or a bearer token, of `ATTESTRY_TOKEN` or of who is signed in.

MLflow has a signature of its own (`MLFLOW_TRACKING_AWS_SIGV4`). This one differs where that goes wrong: a space in a query is signed as AWS
reads it, a parameter that stands in it twice is signed twice, and a redirect takes no signature along.
"""

from __future__ import annotations

import os
from functools import cache
from urllib.parse import quote, urlsplit, urlunsplit

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import UNAUTHENTICATED
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests import PreparedRequest
from requests.auth import AuthBase

from attestry.client.connection import BEARER_TREE
from attestry.client.sign_in.current import SignedIn, ambient_sign_in
from attestry.domain.errors import AttestryError

NAME = "attestry"
TOKEN_VARIABLE = "ATTESTRY_TOKEN"  # noqa: S105 - the variable's name
DEFAULT_REGION = "us-east-1"


class RegistryAuth(AuthBase):
    """Signs a request when it is sent."""

    def __init__(self) -> None:
        self._session = botocore.session.get_session()
        self._signed_in: dict[str, SignedIn] = {}

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Return the request, signed.

        Raises:
            MlflowException: there are no credentials, or a sign-in has ended.
        """
        token = os.environ.get(TOKEN_VARIABLE) or self._sign_in_token(str(request.url))
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
            return request
        credentials = self._session.get_credentials()
        if credentials is None:
            raise MlflowException("there are no AWS credentials to sign with, no ATTESTRY_TOKEN, and nobody is signed in", UNAUTHENTICATED)
        request.url = _plain(str(request.url))
        region = self._session.get_config_variable("region") or DEFAULT_REGION
        signed = AWSRequest(method=request.method, url=request.url, data=request.body or b"")
        SigV4Auth(credentials.get_frozen_credentials(), "execute-api", region).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request

    def _sign_in_token(self, url: str) -> str:
        """Return the token of who is signed in to the registry of a request; for any other host there is none."""
        api_url, tree, _ = url.partition(f"{BEARER_TREE}/")
        if not tree:
            return ""
        try:
            if api_url not in self._signed_in and (found := ambient_sign_in(api_url)):
                self._signed_in[api_url] = found
            return self._signed_in[api_url].token() if api_url in self._signed_in else ""
        except AttestryError as error:
            raise MlflowException(error.message, UNAUTHENTICATED) from error


class RegistryAuthProvider(RequestAuthProvider):
    """`MLFLOW_TRACKING_AUTH=attestry`."""

    def get_name(self) -> str:
        """Return the name."""
        return NAME

    def get_auth(self) -> RegistryAuth:
        """Return what signs."""
        return _auth()


@cache
def _auth() -> RegistryAuth:
    """Return what signs, one for the process: MLflow asks for it with every request, and to assume a role anew each time takes long."""
    return RegistryAuth()


def _plain(url: str) -> str:
    """Return the URL with each space of its query as `%20`, and its path as AWS reads it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, quote(parts.path, safe="/~%$"), parts.query.replace("+", "%20"), ""))
