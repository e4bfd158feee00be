"""One embedded registry for all tests of a session, shared by the workers of pytest-xdist."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from attestry.local import process
from attestry.local.stack import LocalStack, down, up

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[LocalStack]:
    """The running registry; the first worker starts it, the last one stops it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "embedded"
    shared.mkdir(exist_ok=True)
    data = shared / "data"
    # Two small models of the flows may run on every executor, as the examples may.
    os.environ.setdefault("ATTESTRY_JOB_MODELS", "radius-threshold,made-elsewhere")
    os.environ.setdefault("ATTESTRY_SYNTHESIS_DIR", str(ROOT / "build" / "embedded-cdk.out"))
    with _users(shared, +1):
        running = up(data, None if (data / "server.lock").exists() else process.free_port())
    try:
        yield running
    finally:
        with _users(shared, -1) as left:
            if left == 0:
                down(data)


@contextmanager
def _users(shared: Path, change: int) -> Iterator[int]:
    """Count who uses the registry, and keep everybody else waiting meanwhile."""
    with (shared / "users").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        count = int(file.read() or "0") + change
        file.seek(0)
        file.truncate()
        file.write(str(count))
        file.flush()
        yield count


@pytest.fixture(scope="session")
def session_for(stack: LocalStack) -> Callable[[str], boto3.Session]:
    """Sessions by profile; a session is made once, as its role has to be assumed."""
    made: dict[str, boto3.Session] = {}

    def session(profile: str) -> boto3.Session:
        if profile not in made:
            made[profile] = stack.session(profile)
        return made[profile]

    return session


@pytest.fixture
def model_name() -> Callable[[], str]:
    """Names of models that no other test uses."""
    return lambda: f"m-{uuid.uuid4().hex[:12]}"
