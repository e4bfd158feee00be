"""What the demo is made of: its error, a consumer that goes on asking, and small tools."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from attestry.client.api import RegistryClient
from attestry.domain.errors import AttestryError

MODEL = "tumour-diagnosis"


class DemoError(AttestryError):
    """A step of the demo did not do what it should."""

    code = "demo_failed"


def expect(holds: bool, what: str) -> None:
    """Go on only if it holds.

    Raises:
        DemoError: it does not.
    """
    if not holds:
        raise DemoError(what)


@dataclass
class Answers:
    """Predictions made one after the other by a consumer that knows nothing of deployments, each with the version that it names."""

    client: RegistryClient
    rows: Sequence[Mapping[str, float]]
    versions: list[int] = field(default_factory=list)
    error: Exception | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Answers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        index = 0
        try:
            while not self._stop.wait(0.1):
                answer = self.client.predict(MODEL, [self.rows[index % len(self.rows)]])
                expect(signed_version(answer) == answer["version"], "an answer names another version than its receipt")
                self.versions.append(int(answer["version"]))
                index += 1
        except AttestryError as error:
            self.error = error


def signed_version(answer: Mapping[str, Any]) -> int:
    """Return the number of the version that an answer's receipt is signed for."""
    payload = str(answer["receipt"]).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return int(str(claims["version"]).split(":")[3])


def seconds_of(record: Mapping[str, Any]) -> str:
    """Return how long a recorded run took, as text."""
    if not record:
        return ""
    begun, ended = (datetime.fromisoformat(str(record[k])) for k in ("started", "ended"))
    return f"{(ended - begun).total_seconds():.1f}"


def short(value: Any) -> str:
    """Return a value as one line of a table."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command.

    Raises:
        DemoError: it failed, with what it printed.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own commands
    if done.returncode:
        raise DemoError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
