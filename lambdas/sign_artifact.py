"""Signs the frozen folder of a version with OpenSSF Model Signing; the only function with `kms:Sign` on the artifact key."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from attestry.aws.clients import Clients
from attestry.aws.logging import configure_logging
from attestry.aws.object_store import S3ObjectStore
from attestry.aws.settings import Settings
from attestry.aws.signer import KmsSigner
from attestry.domain.errors import AttestryError, InvalidInputError
from attestry.oms.bundle import OmsSigner
from attestry.usecases.sign_artifact import sign_artifact

logger = logging.getLogger(__name__)


@cache
def _ports() -> tuple[S3ObjectStore, OmsSigner]:
    settings, clients = Settings.from_environment(), Clients()
    store = S3ObjectStore(clients.s3, settings.store, retention=settings.retention)
    return store, OmsSigner(KmsSigner(clients.kms, settings.text("ATTESTRY_ARTIFACT_KEY")))


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer `{"folder", "version_digest"}` with `{"sha256", "key", "version_id"}` of the bundle, or with `{"error"}`."""
    configure_logging(context)
    try:
        folder, digest = event.get("folder"), event.get("version_digest")
        if not isinstance(folder, str) or not isinstance(digest, str):
            raise InvalidInputError.of("", "fields", "folder and version_digest (texts) are needed")
        signature = sign_artifact(*_ports(), folder, digest)
    except AttestryError as error:
        # An exception would reach the caller without its class.
        logger.warning("no artifact signature: %s", error.message, extra={"code": error.code})
        return {"error": error.to_dict()}
    logger.info("signed the artifact", extra={"key": signature.key, "sha256": signature.sha256})
    return signature.to_item()
