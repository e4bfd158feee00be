"""Where the browser hands the code over: an HTTP listener on this machine, for as long as somebody signs in (RFC 8252, section 7.3).

Rules:
- It listens on the loopback addresses alone, of IPv4 and, where this machine has it, of IPv6: a browser may take `localhost` for either,
  and another user's program must not wait on the one that is left.
- What counts is one GET of the redirect's own path whose `state` is that of this sign-in. Anything else is answered with an error and
  changes nothing: a page that sends the browser here cannot end or take over a sign-in.
- One answer counts, and the first one. The provider's `iss`, where it is there or announced, has to be the provider's (RFC 9207).
- What is shown holds nothing of the request.
"""

from __future__ import annotations

import contextlib
import hmac
import queue
import socket
import sys
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from attestry.client.errors import SignInError
from attestry.client.sign_in.provider import refusal

PATH: Final = "/"
_SILENT_SECONDS: Final = 10
_MAX_FIELDS: Final = 20
_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>attestry</title>
<body style="font: 1.1rem system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem">
<h1 style="font-size: 1.4rem">{title}</h1><p>{sentence}</p></body></html>
"""


@dataclass(frozen=True)
class Page:
    """What the browser is told."""

    status: HTTPStatus
    title: str
    sentence: str


_TAKEN = Page(HTTPStatus.OK, "Your answer has arrived", "Close this page and go back to the terminal: it says whether you are signed in.")
_REFUSED = Page(HTTPStatus.OK, "You are not signed in", "Close this page and go back to the terminal: it says why.")
_FOREIGN = Page(
    HTTPStatus.BAD_REQUEST, "This is not the sign-in that is waited for", "Close this page, and use the one that attestry login opened."
)
_AGAIN = Page(HTTPStatus.BAD_REQUEST, "This sign-in is over", "Close this page; to sign in again, run attestry login.")
_ELSEWHERE = Page(HTTPStatus.NOT_FOUND, "There is nothing here", "Close this page.")


class Loopback:
    """The listener; used as a context, it closes at the end.

    Args:
        port: on which it listens; 0 for any that is free.
        state: which an answer has to name.
        issuer: whose answer it has to be.
        names_issuer: the issuer says that its answers name it.

    Raises:
        SignInError: the port is in use.
    """

    def __init__(self, port: int, state: str, issuer: str, *, names_issuer: bool = False) -> None:
        self._state, self._issuer, self._names_issuer = state, issuer, names_issuer
        self._answers: queue.Queue[str | SignInError] = queue.Queue()
        self._lock = threading.Lock()
        self._is_over = False
        self._servers: list[_Server] = []
        try:
            self._servers.append(_Server(("127.0.0.1", port), self))
            self.port = int(self._servers[0].server_address[1])
            if _has_ipv6():
                self._servers.append(_Server6(("::1", self.port), self))
        except OSError as error:
            self.close()
            raise SignInError(
                f"port {port} of this machine is in use, and the browser would hand over the code there: end what uses it, or choose "
                "another one that the provider lets the client use (--port)"
            ) from error
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            server.serves = True

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the browser."""
        return f"http://localhost:{self.port}{PATH}"

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more."""
        for server in self._servers:
            if server.serves:
                server.shutdown()
            server.server_close()

    def wait(self, seconds: float) -> str:
        """Return the code.

        Raises:
            SignInError: the provider refused, or nobody signed in within the time.
        """
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise SignInError(f"nobody signed in within {seconds / 60:.0f} minutes: run attestry login again") from None
        if isinstance(answer, SignInError):
            raise answer
        return answer

    def judge(self, target: str) -> tuple[Page, str | SignInError | None]:
        """Return what the browser is told, and the code or refusal where the request counts.

        Args:
            target: path and query as they were asked for.
        """
        where = urlsplit(target)
        if where.path != PATH:
            return _ELSEWHERE, None
        try:
            fields = parse_qs(where.query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
        except ValueError:
            return _FOREIGN, None
        # No parameter may stand there twice (RFC 6749, section 3.1).
        given = {name: values[0] for name, values in fields.items() if len(values) == 1}
        if len(given) != len(fields) or not hmac.compare_digest(given.get("state", "").encode(), self._state.encode()):
            return _FOREIGN, None
        answer = self._answer(given)
        if answer is None:
            return _FOREIGN, None
        with self._lock:
            if self._is_over:
                return _AGAIN, None
            self._is_over = True
        return (_REFUSED if isinstance(answer, SignInError) else _TAKEN), answer

    def take(self, answer: str | SignInError) -> None:
        """Hand an answer that counts to who waits."""
        self._answers.put(answer)

    def _answer(self, given: dict[str, str]) -> str | SignInError | None:
        named = given.get("iss", "" if self._names_issuer else self._issuer)
        if named != self._issuer:
            return SignInError("the answer in the browser came from another issuer than the one that was asked")
        if "error" in given:
            return SignInError(f"{self._issuer} refuses: {refusal(given['error'], given.get('error_description'))}")
        return given.get("code") or None


class _Server(ThreadingTCPServer):
    # A port that has just been closed may be taken again at once; on Windows that word would let somebody else listen beside us.
    allow_reuse_address = sys.platform != "win32"
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], loopback: Loopback) -> None:
        self.loopback = loopback
        self.serves = False
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that breaks a connection is no error, and a traceback would show the request."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENT_SECONDS
    """Browsers open connections that they do not use."""

    def do_GET(self) -> None:
        """Answer the browser, and hand on what counts once the page is out."""
        page, answer = self.server.loopback.judge(self.path)
        body = _PAGE.format(title=page.title, sentence=page.sentence).encode()
        try:
            with contextlib.suppress(OSError):
                self.send_response(page.status)
                for name, value in {
                    "Content-Type": "text/html; charset=utf-8",
                    "Content-Length": str(len(body)),
                    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
                    "Cache-Control": "no-store",
                    "Referrer-Policy": "no-referrer",
                    "X-Content-Type-Options": "nosniff",
                    "Connection": "close",
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
        finally:
            if answer is not None:
                self.server.loopback.take(answer)

    def version_string(self) -> str:
        """Name the program, and no versions."""
        return "attestry"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: a request line holds the code."""


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
