"""The way to the registry's HTTP API: signed with the caller's AWS credentials (SigV4 for `execute-api`), or with a bearer token."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from attestry.client.errors import ApiError, EndpointError
from attestry.client.http import Http, is_confidential
from attestry.domain.errors import UnavailableError

if TYPE_CHECKING:
    from attestry.client.sign_in.current import SignedIn

API_URL_VARIABLE: Final = "ATTESTRY_API_URL"
API_URL_PARAMETER: Final = "/attestry/api-url"
TOKEN_VARIABLE: Final = "ATTESTRY_TOKEN"  # noqa: S105 - a variable's name
BEARER_TREE: Final = "/oidc"
"""Before the paths of the routes that take a bearer token."""

_SERVICE = "execute-api"
_RETRY_STATUSES = (429, 503)
_UNANSWERED_STATUSES = (500, 502, 504)
"""What the gateway says where a function ended without an answer, or not in time."""

_DEFAULT_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_CONNECTION_TRIES = 3
_WITHOUT_KEY = ("/predictions", "/scorings", "/policy-replay", "/v1/uploads", "/v1/imports", "/versions", "/search/models", "/metrics")
"""Ends of the paths whose operations take no idempotency key."""

_WITHOUT_KEY_BELOW = "/v1/webhooks"
"""Beginning of the paths of which that holds as well."""

_ONCE_WITHOUT_KEY = ("/metrics",)
"""Ends of the paths among them whose requests are done once however often they come, by what is in their bodies."""

PAGE_ROWS: Final = 200
"""The most that a page of a list may have."""

Waiting = Callable[[str, float], None]
"""Told why a request waits, and for how many seconds, before it is sent again."""


class Connection:
    """Sends requests to the registry, and waits while it is busy.

    Args:
        session: credentials and region; by default, the usual AWS chain.
        api_url: start of the API's URL; by default ATTESTRY_API_URL, else where `attestry login` signed in last, else SSM
            parameter `/attestry/api-url`.
        token: bearer token of an identity provider, instead of AWS credentials; where no session is given, by default
            ATTESTRY_TOKEN, else that of who is signed in to this very registry (`attestry login`), unless AWS_PROFILE is set.
        patience_seconds: how long to wait in all while the registry answers that it is busy or not ready (503 with
            Retry-After).
        on_wait: told before each wait.
    """

    def __init__(
        self,
        session: boto3.Session | None = None,
        api_url: str | None = None,
        *,
        token: str | None = None,
        patience_seconds: float = 60,
        on_wait: Waiting | None = None,
    ) -> None:
        self._session = session or boto3.Session()
        self._token = token or (os.environ.get(TOKEN_VARIABLE, "") if session is None else "")
        self._takes_sign_in = session is None and not self._token
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
            SignInError: what is kept of a sign-in cannot be read.
        """
        url = (self._given_url or self._signed_in_url() or self._discovered_url()).rstrip("/")
        if not is_confidential(url):
            raise EndpointError(f"the registry's address {url} is neither HTTPS nor on this machine")
        return url

    @property
    def tree_url(self) -> str:
        """Where the routes begin that take this client's credentials, without a slash at the end; errors as of `api_url`."""
        return f"{self.api_url}{BEARER_TREE if self._token or self.signed_in else ''}"

    @cached_property
    def signed_in(self) -> SignedIn | None:
        """Who is signed in to this registry, None where other credentials count; errors as of `api_url`."""
        if not self._takes_sign_in:
            return None
        from attestry.client.sign_in.current import ambient_sign_in

        return ambient_sign_in(self.api_url)

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Send a request and return the answer's JSON.

        While the registry answers 503 or 429, or 409 because the same request is under way, the request is sent again after its
        Retry-After, until the patience is used up. A connection that breaks, and a gateway that got no answer of the registry, are tried
        again for a GET, which changes nothing, and for a request with an idempotency key, which is done once however often it comes.

        Raises:
            ApiError: the registry answered with an error.
            UnavailableError: there is no connection.
            EndpointError: the API's address, or credentials, are not known.
            SignInError: who was signed in is not any more.
        """
        deadline, failures = time.monotonic() + self.patience_seconds, 0
        without = method == "GET" or path.startswith(_WITHOUT_KEY_BELOW) or path.endswith(_WITHOUT_KEY)
        key = "" if without else str(uuid.uuid4())
        while True:
            more = failures + 1 < _CONNECTION_TRIES and (method == "GET" or bool(key) or path.endswith(_ONCE_WITHOUT_KEY))
            try:
                answer = self.http.send(self._signed(method, path, query, body, key))
            except UnavailableError:
                if not more:
                    raise
                failures += 1
                time.sleep(0.2 * 2**failures)
                continue
            if answer.status_code < 400:
                return _json(answer)
            error = ApiError.from_answer(answer.status_code, _json(answer), str(answer.headers.get("x-request-id", "")))
            unanswered = error.by_gateway and error.status in _UNANSWERED_STATUSES
            pause, failures = _pause(answer), failures + unanswered
            again = error.status in _RETRY_STATUSES or error.code == "in_progress" or (unanswered and more)
            if not again or time.monotonic() + pause > deadline:
                raise error
            self._on_wait(error.message, pause)
            time.sleep(pause)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return what is there; errors as of `call`."""
        return self.call("GET", path, query=query)

    def every(self, path: str, name: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of a list, a page when it is needed; `name` is what the answer calls them."""
        asked = {**(query or {}), "limit": PAGE_ROWS}
        while True:
            page = self.get(path, asked)
            yield from page[name]
            if page.get("next") is None:
                return
            asked["cursor"] = page["next"]

    def post(self, path: str, body: Any, query: Mapping[str, Any] | None = None) -> Any:
        """Send a body, and return the answer; errors as of `call`."""
        return self.call("POST", path, query=query, body=body)

    def _signed(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any, key: str = "") -> AWSRequest:
        url = f"{self.tree_url}{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode() if body is not None else b""
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {})}
        if key:
            headers["Idempotency-Key"] = key
        if token := self._token or (self.signed_in.token() if self.signed_in else ""):
            return AWSRequest(method=method, url=url, data=data, headers={**headers, "Authorization": f"Bearer {token}"})
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

    def _signed_in_url(self) -> str:
        if not self._takes_sign_in:
            return ""
        from attestry.client.sign_in.current import ambient_sign_in

        latest = ambient_sign_in()
        return latest.sign_in.settings.api_url if latest else ""

    def _discovered_url(self) -> str:
        try:
            parameter = self._session.client("ssm").get_parameter(Name=API_URL_PARAMETER)
        except (BotoCoreError, ClientError) as error:
            raise EndpointError(
                f"the registry's address is not known: {API_URL_VARIABLE} is not set, and the SSM parameter "
                f"{API_URL_PARAMETER} cannot be read: {error}"
            ) from error
        return str(parameter["Parameter"].get("Value", ""))


def _json(answer: AWSResponse) -> Any:
    try:
        return json.loads(answer.content)
    except ValueError:
        # A proxy on the way answers in HTML; what counts then is the status.
        return None


def _pause(answer: AWSResponse) -> float:
    text = str(answer.headers.get("Retry-After", ""))
    return min(float(text), _LONGEST_PAUSE) if text.isdigit() else _DEFAULT_PAUSE
