"""Webhooks: added, removed, given another secret, pinged, and disabled where a receiver says that it is gone.

    WEBHOOK#<name>/HEAD      what it is, see `attestry.domain.webhooks`; in the collection WEBHOOKS
    DELIVERY#<name>/HEAD     what became of the last try: written by who delivers, for people to look at

Rules:
- Each change is one transaction with its event, which tells the whole row after it but for the URL.
- A row is never deleted: the name keeps the number of its last secret, so that no secret comes twice.
- The secret is shown once, when it is made, and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.telling import Told
from attestry.domain.webhooks import ADDED, CHANGED, REMOVED, State, Webhook, read_name, read_patterns, read_target, require_public
from attestry.evidence.webhook_signature import secret_message, show_secret
from attestry.ports import ABSENT, Deliveries, Key, MacKey, MetaStore, Put, When
from attestry.usecases.records import outbox_put

COLLECTION: Final = "WEBHOOKS"
MAX_WEBHOOKS: Final = 200
"""Names, those of removed ones too."""

MAX_CHANGES: Final = 1_000


def webhook_key(name: str) -> Key:
    """Return the key of a webhook."""
    return Key(f"WEBHOOK#{name}")


def delivery_key(name: str) -> Key:
    """Return the key of what became of the last delivery to a webhook."""
    return Key(f"DELIVERY#{name}")


def subject_of(name: str) -> str:
    """Return the subject of a webhook's events."""
    return f"webhook/{name}"


def row_of_subject(subject: str) -> Key:
    """Return the key of the row that an event about a webhook was written with."""
    return webhook_key(subject.removeprefix(subject_of("")))


def mark(event: Event) -> str:
    """Return what the row lists of an event: its time and ID, the sort key under which it waits in the outbox."""
    return f"{timestamp(event.at)}#{event.event_id[:32]}"


@dataclass(frozen=True)
class Wish:
    """What an admin asks for.

    Attributes:
        name: the webhook's name.
        url: where to.
        kinds: patterns of kinds of events.
        models: patterns of models.
        reason: why, checked.
    """

    name: str
    url: str
    kinds: tuple[str, ...]
    models: tuple[str, ...]
    reason: str

    @classmethod
    def read(cls, body: Mapping[str, Any], reason: str, *, loopback: bool) -> Wish:
        """Return what a body asks for.

        Raises:
            InvalidInputError: it breaks a rule.
        """
        target = read_target(body.get("url"), loopback=loopback)
        if target.secure and (target.host.replace(".", "").isdigit() or ":" in target.host):
            require_public(target.host)
        return cls(
            read_name(body.get("webhook")),
            str(body["url"]),
            read_patterns("kinds", body.get("kinds")),
            read_patterns("models", body.get("models")),
            reason,
        )


def add_webhook(meta: MetaStore, key: MacKey, wish: Wish, *, by: Principal, at: datetime) -> tuple[Webhook, str]:
    """Add a webhook, and return it with its secret, which is shown this once. A name that was removed or disabled may be added again.

    Raises:
        ConflictError: one of that name is there, or somebody else adds it at the same moment.
        InvalidInputError: there are too many.
    """
    row = meta.get(webhook_key(wish.name))
    before = Webhook.from_item(row) if row else None
    if before and before.state is State.ACTIVE:
        raise ConflictError(
            f"there is a webhook {wish.name}; where its secret got lost, rotate it: attestry webhooks rotate {wish.name}",
            details={"webhook": wish.name},
        )
    if before is None:
        require_room(meta)
    number, marks = (before.secret_number + 1, before.changed) if before else (1, ())
    who = by.person or by.login
    webhook = Webhook(wish.name, wish.url, wish.kinds, wish.models, State.ACTIVE, number, "", wish.reason, who, marks)
    secret = show_secret(key.mac(secret_message(wish.name, number)))
    return change_webhook(meta, before, webhook, ADDED, by, at), secret


def require_room(meta: MetaStore) -> None:
    """Refuse a further name of a webhook where there are as many as there may be.

    Raises:
        InvalidInputError: there are too many.
    """
    if len(meta.list_collection(COLLECTION, limit=MAX_WEBHOOKS)) >= MAX_WEBHOOKS:
        raise InvalidInputError.of("webhook", "max_webhooks", f"a registry has at most {MAX_WEBHOOKS} names of webhooks, removed ones too")


def rotate_webhook(meta: MetaStore, key: MacKey, name: str, *, reason: str, by: Principal, at: datetime) -> tuple[Webhook, str]:
    """Give a webhook another secret, and return it with that; the one before signs beside it for a day.

    Raises:
        NotFoundError: there is none.
        ConflictError: somebody else changes it at the same moment, or MLflow's clients choose its secret.
    """
    before = read_webhook(meta, name)
    if before.mlflow:
        raise ConflictError(f"{name} is a webhook of MLflow's clients, who choose its secret themselves: MlflowClient().update_webhook")
    who = by.person or by.login
    webhook = replace(before, secret_number=before.secret_number + 1, rotated=timestamp(at), reason=reason, by=who)
    secret = show_secret(key.mac(secret_message(name, webhook.secret_number)))
    return change_webhook(meta, before, webhook, CHANGED, by, at), secret


def remove_webhook(meta: MetaStore, name: str, *, reason: str, by: Principal, at: datetime) -> Webhook:
    """Take a webhook away; what is queued for it is dropped. Done twice it changes nothing.

    Raises:
        NotFoundError: there never was one.
        ConflictError: somebody else changes it at the same moment.
    """
    before = read_webhook(meta, name, removed=True)
    if before.state is State.REMOVED:
        return before
    return change_webhook(meta, before, before.now(State.REMOVED, reason=reason, by=by.person or by.login), REMOVED, by, at)


def disable_webhook(meta: MetaStore, webhook: Webhook, *, reason: str, at: datetime) -> Webhook:
    """Tell a webhook no more, because its receiver is gone.

    Raises:
        ConflictError: somebody else changes it at the same moment.
    """
    by = registry_principal("deliver")
    return change_webhook(meta, webhook, webhook.now(State.DISABLED, reason=reason, by=by.login), CHANGED, by, at)


def ping_webhook(meta: MetaStore, deliveries: Deliveries, name: str, ping: str) -> Webhook:
    """Queue a message to a webhook that tells nothing, to see whether it is received; what became of it is shown with the webhook.

    Args:
        meta: the table.
        deliveries: the queue.
        name: the webhook.
        ping: ID of the ping.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is disabled.
        UnavailableError: the queue did not take it.
    """
    webhook = read_webhook(meta, name)
    if webhook.state is not State.ACTIVE:
        raise ConflictError(f"the webhook {name} is disabled: {webhook.reason}; add it again")
    deliveries.send([{"webhook": name, "ping": ping}])
    return webhook


def read_webhook(meta: MetaStore, name: str, *, removed: bool = False) -> Webhook:
    """Return a webhook.

    Raises:
        NotFoundError: there is none, or, unless `removed`, it was removed.
    """
    row = meta.get(webhook_key(name))
    if row is None or (row["state"] == State.REMOVED and not removed):
        raise NotFoundError(f"there is no webhook {name:.80}")
    return Webhook.from_item(row)


def list_webhooks(meta: MetaStore) -> list[Webhook]:
    """Return the webhooks that were not removed, by name; eventually consistent."""
    return [w for w in map(Webhook.from_item, meta.list_collection(COLLECTION)) if w.state is not State.REMOVED]


def show_webhooks(meta: MetaStore) -> list[dict[str, Any]]:
    """Return the webhooks as people see them, each with what became of its last delivery."""
    webhooks = list_webhooks(meta)
    rows = meta.get_many([delivery_key(w.name) for w in webhooks]) if webhooks else {}
    return [show_webhook(w, rows.get(delivery_key(w.name))) for w in webhooks]


def show_webhook(webhook: Webhook, last: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a webhook as people see it."""
    item = webhook.to_item()
    shown = {name: item[name] for name in ("url", "kinds", "models", "state", "secret_number", "rotated", "reason", "by")}
    tried = {name: last[name] for name in ("at", "id", "outcome", "attempt")} if last else None
    return {"webhook": webhook.name, **shown, "last": tried}


@dataclass(frozen=True)
class WebhookOutlet:
    """Webhooks as somewhere that the ledger is told: a message in the queue for each webhook that wants an event.

    The message names webhook and leaf and nothing else: who delivers reads both, so a forged message tells nobody anything untrue.
    """

    meta: MetaStore
    deliveries: Deliveries
    name: str = "WEBHOOKS"

    def tell(self, told: Sequence[Told]) -> None:
        """Queue what webhooks ask for."""
        webhooks = list_webhooks(self.meta)
        wanted = [{"webhook": w.name, "index": one.index} for one in told for w in webhooks if w.wants(one.kind, one.model)]
        if wanted:
            self.deliveries.send(wanted)


def fold_webhook(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the attributes of the row that follow from its events; reconciliation compares the row with them."""
    told = ("kinds", "models", "state", "secret_number", "rotated", "reason")
    marks = [f"{event['at']}#{str(event['id'])[:32]}" for event in events]
    return {**{name: events[-1]["data"][name] for name in told}, "changed": marks, "rev": len(marks)}


def change_webhook(meta: MetaStore, before: Webhook | None, webhook: Webhook, kind: str, by: Principal, at: datetime) -> Webhook:
    """Write a webhook as it is to be, with the event that tells of it, and return it.

    Raises:
        InvalidInputError: it was changed too often.
        ConflictError: somebody else changes it at the same moment.
    """
    if len(webhook.changed) >= MAX_CHANGES:
        raise InvalidInputError.of("webhook", "max_changes", f"{webhook.name} was changed {MAX_CHANGES} times, which is the limit")
    event = Event(kind, subject_of(webhook.name), len(webhook.changed) + 1, at, by, webhook.facts())
    changed = replace(webhook, changed=(*webhook.changed, mark(event)))
    item = {**changed.to_item(), "gsi_pk": COLLECTION, "gsi_sk": webhook.name}
    when = When(exists=True, equals={"rev": len(before.changed)}) if before else ABSENT
    try:
        meta.transact([Put(webhook_key(webhook.name), item, when), outbox_put(event)])
    except ConditionFailedError as error:
        raise ConflictError(f"the webhook {webhook.name} was changed by somebody else at the same moment; look at it first") from error
    return changed
