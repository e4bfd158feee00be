"""Requests to addresses that users of the registry gave, sent so that they reach nothing but the internet.

Rules:
- A name is looked up once, every address that it has is judged, and the connection goes to the address that was judged: a name that
  answers something else a moment later (DNS rebinding) leads nowhere else.
- TLS is checked for the name, with the certificates of this machine's store.
- No redirect is followed, no proxy is used, no cookie or credential is sent.
- Everything after the connection ends within a limit of its own, however slowly the other side drips; of the answer, at most 1 KiB of the
  body is read, and nothing of it is kept or shown: an answer tells a caller its status and no more.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from attestry.domain.errors import InvalidInputError, UnavailableError
from attestry.domain.webhooks import Target, read_target, require_loopback, require_public

LIMIT_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 1024
USER_AGENT: Final = "attestry-webhooks/1"

Resolve = Callable[[str, int], list[Any]]


def look_up(host: str, port: int) -> list[Any]:
    """Return what the system's resolver says of a name, in the form of `socket.getaddrinfo`."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


class WebhookSender:
    """`attestry.ports.Sender` over sockets of the standard library.

    Args:
        loopback: http to the loopback address is allowed, which only the embedded AWS asks for.
        refused_ports: ports of the loopback address that are not connected to: the embedded AWS's own.
        resolve: looks names up.
        context: TLS settings; by default the system's certificates, and TLS 1.2 at least.
        seconds: limit of one request after its connection, and of the connection itself.
    """

    def __init__(
        self,
        *,
        loopback: bool = False,
        refused_ports: Collection[int] = (),
        resolve: Resolve = look_up,
        context: ssl.SSLContext | None = None,
        seconds: float = LIMIT_SECONDS,
    ) -> None:
        self._loopback = loopback
        self._refused_ports = frozenset(refused_ports)
        self._resolve = resolve
        self._context = context or ssl.create_default_context()
        self._seconds = seconds

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send a POST once and return the answer's status.

        Raises:
            InvalidInputError: the URL, or an address of its name, is one that requests may not go to; nothing was sent.
            UnavailableError: no connection, or no answer in time.
        """
        target = read_target(url, loopback=self._loopback)
        address = self._judged(target)
        try:
            with self._connected(target, address) as (connection, in_time):
                connection.request(
                    "POST", target.path, body, {**headers, "user-agent": USER_AGENT, "host": target.netloc, "connection": "close"}
                )
                answer = connection.getresponse()
                answer.read(MAX_ANSWER_BYTES)
                if not in_time():
                    # What was cut off looks like an answer that had come to its end.
                    raise TimeoutError
                return answer.status
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError(f"{target.netloc} gave no answer: {type(error).__name__}") from error

    def _judged(self, target: Target) -> Any:
        """Return the one address to connect to; a name of which any address is forbidden has none."""
        try:
            found = self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise UnavailableError(f"{target.host} has no address") from error
        if not found:
            raise UnavailableError(f"{target.host} has no address")
        for *_, address in found:
            if target.secure:
                require_public(str(address[0]))
            else:
                require_loopback(str(address[0]))
        if not target.secure and target.port in self._refused_ports:
            raise InvalidInputError.of("url", "port", f"port {target.port} of the loopback address is the embedded AWS's own")
        return found[0]

    @contextmanager
    def _connected(self, target: Target, address: Any) -> Iterator[tuple[http.client.HTTPConnection, Callable[[], bool]]]:
        family, kind, protocol, _, place = address
        with socket.socket(family, kind, protocol) as plain:
            plain.settimeout(self._seconds)
            plain.connect(place)
            # A descriptor of its own: TLS takes over the first, and closes it.
            spare = plain.dup()
            late = threading.Event()
            end = threading.Timer(self._seconds, _hang_up, [spare, late])
            end.start()
            try:
                # The name that was looked up is the name that the certificate has to be for.
                secured = self._context.wrap_socket(plain, server_hostname=target.host) if target.secure else plain
                connection = http.client.HTTPConnection(target.host, target.port, timeout=self._seconds)
                connection.sock = secured
                try:
                    yield connection, lambda: not late.is_set()
                finally:
                    connection.close()
            finally:
                end.cancel()
                end.join()
                spare.close()


def _hang_up(connection: socket.socket, late: threading.Event) -> None:
    """End a connection, also for the thread that waits on it: a limit for each read alone would let a slow sender go on for ever."""
    late.set()
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
