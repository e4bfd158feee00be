"""A witness over HTTP, behind a function URL or invoked with an event of the same shape: `POST /add-checkpoint` (C2SP tlog-witness)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from attestry.aws.clients import Clients
from attestry.aws.clock import SystemClock
from attestry.aws.http import read_request
from attestry.aws.logging import configure_logging
from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.settings import Settings
from attestry.aws.signer import KmsNoteSigner
from attestry.domain.errors import ForbiddenError, InvalidInputError, NotFoundError, UnavailableError
from attestry.usecases.witness import MAX_BODY_BYTES, CheckpointConflictError, InconsistentCheckpointError, Witness, read_logs

PATH = "/add-checkpoint"
_TOLD = (InvalidInputError, NotFoundError, ForbiddenError, CheckpointConflictError, InconsistentCheckpointError, UnavailableError)

logger = logging.getLogger(__name__)


@cache
def witness() -> Witness:
    """Return the witness that the environment describes."""
    settings, clients = Settings.from_environment(), Clients()
    logs = read_logs(settings.text("ATTESTRY_WITNESS_LOGS"), lambda arn: KmsNoteSigner(clients.kms, arn).public_key())
    signer = KmsNoteSigner(clients.kms, settings.text("ATTESTRY_WITNESS_KEY"))
    meta = DynamoMetaStore(clients.dynamodb, settings.text("ATTESTRY_WITNESS_TABLE"))
    return Witness(meta, signer, SystemClock(), settings.text("ATTESTRY_WITNESS_NAME"), logs)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request in payload format 2.0; never raises, since a caller that invokes directly could not tell what went wrong."""
    configure_logging(context)
    try:
        answer = _answer(200, _serve(event))
    except CheckpointConflictError as error:
        logger.warning("refused: %s", error.message)
        answer = _answer(error.status, f"{error.size}\n", "text/x.tlog.size")
    except _TOLD as error:
        logger.warning("refused: %s", error.message)
        answer = _answer(error.status, f"{error.message}\n")
    except Exception:
        logger.exception("the witness failed")
        answer = _answer(500, "the witness failed; its log tells more\n")
    logger.info("answered", extra={"status": answer["statusCode"]})
    return answer


def _serve(event: Mapping[str, Any]) -> str:
    asked = (event.get("requestContext") or {}).get("http") or {}
    if (asked.get("method"), event.get("rawPath")) != ("POST", PATH):
        raise NotFoundError(f"a witness answers POST {PATH} and nothing else")
    return witness().add_checkpoint(read_request(event, MAX_BODY_BYTES).raw)


def _answer(status: int, body: str, content_type: str = "text/plain; charset=utf-8") -> dict[str, Any]:
    headers = {"content-type": content_type, "cache-control": "no-store", "x-content-type-options": "nosniff"}
    return {"statusCode": status, "headers": headers, "body": body, "isBase64Encoded": False}
