"""HTTP as botocore does it, so that proxies and CA bundles of the AWS configuration hold here too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final
from urllib.parse import urlsplit

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import EndpointConnectionError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from attestry.domain.errors import UnavailableError

CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 35
"""Longer than the gateway's own 30 seconds, so that its answer is what a caller sees."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Http:
    """Sends requests; one connection pool per host.

    Args:
        ca_bundle: path of a file with certificates; None for botocore's own.
    """

    def __init__(self, ca_bundle: str | None = None) -> None:
        self._verify: Any = ca_bundle or True
        self._sessions: dict[str, URLLib3Session] = {}

    def send(self, request: AWSRequest, *, stream: bool = False) -> AWSResponse:
        """Send a request, signed or presigned.

        Args:
            request: the request.
            stream: leave the answer's body unread in `raw`.

        Raises:
            UnavailableError: no connection, or no answer in time.
        """
        request.stream_output = stream
        where = urlsplit(str(request.url))
        origin = f"{where.scheme}://{where.netloc}"
        try:
            return self._session(origin).send(request.prepare())
        except (HTTPClientError, EndpointConnectionError) as error:
            raise UnavailableError(f"{origin} does not answer: {error}") from error

    def put(self, url: str, headers: Mapping[str, str], body: IO[bytes] | bytes) -> AWSResponse:
        """Send a PUT with exactly these headers."""
        return self.send(AWSRequest(method="PUT", url=url, headers=dict(headers), data=body))

    def get(self, url: str) -> AWSResponse:
        """Send a GET whose answer's body is left to be read from `raw`."""
        return self.send(AWSRequest(method="GET", url=url), stream=True)

    def _session(self, origin: str) -> URLLib3Session:
        session = self._sessions.get(origin)
        if session is None:
            timeout: Any = (CONNECT_SECONDS, READ_SECONDS)
            session = URLLib3Session(verify=self._verify, proxies=get_environ_proxies(origin), timeout=timeout)
            self._sessions[origin] = session
        return session


def is_confidential(url: str) -> bool:
    """Return whether a URL is HTTPS, or stays on this machine."""
    return urlsplit(url).scheme == "https" or is_here(url)


def is_here(url: str) -> bool:
    """Return whether a URL is plain HTTP to this machine."""
    where = urlsplit(url)
    return where.scheme == "http" and where.hostname in _LOOPBACK
