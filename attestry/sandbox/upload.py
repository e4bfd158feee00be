"""Sends a file through a presigned POST, as RFC 7578 multipart/form-data, without holding it in memory."""

from __future__ import annotations

import http.client
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from attestry.sandbox.errors import UploadError
from attestry.sandbox.job import Upload

CHUNK = 1 << 20
ATTEMPTS = 3
TIMEOUT_SECONDS = 60.0


def upload_file(file: Path, target: Upload, *, name: str) -> None:
    """Send a file.

    Args:
        file: what to send.
        target: where to, with the form's fields.
        name: what to call it in an error.

    Raises:
        UploadError: it was refused, or the place cannot be reached.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            status, body = _post(file, target)
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                raise UploadError(f"{name}: the upload broke off: {error}") from error
        else:
            if 200 <= status < 300:
                return
            if status < 500 or attempt == ATTEMPTS:
                raise UploadError(f"{name}: the upload was refused: HTTP {status} {_reason(body)}".rstrip())
        time.sleep(0.2 * 3 ** (attempt - 1))


def _post(file: Path, target: Upload) -> tuple[int, bytes]:
    address = urlsplit(target.url)
    if address.scheme not in {"http", "https"} or not address.hostname:
        raise UploadError("the upload's URL is malformed")
    boundary = f"attestry{secrets.token_hex(16)}"
    start, end = _form(target.fields, boundary)
    size = file.stat().st_size
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname, address.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(len(start) + size + len(end))}
    path = f"{address.path or '/'}{'?' + address.query if address.query else ''}"
    try:
        try:
            connection.request("POST", path, body=_stream(start, file, size, end), headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses an upload may close before it has read it all; its reason can still be there to read.
            response = connection.response_class(connection.sock, method="POST")
            response.begin()
            return response.status, response.read(65536)
        answer = connection.getresponse()
        return answer.status, answer.read(65536)
    finally:
        connection.close()


def _form(fields: tuple[tuple[str, str], ...], boundary: str) -> tuple[bytes, bytes]:
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n' for name, value in fields]
    # S3 ignores every field after the file, so it comes last.
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    return "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()


def _quoted(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _stream(start: bytes, file: Path, size: int, end: bytes) -> Iterator[bytes]:
    yield start
    with file.open("rb") as source:
        left = size
        while left and (chunk := source.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
    yield end


def _reason(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    found = [match.group(1) for tag in ("Code", "Message") if (match := re.search(rf"<{tag}>([^<]{{1,300}})</{tag}>", text))]
    return ": ".join(found)
