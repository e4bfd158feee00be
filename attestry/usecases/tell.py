"""Tell what stands in the published ledger: put events on the bus, and queue a message for each webhook that asked for them.

    TOLD/BUS, TOLD/WEBHOOKS     next: the index of the leaf that is told next; rev

Rules:
- What is told is read from the published ledger and from nowhere else; the outbox is never told.
- Each outlet has a cursor of its own, which moves, under the condition that it is where it was read, after the outlet has taken the leaves:
  at least once, in the ledger's order within a run. A crash between any two calls tells something again, and never leaves anything out.
- Two runs at once are harmless: both may tell the same, one moves the cursor, the other steps back.
- An outlet that does not answer holds up neither the other nor the ledger, which does not wait for this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from attestry.domain.errors import AttestryError, ConditionFailedError, IntegrityError, NotFoundError, UnavailableError
from attestry.domain.telling import Told
from attestry.evidence.leaf import Leaf
from attestry.ports import ABSENT, EventBus, Key, MetaStore, ObjectStore, Put, When
from attestry.usecases.ledger import LedgerReader

PARTITION: Final = "TOLD"
CHUNK: Final = 100
"""Leaves that are told before the cursor moves: what a crash makes told again at most."""


class Outlet(Protocol):
    """Where events are told."""

    @property
    def name(self) -> str:
        """Return the name of its cursor."""

    def tell(self, told: Sequence[Told]) -> None:
        """Tell events, in order; returns once all of them are taken.

        Raises:
            UnavailableError: not all were taken; those that were may be told again.
        """


@dataclass(frozen=True)
class BusOutlet:
    """The event bus: every event is put on it."""

    bus: EventBus
    name: str = "BUS"

    def tell(self, told: Sequence[Told]) -> None:
        """Put events on the bus."""
        self.bus.put(told)


@dataclass
class Telling:
    """What a run did.

    Attributes:
        told: outlet to how many events it took.
        waiting: outlet to how many it has not been told yet.
        contended: outlets at which another run was at work.
        errors: outlet to why it did not take them.
    """

    told: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    contended: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


class Teller:
    """Tells the ledger of one registry.

    Args:
        meta: the table.
        store: the model store, in which the ledger is published.
        outlets: where to tell it.
        monotonic: measures how long a run takes.
    """

    def __init__(
        self, meta: MetaStore, store: ObjectStore, outlets: Sequence[Outlet], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._meta = meta
        self._reader = LedgerReader(store)
        self._outlets = tuple(outlets)
        self._monotonic = monotonic

    def run(self, seconds: float = 40.0) -> Telling:
        """Tell what has not been told yet, until all is told or the time is up.

        Raises:
            IntegrityError: the published ledger is behind what was told of it; nothing was told.
            UnavailableError: table or store did not answer.
        """
        end, done = self._monotonic() + seconds, Telling()
        try:
            checkpoint, _ = self._reader.checkpoint()
        except NotFoundError:
            return done  # the ledger has not begun
        for outlet in self._outlets:
            try:
                self._tell(outlet, checkpoint.size, done, lambda: self._monotonic() >= end)
            except ConditionFailedError:
                done.contended.append(outlet.name)
            except IntegrityError:
                raise
            except AttestryError as error:
                done.errors[outlet.name] = error.message
        return done

    def _tell(self, outlet: Outlet, size: int, done: Telling, is_over: Callable[[], bool]) -> None:
        key = cursor_key(outlet.name)
        row = self._meta.get(key)
        start, rev = (int(row["next"]), int(row["rev"])) if row else (0, 0)
        if start > size:
            raise IntegrityError(
                f"{start} leaves were told by {outlet.name}, but {size} are published: the ledger or the cursor was set back"
            )
        done.told[outlet.name], done.waiting[outlet.name] = 0, size - start
        while start < size and not is_over():
            stop = min(start + CHUNK, size)
            outlet.tell(self._read(start, stop, size))
            when = When(exists=True, equals={"rev": rev}) if rev else ABSENT
            self._meta.transact([Put(key, {"next": stop, "rev": rev + 1}, when)])
            done.told[outlet.name] += stop - start
            done.waiting[outlet.name] = size - stop
            start, rev = stop, rev + 1

    def _read(self, start: int, stop: int, size: int) -> list[Told]:
        # Bundles are named by the size of a checkpoint, so what is read up to is not what is read by.
        leaves = [Leaf.parse(raw) for raw in islice(self._reader.leaves(start, size), stop - start)]
        if len(leaves) != stop - start:
            raise UnavailableError(f"of the leaves {start} to {stop - 1} only {len(leaves)} could be read")
        return [Told(start + n, leaf.logged, leaf.event) for n, leaf in enumerate(leaves)]


def cursor_key(outlet: str) -> Key:
    """Return the key of the row that says which leaf an outlet is told next."""
    return Key(PARTITION, outlet)
