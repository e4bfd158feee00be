"""Follow a version through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from attestry.client.api import RegistryClient
from attestry.domain.errors import UnavailableError

PIPELINE_SECONDS: Final = 3600
_POLL_SECONDS = (0.5, 5.0)

Moved = Callable[[str, str, str], None]
"""Told stage, status and standing whenever one of them has changed."""


class Rest(StrEnum):
    """Where a version rests, so that nothing moves it by itself any more."""

    FAILED = "FAILED"
    REJECTED = "REJECTED"
    WAITING = "WAITING"
    DEPLOYED = "DEPLOYED"
    COMPARED = "COMPARED"


@dataclass(frozen=True)
class Followed:
    """A version at rest.

    Attributes:
        rest: why it rests.
        version: the version, as the API shows it.
    """

    rest: Rest
    version: Mapping[str, Any]

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong: it is deployed, waits for people, or was compared with what it was to reproduce."""
        return self.rest in (Rest.WAITING, Rest.DEPLOYED, Rest.COMPARED)


def rest_of(version: Mapping[str, Any]) -> Rest | None:
    """Return where a version rests, or None while the pipeline moves it."""
    stage, status = version["stage"], version["status"]
    if status == "REJECTED":
        return Rest.REJECTED
    if status == "FAILED":
        return Rest.FAILED
    if stage == "APPROVAL" and status == "RUNNING":
        # A policy that asks nobody decides in a moment, unless it first needs to know who submitted.
        decides_itself = (version.get("approval_policy") or {}).get("automatic") and version.get("submitter_person")
        return None if decides_itself else Rest.WAITING
    if stage == "DEPLOYMENT" and status == "SUCCEEDED":
        return Rest.DEPLOYED
    cause = version.get("cause") or {}
    if stage == "VALIDATION" and status == "SUCCEEDED" and cause.get("kind") == "reproduction":
        return Rest.COMPARED
    if stage == "APPROVAL" and status == "SUCCEEDED" and cause.get("deploy") == "people":
        return Rest.WAITING
    return None


def wait_for_version(
    client: RegistryClient,
    model: str,
    number: int,
    *,
    moved: Moved | None = None,
    through_approval: bool = False,
    timeout_seconds: float = PIPELINE_SECONDS,
) -> Followed:
    """Follow a version until it is deployed, waits for people, failed or was rejected.

    Args:
        client: the registry.
        model: the model's name.
        number: the version's number.
        moved: told every change.
        through_approval: go on while the version waits for people.
        timeout_seconds: how long to follow it.

    Raises:
        UnavailableError: it still moves after that time.
    """
    deadline, pause, seen = time.monotonic() + timeout_seconds, _POLL_SECONDS[0], ("", "", "")
    while True:
        version = client.version(model, number)
        state = (str(version["stage"]), str(version["status"]), str(version["standing"]))
        if state != seen:
            seen, pause = state, _POLL_SECONDS[0]
            if moved:
                moved(*state)
        rest = rest_of(version)
        if rest is not None and not (rest is Rest.WAITING and through_approval):
            return Followed(rest, version)
        if time.monotonic() + pause > deadline:
            raise UnavailableError(f"{model}@{number} is still in {state[0]} {state[1]} after {timeout_seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.2, _POLL_SECONDS[1])
