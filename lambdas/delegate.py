"""Signs delegations; the only function with `kms:Sign` on the delegator key."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.domain.errors import AttestryError, InvalidInputError
from attestry.domain.names import ModelName
from attestry.domain.stages import Standing
from attestry.usecases.delegate import delegate_signing

logger = logging.getLogger(__name__)
world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer `{"model", "environment", "jwk", "version_digest"?, "standing"?}` with `{"delegation", "kid"}` or `{"error"}`."""
    configure_logging(context)
    try:
        model, environment, jwk, digest = (event.get(n) for n in ("model", "environment", "jwk", "version_digest"))
        if not isinstance(model, str) or not isinstance(environment, str) or not isinstance(jwk, Mapping):
            raise InvalidInputError.of("", "fields", "model, environment (texts) and jwk (an object) are needed")
        delegation = delegate_signing(
            world.meta,
            world.delegator,
            model=ModelName(model).text,
            environment=environment,
            jwk=jwk,
            at=world.clock.now(),
            version_digest=None if digest is None else str(digest),
            standing=str(event.get("standing") or Standing.DEPLOYED.value),
        )
    except AttestryError as error:
        # An exception would reach the serving process without its class.
        logger.warning("no delegation: %s", error.message, extra={"code": error.code})
        return {"error": error.to_dict()}
    logger.info("delegated", extra={"kid": delegation.kid, "version": str(delegation.grant.version)})
    return {"delegation": delegation.token, "kid": delegation.kid}
