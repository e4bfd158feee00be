"""Operate from the AWS console: hold, release, redo, deploy, roll back, kill and retire, by an execution of `RegistryDecision`.

Who asks, and that the execution acts once, is settled by `attestry.usecases.console_execution`; the acts are those of the API. What
would be another act when it is tried again is planned when the execution is claimed: the version that a rollback goes back to, the
move that a deployment begins after, the attempt that a redo follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attestry.domain.console_request import PRODUCTION, ConsoleRequest
from attestry.domain.errors import InvalidInputError
from attestry.domain.operations import Operation
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Functions, MetaStore, Pipeline
from attestry.usecases.attest import Attestor
from attestry.usecases.console_execution import ConsoleAct
from attestry.usecases.deploy import ROLLED_BACK, roll_back
from attestry.usecases.manual import Acted, Hand, hold_version, redo_stage, release_version
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
        pipeline: the state machine that makes versions.
        deploy_function: name of the function that deploys.
        gate_function: name of the function that sends the pipeline on.
    """

    meta: MetaStore
    attestor: Attestor
    functions: Functions
    pipeline: Pipeline
    deploy_function: str
    gate_function: str


def plan_operation(meta: MetaStore, request: ConsoleRequest) -> dict[str, Any]:
    """Return what has to be the same when the act is tried again.

    Raises:
        NotFoundError: no such version.
    """
    if request.operation is Operation.ROLLBACK:
        pointer = meta.get(pointer_key(request.model, request.environment or PRODUCTION)) or {}
        # A rollback right after a rollback has to name its version; without one it is left to be refused.
        kept = None if pointer.get("kind") == ROLLED_BACK else kept_in(pointer)
        return {"to": request.version if request.version is not None else kept}
    version = load_version(meta, request.model, request.number)
    return {"transition": version.transition, "attempt": version.attempt}


def operate_in_console(act: ConsoleAct, ports: OperatingPorts) -> dict[str, Any]:
    """Do what an execution asks for.

    Raises:
        NotFoundError, ConflictError: see the acts.
        InvalidInputError: an act that is none of this function's, or an environment that it does not know.
    """
    acts = {
        Operation.HOLD: _hold,
        Operation.RELEASE: _release,
        Operation.REDO: _redo,
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


def _hold(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    return _held(hold_version(_hand(act, ports), act.request.model, act.request.number))


def _release(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    return _held(release_version(_hand(act, ports), act.request.model, act.request.number))


def _redo(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    request = act.request
    if request.stage is None:
        raise InvalidInputError.of("stage", "required", "the stage that is to run again is needed")
    attempt = int(act.plan["attempt"])
    return _held(redo_stage(_hand(act, ports), request.model, request.number, request.stage, attempt=attempt))


def _hand(act: ConsoleAct, ports: OperatingPorts) -> Hand:
    return Hand(ports.meta, ports.attestor, ports.pipeline, ports.functions, ports.gate_function, act.by, act.request.reason, act.at)


def _held(acted: Acted) -> tuple[Version, dict[str, Any]]:
    return acted.version, {"held": dict(acted.version.held), "attempt": acted.version.attempt, "changed": acted.changed}


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
        environment=request.environment or None,
    )
    return version, {}


def _roll_back(act: ConsoleAct, ports: OperatingPorts) -> tuple[Version, dict[str, Any]]:
    request, to = act.request, act.plan["to"]
    environment = request.environment or PRODUCTION
    deployment = roll_back(
        ports.meta,
        ports.attestor,
        request.model,
        environment=environment,
        by=act.by,
        reason=request.reason,
        at=act.at,
        to=None if to is None else int(to),
    )
    return deployment.version, {"environment": environment, "previous": deployment.previous, "changed": deployment.changed}


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
