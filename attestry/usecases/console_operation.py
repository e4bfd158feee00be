"""Operate from the AWS console: deploy, roll back, kill and retire, by an execution of the state machine `RegistryDecision`.

Who asks, and that the execution acts once, is settled by `attestry.usecases.console_execution`; the acts are those of the API. What
would be another act when it is tried again is planned when the execution is claimed: the version that a rollback goes back to, and the
move that a deployment begins after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attestry.domain.console_request import PRODUCTION, ConsoleRequest
from attestry.domain.errors import InvalidInputError
from attestry.domain.operations import Operation
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Functions, MetaStore
from attestry.usecases.attest import Attestor
from attestry.usecases.console_execution import ConsoleAct
from attestry.usecases.deploy import roll_back
from attestry.usecases.operate import request_deployment
from attestry.usecases.pointer import kept_in
from attestry.usecases.records import load_version, pointer_key
from attestry.usecases.revoke import kill_version, retire_version


@dataclass(frozen=True)
class OperatingPorts:
    """What the acts need.

    Attributes:
        meta: the table.
        attestor: signs with the acting function's key.
        functions: the other functions.
        deploy_function: name of the function that deploys.
        gate_function: name of the function that sends the pipeline on.
    """

    meta: MetaStore
    attestor: Attestor
    functions: Functions
    deploy_function: str
    gate_function: str


def plan_operation(meta: MetaStore, request: ConsoleRequest) -> dict[str, Any]:
    """Return what has to be the same when the act is tried again.

    Raises:
        NotFoundError: no such version.
    """
    if request.operation is Operation.ROLLBACK:
        pointer = meta.get(pointer_key(request.model, request.environment))
        return {"to": request.version if request.version is not None else kept_in(pointer or {})}
    return {"transition": load_version(meta, request.model, request.number).transition}


def operate_in_console(act: ConsoleAct, ports: OperatingPorts) -> dict[str, Any]:
    """Do what an execution asks for.

    Raises:
        NotFoundError, ConflictError: see the acts.
        InvalidInputError: an act that is none of this function's, or an environment that it does not know.
    """
    acts = {
        Operation.DEPLOY: _deploy,
        Operation.ROLLBACK: _roll_back,
        Operation.KILL: _kill,
        Operation.RETIRE: _retire,
    }
    done = acts.get(act.request.operation)
    if done is None:
        raise InvalidInputError.of("action", "enum", f"the action is one of {', '.join(acts)}")
    version, further = done(act, ports)
    if version.token and version.standing is Standing.RETIRED:
        # The pipeline may wait for a decision that nobody can make any more.
        ports.functions.send(ports.gate_function, {"action": "decided", "model": version.model, "version": version.number})
    return {
        "outcome": "DONE",
        "action": act.request.operation.value,
        "person": act.by.person,
        "version": str(version.reference),
        "stage": version.stage.value,
        "status": version.status.value,
        "standing": version.standing.value,
        "event_id": act.record.event_id,
        "event_sha256": act.record.digest,
        **further,
    }


def _deploy(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    request = act.request
    version = load_version(ports.meta, request.model, request.number)
    begun = version.stage is Stage.DEPLOYMENT and version.transition > int(act.plan["transition"])
    if act.again and begun and version.status is not Status.RUNNING:
        # An earlier call began it, and it has ended since.
        return version, {}
    version = request_deployment(
        ports.meta,
        ports.attestor,
        ports.functions,
        request.model,
        request.number,
        deploy_function=ports.deploy_function,
        by=act.by,
        reason=request.reason,
        at=act.at,
    )
    return version, {"environment": PRODUCTION}


def _roll_back(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    request, to = act.request, act.plan["to"]
    deployment = roll_back(
        ports.meta,
        ports.attestor,
        request.model,
        environment=request.environment,
        by=act.by,
        reason=request.reason,
        at=act.at,
        to=None if to is None else int(to),
    )
    return deployment.version, {"environment": request.environment, "previous": deployment.previous, "changed": deployment.changed}


def _kill(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    request = act.request
    done = kill_version(ports.meta, ports.attestor, request.model, request.number, reason=request.reason, by=act.by, at=act.at)
    return done.version, {"vacated": list(done.vacated), "rollback": dict(done.rollback)}


def _retire(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    request = act.request
    done = retire_version(
        ports.meta,
        ports.attestor,
        request.model,
        request.number,
        reason=request.reason,
        by=act.by,
        at=act.at,
        on=request.on,
        even_if_deployed=request.even_if_deployed,
    )
    return done.version, {"vacated": list(done.vacated), "rollback": dict(done.rollback), "retires_on": done.version.retires_on}
