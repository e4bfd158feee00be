"""Webhooks as MLflow's clients make and receive them (`mlflow.MlflowClient().create_webhook`, MLflow 3): requests, answers and bodies.

Rules:
- The events are those of models and versions; those of prompts and budgets are refused, since nothing of them is kept here.
- A webhook of MLflow is one of the registry's own, with the same rules for its URL; it is told events of the registry in MLflow's words.
- A secret is write-only, as in MLflow: no answer shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.webhooks import State, Webhook
from attestry.mlflow.entities import milliseconds
from attestry.mlflow.errors import MlflowError, invalid
from attestry.mlflow.fields import Fields

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "registered_model.created": ("model.created",),
    "model_version.created": ("candidate.registered", "version.imported"),
    "model_version_tag.set": ("tag.set",),
    "model_version_tag.deleted": ("tag.deleted",),
    "model_version_alias.created": ("alias.set",),
    "model_version_alias.deleted": ("alias.deleted",),
}
"""MLflow's event to the kinds of the registry's that it is told of."""

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "registered_model.created": {"name": "example", "tags": {"tier": "low"}, "description": "A test of this webhook"},
    "model_version.created": {
        "name": "example",
        "version": "1",
        "source": "models:/example",
        "run_id": None,
        "tags": {},
        "description": "A test of this webhook",
    },
    "model_version_tag.set": {"name": "example", "version": "1", "key": "tier", "value": "low"},
    "model_version_tag.deleted": {"name": "example", "version": "1", "key": "tier"},
    "model_version_alias.created": {"name": "example", "alias": "champion", "version": "1"},
    "model_version_alias.deleted": {"name": "example", "alias": "champion"},
}
"""What a test sends: it tells nothing of the registry."""

MAX_SECRET: Final = 1000
MAX_DESCRIPTION: Final = 1000
PAGE: Final = 100
PAGE_AT_MOST: Final = 1000

_TITLE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class AskedWebhook:
    """What a client asks a webhook to be; None where it leaves something as it is.

    Attributes:
        title: its name in MLflow.
        description: text.
        url: where to.
        events: MLflow's events.
        secret: its secret; empty for none.
        active: whether it is told.
    """

    title: str | None
    description: str | None
    url: str | None
    events: tuple[str, ...] | None
    secret: str | None
    active: bool | None


def read_asked(fields: Fields, *, new: bool) -> AskedWebhook:
    """Return what a client asks for.

    Args:
        fields: the body.
        new: a webhook is made, which needs name, URL and events.

    Raises:
        MlflowError: a rule of MLflow is broken; code INVALID_PARAMETER_VALUE.
    """
    title = fields.required("name") if new else fields.optional("name")
    if title is not None and not _TITLE.fullmatch(title):
        raise invalid(
            f"Webhook name {title[:80]!r} is invalid. It must start and end with a letter or digit, be less than 63 characters long, "
            "and contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
        )
    description, secret = fields.optional("description"), fields.optional("secret")
    if len(description or "") > MAX_DESCRIPTION or len(secret or "") > MAX_SECRET:
        raise invalid(f"a webhook's description and secret have at most {MAX_DESCRIPTION} characters each")
    status = fields.optional("status")
    if status not in (None, "ACTIVE", "DISABLED"):
        raise invalid(f"Unknown webhook status {status[:40]!r}; it is ACTIVE or DISABLED")
    events = read_events(fields) if new or fields.values.get("events") else None
    url = fields.required("url") if new else fields.optional("url")
    return AskedWebhook(title, description, url, events, secret, None if status is None else status == "ACTIVE")


def read_events(fields: Fields) -> tuple[str, ...]:
    """Return MLflow's events of a body.

    Raises:
        MlflowError: none, or one that is never told here.
    """
    given = fields.values.get("events")
    if not isinstance(given, list) or not given:
        raise invalid("Webhook events must be a non-empty list of WebhookEvent objects")
    return tuple(dict.fromkeys(read_event(one) for one in given))


def read_event(given: object) -> str:
    """Return an event of its message: entity and action.

    Raises:
        MlflowError: one that is never told here.
    """
    parts = (given.get("entity"), given.get("action")) if isinstance(given, dict) else ("", "")
    name = ".".join(str(part).lower() for part in parts)
    if name not in KINDS:
        raise invalid(f"webhooks are told of no event {name[:80]!r} here; there are: {', '.join(KINDS)}")
    return name


def tested_event(fields: Fields, webhook: Webhook) -> str:
    """Return the event that a test sends: the one that is asked for, or the webhook's first.

    Raises:
        MlflowError: one that is never told here.
    """
    given = fields.values.get("event")
    return read_event(given) if given else str(webhook.mlflow["events"][0])


def kinds_of(events: tuple[str, ...]) -> list[str]:
    """Return the kinds of the registry's events that MLflow's are told of."""
    return sorted({kind for event in events for kind in KINDS[event]})


def show_webhook(webhook: Webhook) -> dict[str, Any]:
    """Return the message `Webhook`."""
    spoken = webhook.mlflow
    events = [dict(zip(("entity", "action"), event.upper().split("."), strict=True)) for event in spoken["events"]]
    return {
        "webhook_id": webhook.name,
        "name": spoken["title"],
        **({"description": spoken["description"]} if spoken["description"] else {}),
        "url": webhook.url,
        "events": events,
        "status": "ACTIVE" if webhook.state is State.ACTIVE else "DISABLED",
        "creation_timestamp": milliseconds(spoken["created"]),
        "last_updated_timestamp": milliseconds(spoken["updated"]),
    }


def body_of(event: str, timestamp: str, data: Mapping[str, Any]) -> bytes:
    """Return the body of a request, as MLflow's receivers read it.

    Args:
        event: MLflow's event.
        timestamp: RFC 3339.
        data: its payload (`mlflow.webhooks.types`).
    """
    entity, action = event.split(".")
    return json.dumps({"entity": entity, "action": action, "timestamp": timestamp, "data": dict(data)}).encode()


def no_webhook(webhook_id: str) -> MlflowError:
    """Return the answer for a webhook that is not there."""
    return MlflowError("RESOURCE_DOES_NOT_EXIST", f"Webhook with ID {webhook_id[:80]} not found.")
