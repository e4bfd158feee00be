"""The API's authorizer for people with a bearer token: checks the token, and says to the gateway whose it is."""

from __future__ import annotations

import logging
from typing import Any

from attestry.access.tokens import TokenError, read_token, verify_token
from attestry.aws.jwks import IssuerKeys
from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.domain.audit import AuditedAct, Outcome
from attestry.domain.errors import AttestryError
from attestry.domain.principal import Principal

logger = logging.getLogger(__name__)
world = World()
keys = IssuerKeys()
REFUSED = {"isAuthorized": False}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the gateway; whatever goes wrong lets nobody in. Tokens are never logged."""
    configure_logging(context)
    address = str(((event.get("requestContext") or {}).get("http") or {}).get("sourceIp", ""))
    try:
        token = read_token(str((event.get("headers") or {}).get("authorization", "")))
        holder = verify_token(token, world.settings.issuers, keys.find, world.clock.now().timestamp())
    except AttestryError as error:
        logger.warning("a token was refused: %s", error.message, extra={"address": address})
        if isinstance(error, TokenError):
            stranger = Principal("unknown", "unknown", "unknown", "bearer token", address, "unknown")
            world.audit.note(AuditedAct(stranger, "token", str(event.get("routeKey", "")), Outcome.DENIED, error.code))
        return dict(REFUSED)
    except Exception:
        logger.exception("a token could not be checked")
        return dict(REFUSED)
    return {"isAuthorized": True, "context": holder.to_context()}
