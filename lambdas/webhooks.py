"""API: webhooks; for admins, and auditors who look at them. And the same for MLflow's clients, in their own words."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.errors import AttestryError, InvalidInputError
from attestry.domain.principal import Principal
from attestry.domain.webhooks import read_name
from attestry.evidence.webhook_secret import NONCE_BYTES
from attestry.mlflow import webhooks as spoken
from attestry.mlflow.errors import error_body
from attestry.mlflow.fields import Fields
from attestry.mlflow.pages import question, read_token, write_token
from attestry.usecases import mlflow_webhooks as mlflow
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

WEBHOOKS = "/api/2.0/mlflow/webhooks"

world = World(call_seconds=25)


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


def _mlflow(answer: Callable[[Request, Fields], Any]) -> Callable[[Request], Any]:
    return lambda request: answer(
        request, Fields.of_query(request.raw_query) if request.route.startswith("GET ") else Fields.of_body(request.raw)
    )


def make(request: Request, fields: Fields) -> dict[str, Any]:
    """Make a webhook for MLflow's clients."""
    token, nonce = secrets.token_hex(8), secrets.token_bytes(NONCE_BYTES)
    what: dict[str, Any] = {"by": _by(request), "at": world.clock.now(), "loopback": world.settings.webhook_loopback}
    made = mlflow.create_webhook(world.meta, world.webhook_key, spoken.read_asked(fields, new=True), token=token, nonce=nonce, **what)
    return {"webhook": spoken.show_webhook(made)}


def show(request: Request, _: Fields) -> dict[str, Any]:
    """Show a webhook to MLflow's clients."""
    return {"webhook": spoken.show_webhook(mlflow.find_webhook(world.meta, request.text("webhook_id")))}


def show_page(_: Request, fields: Fields) -> dict[str, Any]:
    """List the webhooks of MLflow's clients."""
    limit, asked = fields.count("max_results", spoken.PAGE, spoken.PAGE_AT_MOST), question("webhooks", "", ())
    found, cursor = mlflow.page_of_webhooks(world.meta, read_token(fields.text("page_token"), asked), limit)
    token = write_token(asked, cursor)
    return {"webhooks": [spoken.show_webhook(w) for w in found], **({"next_page_token": token} if token else {})}


def update(request: Request, fields: Fields) -> dict[str, Any]:
    """Change a webhook for MLflow's clients."""
    what: dict[str, Any] = {"by": _by(request), "at": world.clock.now(), "loopback": world.settings.webhook_loopback}
    asked, nonce = spoken.read_asked(fields, new=False), secrets.token_bytes(NONCE_BYTES)
    changed = mlflow.update_webhook(world.meta, world.webhook_key, request.text("webhook_id"), asked, nonce=nonce, **what)
    return {"webhook": spoken.show_webhook(changed)}


def delete(request: Request, _: Fields) -> dict[str, Any]:
    """Remove a webhook of MLflow's clients."""
    mlflow.delete_webhook(world.meta, request.text("webhook_id"), by=_by(request), at=world.clock.now())
    return {}


def test(request: Request, fields: Fields) -> dict[str, Any]:
    """Have an example of an event sent, and tell the status that came back."""
    webhook = mlflow.find_webhook(world.meta, request.text("webhook_id"))
    event = spoken.tested_event(fields, webhook)
    asked = {"action": "test", "webhook": webhook.name, "event": event, "id": f"test_{secrets.token_hex(16)}"}
    done = world.functions.call(world.settings.deliver_function, asked)
    status, why = int(done["status"]), str(done["why"])
    told = {"response_status": status} if status else {"error_message": why}
    return {"result": {"success": 200 <= status < 300, **told}}


MLFLOW_ROUTES = {
    f"GET {WEBHOOKS}": _mlflow(show_page),
    f"POST {WEBHOOKS}": _mlflow(make),
    f"GET {WEBHOOKS}/{{webhook_id}}": _mlflow(show),
    f"PATCH {WEBHOOKS}/{{webhook_id}}": _mlflow(update),
    f"DELETE {WEBHOOKS}/{{webhook_id}}": _mlflow(delete),
    f"POST {WEBHOOKS}/{{webhook_id}}/test": _mlflow(test),
}
"""What the function that answers MLflow passes on, with the caller that the gateway authenticated."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API, and MLflow's clients in their own words."""
    denied = world.audit.denied
    if event.get("routeKey") in MLFLOW_ROUTES:
        return serve(event, context, MLFLOW_ROUTES, guard=world.guard, on_denied=denied, on_error=_refuse, repeats=True)
    return serve(event, context, ROUTES, guard=world.guard, on_denied=denied)


def _by(request: Request) -> Principal:
    return person_of(world.meta, caller(request, world.settings))


def _refuse(error: AttestryError) -> Answer:
    status, body = error_body(error)
    return Answer(body, status)
