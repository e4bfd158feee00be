"""Put an approved version in place: from the pipeline's DEPLOYMENT state, or asked for through the API.

Watch rollouts: every minute, and within seconds of a canary's failure, whose row wakes this function. Every minute, bring endpoints of
SageMaker on, with the deployments that wait for them.

Where files are scored, do the steps of that: it is this function that has versions answer and attests what they stand for.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.domain.cause import waits_for_deployer
from attestry.domain.errors import AttestryError, HeldError, UnavailableError
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.usecases.deploy import begin_deployment, fail_deployment, swap_pointer
from attestry.usecases.readiness import check_alarms, check_frozen_files, warm
from attestry.usecases.records import load_version
from attestry.usecases.rollout import begin_rollout, is_at_once, plan_of
from attestry.usecases.rollout_watch import watch_rollouts

if TYPE_CHECKING:
    from attestry.domain.version import Version
    from attestry.usecases.endpoints import EndpointKeeper
    from attestry.usecases.score_file import Scorer

WARM_SECONDS = 480
WATCH = {"action": "watch_rollouts"}
"""What the schedule sends every minute."""

SCORING = frozenset({"plan_scoring", "score_chunk", "finish_scoring", "fail_scoring"})
"""What the state machine that scores files sends."""

logger = logging.getLogger(__name__)
world = World(call_seconds=120)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Warm the version and swap the pointer; what lies in the version ends in DEPLOYMENT FAILED, what lies in AWS is tried again."""
    configure_logging(context)
    if event == WATCH or "Records" in event:  # what is in the records does not matter: the table says what failed
        done = _watch()
        return done | ({"endpoints": _watch_endpoints()} if event == WATCH and world.settings.has_endpoints else {})
    if event.get("action") in SCORING:
        return _score(event)
    model, number, reason = str(event["model"]), int(event["version"]), str(event.get("reason") or "approved")
    by = Principal.from_item(event["principal"]) if event.get("principal") else registry_principal("pipeline")
    if event.get("waited"):
        return _go_on(model, number, by, reason)
    return _place(model, number, by, reason, event.get("strategy"), event.get("environment"))


def _go_on(model: str, number: int, by: Principal, reason: str) -> dict[str, Any]:
    """Go on with a deployment that waits for SageMaker, as the pipeline asks for every half minute."""
    version = load_version(world.meta, model, number)
    if (version.stage, version.status) == (Stage.DEPLOYMENT, Status.FAILED):
        # The minute's look has told why; asked again it would begin anew.
        return {"outcome": "FAILED", "error": version.error}
    try:
        return _place(model, number, by, reason, None, None)
    except UnavailableError as error:
        logger.warning("an endpoint could not be looked at", extra={"where": version.reference, "why": error.message})
        return {"outcome": "WAITING", "error": error.message}


def _place(model: str, number: int, by: Principal, reason: str, strategy: str | None, environment: str | None) -> dict[str, Any]:
    """Put a version in place, or go on with that, and say how it ended; WAITING while SageMaker is not there yet."""
    try:
        if not _deploy(model, number, by, reason, strategy, environment):
            return {"outcome": "WAITING", "error": ""}
    except UnavailableError:
        raise
    except HeldError as error:
        # One that is held before it begins has not failed: the pipeline ends, and the release of the version starts the next attempt.
        fail_deployment(world.meta, world.attestor, model, number, by=by, error=error.message, at=world.clock.now())
        answer = {"outcome": "HELD", "error": error.message}
    except AttestryError as error:
        fail_deployment(world.meta, world.attestor, model, number, by=by, error=error.message, at=world.clock.now())
        answer = {"outcome": "FAILED", "error": error.message}
    else:
        answer = {"outcome": "SUCCEEDED", "error": ""}
    if world.settings.has_endpoints:
        version = load_version(world.meta, model, number)
        keeper().let_go(model, environment or version.deployment_environment, number)
    count({Count.STAGES_ENDED: 1}, deployment=world.settings.prefix, stage=Stage.DEPLOYMENT.value, outcome=answer["outcome"])
    return answer


def _watch() -> dict[str, Any]:
    """Do what the plans of the rollouts say; what could not be done is tried again by the next look, after a minute at most."""
    done: dict[str, Any] = watch_rollouts(
        world.meta,
        world.attestor,
        world.alarms,
        at=world.clock.now(),
        on_trouble=lambda where, why: logger.error("a rollout could not be moved", extra={"where": where, "why": why}),
    )
    logger.info("watched rollouts", extra={"counts": done})
    return done


@cache
def keeper() -> EndpointKeeper:
    """Return what keeps SageMaker's endpoints in this process."""
    from attestry.usecases.endpoints import EndpointKeeper

    return EndpointKeeper(world.meta, world.store, world.endpoints, world.settings.endpoints, world.settings.prefix)


def _watch_endpoints() -> dict[str, int]:
    """Go on with the deployments that wait for SageMaker, then look at every endpoint."""

    def trouble(where: str, why: str) -> None:
        logger.error("an endpoint could not be brought on", extra={"where": where, "why": why})

    for model, coming in keeper().coming():
        try:
            version = load_version(world.meta, model, coming.number)
            if (version.stage, version.status) == (Stage.DEPLOYMENT, Status.RUNNING):
                _place(model, coming.number, coming.by, coming.reason, coming.strategy, coming.environment)
            else:
                keeper().let_go(model, coming.environment, coming.number)
        except AttestryError as error:
            trouble(f"{model}@{coming.number}", error.message)
    return keeper().watch(trouble)


@cache
def scorer() -> Scorer:
    """Return what scores files in this process."""
    from attestry.usecases.ask import EndpointCalls, Versions
    from attestry.usecases.score_file import Scorer

    calls = EndpointCalls(world.settings.prefix, lambda: world.endpoint_runtime) if world.settings.has_endpoints else None
    versions = Versions(world.meta, world.store, world.functions, inference=world.settings.inference_function, endpoints=calls)
    ports: Any = {"meta": world.meta, "store": world.store, "scratch": world.scratch, "attestor": world.attestor, "clock": world.clock}
    return Scorer(**ports, versions=versions)


def _score(event: dict[str, Any]) -> dict[str, Any]:
    """Do a step of a scoring; what lies in the file or the version ends it, what lies in AWS is raised and tried again."""
    action, scoring = event["action"], str(event["scoring"])
    if action == "plan_scoring":
        return {"chunks": scorer().plan(scoring)}
    if action == "score_chunk":
        return {"state": scorer().score_chunk(scoring, int(event["chunk"]))}
    if action == "finish_scoring":
        return {"state": scorer().finish(scoring)}
    scorer().fail(scoring, f"AWS did not let it be finished: {event.get('error') or 'unknown'}")
    return {"state": "FAILED"}


def _deploy(model: str, number: int, by: Principal, reason: str, strategy: str | None, wanted: str | None) -> bool:
    """Put a version in place; False while what serves it is not there yet."""
    version = load_version(world.meta, model, number)
    if (version.stage, version.status) == (Stage.DEPLOYMENT, Status.SUCCEEDED) and version.standing is not Standing.RETIRED:
        # An earlier try was cut off behind its swap. Who asks for another deployment has begun it before this function is called.
        return True
    if by == registry_principal("pipeline") and waits_for_deployer(version.cause):
        # The manifest asks that a person puts refreshed versions in place; until then it stands approved.
        return True
    environment, plan = wanted or version.deployment_environment, plan_of(version, strategy)
    version = begin_deployment(world.meta, world.attestor, version, by=by, reason=reason, at=world.clock.now())
    check_frozen_files(world.store, version)
    if not _get_ready(version, environment, by, reason, strategy):
        return False
    told: Any = {"environment": environment, "by": by, "reason": reason, "at": world.clock.now()}
    if is_at_once(world.meta, version, plan, environment):
        swap_pointer(world.meta, world.attestor, model, number, capture_rate=version.capture_rate, **told)
    else:
        check_alarms(world.alarms, plan)
        begin_rollout(world.meta, world.attestor, model, number, **told)
    return True


def _get_ready(version: Version, environment: str, by: Principal, reason: str, strategy: str | None) -> bool:
    """Have the version ready to answer; False where SageMaker takes longer than a function can wait."""
    if not version.target:
        warm(world.functions, world.store, version, inference=world.settings.inference_function, seconds=WARM_SECONDS)
        return True
    from attestry.usecases.endpoints import Coming

    return keeper().bring(version, Coming(version.number, environment, by, reason, strategy))
