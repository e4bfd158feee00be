"""Manual transitions: hold a version, release it, try a failed stage again, do one again that has succeeded.

Rules:
- Every act has a role, a person, a reason, and the record of every other move: transition, event and attestation in one transaction.
- No act passes over a stage or a gate. What is done again runs the pipeline's own stage, and every stage behind it follows again.
- PROCESSING can be done again until TRAINING has frozen the version, and VALIDATION until somebody has approved it. What is frozen never
  changes: other data or another training is another version.
- A held version begins no stage, and is neither approved nor put in place. What runs ends and is recorded; one that stands deployed goes on
  serving, because a hold is no switch: `rollback` and `kill` take it out of service.
- Who submitted a version does not release it from somebody else's hold.
- Retry and redo count the next attempt in the transaction of their move: from then on nothing that an earlier attempt still does is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError
from attestry.domain.events import timestamp
from attestry.domain.holds import HELD, RESUMED
from attestry.domain.names import name_execution
from attestry.domain.operations import Operation, require_role
from attestry.domain.principal import Principal
from attestry.domain.stages import PIPELINE, REDOABLE, Stage, Standing, Status, stage_before
from attestry.domain.version import Version, encode
from attestry.ports import Functions, MetaStore, Pipeline
from attestry.usecases.attest import Attestor
from attestry.usecases.executions import go_on, start_attempt
from attestry.usecases.records import Move, approval_key, load_version, move_writes, stage_key, transition_key

REOPENED = "stage.reopened"
RETRIED = "stage.retried"
TRIES = 8
_PUT_IN_USE = frozenset({Standing.APPROVED, Standing.SHADOW, Standing.CANARY, Standing.DEPLOYED, Standing.ROLLBACK})


@dataclass(frozen=True)
class Hand:
    """Who acts on which version, when and why, and the ports that it takes.

    Attributes:
        meta: the table.
        attestor: signs with the acting function's key.
        pipeline: the state machine.
        functions: for the gate.
        gate_function: name of the gate.
        by: the authenticated principal, with its person.
        reason: why, checked.
        at: the time.
    """

    meta: MetaStore
    attestor: Attestor
    pipeline: Pipeline
    functions: Functions
    gate_function: str
    by: Principal
    reason: str
    at: datetime

    def open_import(self, version: Version) -> None:
        """Have the gate open the approval of an imported version."""
        self.functions.send(self.gate_function, {"action": "open_import", "model": version.model, "version": version.number})

    def tell_gate(self, version: Version) -> None:
        """Have the gate look at what waits at the version's approval."""
        self.functions.send(self.gate_function, {"action": "decided", "model": version.model, "version": version.number})


@dataclass(frozen=True)
class Acted:
    """The outcome of a manual transition: the version after it, and whether it changed anything; the same again does not."""

    version: Version
    changed: bool


def hold_version(hand: Hand, model: str, number: int) -> Acted:
    """Hold a version where it is; one that is held stays so, by whom and for what reason it is held already.

    Raises:
        NotFoundError: no such version.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, or maps to no person.
        ConflictError: the version has come to its end, or others kept changing it.
    """
    person = hand.by.require_person("hold a version")

    def move(version: Version) -> _Change | None:
        _check_role(Operation.HOLD, hand.by, version)
        if version.held:
            return None
        if version.standing in (Standing.RETIRED, Standing.REJECTED):
            raise ConflictError(f"{version.reference} stands {version.standing}; there is nothing left to hold")
        held = {"by": person, "reason": hand.reason, "at": timestamp(hand.at)}
        return _Change(version.stage, version.status, HELD, {"held": held})

    return _act(hand, model, number, move)


def release_version(hand: Hand, model: str, number: int) -> Acted:
    """End the hold of a version, which goes on where it was held; of one that is not held, start what stands still.

    Raises:
        NotFoundError: no such version.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, maps to no person, or submitted the version that
            somebody else holds.
        ConflictError: the version was killed or retired, or others kept changing it.
    """
    person = hand.by.require_person("release a version")

    def move(version: Version) -> _Change | None:
        _check_role(Operation.RELEASE, hand.by, version)
        if not version.held:
            return None
        if person == version.submitter_person and person != version.held["by"]:
            raise ForbiddenError(f"{person} submitted {version.reference}, which {version.held['by']} holds; another person releases it")
        return _Change(version.stage, version.status, RESUMED, {"held": {}}, {"held": dict(version.held)})

    acted = _act(hand, model, number, move)
    version = acted.version
    if version.stage is Stage.APPROVAL and version.status is Status.RUNNING:
        # Its policy may approve it by itself.
        hand.tell_gate(version)
    elif version.imported and version.status is Status.SUCCEEDED and version.stage is Stage.IMPORTED:
        hand.open_import(version)
    elif go_on(hand.meta, hand.pipeline, version):
        version = load_version(hand.meta, model, number)
    return Acted(version, acted.changed)


def redo_stage(hand: Hand, model: str, number: int, stage: Stage, *, attempt: int | None = None) -> Acted:
    """Have a stage that has succeeded run again, and every stage behind it, as the next attempt of the same version.

    Args:
        hand: who, and why.
        model: the model's name.
        number: the version's number.
        stage: PROCESSING or VALIDATION.
        attempt: the attempt that is to be followed by another one; where that has happened, nothing is done. None for whichever it is.

    Raises:
        NotFoundError: no such version.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, maps to no person, or did not submit the version that
            they would do again as a scientist.
        ConflictError: a rule of the module, named in the sentence; or others kept changing the version.
    """
    person = hand.by.require_person("have a stage run again")

    def move(version: Version) -> _Change | None:
        _check_role(Operation.REDO, hand.by, version)
        if set(hand.by.roles) == {"scientist"} and version.submitter_person != person:
            raise ForbiddenError(f"{version.reference} is not {person}'s own: a scientist has stages of own candidates run again")
        if _is_redone(hand.meta, version, stage, attempt):
            return None
        check_redo(version, stage)
        _check_undecided(hand.meta, version)
        return _Change(stage_before(stage), Status.SUCCEEDED, REOPENED, _undone(version, stage), {"stage": stage.value})

    acted = _act(hand, model, number, move)
    version = acted.version
    if version.token:
        # The execution that waits for a decision is over.
        hand.tell_gate(version)
    if not version.held and _is_reopened(version, stage):
        start_attempt(hand.pipeline, version)
    return acted


def retry_version(hand: Hand, model: str, number: int) -> Acted:
    """Start the next attempt of a version whose latest stage failed; its number stays. The same again starts no other one.

    Raises:
        NotFoundError: no such version.
        ForbiddenError: the caller acts in no role that may.
        ConflictError: the version did not fail, it was killed or retired, or others kept changing it.
        HeldError: somebody holds it.
    """

    def move(version: Version) -> _Change | None:
        require_role(Operation.RETRY, hand.by, version.reference)
        if version.standing is Standing.RETIRED:
            raise ConflictError(f"{version.reference} was {version.out_of_use}; it is not tried again")
        version.require_not_held("is not tried again")
        if version.status is not Status.FAILED:
            raise ConflictError(f"{version.reference} is in {version.stage} {version.status}; only a failed version is tried again")
        if version.imported:
            _check_retry_of_import(version)
        elif _is_retried(hand, version):
            return None
        attempt = version.attempt + 1
        return _Change(version.stage, version.status, RETRIED, {"attempt": attempt}, {"next": attempt})

    acted = _act(hand, model, number, move)
    if acted.version.imported:
        hand.open_import(acted.version)
    else:
        start_attempt(hand.pipeline, acted.version)
    return acted


def _is_retried(hand: Hand, version: Version) -> bool:
    """Return whether the latest attempt is a retry that is still to come, or runs; one that ended, or is about to, has failed."""
    status = hand.pipeline.status(name_execution(version.model, version.number, version.attempt, version.candidate))
    row = hand.meta.get(stage_key(version.model, version.number, version.stage, version.attempt))
    return status is None or (status == "RUNNING" and (row is None or row["status"] != Status.FAILED.value))


def _check_retry_of_import(version: Version) -> None:
    """Refuse to try again what of an imported version is not tried again; its approval is, once it has lapsed.

    Raises:
        ConflictError: its files could not be frozen, or it is deployed by a person.
    """
    if version.stage is Stage.IMPORTED:
        raise ConflictError(f"the files of {version.reference} could not be frozen ({version.error}); upload them again as another import")
    if version.stage is Stage.DEPLOYMENT:
        raise ConflictError(f"{version.reference} was imported, so a person has it deployed: attestry deploy {version.reference}")


def check_redo(version: Version, stage: Stage) -> None:
    """Check that a stage of a version can be done again.

    Raises:
        ConflictError: it cannot, by the rule that the sentence names.
    """
    name = version.reference
    version.require_made_here()
    if version.standing is Standing.RETIRED:
        raise ConflictError(f"{name} was {version.out_of_use}; nothing of it runs again")
    if version.status is Status.REJECTED:
        raise ConflictError(f"{name} was rejected, which is final; submit another version")
    if version.standing is not Standing.CANDIDATE:
        raise ConflictError(f"{name} stands {version.standing}: what is approved is not made again; submit another version")
    if stage is Stage.TRAINING and version.version_digest:
        raise ConflictError(f"TRAINING has frozen {name}, and what is frozen never changes: a new version is needed, so submit it again")
    if stage not in (*REDOABLE, Stage.TRAINING):
        raise ConflictError(f"{stage} is not done again by a redo: PROCESSING and VALIDATION are")
    if version.stage is stage and version.status is Status.FAILED:
        raise ConflictError(f"{stage} of {name} has failed, so it is retried: attestry retry {name}")
    if version.status is Status.RUNNING and version.stage is not Stage.APPROVAL:
        raise ConflictError(f"{version.stage} of {name} runs; what runs ends before a stage is done again")
    if version.stage is Stage.REGISTERED or PIPELINE.index(version.stage) < PIPELINE.index(stage):
        raise ConflictError(f"{stage} of {name} has not succeeded yet, so there is nothing to do again; no stage is passed over")
    if stage is Stage.PROCESSING and version.version_digest:
        raise ConflictError(f"TRAINING has frozen {name} with the data that PROCESSING made: a new version is needed, so submit it again")


@dataclass(frozen=True)
class _Change:
    """What a manual move makes of the head."""

    stage: Stage
    status: Status
    kind: str
    changes: Mapping[str, Any]
    data: Mapping[str, Any] | None = None


def _act(hand: Hand, model: str, number: int, decide: Callable[[Version], _Change | None]) -> Acted:
    """Make the move that the rules give for the version as it is, again where others changed it meanwhile."""
    for _ in range(TRIES):
        version = load_version(hand.meta, model, number)
        change = decide(version)
        if change is None:
            return Acted(version, changed=False)
        move = Move(change.stage, change.status, version.standing, change.kind, hand.by, hand.reason, hand.at, data=change.data)
        try:
            hand.meta.transact(move_writes(version, move, hand.attestor, change.changes))
        except ConditionFailedError:
            continue
        return Acted(load_version(hand.meta, model, number), changed=True)
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def _check_role(operation: Operation, by: Principal, version: Version) -> None:
    require_role(operation, by, version.reference)
    if set(by.roles) == {"deployer"} and version.standing not in _PUT_IN_USE:
        raise ForbiddenError(f"{version.reference} stands {version.standing}; a deployer holds and releases what is approved")


def _is_reopened(version: Version, stage: Stage) -> bool:
    return version.stage is stage_before(stage) and version.status is Status.SUCCEEDED


def _is_redone(meta: MetaStore, version: Version, stage: Stage, attempt: int | None) -> bool:
    """Return whether the redo that is asked for has happened: the attempt has been followed by another, or none has begun since."""
    if attempt is not None and version.attempt > attempt:
        return True
    if stage not in REDOABLE or not _is_reopened(version, stage):
        return False
    latest = meta.get(transition_key(version.model, version.number, version.transition)) or {}
    return latest.get("kind") == REOPENED


def _check_undecided(meta: MetaStore, version: Version) -> None:
    rows = meta.query(approval_key(version.model, version.number, "").partition, prefix="APPROVAL#", limit=1)
    if rows:
        raise ConflictError(
            f"{rows[0]['person']} has decided on {version.reference} as it was judged, and a decision is not undone: "
            "have it rejected, or submit another version"
        )


def _undone(version: Version, stage: Stage) -> dict[str, Any]:
    """Return what of the head counts no more once a stage is done again."""
    changes: dict[str, Any] = {"attempt": version.attempt + 1, "error": "", "metrics": {}, "gates": [], "packet": {}}
    if stage is Stage.PROCESSING:
        changes |= {"datasets": encode(tuple(d for d in version.datasets if d.name.startswith("source/"))), "schema": []}
    return changes
