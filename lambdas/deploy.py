"""Put an approved version in place: from the pipeline's DEPLOYMENT state, or asked for through the API."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.domain.errors import AttestryError, HeldError, UnavailableError
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.usecases.deploy import begin_deployment, check_frozen_files, fail_deployment, swap_pointer, warm
from attestry.usecases.records import load_version

WARM_SECONDS = 480
world = World(call_seconds=120)


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Warm the version and swap the pointer; what lies in the version ends in DEPLOYMENT FAILED, what lies in AWS is tried again."""
    configure_logging(context)
    model, number, reason = str(event["model"]), int(event["version"]), str(event.get("reason") or "approved")
    by = Principal.from_item(event["principal"]) if event.get("principal") else registry_principal("pipeline")
    try:
        _deploy(model, number, by, reason)
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
    count({Count.STAGES_ENDED: 1}, deployment=world.settings.prefix, stage=Stage.DEPLOYMENT.value, outcome=answer["outcome"])
    return answer


def _deploy(model: str, number: int, by: Principal, reason: str) -> None:
    version = load_version(world.meta, model, number)
    if (version.stage, version.status) == (Stage.DEPLOYMENT, Status.SUCCEEDED) and version.standing is not Standing.RETIRED:
        # An earlier try was cut off behind its swap. Who asks for another deployment has begun it before this function is called.
        return
    version = begin_deployment(world.meta, world.attestor, version, by=by, reason=reason, at=world.clock.now())
    check_frozen_files(world.store, version)
    warm(world.functions, world.store, version, inference=world.settings.inference_function, seconds=WARM_SECONDS)
    swap_pointer(
        world.meta,
        world.attestor,
        model,
        number,
        environment=version.deployment_environment,
        capture_rate=version.capture_rate,
        by=by,
        reason=reason,
        at=world.clock.now(),
    )
