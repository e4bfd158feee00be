"""Reads what decisions rest on, and keeps it for a moment.

Rules:
- A decision on an act that changes something reads its rows as they are now, in one round trip; reads and predictions may be decided on
  rows that this process read up to `STALE_SECONDS` ago. So long a withdrawn grant still counts for those, and no longer.
- Whose login it is never changes once it is known, so that is read once.
- An added policy whose text is gone or is not what its digest says lets nobody through: it may be the one that forbids.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.access.engine import Engine, OnModel
from attestry.access.rows import POLICIES_KEY, access_policy_key, grant_key, login_subject, person_subject, placement_key
from attestry.access.scopes import Placement, is_name_of_model
from attestry.access.standing import Caller, Standing, standing_of
from attestry.domain.errors import IntegrityError
from attestry.ports import Item, Key, MetaStore

STALE_SECONDS: Final = 10.0
MAX_KEPT: Final = 20_000


@dataclass(frozen=True)
class Known:
    """What was read for a decision.

    Attributes:
        standing: what the caller holds.
        engine: the policies in force.
        of: the model whose placement was read, or None.
        row: of its placement, or None where it is placed nowhere.
    """

    standing: Standing
    engine: Engine
    of: str | None
    row: Item | None

    def model(self, name: str) -> OnModel:
        """Return a model where it is placed, as far as that was read."""
        return OnModel(name, Placement.from_item(self.row if name == self.of else None))


class AccessReader:
    """What one process keeps of the rows that decisions rest on.

    Args:
        meta: the table.
        monotonic: seconds.
    """

    def __init__(self, meta: MetaStore, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._meta = meta
        self._monotonic = monotonic
        self._kept: dict[Key, tuple[float, Item | None]] = {}
        self._persons: dict[str, str] = {}
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def read(self, caller: Caller, model: str | None, at: datetime, *, fresh: bool, table: MetaStore | None = None) -> Known:
        """Read what a decision on a caller rests on.

        Args:
            caller: whom the platform authenticated.
            model: the model that is asked for, or None.
            at: the time.
            fresh: whether rows that were read a moment ago will not do.
            table: what the request that is decided on reads through, which may take its own rows along; the table itself by default.

        Raises:
            IntegrityError: an added policy is not what was published.
            UnavailableError: the table did not answer.
        """
        login = caller.principal.login
        by_login, login_key = grant_key(login_subject(login)), Key(f"LOGIN#{login}")
        # What is no name is placed nowhere, and makes no key: roles may read keys of a certain form, and keys have a length.
        placed = placement_key(model) if model and is_name_of_model(model) else None
        person = self._persons.get(login)
        # Most people's logins are their IDs: what was granted to such a person comes in the same round trip.
        by_person = grant_key(person_subject(person or login))
        wanted = [POLICIES_KEY, by_login, by_person, *([placed] if placed else []), *([] if person else [login_key])]
        rows = self._rows(wanted, fresh, table)
        if person is None and (row := rows[login_key]) is not None:
            person = self._persons[login] = str(row["person"])
            if person != login:
                by_person = grant_key(person_subject(person))
                rows |= self._rows([by_person], fresh, table)
        of_person = rows[by_person] if person else None
        standing = standing_of(caller, person, (of_person, rows[by_login]), at)
        return Known(standing, self._engine(rows[POLICIES_KEY]), model, rows[placed] if placed else None)

    def models(self, names: Iterable[str]) -> dict[str, OnModel]:
        """Return models where they are placed, on rows of a moment ago."""
        keys = {name: placement_key(name) for name in names}
        rows = self._rows(list(keys.values()), fresh=False)
        return {name: OnModel(name, Placement.from_item(rows[key])) for name, key in keys.items()}

    def _rows(self, keys: list[Key], fresh: bool, table: MetaStore | None = None) -> dict[Key, Item | None]:
        now = self._monotonic()
        with self._lock:
            kept = {} if fresh else {k: self._kept[k][1] for k in keys if k in self._kept and now - self._kept[k][0] < STALE_SECONDS}
        missing = [key for key in keys if key not in kept]
        if not missing:
            return kept
        found = (table or self._meta).get_many(missing)
        with self._lock:
            if len(self._kept) > MAX_KEPT:
                self._kept.clear()
                self._persons.clear()
            self._kept.update({key: (now, found.get(key)) for key in missing})
        return {**kept, **{key: found.get(key) for key in missing}}

    def _engine(self, head: Item | None) -> Engine:
        known: Mapping[str, Any] = head["policies"] if head else {}
        in_force = {name: edition for name, edition in known.items() if edition["sha256"]}
        name = "\n".join(f"{name} {edition['number']} {edition['sha256']}" for name, edition in sorted(in_force.items()))
        engine = self._engines.get(name)
        if engine is None:
            engine = Engine([self._text(policy, edition) for policy, edition in sorted(in_force.items())])
            self._engines = {name: engine}
        return engine

    def _text(self, name: str, edition: Mapping[str, Any]) -> str:
        row = self._meta.get(access_policy_key(name, int(edition["number"])))
        text = str(row["text"]) if row else ""
        if hashlib.sha256(text.encode()).hexdigest() != edition["sha256"]:
            raise IntegrityError(f"edition {edition['number']} of the access policy {name}, which is in force, is not what was published")
        return text
