"""Acts on a record only while it stands at the revision that the caller has seen.

    meta = MatchedMeta(meta, version_key("credit-risk", 3), 17)
    kill_version(meta, ...)                # PreconditionFailedError unless the head is at rev 17, checked in the transaction

Rules:
- Whichever use case acts, its first transaction takes part in the record by its revision, beside its own conditions; so nobody comes
  between the look and the write. What the use case writes afterwards goes on from its own revision.
- A read of the record at another revision ends the act at once; a record that is not there is the use case's to tell of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attestry.domain.errors import ConditionFailedError, PreconditionFailedError
from attestry.ports import Check, Item, Key, MetaStore, When, Write


class MatchedMeta:
    """`attestry.ports.MetaStore` with one row at one revision, up to the first transaction.

    Args:
        meta: the table.
        key: the record.
        rev: its revision.
        attribute: where the record has it.
    """

    def __init__(self, meta: MetaStore, key: Key, rev: int, *, attribute: str = "rev") -> None:
        self._meta = meta
        self._key = key
        self._attribute = attribute
        self._rev: int | None = rev

    def get(self, key: Key) -> Item | None:
        """Return the row."""
        row = self._meta.get(key)
        if key == self._key:
            self._check(row)
        return row

    def get_many(self, keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:
        """Return the rows that exist, with their revision whatever else is read of them."""
        rows = self._meta.get_many(keys, only=[*only, self._attribute] if only else ())
        self._check(rows.get(self._key))
        return rows

    def query(
        self,
        partition: str,
        *,
        prefix: str = "",
        after: str | None = None,
        before: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        only: Sequence[str] = (),
    ) -> list[Item]:
        """Return the rows of a partition, with their revision whatever else is read of them."""
        told = [*only, self._attribute] if only else ()
        rows = self._meta.query(partition, prefix=prefix, after=after, before=before, newest_first=newest_first, limit=limit, only=told)
        if partition == self._key.partition:
            self._check(next((row for row in rows if row["sk"] == self._key.sort), None))
        return rows

    def list_collection(
        self, collection: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> list[Item]:
        """Return rows of a collection, which may lag behind and so are not looked at."""
        return self._meta.list_collection(collection, after=after, limit=limit, newest_first=newest_first)

    def transact(self, writes: Sequence[Write]) -> None:
        """Apply all writes or none."""
        if self._rev is None or not writes:
            self._meta.transact(writes)
            return
        try:
            self._meta.transact(self._matched(writes, {self._attribute: self._rev}))
        except ConditionFailedError:
            self._check(self._meta.get(self._key))
            raise
        self._rev = None

    def _matched(self, writes: Sequence[Write], at: dict[str, int]) -> list[Write]:
        if all(write.key != self._key for write in writes):
            return [*writes, Check(self._key, When(exists=True, equals=at))]
        return [replace(w, when=replace(w.when, equals={**w.when.equals, **at})) if w.key == self._key else w for w in writes]

    def _check(self, row: Item | None) -> None:
        if self._rev is not None and row is not None and row.get(self._attribute) != self._rev:
            found = row.get(self._attribute)
            raise PreconditionFailedError(f"the record is at revision {found}, not at {self._rev} as If-Match has it; read it again")
