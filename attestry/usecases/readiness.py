"""Readiness: what a version is asked before it comes into place: that its files are as recorded, that it loads, that it can be halted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from attestry.domain.errors import IntegrityError, StageFailedError
from attestry.domain.rollout import Plan
from attestry.domain.version import Version
from attestry.ports import Alarms, Functions, ObjectStore
from attestry.usecases.serving import load_request

WARM_CALL_SECONDS = 60


def check_frozen_files(store: ObjectStore, version: Version, *, gone: Collection[tuple[str, str]] = ()) -> None:
    """Check that below `frozen/` there is exactly what was recorded: every file in its recorded S3 version, nothing else, nothing on top.

    Args:
        store: the model store.
        version: the version.
        gone: keys and S3 versions of what may be missing, because it was disposed.

    Raises:
        IntegrityError: naming the files that differ.
    """
    recorded = {f.key: f.version_id for f in (*version.frozen, *((version.artifact,) if version.artifact else ()))}
    problems: list[str] = []
    seen: set[str] = set()
    prefix = f"{version.folder}/frozen/"
    for entry in store.list_versions(prefix):
        name = entry.key.removeprefix(prefix)
        if entry.key not in recorded:
            problems.append(f"{name} was added")
        elif entry.version_id == recorded[entry.key]:
            seen.add(entry.key)
            if not entry.is_latest:
                problems.append(f"{name} lies below a later version or delete marker")
        elif entry.is_latest:
            problems.append(f"{name} was deleted" if entry.is_delete_marker else f"{name} was changed")
    problems += [f"{key.removeprefix(prefix)} is missing" for key in recorded if key not in seen and (key, recorded[key]) not in gone]
    if problems:
        raise IntegrityError(
            f"frozen files of {version.reference} are not as recorded: {'; '.join(sorted(set(problems)))}",
            details={"files": sorted(set(problems))},
        )


def warm(
    functions: Functions,
    store: ObjectStore,
    version: Version,
    *,
    inference: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Have the inference function load the version, verifying every file against the version digest.

    Raises:
        IntegrityError: a file differs from the artifact manifest.
        StageFailedError: the model does not load, or not in time.
    """
    deadline = clock() + seconds
    while True:
        payload = {
            "version_digest": version.version_digest,
            "instances": None,
            "load": load_request(store, version, deadline_seconds=WARM_CALL_SECONDS),
        }
        answer = functions.call(inference, payload, tenant=version.execution_id)
        status = answer.get("status")
        if status == "READY":
            return
        if status == "REFUSED":
            raise IntegrityError(f"{version.reference} was refused at load: {answer.get('error')}")
        if status == "FAILED":
            raise StageFailedError(f"{version.reference} does not load: {answer.get('error')}")
        if clock() > deadline:
            raise StageFailedError(f"{version.reference} was not loaded within {seconds:.0f} s")


def check_alarms(alarms: Alarms, plan: Plan) -> None:
    """Check that the alarms that are to halt a rollout are there: one that is not would never halt it.

    Raises:
        StageFailedError: naming those that are not.
    """
    missing = sorted(set(plan.alarms) - set(alarms.states(plan.alarms))) if plan.alarms else []
    if missing:
        raise StageFailedError(f"the alarm {missing[0]} that is to halt the rollout is not there")
