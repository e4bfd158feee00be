"""API: webhooks; for admins, and auditors who look at them."""

from __future__ import annotations

import secrets
from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.errors import InvalidInputError
from attestry.domain.principal import Principal
from attestry.domain.webhooks import read_name
from attestry.usecases.records import person_of
from attestry.usecases.webhooks import (
    Wish,
    add_webhook,
    ping_webhook,
    remove_webhook,
    rotate_webhook,
    show_webhook,
    show_webhooks,
)

world = World()


def show_all(_: Request) -> dict[str, Any]:
    """List the webhooks."""
    return {"webhooks": show_webhooks(world.meta)}


def add(request: Request) -> Answer:
    """Add a webhook; the answer shows its secret, this once."""
    body = request.body("webhook", "url", "kinds", "models", "reason")
    wish = Wish.read(body, read_reason(body.get("reason")), loopback=world.settings.webhook_loopback)
    webhook, secret = add_webhook(world.meta, world.webhook_key, wish, by=_by(request), at=world.clock.now())
    return Answer({**show_webhook(webhook), "secret": secret}, 201)


def rotate(request: Request) -> dict[str, Any]:
    """Give a webhook another secret; the answer shows it, this once."""
    reason, name = read_reason(request.body("reason").get("reason")), read_name(request.text("webhook"))
    webhook, secret = rotate_webhook(world.meta, world.webhook_key, name, reason=reason, by=_by(request), at=world.clock.now())
    return {**show_webhook(webhook), "secret": secret}


def remove(request: Request) -> dict[str, Any]:
    """Take a webhook away."""
    reason, name = read_reason(request.query_text("reason")), read_name(request.text("webhook"))
    return show_webhook(remove_webhook(world.meta, name, reason=reason, by=_by(request), at=world.clock.now()))


def ping(request: Request) -> Answer:
    """Queue a message that tells nothing."""
    for field in request.body():
        raise InvalidInputError.of(field, "unknown_field", "there is no such field here; a ping takes none")
    ping_id = f"ping_{secrets.token_hex(16)}"
    webhook = ping_webhook(world.meta, world.deliveries, read_name(request.text("webhook")), ping_id)
    return Answer({"webhook": webhook.name, "ping": ping_id}, 202)


ROUTES = {
    "GET /v1/webhooks": show_all,
    "POST /v1/webhooks": add,
    "DELETE /v1/webhooks/{webhook}": remove,
    "POST /v1/webhooks/{webhook}/rotation": rotate,
    "POST /v1/webhooks/{webhook}/ping": ping,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=world.guard, on_denied=lambda request, error: world.audit.denied(request, error))


def _by(request: Request) -> Principal:
    return person_of(world.meta, caller(request, world.settings))
