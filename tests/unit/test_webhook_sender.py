"""Requests to strangers' addresses reach the internet and nothing else, and no answer of theirs holds the registry up."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestry.aws import webhook_sender
from attestry.aws.webhook_sender import WebhookSender
from attestry.domain.errors import InvalidInputError, UnavailableError

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NAME = "hooks.example.org"

Serve = Callable[[socket.socket], None]


@contextmanager
def server(serve: Serve, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on the loopback address that gives each connection to a function; yields its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) if context else connection as plain:
                    serve(plain)
            except OSError:
                continue

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


class Receiver:
    """Keeps what it receives and answers the same each time."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.received: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"!"):
            if not (more := connection.recv(65536)):
                break
            data += more
        self.received.append(data)
        connection.sendall(self.answer)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS settings for a name, and those of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    return serving, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())


def addresses(*found: str) -> Callable[[str, int], list[Any]]:
    """A resolver that says the same of every name."""

    def resolve(_: str, port: int) -> list[Any]:
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in one], socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    return resolve


def near(**changes: Any) -> WebhookSender:
    return WebhookSender(loopback=True, **{"seconds": 1.0, **changes})


def test_a_request_arrives_as_it_was_given_and_its_status_comes_back() -> None:
    receiver = Receiver()
    with server(receiver) as port:
        assert near().post(f"http://127.0.0.1:{port}/a?b=c", {"webhook-id": "1"}, b"body!") == 200
    (request,) = receiver.received
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert body == b"body!"
    lines = head.lower().split(b"\r\n")
    assert {b"webhook-id: 1", f"host: 127.0.0.1:{port}".encode(), b"content-length: 5", b"connection: close"} <= set(lines)
    assert sum(line.startswith(b"host:") for line in lines) == 1


@pytest.mark.parametrize(
    "found",
    [
        ("169.254.169.254",),
        ("10.0.0.7",),
        ("127.0.0.1",),
        ("93.184.215.14", "127.0.0.1"),
        ("::ffff:169.254.169.254",),
        ("fd00:ec2::254",),
        ("2606:2800:21f::1", "fe80::1"),
    ],
)
def test_a_name_that_has_an_address_inside_is_not_connected_to(found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(InvalidInputError, match="no address of the internet"):
        WebhookSender(resolve=addresses(*found)).post("https://hooks.example.org/", {}, b"!")


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254/", "https://2130706433/", "https://0x7f000001/", "https://[::1]/", "https://localhost/"]
)
def test_an_address_in_the_place_of_a_name_is_judged_like_any_other(url: str) -> None:
    with pytest.raises((InvalidInputError, UnavailableError)):
        WebhookSender().post(url, {}, b"!")


def test_a_name_is_looked_up_once_and_the_connection_goes_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS that answers the internet first and the metadata service a moment later."""
    asked: list[str] = []
    connected: list[Any] = []

    def rebinding(host: str, port: int) -> list[Any]:
        asked.append(host)
        return addresses("93.184.215.14" if len(asked) == 1 else "169.254.169.254")(host, port)

    def connect(_: socket.socket, place: Any) -> None:
        connected.append(place)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the name was looked up again"))
    with pytest.raises(UnavailableError, match=r"hooks\.example\.org gave no answer: ConnectionRefusedError"):
        WebhookSender(resolve=rebinding).post("https://hooks.example.org/", {}, b"!")
    assert (asked, connected) == ([NAME], [("93.184.215.14", 443)])


def secure(monkeypatch: pytest.MonkeyPatch, port: int, context: ssl.SSLContext) -> WebhookSender:
    """A sender for which the loopback address passes for one of the internet."""
    monkeypatch.setattr(webhook_sender, "require_public", lambda address: address)
    return WebhookSender(resolve=addresses("127.0.0.1"), context=context, seconds=2.0)


def test_tls_is_spoken_with_the_name_and_checked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving, trusting = certificate(tmp_path, NAME)
    names: list[str | None] = []
    serving.sni_callback = lambda _, name, __: names.append(name)
    receiver = Receiver()
    with server(receiver, serving) as port:
        assert secure(monkeypatch, port, trusting).post(f"https://{NAME}:{port}/", {}, b"body!") == 200
    assert names == [NAME]
    assert receiver.received[0].endswith(b"body!")


def test_a_certificate_for_another_name_or_of_nobody_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, trusting = certificate(tmp_path, "other.example.org")
    receiver = Receiver()
    with server(receiver, serving) as port:
        for context in (trusting, ssl.create_default_context()):
            with pytest.raises(UnavailableError, match="SSLCertVerificationError"):
                secure(monkeypatch, port, context).post(f"https://{NAME}:{port}/", {}, b"body!")
    assert receiver.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(status: int) -> None:
    inside = Receiver()
    with server(inside) as metadata:
        answer = f"HTTP/1.1 {status} Moved\r\nlocation: http://127.0.0.1:{metadata}/latest/meta-data/\r\ncontent-length: 0\r\n\r\n".encode()
        with server(Receiver(answer)) as port:
            assert near().post(f"http://127.0.0.1:{port}/", {}, b"body!") == status
    assert inside.received == []


def drip(head: bytes) -> Serve:
    """Send a byte now and then, for ever: no single wait is long."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head)
        while True:
            time.sleep(0.05)
            connection.sendall(b"x")

    return serve


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n"])
def test_a_slow_answer_ends_at_the_limit_however_it_drips(head: bytes) -> None:
    with server(drip(head)) as port:
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            near(seconds=0.5).post(f"http://127.0.0.1:{port}/", {}, b"body!")
        assert time.monotonic() - began < 2


def test_a_server_that_never_speaks_tls_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(drip(b"")) as port:
        one = secure(monkeypatch, port, ssl.create_default_context())
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            one.post(f"https://{NAME}:{port}/", {}, b"body!")
        assert time.monotonic() - began < 4


def test_of_a_large_answer_little_is_read() -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        for _ in range(2_000):
            connection.sendall(b"x" * 65536)
            sent += 65536

    with server(flood) as port:
        assert near().post(f"http://127.0.0.1:{port}/", {}, b"body!") == 200
    assert sent < 100_000_000


@pytest.mark.parametrize(
    "answer", [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"]
)
def test_what_is_no_http_answer_is_no_answer(answer: bytes) -> None:
    with server(Receiver(answer)) as port, pytest.raises(UnavailableError, match=f"127.0.0.1:{port} gave no answer"):
        near().post(f"http://127.0.0.1:{port}/", {}, b"body!")


def test_http_is_for_the_loopback_address_alone_and_never_for_the_embedded_aws_itself() -> None:
    with pytest.raises(InvalidInputError, match="https://"):
        WebhookSender().post("http://127.0.0.1:9/", {}, b"!")
    with pytest.raises(InvalidInputError, match="not the loopback address"):
        near(resolve=addresses("10.0.0.1")).post("http://localhost:9/", {}, b"!")
    with pytest.raises(InvalidInputError, match="the embedded AWS's own"):
        near(refused_ports={4580}).post("http://127.0.0.1:4580/_ministack/reset", {}, b"!")
    with pytest.raises(InvalidInputError, match="no address of the internet"):
        near(resolve=addresses("127.0.0.1")).post("https://hooks.example.org/", {}, b"!")


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, receiver = Receiver(), Receiver()
    with server(proxy) as other, server(receiver) as port:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{other}")
        near().post(f"http://127.0.0.1:{port}/", {}, b"body!")
    assert (len(receiver.received), proxy.received) == (1, [])
