"""A job of the stand-in: its states, and what refuses or ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from attestry.local.jobs.container import Ended
from attestry.local.settings import ACCOUNT, REGION


class RefusedError(Exception):
    """A service refuses a call.

    Attributes:
        code: the service's code of the error.
        message: a sentence.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class JobFailedError(Exception):
    """A job cannot go on, for a reason that is not its script's."""


class Outcome(StrEnum):
    """What a job has come to."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


@dataclass
class Job:
    """One job.

    Attributes:
        service: as `infra` and the registry name it, for example `sagemaker-training`.
        name: its name.
        key: what the service finds it by: its name, or an ID of the service's.
        arn: its ARN.
        request: what it was started with, named as the API names it.
        image: the image that it names, or that what it names was made of.
        tags: its tags.
        execution: ARN of the execution that waits for it; empty where none does.
        created, started, ended: seconds since 1970.
        outcome: what it has come to.
        reason: why it failed or was stopped, in the service's words.
        message: what the container left about its end.
        ending: how its container ended.
    """

    service: str
    name: str
    key: str
    arn: str
    request: Mapping[str, Any]
    image: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    execution: str = ""
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    outcome: Outcome = Outcome.RUNNING
    reason: str = ""
    message: str = ""
    ending: Ended | None = None
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    @property
    def exit_code(self) -> int | None:
        """Exit code of the container, as a shell tells it; None where none ran."""
        if self.ending is None:
            return None
        return self.ending.exit_code if self.ending.exit_code >= 0 else 128 - self.ending.exit_code

    @property
    def seconds(self) -> int:
        """How long it ran, rounded up to a whole second."""
        if self.started is None:
            return 0
        return max(1, round((self.ended or time.time()) - self.started))

    def stop(self) -> None:
        """Have it stopped."""
        self._stop.set()

    def is_to_stop(self) -> bool:
        """Whether somebody wants it stopped."""
        return self._stop.is_set()

    def wait(self, seconds: float | None) -> bool:
        """Wait for its end, and return whether it came in time."""
        return self._over.wait(seconds)

    def end(self, outcome: Outcome, reason: str = "") -> None:
        """Let it have ended."""
        self.ended, self.outcome, self.reason = time.time(), outcome, reason
        self._over.set()


class World(Protocol):
    """What the services need besides their own state."""

    def s3_as(self, role_arn: str, session: str, *, by: str, policy: str = "") -> Any:
        """Return an S3 client with the rights of a role, which a service assumes, narrowed by a session policy.

        Raises:
            RefusedError: it cannot be assumed.
        """

    def packages_of(self, tags: Mapping[str, str]) -> Path:
        """Return the folder of the packages of the version that a job's tags name.

        Raises:
            JobFailedError: it has no environment archive.
        """

    def image_of(self, service: str, made_of_it: str) -> str:
        """Return the image of a job definition or an application.

        Raises:
            RefusedError: there is none of that name.
        """


def arn(service: str, resource: str) -> str:
    """Return the ARN of a resource of the embedded AWS."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"
