"""The gate: the one place that sends a waiting pipeline on.

It freezes the packet that is decided on, opens the APPROVAL stage with the pipeline's task token, applies an automatic policy, and sends
the token once the table says that the stage has ended. Where the waiting execution is gone, it starts the next attempt, which skips the
stages that are done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.cause import is_reproduction
from attestry.domain.errors import ConditionFailedError, ConflictError
from attestry.domain.principal import registry_principal
from attestry.domain.stages import Stage, Standing, Status, may_begin
from attestry.domain.version import Version
from attestry.ports import MetaStore, Notifier, ObjectStore, Pipeline, Update, When
from attestry.usecases.approval_notice import ConsoleWays, notice_of, start_runbook
from attestry.usecases.attest import Attestor
from attestry.usecases.decide import approve_by_policy
from attestry.usecases.executions import start_again
from attestry.usecases.freeze_packet import freeze_packet
from attestry.usecases.records import Move, load_version, move_writes, version_key


def open_approval(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    pipeline: Pipeline,
    notifier: Notifier,
    *,
    model: str,
    number: int,
    token: str,
    at: datetime,
    attempt: int | None = None,
    ways: ConsoleWays | None = None,
) -> None:
    """Freeze the packet, keep the pipeline's token and open the stage; apply the policy at once where it asks for no person.

    People are told once the stage is open, and the approval runbook is started where the registry uses it. Neither is part of the record:
    the version waits all the same, and can be decided on in every way.

    A held version's approval is not opened: its execution is sent on to its end. So is one whose place a later attempt has taken.

    Args:
        meta: the table.
        attestor: signs with the gate's own key.
        store: the model store.
        pipeline: the state machine.
        notifier: tells people.
        model: the model's name.
        number: the version's number.
        token: the pipeline's task token.
        at: the time.
        attempt: which attempt of the pipeline waits; None for the latest.
        ways: how people approve in the AWS console; None for not at all.

    Raises:
        ConflictError: the version is not at its approval, or out of use.
        IntegrityError: what the packet is made of, or what lies in its place, is not what was recorded.
    """
    version = load_version(meta, model, number)
    if version.standing is Standing.RETIRED:
        raise ConflictError(f"{version.reference} was {version.out_of_use}; its pipeline ends here")
    if is_reproduction(version.cause):
        raise ConflictError(f"{version.reference} was made to reproduce another version; nobody decides on it, and it is never deployed")
    if attempt is not None and attempt < version.attempt:
        pipeline.resume(token, _answer(version))
        return
    if version.stage is Stage.APPROVAL and version.status is Status.RUNNING:
        # The same token again is this call again, cut off after the stage was opened: perhaps nobody was told.
        told = version.token != token
        version = _keep_token(meta, version, token)
        if not told:
            _tell_people(notifier, version, ways)
    elif may_begin(Stage.APPROVAL, version.stage, version.status) and version.held:
        pipeline.resume(token, _answer(version))
        return
    elif may_begin(Stage.APPROVAL, version.stage, version.status):
        version = _open(meta, attestor, store, version, token, at)
        _tell_people(notifier, version, ways)
    elif version.stage not in (Stage.APPROVAL, Stage.DEPLOYMENT):
        raise ConflictError(f"{version.reference} is in {version.stage} {version.status}, not at its approval")
    else:
        pipeline.resume(token, _answer(version))
        return
    version = _apply_policy(meta, attestor, store, version, at)
    if version.stage is not Stage.APPROVAL or version.status is not Status.RUNNING:
        pipeline.resume(token, _answer(version))


def open_import(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    notifier: Notifier,
    *,
    model: str,
    number: int,
    at: datetime,
    ways: ConsoleWays | None = None,
) -> Version:
    """Open the approval of an imported version, or again where it had lapsed; no pipeline waits for it. The same again is harmless.

    Args:
        meta: the table.
        attestor: signs with the gate's own key.
        store: the model store.
        notifier: tells people.
        model: the model's name.
        number: the version's number.
        at: the time.
        ways: how people approve in the AWS console; None for not at all.

    Raises:
        ConflictError: the version was not imported, or moved meanwhile.
        IntegrityError: see `open_approval`.
    """
    version = load_version(meta, model, number)
    if not version.imported:
        raise ConflictError(f"{version.reference} is made by its manifest; its pipeline opens its approval")
    opens = may_begin(Stage.APPROVAL, version.stage, version.status) and version.status is not Status.RUNNING
    if opens and version.standing is Standing.CANDIDATE and not version.held:
        version = _open(meta, attestor, store, version, "", at)
        _tell_people(notifier, version, ways)
    if version.stage is Stage.APPROVAL and version.status is Status.RUNNING:
        version = _apply_policy(meta, attestor, store, version, at)
    return version


def send_on(meta: MetaStore, attestor: Attestor, store: ObjectStore, pipeline: Pipeline, *, model: str, number: int, at: datetime) -> str:
    """Send the waiting execution on if the table says that APPROVAL has ended, or an automatic policy ends it now.

    Returns:
        `waiting` while no decision is there, `sent`, or `restarted` where the waiting execution was gone.
    """
    version = load_version(meta, model, number)
    if version.stage is Stage.APPROVAL and version.status is Status.RUNNING:
        version = _apply_policy(meta, attestor, store, version, at)
    if version.stage is Stage.APPROVAL and version.status is Status.RUNNING:
        return "waiting"
    if version.imported:
        return "sent"  # nobody waits: no pipeline made it, and a person has it deployed
    if version.token and pipeline.resume(version.token, _answer(version)):
        _forget_token(meta, version)
        return "sent"
    if version.status is Status.REJECTED or version.standing is Standing.RETIRED:
        _forget_token(meta, version)
        return "sent"
    approved = version.stage is Stage.APPROVAL and version.status is Status.SUCCEEDED and not version.held
    restarted = approved and start_again(meta, pipeline, version)
    if version.token:
        # Nobody waits with it any more: an earlier try sent it, or the execution is gone.
        _forget_token(meta, version)
    return "restarted" if restarted else "sent"


def _apply_policy(meta: MetaStore, attestor: Attestor, store: ObjectStore, version: Version, at: datetime) -> Version:
    """Approve what the policy approves by itself; a held version waits, and so does one that no person has claimed yet."""
    automatic = ApprovalPolicy.from_item(version.approval_policy).automatic
    if not automatic or version.submitter_person is None or version.held:
        return version
    # The ledger takes events in the order of their times: the approval comes after the opening that was made at this very moment.
    after = datetime.fromisoformat(version.updated) + timedelta(microseconds=1)
    return approve_by_policy(meta, attestor, store, version, at=max(at, after))


def _open(meta: MetaStore, attestor: Attestor, store: ObjectStore, version: Version, token: str, at: datetime) -> Version:
    frozen = freeze_packet(meta, store, version, at)
    place = {**frozen.place, **({"again": True} if version.packet else {})}
    move = Move(
        Stage.APPROVAL,
        Status.RUNNING,
        version.standing,
        "stage.started",
        registry_principal("pipeline"),
        "its files are frozen; it was made elsewhere" if version.imported else "validation has passed",
        at,
        frozen.packet.sha256,
        {"policy_sha256": frozen.packet.content["policy_sha256"], "page_sha256": frozen.place["page_sha256"]},
    )
    try:
        meta.transact(move_writes(version, move, attestor, {"token": token, "error": "", "packet": place}))
    except ConditionFailedError as error:
        raise ConflictError(f"{version.reference} moved while its approval was opened") from error
    return load_version(meta, version.model, version.number)


def _tell_people(notifier: Notifier, version: Version, ways: ConsoleWays | None) -> None:
    automation = start_runbook(version, ways) if ways is not None else ""
    notifier.notify(*notice_of(version, ways, automation))


def _keep_token(meta: MetaStore, version: Version, token: str) -> Version:
    changes = {"token": token, "rev": version.rev + 1}
    meta.transact([Update(version_key(version.model, version.number), changes, When(exists=True, equals={"rev": version.rev}))])
    return load_version(meta, version.model, version.number)


def _forget_token(meta: MetaStore, version: Version) -> None:
    try:
        meta.transact(
            [Update(version_key(version.model, version.number), {"token": ""}, When(exists=True, equals={"token": version.token}))]
        )
    except ConditionFailedError:
        return


def _answer(version: Version) -> dict[str, Any]:
    return {"model": version.model, "version": version.number}
