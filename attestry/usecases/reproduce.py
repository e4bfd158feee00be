"""Reproduce: run the recorded recipe of a version again, and say on the version what came out.

Rules:
- The second run is a version of its own, of the same manifest, source, environment and data, and its cause says whose. Its pipeline ends
  with VALIDATION: nobody decides on it, and nothing deploys it.
- The function that records the end of that VALIDATION compares the two, and moves the version that was to be reproduced: the verdict is an
  event of its own, attested with everything that differed.
- A run that failed says nothing, and is tried again under its number; gates say nothing either, since what is deployed may have changed.

VERSION#<model>#<number>/REPRODUCTION#<number of the run>      the comparison
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from attestry.domain.cause import CauseKind, is_reproduction
from attestry.domain.errors import ConditionFailedError, ConflictError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.reproduction import compare_runs
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex
from attestry.evidence.predicates import REPRODUCTION, Predicate
from attestry.ports import Key, MetaStore, ObjectStore, Put
from attestry.usecases.attest import Attestor
from attestry.usecases.manifests import load_manifest
from attestry.usecases.records import Move, load_version, move_writes, version_key
from attestry.usecases.refresh import Refreshed, Refresher, Trigger

REPRODUCED: Final = "version.reproduced"
TRIES: Final = 8


def reproduction_key(model: str, number: int, run: int) -> Key:
    """Return the key of the comparison of a version with a run that was to reproduce it."""
    return Key(version_key(model, number).partition, f"REPRODUCTION#{run:09d}")


def ask_reproduction(
    refresher: Refresher, meta: MetaStore, model: str, number: int, *, request: str, reason: str, by: Principal, at: datetime
) -> Refreshed:
    """Start a second run of a version's recipe; the same request again starts no other.

    Raises:
        NotFoundError: no such version.
        ConflictError: the version is out of use, a reproduction itself, or has no metrics yet that could be compared.
        UnprovenIdentityError: the caller maps to no person.
    """
    version = load_version(meta, model, number)
    if not version.version_digest or not version.metrics:
        raise ConflictError(f"{version.reference} is in {version.stage} {version.status}: there is nothing yet that could be compared")
    by.require_person("ask for a reproduction")
    trigger = Trigger(CauseKind.REPRODUCTION, by, reason, identity={"version": number, "request": request})
    return refresher.refresh(model, trigger, at, parent=number)


def is_compared(version: Version, stage: Stage) -> bool:
    """Return whether a run is at the point at which it is compared: a reproduction whose VALIDATION has ended, whatever the gates say."""
    ended = version.stage is Stage.VALIDATION and version.status in (Status.SUCCEEDED, Status.REJECTED)
    return stage is Stage.VALIDATION and ended and is_reproduction(version.cause)


def record_comparison(meta: MetaStore, attestor: Attestor, store: ObjectStore, run: Version, at: datetime) -> str:
    """Compare a run with the version that it was to reproduce, and record the verdict on that; the same again changes nothing.

    Returns:
        The verdict; empty where the version was killed or retired meanwhile, so that nothing is recorded on it any more.

    Raises:
        ConflictError: others kept changing the version.
        UnavailableError: a service failed; the call is made again.
    """
    number = int(run.cause["parent"])
    for _ in range(TRIES):
        there = meta.get(reproduction_key(run.model, number, run.number))
        if there is not None:
            return str(there["verdict"])
        first = load_version(meta, run.model, number)
        if first.standing is Standing.RETIRED:
            return ""
        comparison = compare_runs(first, run, load_manifest(store, first).reproduction)
        content: dict[str, Any] = {
            **comparison.to_item(),
            "version_digest": first.version_digest,
            "run": {"number": run.number, "version_digest": run.version_digest},
            "asked_by": str(run.submitter_person),
        }
        facts = {
            "verdict": comparison.verdict.value,
            "run": run.number,
            "run_digest": run.version_digest,
            "differing": len(comparison.differs),
        }
        reason = f"{run.reference} ran the recipe again: {comparison.verdict.value}"
        by, predicate = registry_principal("reproduction"), Predicate(REPRODUCTION, content)
        evidence = sha256_hex(canonical_bytes(content))
        move = Move(first.stage, first.status, first.standing, REPRODUCED, by, reason, at, evidence, facts, predicate)
        row = {**content, "at": timestamp(at)}
        try:
            meta.transact([*move_writes(first, move, attestor), Put(reproduction_key(run.model, number, run.number), row)])
        except ConditionFailedError:
            continue
        return comparison.verdict.value
    raise ConflictError(f"{run.model}@{number} is being changed by others; try again")
