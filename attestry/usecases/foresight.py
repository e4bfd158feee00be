"""The rows that a question needed the last time are read together when it is asked again.

    meta = foresight.ahead(table, "GET /models/credit-risk/aliases/champion")
    meta.get_many([aliases])       # one round trip, for the version as well that the alias named the last time
    meta.get_many([version])       # from memory, unless the alias names another one by now

Rules:
- What is remembered is which rows were read, never what they said: each question is answered by rows that were read for it.
- Rows that are read together are of one moment, which those of two round trips are not.
- A row that was foreseen and is not needed costs its read units once; the next time it is not foreseen.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from attestry.ports import Item, Key, MetaStore
from attestry.usecases.read_ahead import ReadAhead

ROUND_TRIP: Final = 100
"""Rows that one round trip reads at most (`MetaStore.get_many`)."""

QUESTIONS: Final = 512
"""Questions that a process remembers; of more, those that were asked last."""


class Foresight:
    """What a process remembers of which rows questions needed.

    Args:
        questions: how many are remembered.
    """

    def __init__(self, questions: int = QUESTIONS) -> None:
        self._at_most = questions
        self._known: OrderedDict[str, tuple[Key, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def ahead(self, meta: MetaStore, question: str) -> MetaStore:
        """Return the table for one answer to a question.

        Args:
            meta: the table.
            question: what is asked, whole: the same text leads to the same rows unless something was changed.
        """
        with self._lock:
            foreseen = self._known.get(question, ())
        return _Foreseen(meta, foreseen, lambda keys: self._remember(question, keys))

    def _remember(self, question: str, keys: tuple[Key, ...]) -> None:
        with self._lock:
            self._known[question] = keys
            self._known.move_to_end(question)
            if len(self._known) > self._at_most:
                self._known.popitem(last=False)


class _Foreseen(ReadAhead):
    """A `MetaStore` whose first read of several rows takes those along that are foreseen; until a write they are answered from memory."""

    def __init__(self, meta: MetaStore, foreseen: tuple[Key, ...], remember: Callable[[tuple[Key, ...]], None]) -> None:
        super().__init__(meta, {})
        self._foreseen = foreseen
        self._remember = remember
        self._asked: dict[Key, None] = {}

    def get(self, key: Key) -> Item | None:
        """See `MetaStore.get`."""
        return self._rows[key] if key in self._rows else self._meta.get(key)

    def get_many(self, keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:  # noqa: ARG002 - kept rows are whole
        """See `MetaStore.get_many`; where one row has to be read, all are, so that they are of one moment."""
        wanted = list(dict.fromkeys(keys))
        if not all(key in self._rows for key in wanted):
            ahead = [key for key in self._foreseen if key not in wanted][: max(0, ROUND_TRIP - len(wanted))]
            self._foreseen = ()
            found = self._meta.get_many([*wanted, *ahead])
            self._rows |= {key: found.get(key) for key in (*wanted, *ahead)}
        self._asked |= dict.fromkeys(wanted)
        self._remember(tuple(self._asked)[:ROUND_TRIP])
        return {key: row for key in wanted if (row := self._rows[key]) is not None}
