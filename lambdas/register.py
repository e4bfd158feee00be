"""Makes versions: of a manifest, of new data, on a schedule or an alarm (EventBridge), or because a person asks for it (`operate`)."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.platform import current_platform
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.errors import AttestryError, UnavailableError
from attestry.domain.imports import read_import
from attestry.domain.names import FolderNaming
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Status
from attestry.usecases.ask_import import ACTION as IMPORT
from attestry.usecases.catalogue import describe_model
from attestry.usecases.import_run import linked_run
from attestry.usecases.import_version import import_version
from attestry.usecases.new_version import Defaults
from attestry.usecases.refresh import Refreshed, Refresher
from attestry.usecases.refresh_by_hand import read_brought, read_number, read_request_id, refresh_by_hand
from attestry.usecases.refresh_data import DataWatcher, Drop
from attestry.usecases.refresh_watch import Watcher
from attestry.usecases.register import Registrar, UploadedManifest
from attestry.usecases.reproduce import ask_reproduction

logger = logging.getLogger(__name__)
world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take what EventBridge or `operate` tells of; objects that are neither manifests nor data are passed over."""
    configure_logging(context)
    if event.get("action") == IMPORT:
        return _import(event)
    if "action" in event:
        return _asked(event)
    told = event.get("detail-type")
    if told == "Scheduled Event":
        return _outcomes([*Watcher(world.meta, _refresher()).run_due(world.clock.now()), *_data().take_all(world.clock.now())])
    if told == "CloudWatch Alarm State Change":
        return _outcomes(Watcher(world.meta, _refresher()).ring(world.alarms, str(event["detail"]["alarmName"]), world.clock.now()))
    uploaded = event["detail"]["object"]
    key, version_id = str(uploaded["key"]), uploaded.get("version-id")
    drop = Drop.parse(key)
    if drop is not None:
        return _outcomes([_data().arrived(drop, version_id, datetime.fromisoformat(str(event["time"])), world.clock.now())])
    upload = UploadedManifest(key, version_id, world.settings.account)
    if not upload.is_manifest:
        return {"state": "PASSED_OVER"}
    registration = _registrar().register(upload, world.clock.now())
    if registration.version is not None:
        version = registration.version
        # Behind the registration, in a transaction of its own: a delivery that is cut off here is made again.
        describe_model(world.meta, version.model, by=version.submitter, at=world.clock.now())
    return registration.to_dict()


def _asked(event: dict[str, Any]) -> dict[str, Any]:
    """Answer a person, whom the function that serves the API has authenticated, with HTTP status and body."""
    body, by = event["body"], Principal.from_item(event["principal"])
    try:
        request, reason = read_request_id(body.get("request"), str(event["request"])), read_reason(body.get("reason"))
        model, number, at = str(event["model"]), read_number(body.get("version")), world.clock.now()
        if event["action"] == "reproduce":
            made = ask_reproduction(_refresher(), world.meta, model, number or 0, request=request, reason=reason, by=by, at=at)
        else:
            data = read_brought(world.store, body.get("data"), by=by)
            made = refresh_by_hand(_refresher(), model, number=number, data=data, request=request, reason=reason, by=by, at=at)
    except UnavailableError:
        raise
    except AttestryError as error:
        return {"status": error.status, "body": {"error": error.to_dict()}}
    return {"status": 202, "body": made.to_dict()}


def _import(event: dict[str, Any]) -> dict[str, Any]:
    """Make the version of an import for a person whom the function that serves the API has authenticated, and have its files frozen."""
    try:
        request, by = read_import(str(event["model"]), event["body"]), Principal.from_item(event["principal"])
        tiers, at = world.settings.signed_approval_tiers, world.clock.now()
        run = linked_run(world.meta, request.run.id, by=by, at=at)
        version = import_version(world.meta, world.store, world.attestor, request, by=by, at=at, signed_tiers=tiers, run=run)
    except UnavailableError:
        raise
    except AttestryError as error:
        return {"status": error.status, "body": {"error": error.to_dict()}}
    if (version.stage, version.status) == (Stage.IMPORTED, Status.RUNNING):
        frozen = {"action": "freeze_import", "model": version.model, "version": version.number}
        world.functions.send(world.settings.record_function, frozen)
    told = {"model": version.model, "version": version.number, "candidate": version.candidate}
    state = {"stage": version.stage.value, "status": version.status.value, "standing": version.standing.value}
    return {"status": 202, "body": {**told, **state, "submitter": version.submitter_person}}


def _outcomes(outcomes: list[Refreshed]) -> dict[str, Any]:
    told = [outcome.to_dict() for outcome in outcomes]
    logger.info("refreshes", extra={"outcomes": told})
    return {"refreshes": told}


def _data() -> DataWatcher:
    return DataWatcher(world.meta, world.store, _refresher())


def _refresher() -> Refresher:
    tiers = world.settings.signed_approval_tiers
    defaults = Defaults(current_platform(), _naming(), tiers)
    return Refresher(world.meta, world.attestor, world.store, world.pipeline, world.notifier, defaults)


def _registrar() -> Registrar:
    return Registrar(
        world.meta,
        world.attestor,
        world.store,
        world.pipeline,
        world.notifier,
        current_platform(),
        _naming(),
        signed_tiers=world.settings.signed_approval_tiers,
        sandbox_memory_mib=world.settings.number("ATTESTRY_SANDBOX_MEMORY_MIB", 0) or None,
        jobs=world.settings.jobs,
        endpoints=world.settings.endpoints,
    )


def _naming() -> FolderNaming:
    return FolderNaming(world.settings.environment.get("ATTESTRY_FOLDER_NAMING") or FolderNaming.REVISION_AND_EXECUTION)
