"""Reads audited acts back from the ledger: the batches that it names, and one batch with where its event stands.

Rules:
- Only auditors and admins read them: they tell who did what, and from where. A caller of another role is refused here and not before, so
  that the refusal is an audited act itself.
- What a batch is follows from its event in the ledger. Rows only lead there, and the object is handed out only where one of its versions
  has the digest that the event names: what was laid over it by hand is passed over.
- Events are numbered without a gap, so a batch that is not told of shows as a number that is missing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from attestry.domain.errors import ForbiddenError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.paging import Page, write_cursor
from attestry.domain.principal import Principal
from attestry.evidence.audit_batch import KIND, SUBJECT, read_batch
from attestry.evidence.leaf import Leaf, event_id, write_leaf
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.audit import HEAD, MAX_BYTES
from attestry.usecases.ledger import find_leaves
from attestry.usecases.ledger_bytes import LedgerBytes

READERS: Final = frozenset({"admin", "auditor"})
FIRST: Final = Page(50)
URL_SECONDS: Final = 15 * 60


def require_audit_reader(by: Principal) -> None:
    """Refuse a caller who may not read audited acts.

    Raises:
        ForbiddenError: naming the roles that may.
    """
    if not set(by.roles) & READERS:
        raise ForbiddenError(f"audited acts tell who did what, and from where; they are shown to {', '.join(sorted(READERS))} alone")


def list_batches(meta: MetaStore, store: ObjectStore, *, by: Principal, since: str = "", page: Page = FIRST) -> dict[str, Any]:
    """Return a page of batches, the latest first.

    Args:
        meta: the table.
        store: the model store.
        by: the caller.
        since: only batches that were logged from this time on, RFC 3339; an act is logged after it happened, never before.
        page: which; its places are numbers of batches.

    Returns:
        `batches`, each with `number`, `index` of its leaf, `logged`, and the event's `from`, `to`, `count`, `object` and `sha256`; of one
        whose event is not in the ledger `number` alone and `index` None. `next` is the cursor of the next page, None after the last.

    Raises:
        ForbiddenError: the caller is neither auditor nor admin.
        InvalidInputError: `since` is no time.
    """
    require_audit_reader(by)
    start = _moment(since)
    head = meta.get(HEAD)
    last = int(head["number"]) if head else 0
    last = last if page.after is None else min(last, int(page.after) - 1)
    numbers = range(last, max(0, last - (page.limit or last)), -1)
    leaves = _leaves(meta, store, list(numbers))
    batches: list[dict[str, Any]] = []
    for number in numbers:
        found = leaves.get(number)
        if found is not None and found[1].logged < start:
            return {"batches": batches, "next": None}
        batches.append({"number": number, "index": None} if found is None else _told(number, *found))
    return {"batches": batches, "next": write_cursor(page.bound, str(numbers[-1])) if numbers and numbers[-1] > 1 else None}


def show_batch(meta: MetaStore, store: ObjectStore, number: int, *, by: Principal) -> dict[str, Any]:
    """Return where a batch can be read, once its object was checked against the digest that the ledger names.

    Returns:
        As of one of `list_batches`, with `leaf` (the leaf's text), `size` in bytes, and a `url` that reads exactly the checked version.

    Raises:
        ForbiddenError: the caller is neither auditor nor admin.
        NotFoundError: the ledger holds no such batch.
        IntegrityError: no version of its object has the digest that the ledger names.
    """
    require_audit_reader(by)
    found = _leaves(meta, store, [number]).get(number)
    if found is None:
        raise NotFoundError(f"batch {number} of audited acts is not in the ledger")
    told = _told(number, *found)
    version_id, size = _find_object(store, str(told["object"]), str(told["sha256"]))
    url = store.presign_get(str(told["object"]), version_id, seconds=URL_SECONDS)
    leaf = write_leaf(found[1].event_bytes, found[1].logged).decode()
    return {**told, "leaf": leaf, "size": size, "url": url}


def _leaves(meta: MetaStore, store: ObjectStore, numbers: list[int]) -> dict[int, tuple[int, Leaf]]:
    """Return number to place and leaf, for the batches whose events are in the ledger."""
    ids = {event_id(KIND, SUBJECT, number): number for number in numbers}
    if not ids:
        return {}
    places = find_leaves(meta, list(ids))
    ledger = LedgerBytes(meta, store)
    size = ledger.size()
    leaves = {
        number: (places[known], ledger.leaf(known, {"index": places[known]}, size)) for known, number in ids.items() if known in places
    }
    return {number: (index, leaf) for number, (index, leaf) in leaves.items() if leaf is not None}


def _told(number: int, index: int, leaf: Leaf) -> dict[str, Any]:
    facts = {name: leaf.event["data"][name] for name in ("from", "to", "count", "object", "sha256")}
    return {"number": number, "index": index, "logged": leaf.logged, **facts}


def _find_object(store: ObjectStore, key: str, sha256: str) -> tuple[str, int]:
    """Return ID and size of the version of an object that has the digest."""
    for version in store.list_versions(key):
        if version.key != key or version.is_delete_marker or version.size > MAX_BYTES:
            continue
        try:
            read_batch(store.read(key, version.version_id, max_bytes=MAX_BYTES), sha256)
        except (IntegrityError, InvalidInputError):
            continue
        return version.version_id, version.size
    raise IntegrityError(f"{key} is not there with the SHA-256 {sha256} that the ledger names")


def _moment(since: str) -> str:
    if not since:
        return ""
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise InvalidInputError.of("since", "time", "a time is RFC 3339, for example 2026-03-01T12:00:00Z") from error
    return timestamp(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
