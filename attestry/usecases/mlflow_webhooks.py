"""Webhooks of MLflow's clients: made, shown, changed and removed, as webhooks of the registry that speak MLflow's words.

Rules:
- Each is a row as every other webhook has, with the same event for each change; its ID in MLflow is its name here.
- Its secret is the client's choice, so it is sealed in the row (`attestry.evidence.webhook_secret`), and shown to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.webhooks import ADDED, CHANGED, State, Webhook
from attestry.evidence.webhook_secret import seal_message, seal_secret
from attestry.mlflow.webhooks import AskedWebhook, kinds_of, no_webhook
from attestry.ports import MacKey, MetaStore
from attestry.usecases.webhooks import Wish, change_webhook, list_webhooks, read_webhook, remove_webhook, require_room

PREFIX: Final = "mlflow-"
REASON: Final = "an MLflow client asked for it"
PAUSED: Final = "an MLflow client disabled it"


def create_webhook(
    meta: MetaStore, key: MacKey, asked: AskedWebhook, *, token: str, nonce: bytes, by: Principal, at: datetime, loopback: bool
) -> Webhook:
    """Make a webhook.

    Args:
        meta: the table.
        key: derives the keys that secrets are sealed by.
        asked: what the client asks for, all that a new one needs.
        token: what makes its name: lower-case hex digits, random.
        nonce: random bytes for its secret, see `seal_secret`.
        by: the authenticated caller.
        at: the time.
        loopback: http to the loopback address is allowed.

    Raises:
        InvalidInputError: the URL is one that requests may not go to, or there are too many webhooks.
        ConflictError: one of that name is there.
    """
    require_room(meta)
    name = f"{PREFIX}{token}"
    spoken = _spoken({}, asked, at)
    webhook = Webhook(name, "", (), ("*",), State.ACTIVE, 1, "", REASON, by.person or by.login, (), {**spoken, "sealed": ""})
    return change_webhook(meta, None, _as_asked(key, webhook, asked, nonce, at, loopback=loopback), ADDED, by, at)


def update_webhook(
    meta: MetaStore, key: MacKey, webhook_id: str, asked: AskedWebhook, *, nonce: bytes, by: Principal, at: datetime, loopback: bool
) -> Webhook:
    """Change what a client asks for of a webhook, and nothing else; see `create_webhook`.

    Raises:
        MlflowError: there is none.
        InvalidInputError, ConflictError: see `create_webhook`; or somebody else changes it at the same moment.
    """
    before = find_webhook(meta, webhook_id)
    webhook = replace(before, by=by.person or by.login, reason=REASON, mlflow={**before.mlflow, **_spoken(before.mlflow, asked, at)})
    return change_webhook(meta, before, _as_asked(key, webhook, asked, nonce, at, loopback=loopback), CHANGED, by, at)


def delete_webhook(meta: MetaStore, webhook_id: str, *, by: Principal, at: datetime) -> None:
    """Remove a webhook; what is queued for it is dropped.

    Raises:
        MlflowError: there is none.
    """
    find_webhook(meta, webhook_id)
    remove_webhook(meta, webhook_id, reason=REASON, by=by, at=at)


def find_webhook(meta: MetaStore, webhook_id: str) -> Webhook:
    """Return a webhook of MLflow's clients.

    Raises:
        MlflowError: there is none; code RESOURCE_DOES_NOT_EXIST.
    """
    try:
        webhook = read_webhook(meta, webhook_id)
    except NotFoundError as error:
        raise no_webhook(webhook_id) from error
    if not webhook.mlflow:
        raise no_webhook(webhook_id)
    return webhook


def page_of_webhooks(meta: MetaStore, after: str, limit: int) -> tuple[list[Webhook], str]:
    """Return webhooks of MLflow's clients in order of their IDs, and where the next page goes on; empty behind the last."""
    known = [w for w in list_webhooks(meta) if w.mlflow and w.name > after]
    return known[:limit], known[limit - 1].name if len(known) > limit else ""


def _spoken(before: Mapping[str, Any], asked: AskedWebhook, at: datetime) -> dict[str, Any]:
    return {
        "title": before.get("title", "") if asked.title is None else asked.title,
        "description": before.get("description", "") if asked.description is None else asked.description,
        "events": list(before.get("events", ()) if asked.events is None else asked.events),
        "created": before.get("created", timestamp(at)),
        "updated": timestamp(at),
    }


def _as_asked(key: MacKey, webhook: Webhook, asked: AskedWebhook, nonce: bytes, at: datetime, *, loopback: bool) -> Webhook:
    """Return a webhook with URL, kinds, state and secret as they are asked for."""
    url = webhook.url if asked.url is None else asked.url
    kinds = kinds_of(tuple(webhook.mlflow["events"]))
    wish = Wish.read({"webhook": webhook.name, "url": url, "kinds": kinds}, REASON, loopback=loopback)
    changed = replace(webhook, url=wish.url, kinds=wish.kinds)
    if asked.active is not None:
        state, reason = (State.ACTIVE, REASON) if asked.active else (State.DISABLED, PAUSED)
        changed = changed.now(state, reason=reason, by=webhook.by)
    if asked.secret is None:
        return changed
    # Each secret has a number of its own, and with it a key: none is sealed by the key of another.
    number = webhook.secret_number + (1 if webhook.changed else 0)
    sealed = seal_secret(key.mac(seal_message(webhook.name, number)), webhook.name, asked.secret, nonce)
    rotated = timestamp(at) if webhook.changed else ""
    return replace(changed, secret_number=number, rotated=rotated, mlflow={**changed.mlflow, "sealed": sealed})
