"""The registry's HTTP API, called with the caller's AWS credentials (SigV4 for `execute-api`).

    client = RegistryClient()                  # the usual AWS credential chain, the address from SSM or ATTESTRY_API_URL
    client.predict("tumour-diagnosis", [{"mean radius": 14.1, ...}])

Every method returns the answer's JSON as it came, and raises `ApiError` for an error of the registry.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from attestry.client.errors import ApiError, EndpointError
from attestry.client.http import Http, is_confidential
from attestry.domain.errors import UnavailableError

API_URL_VARIABLE: Final = "ATTESTRY_API_URL"
API_URL_PARAMETER: Final = "/attestry/api-url"

_SERVICE = "execute-api"
_RETRY_STATUSES = (429, 503)
_DEFAULT_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_CONNECTION_TRIES = 3

Waiting = Callable[[str, float], None]
"""Told why a request waits, and for how many seconds, before it is sent again."""


class RegistryClient:
    """The routes of the API, a method each.

    Args:
        session: credentials and region; by default, the usual AWS chain.
        api_url: start of the API's URL; by default ATTESTRY_API_URL, else SSM parameter `/attestry/api-url`.
        patience_seconds: how long to wait in all while the registry answers that it is busy or not ready (503 with
            Retry-After).
        on_wait: told before each wait.
    """

    def __init__(
        self,
        session: boto3.Session | None = None,
        api_url: str | None = None,
        *,
        patience_seconds: float = 60,
        on_wait: Waiting | None = None,
    ) -> None:
        self._session = session or boto3.Session()
        self._given_url = api_url or os.environ.get(API_URL_VARIABLE)
        self.patience_seconds = patience_seconds
        self._on_wait: Waiting = on_wait or (lambda _why, _seconds: None)
        bundle = self._session._session.get_config_variable("ca_bundle")
        self.http = Http(str(bundle) if bundle else None)

    @cached_property
    def api_url(self) -> str:
        """Where the API is, without a slash at the end.

        Raises:
            EndpointError: nobody says, or it would send signed requests in the clear.
        """
        url = (self._given_url or self._discovered_url()).rstrip("/")
        if not is_confidential(url):
            raise EndpointError(f"the registry's address {url} is neither HTTPS nor on this machine")
        return url

    def whoami(self) -> Any:
        """Return the caller as the registry sees it."""
        return self._get("/v1/me")

    def models(self) -> list[dict[str, Any]]:
        """Return all models."""
        return _rows(self._get("/v1/models"), "models")

    def model(self, model: str) -> Any:
        """Return a model and what is deployed where."""
        return self._get(f"/v1/models/{_part(model)}")

    def versions(self, model: str) -> list[dict[str, Any]]:
        """Return the versions of a model."""
        return _rows(self._get(f"/v1/models/{_part(model)}/versions"), "versions")

    def version(self, model: str, number: int) -> Any:
        """Return all that is recorded of a version."""
        return self._get(_version(model, number))

    def diff(self, model: str, before: int, after: int) -> list[dict[str, Any]]:
        """Return what differs between two versions."""
        return _rows(self._get(f"/v1/models/{_part(model)}/diff", {"from": before, "to": after}), "differences")

    def log(self, model: str, number: int, stage: str) -> Any:
        """Return the log of a stage's latest run."""
        return self._get(f"{_version(model, number)}/logs", {"stage": stage})

    def data(self, model: str, number: int, name: str) -> Any:
        """Return the files of a data set of a version, with URLs that read them."""
        return self._get(f"{_version(model, number)}/data", {"set": name})

    def decide(self, model: str, number: int, decision: str, reason: str) -> Any:
        """Approve or reject a version that waits for it."""
        return self._post(f"{_version(model, number)}/decision", {"decision": decision, "reason": reason})

    def deploy(self, model: str, number: int, reason: str) -> Any:
        """Begin to put an approved version in place."""
        return self._post(f"{_version(model, number)}/deployment", {"reason": reason})

    def rollback(self, model: str, reason: str) -> Any:
        """Put the previous version back in place."""
        return self._post(f"/v1/models/{_part(model)}/rollback", {"reason": reason})

    def retry(self, model: str, number: int, reason: str) -> Any:
        """Try a failed version again."""
        return self._post(f"{_version(model, number)}/retry", {"reason": reason})

    def claim(self, model: str, number: int) -> Any:
        """Make the caller the submitter of a version that was uploaded by hand under the caller's own prefix."""
        return self._post(f"{_version(model, number)}/claim", {})

    def predict(self, model: str, instances: Sequence[Mapping[str, Any]]) -> Any:
        """Return predictions with their ID and receipt; waits while the version loads."""
        return self._post(f"/v1/models/{_part(model)}/predictions", {"instances": list(instances)})

    def trace(self, prediction_id: str, *, deep: bool = False) -> Any:
        """Return the trace document of a prediction; `deep` has every file hashed again."""
        return self._get(f"/v1/predictions/{_part(prediction_id)}/trace", {"deep": "true"} if deep else {})

    def people(self) -> list[dict[str, Any]]:
        """Return the persons and their logins."""
        return _rows(self._get("/v1/people"), "people")

    def add_person(self, person: str, logins: Sequence[str], name: str = "") -> Any:
        """Add a person, or logins to one."""
        return self._post("/v1/people", {"person": person, "logins": list(logins), **({"name": name} if name else {})})

    def announce_upload(self, files: Sequence[Mapping[str, Any]]) -> Any:
        """Announce files (`name`, `size`, `sha256`) and return where each is to be PUT."""
        return self._post("/v1/uploads", {"files": list(files)})

    def submission(self, submission: str) -> Any:
        """Return what became of a submission."""
        return self._get(f"/v1/submissions/{_part(submission)}")

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Send a request and return the answer's JSON.

        While the registry answers 503 or 429 the request is sent again after its Retry-After, until the patience is used
        up. A connection that breaks is tried again for GET alone: it changes nothing.

        Raises:
            ApiError: the registry answered with an error.
            UnavailableError: there is no connection.
            EndpointError: the API's address, or credentials, are not known.
        """
        deadline, failures = time.monotonic() + self.patience_seconds, 0
        while True:
            try:
                answer = self.http.send(self._signed(method, path, query, body))
            except UnavailableError:
                failures += 1
                if method != "GET" or failures >= _CONNECTION_TRIES:
                    raise
                time.sleep(0.2 * 2**failures)
                continue
            if answer.status_code < 400:
                return _json(answer)
            error = ApiError.from_answer(answer.status_code, _json(answer), str(answer.headers.get("x-request-id", "")))
            pause = _pause(answer)
            if error.status not in _RETRY_STATUSES or time.monotonic() + pause > deadline:
                raise error
            self._on_wait(error.message, pause)
            time.sleep(pause)

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self.call("GET", path, query=query)

    def _post(self, path: str, body: Any) -> Any:
        return self.call("POST", path, body=body)

    def _signed(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any) -> AWSRequest:
        url = f"{self.api_url}{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode() if body is not None else b""
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {})}
        request = AWSRequest(method=method, url=url, data=data, headers=headers)
        SigV4Auth(self._credentials(), _SERVICE, self._region()).add_auth(request)
        return request

    def _credentials(self) -> Credentials:
        try:
            credentials = self._session.get_credentials()
            if credentials is None:
                raise EndpointError("no AWS credentials were found; choose a profile, or log in")
            frozen = credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise EndpointError(f"the AWS credentials cannot be used: {error}") from error
        return Credentials(str(frozen.access_key), str(frozen.secret_key), frozen.token)

    def _region(self) -> str:
        if region := self._session.region_name:
            return region
        labels = (urlsplit(self.api_url).hostname or "").split(".")
        if len(labels) > 3 and labels[1] == _SERVICE:
            return labels[2]
        raise EndpointError("no AWS region is set; choose a profile that has one, or set AWS_REGION")

    def _discovered_url(self) -> str:
        try:
            parameter = self._session.client("ssm").get_parameter(Name=API_URL_PARAMETER)
        except (BotoCoreError, ClientError) as error:
            raise EndpointError(
                f"the registry's address is not known: {API_URL_VARIABLE} is not set, and the SSM parameter "
                f"{API_URL_PARAMETER} cannot be read: {error}"
            ) from error
        return str(parameter["Parameter"].get("Value", ""))


def _version(model: str, number: int) -> str:
    return f"/v1/models/{_part(model)}/versions/{number}"


def _part(text: str) -> str:
    return quote(text, safe="")


def _rows(body: Any, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = body[name]
    return rows


def _json(answer: AWSResponse) -> Any:
    try:
        return json.loads(answer.content)
    except ValueError:
        # A proxy on the way answers in HTML; what counts then is the status.
        return None


def _pause(answer: AWSResponse) -> float:
    text = str(answer.headers.get("Retry-After", ""))
    return min(float(text), _LONGEST_PAUSE) if text.isdigit() else _DEFAULT_PAUSE
