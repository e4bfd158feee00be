"""Takes the audited acts of past minutes into the ledger: one object of many acts, and one event that names it.

Step by step, and what a crash behind each leaves:

1. What an earlier run committed and did not clear away is cleared away first.
2. Up to 1,000 rows whose minute is over become one object, written once and retained. A crash here leaves an object that nothing names.
3. The event, and the counter with what is to be cleared, are one transaction. This is the commit.
4. The rows are deleted, then the counter forgets them. A crash here is made good by step 1 of the next run.

A row that its process wrote once more in between is not deleted: it is taken up again, with its higher count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.audit import AUDIT
from attestry.domain.errors import ConditionFailedError, InvalidInputError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import registry_principal
from attestry.evidence.audit_batch import read_batch
from attestry.evidence.canonical import canonical_bytes
from attestry.ports import ABSENT, Delete, Item, Key, MetaStore, ObjectStore, Put, When, Write
from attestry.usecases.records import outbox_put

HEAD: Final = Key("LEDGER", "AUDIT")
FOLDER: Final = "ledger/audit/"
MAX_ROWS: Final = 1_000
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_LINE_BYTES: Final = MAX_BYTES // MAX_ROWS
"""So that a full batch can be read again; what the registry writes takes far less."""

GRACE: Final = timedelta(minutes=1)
"""For how long after a minute's end its rows may still be written: more than any function runs on after it has counted."""

_DELETES: Final = 100


@dataclass(frozen=True)
class DrainedAudit:
    """What a run took up.

    Attributes:
        number: sequence of the event.
        count: rows in the object.
        object: key of the object.
        more: whether further rows wait.
    """

    number: int
    count: int
    object: str
    more: bool


def drain_audit(meta: MetaStore, store: ObjectStore, at: datetime) -> DrainedAudit | None:
    """Take up what is over, and return what was taken; None where nothing was, or another run was faster.

    Args:
        meta: the table.
        store: the model store, with the retention of evidence.
        at: the time.

    Raises:
        IntegrityError: the object of an unfinished run is not what was committed.
        UnavailableError: AWS did not answer; the next run goes on.
    """
    head = meta.get(HEAD)
    if head is not None and head.get("pending"):
        _clear(meta, store, head)
        head = meta.get(HEAD)
    # The first minute that may still be written; older ones sort before it.
    until = timestamp(at - GRACE)[:16]
    found = meta.query(AUDIT, limit=MAX_ROWS)
    rows = [row for row in found if str(row["sk"]) < until]
    if not rows:
        return None
    lines = b"".join(canonical_bytes(_line(row)) + b"\n" for row in rows)
    sha256 = hashlib.sha256(lines).hexdigest()
    key = f"{FOLDER}{sha256}.jsonl"
    number = int(head["number"]) + 1 if head else 1
    store.put_new(key, lines, content_type="application/jsonl", retain=True)
    committed = {"number": number, "pending": {"object": key, "sha256": sha256}, "rev": number}
    facts = {"object": key, "sha256": sha256, "count": len(rows), "from": str(rows[0]["sk"])[:16], "to": str(rows[-1]["sk"])[:16]}
    event = Event("audit.batch", "audit", number, at, registry_principal("audit"), facts)
    when = When(exists=True, equals={"rev": head["rev"], "pending": None}) if head else ABSENT
    try:
        meta.transact([Put(HEAD, committed, when), outbox_put(event)])
    except ConditionFailedError:
        return None
    _clear(meta, store, committed)
    return DrainedAudit(number, len(rows), key, more=len(found) == MAX_ROWS)


def _clear(meta: MetaStore, store: ObjectStore, head: Mapping[str, Any]) -> None:
    pending = head["pending"]
    taken = {str(line["sk"]): line for line in read_batch(store.read(pending["object"], max_bytes=MAX_BYTES), pending["sha256"])}
    keys = [Key(AUDIT, sort) for sort in taken]
    for start in range(0, len(keys), _DELETES):
        _delete(meta, keys[start : start + _DELETES], taken)
    done = {"number": head["number"], "rev": head["rev"]}
    try:
        meta.transact([Put(HEAD, done, When(exists=True, equals={"rev": head["rev"], "pending": dict(pending)}))])
    except ConditionFailedError:
        # Another run has cleared it.
        return


def _delete(meta: MetaStore, keys: list[Key], taken: Mapping[str, Mapping[str, Any]]) -> None:
    there = meta.get_many(keys)
    deletes: list[Write] = [
        Delete(key, When(exists=True, equals={"count": row.get("count")})) for key, row in there.items() if _line(row) == taken[key.sort]
    ]
    if not deletes:
        return
    try:
        meta.transact(deletes)
    except ConditionFailedError:
        # One was written again meanwhile; the others are deleted each for itself.
        for delete in deletes:
            try:
                meta.transact([delete])
            except ConditionFailedError:
                continue


def _line(row: Item) -> dict[str, Any]:
    """Return a row as a line of the batch; one that no function of the registry wrote is told by its digest, and holds nothing up."""
    line = {"sk": str(row["sk"]), **{name: value for name, value in row.items() if name not in ("pk", "sk")}}
    try:
        if len(canonical_bytes(line)) <= MAX_LINE_BYTES:
            return line
    except InvalidInputError:
        pass
    return {"sk": str(row["sk"]), "malformed": hashlib.sha256(repr(sorted(line.items())).encode("utf-8", "backslashreplace")).hexdigest()}
