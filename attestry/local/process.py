"""Starting, finding and stopping the server process of a data directory.

Who holds the lock of a data directory is its server; the lock goes with the process, so that a crash leaves nothing to clean up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attestry.local.errors import DataDirectoryError, LocalError, PortTakenError, StartFailedError
from attestry.local.settings import ACCOUNT, HOST, REGION, DataDirectory, RootKey

_ALLOWED = (
    "PATH",
    "HOME",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "LD_LIBRARY_PATH",
    "PYTHONPYCACHEPREFIX",
)
_ALLOWED_PREFIXES = ("LC_", "PIP_")
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_LOG_TAIL_LINES = 15
_LOG_LIMIT_BYTES = 20 * 1024 * 1024

CONCURRENCY = 96
"""Executions of functions at once, each a process; 16 callers at once need up to three each, and the pipeline some more."""

WARM_SECONDS = 120
"""How long a surplus process of a function is kept; the first one of each function is kept for good."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        pid: its process.
        port: where it listens on the loopback address.
    """

    pid: int
    port: int

    @property
    def endpoint_url(self) -> str:
        """The endpoint of every service."""
        return f"http://{HOST}:{self.port}"


def environment(data: DataDirectory, port: int, key: RootKey) -> dict[str, str]:
    """Return the whole environment of the server, which its functions inherit: an allow-list of ours and the emulator's settings."""
    kept = {name: value for name, value in os.environ.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    never_by_proxy = f"{HOST},localhost"
    return {
        "PATH": os.defpath,
        **kept,
        "NO_PROXY": never_by_proxy,
        "no_proxy": never_by_proxy,
        "TMPDIR": str(data.scratch),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "ATTESTRY_LOCAL_DATA": str(data.path),
        "AUTH": "true",
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "AWS_ACCESS_KEY_ID": key.key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        # A function has its role's credentials and no others: not the profile files or the instance of whoever started this.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(data.state),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(data.objects),
        "CLOUDTRAIL_RECORDING": "1",
        # On a laptop receivers of webhooks are on the laptop as well.
        "ATTESTRY_WEBHOOK_LOOPBACK": "on",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",
        "LAMBDA_ACCOUNT_CONCURRENCY": str(CONCURRENCY),
        "LAMBDA_WARM_TTL_SECONDS": str(WARM_SECONDS),
        "LOG_LEVEL": "WARNING",
    }


def find(data: DataDirectory) -> Server | None:
    """Return the server that holds the lock of a data directory, or None."""
    try:
        with data.lock.open("r+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(data)
    except FileNotFoundError:
        pass
    return None


def _holder(data: DataDirectory) -> Server:
    # The holder writes its name just after it took the lock.
    for _ in range(50):
        try:
            found = json.loads(data.lock.read_text(encoding="utf-8"))
            return Server(int(found["pid"]), int(found["port"]))
        except (ValueError, KeyError):
            time.sleep(0.02)
    raise DataDirectoryError(f"{data.lock} is held by a process that does not say who it is")


def start(data: DataDirectory, port: int, key: RootKey, meanwhile: Callable[[], None] = lambda: None) -> Server:
    """Start the server and wait until it answers.

    Args:
        data: data directory.
        port: port of the loopback address.
        key: the root key.
        meanwhile: what can be done while the server starts, which takes seconds; what it raises is raised.

    Raises:
        PortTakenError: another process listens on the port.
        DataDirectoryError: another server came first.
        StartFailedError: the process ended, or did not answer in time.
    """
    if not port_is_free(port):
        raise PortTakenError(f"port {port} on {HOST} is taken by another program; choose another one with --port")
    if data.log.exists() and data.log.stat().st_size > _LOG_LIMIT_BYTES:
        data.log.replace(data.log.with_suffix(".log.1"))
    with data.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "attestry.local.server"],
            env=environment(data, port, key),
            cwd=data.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    meanwhile()
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartFailedError(f"the server ended with exit code {process.returncode}; the end of {data.log}:\n{log_tail(data)}")
        if _answers(port):
            return Server(process.pid, port)
        time.sleep(0.1)
    process.terminate()
    raise StartFailedError(f"the server did not answer within {_START_SECONDS:.0f} s; the end of {data.log}:\n{log_tail(data)}")


def stop(data: DataDirectory) -> bool:
    """Stop the server and wait until it has saved its state.

    Returns:
        Whether one was running.

    Raises:
        LocalError: it does not stop.
    """
    server = find(data)
    if server is None:
        return False
    os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        _reap(server.pid)
        if find(data) is None:
            return True
        time.sleep(0.05)
    raise LocalError(f"process {server.pid} does not stop; its state is not saved yet, so it was not killed")


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # it is the child of an earlier process
        os.waitpid(pid, os.WNOHANG)


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on the port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port of the loopback address that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/_ministack/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def log_tail(data: DataDirectory) -> str:
    """Return the last lines of the server's log."""
    try:
        lines = data.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_TAIL_LINES:])
