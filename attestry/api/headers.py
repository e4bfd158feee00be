"""Which operations heed which headers: ETag and If-None-Match, If-Match, Idempotency-Key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attestry.api.schema import Schema, text

TAGGED: Final = frozenset({"models.read", "policies.read", "rollouts.read", "runs.read", "versions.read"})
"""Reads whose answer has an ETag, and that answer 304 where the caller knows it."""

MATCHED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("versions.claim", "versions.decide", "versions.deploy", "versions.promote", "versions.retry", "versions.hold"),
            *("versions.release", "versions.redo", "versions.transition", "versions.kill", "versions.retire"),
        ),
        "versions.read",
    ),
    **dict.fromkeys(("models.rollback", "models.capture", "rollouts.change"), "rollouts.read"),
    "policies.publish": "policies.read",
    "runs.change": "runs.read",
}
"""Acts that heed If-Match, to the read whose ETag it takes."""

UNKEYED: Final[Mapping[str, str]] = {
    "models.search": "It changes nothing.",
    "versions.search": "It changes nothing.",
    "policies.replay": "It changes nothing.",
    "predictions.make": (
        "A prediction is recorded by its receipt, and a kept answer would hold its output for a day, which capture alone decides on; "
        "asking twice makes two predictions."
    ),
    "scorings.make": "Who asks, model, environment, input and the request's own name are the key, however much later it is asked again.",
    "imports.create": "As of an announcement of a candidate's files; `key` in the body makes the same files the same submission.",
    "versions.import": "The submission is the key: asked for again, however much later, it is answered with the same version.",
    **dict.fromkeys(("webhooks.add", "webhooks.rotate"), "The answer holds a secret, and is not kept; where it got lost, rotate."),
    "webhooks.remove": "Removing twice is removing once.",
    "runs.log": "The batch is the key: sent again, however much later, it counts once.",
    "webhooks.ping": "A second message does no harm.",
    "uploads.create": "The answer holds URLs that write without further credentials, and is not kept; announcing twice does no harm.",
}
"""Operations other than reads that refuse an Idempotency-Key, and why; all others take one."""

IF_MATCH: Final[Schema] = text("An ETag: the act is done only while the record stands as it was then; else 412.", least=1)
IF_NONE_MATCH: Final[Schema] = text("ETags that the caller knows; 304 where the answer would have one of them.", least=1)
IDEMPOTENCY_KEY: Final[Schema] = text(
    "Chosen by the caller for this request: the same request with the same key is done once within 24 hours, and answered alike.",
    least=1,
    most=255,
    pattern="^[\\x21-\\x7e]+$",
)
