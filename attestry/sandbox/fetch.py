"""Reads inputs from presigned URLs, checking size and SHA-256 while the bytes arrive.

No redirect is followed and no proxy is used: a presigned URL answers by itself. URLs never appear in a message, because
whoever holds one may read the object.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

from attestry.sandbox.errors import FetchError, TamperedFileError
from attestry.sandbox.job import Input

CHUNK = 1 << 20
ATTEMPTS = 3
TIMEOUT_SECONDS = 30.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: the redirect's own status becomes the error."""


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def fetch_document(url: str, *, max_bytes: int, name: str = "job") -> dict[str, Any]:
    """Return the JSON object behind a URL.

    Args:
        url: presigned GET, http or https.
        max_bytes: a longer document is refused.
        name: what to call it in an error.

    Raises:
        FetchError: it cannot be read, is too long, or is not a JSON object.
    """
    body = fetch_bytes(url, max_bytes=max_bytes, name=name)
    try:
        document = json.loads(body)
    except ValueError as error:
        raise FetchError(f"{name} is not JSON") from error
    if not isinstance(document, dict):
        raise FetchError(f"{name} is not a JSON object")
    return document


def fetch_bytes(url: str, *, max_bytes: int, name: str) -> bytes:
    """Return what is behind a URL.

    Raises:
        FetchError: it cannot be read or is longer than `max_bytes`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _open(url, name) as response:
                body = response.read(max_bytes + 1)
            if len(body) > max_bytes:
                raise FetchError(f"{name} is longer than {max_bytes} bytes")
            return bytes(body)
        except _PASSING as error:
            _wait_or_give_up(error, attempt, name)
    raise AssertionError("unreachable")


def fetch_file(source: Input, destination: Path) -> None:
    """Write an input to a file that must not exist, and check it on the way.

    Args:
        source: URL, expected size in bytes and SHA-256.
        destination: the file; its folder is made.

    Raises:
        TamperedFileError: size or digest differ from what the input says; nothing is left behind.
        FetchError: it cannot be read.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _open(source.url, source.path) as response, destination.open("xb") as sink:
                _copy_checked(response, sink, source)
        except _PASSING as error:
            destination.unlink(missing_ok=True)
            _wait_or_give_up(error, attempt, source.path)
        except FetchError:
            destination.unlink(missing_ok=True)
            raise
        else:
            return


_PASSING = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def _open(url: str, name: str) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://")):
        raise FetchError(f"{name}: only http and https URLs are read")
    try:
        response: http.client.HTTPResponse = _opener.open(url, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise ConnectionError(f"HTTP {error.code}") from error
        raise FetchError(f"{name} cannot be read: HTTP {error.code}") from error
    except ValueError as error:
        raise FetchError(f"{name}: the URL is malformed") from error
    return response


def _copy_checked(response: http.client.HTTPResponse, sink: BinaryIO, source: Input) -> None:
    digest = hashlib.sha256()
    size = 0
    while chunk := response.read(CHUNK):
        size += len(chunk)
        if size > source.size:
            raise TamperedFileError(f"{source.path} is longer than the {source.size} bytes that were recorded")
        digest.update(chunk)
        sink.write(chunk)
    if size != source.size:
        raise TamperedFileError(f"{source.path} has {size} bytes, recorded were {source.size}")
    if digest.hexdigest() != source.sha256:
        raise TamperedFileError(f"{source.path} has SHA-256 {digest.hexdigest()}, recorded was {source.sha256}")


def _wait_or_give_up(error: Exception, attempt: int, name: str) -> None:
    if attempt == ATTEMPTS:
        reason = getattr(error, "reason", error)
        raise FetchError(f"{name} cannot be read: {reason}") from error
    time.sleep(0.2 * 3 ** (attempt - 1))
