"""The events of a bundle: which are sought, and where they are found: in the ledger, or in the outbox while they wait.

Rows say which events there ought to be, and rows can be edited. So a move that no row leads to, or leads elsewhere, is sought in the ledger
itself, under the ID of every kind of move that it can be; what was hidden from the table is in the bundle all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.policies import PUBLISHED, EditionName, policy_subject
from attestry.domain.validations import RECORDED
from attestry.domain.version import Version
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.checks_moves import MOVES
from attestry.evidence.checks_person_keys import CHANGED, person_subject
from attestry.evidence.leaf import Leaf, event_id
from attestry.evidence.tlog import inclusion_proof
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.ledger import LedgerReader, find_leaves
from attestry.usecases.outbox import outbox_key
from attestry.usecases.policies import edition_key
from attestry.usecases.records import person_key

_KEYS_AT_ONCE: Final = 100
MAX_HIDDEN: Final = 100
"""How many moves beyond those that rows tell of are looked for."""


@dataclass(frozen=True)
class Sought:
    """An event by its ID, and the time under which it waits in the outbox; empty where that is not known."""

    event_id: str
    at: str = ""


@dataclass
class Collected:
    """What a bundle will hold.

    Attributes:
        files: name to bytes.
        events: event ID to event, for those that are in the ledger.
        pending: how many events are not.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    events: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    pending: int = 0


class EventCollector:
    """Collects events.

    Args:
        meta: the table.
        store: the model store.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore) -> None:
        self._meta = meta
        self._reader = LedgerReader(store)
        # Tiles and entry bundles are named by what is in them, so one collector reads each of them once for all that it collects.
        self._read_tile = lru_cache(maxsize=256)(self._reader.read_tile)

    def add(self, collected: Collected, sought: Sequence[Sought]) -> None:
        """Add the leaves of events with their proofs, and the events that still wait in the outbox."""
        places = self._find([s.event_id for s in sought])
        waiting = self._waiting([s for s in sought if s.event_id not in places])
        # What was in neither may have been moved from one to the other in between.
        places |= self._find([s.event_id for s in sought if s.event_id not in places and s.event_id not in waiting])
        for known, raw in waiting.items():
            if known not in places:
                collected.files[f"ledger/pending/{known}.json"] = raw
                collected.pending += 1
        if not places:
            return
        # Read after the places: the live checkpoint covers every leaf that has an index row.
        checkpoint, note = self._reader.checkpoint()
        proofs: dict[str, list[str]] = {}
        for index in sorted(places.values()):
            try:
                raw = self._reader.leaf(index, checkpoint.size)
                leaf = Leaf.parse(raw)
            except (InvalidInputError, NotFoundError):
                continue
            if places.get(leaf.event_id) != index:
                continue  # an index row that the ledger does not bear out: somebody wrote it by hand
            collected.files[f"ledger/leaves/{index:012d}.json"] = raw
            collected.events[leaf.event_id] = leaf.event
            proofs[str(index)] = [h.hex() for h in inclusion_proof(self._read_tile, index, checkpoint.size)]
        collected.files["ledger/checkpoint"] = note
        collected.files["ledger/proofs.json"] = canonical_bytes({"size": checkpoint.size, "proofs": proofs})

    def _find(self, ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(ids), _KEYS_AT_ONCE):
            found |= find_leaves(self._meta, list(ids[start : start + _KEYS_AT_ONCE]))
        return found

    def _waiting(self, sought: Iterable[Sought]) -> dict[str, bytes]:
        keys = {outbox_key({"at": s.at, "id": s.event_id}): s.event_id for s in sought if s.at}
        found: dict[Key, Item] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            found |= self._meta.get_many(list(keys)[start : start + _KEYS_AT_ONCE])
        return {keys[key]: bytes(row["event"]) for key, row in found.items()}

    def moves_of(self, version: Version, rows: Iterable[Item]) -> list[Sought]:
        """Return the events of a version's moves: those that its transitions name, and those that only the ledger tells of."""
        told = {int(r["number"]): r for r in rows if str(r["sk"]).startswith("TRANSITION#")}
        named = {n: Sought(event_id(str(r["kind"]), version.reference, n), str(r["at"])) for n, r in told.items()}
        places = self._find([s.event_id for s in named.values()])
        waiting = self._waiting([s for s in named.values() if s.event_id not in places])
        known = {n for n, s in named.items() if s.event_id in places or s.event_id in waiting}
        last = max([version.transition, *told])
        sought = [*named.values(), *self._hidden(version, sorted(set(range(1, last + 1)) - known))]
        for number in range(last + 1, last + 1 + MAX_HIDDEN):
            beyond = self._hidden(version, [number])
            if not beyond:
                break
            sought += beyond
        return list({s.event_id: s for s in sought}.values())

    def _hidden(self, version: Version, numbers: Sequence[int]) -> list[Sought]:
        """Return the moves with these numbers that the ledger has an index row of, whatever their kind."""
        ids = [event_id(kind, version.reference, number) for number in numbers for kind in MOVES]
        return [Sought(known) for known in self._find(ids)] if ids else []

    def publications(self, named: Iterable[EditionName]) -> list[Sought]:
        """Return the events between which editions of policies were in force: what published each, and the next of its policy."""
        sought: list[Sought] = []
        for edition in named:
            for number in (edition.number, edition.number + 1):
                row = self._meta.get(edition_key(edition.name, number)) or {}
                sought.append(Sought(event_id(PUBLISHED, policy_subject(edition.name), number), str(row.get("at", ""))))
        return sought

    def changes_of_signers(self, rows: Iterable[Item]) -> list[Sought]:
        """Return the events of the persons who signed with keys of their own: they show whose the keys were, and until when."""
        sought: list[Sought] = []
        for row in rows:
            signature = _own_signature(row)
            if signature is None:
                continue
            person, revision = signature
            there = self._meta.get(person_key(person)) or {}
            times = dict(enumerate(there.get("changed") or (), start=1))
            last = max(int(there.get("rev") or 1), revision)
            sought += [Sought(event_id(CHANGED, person_subject(person), n), str(times.get(n, ""))) for n in range(1, last + 1)]
        return sought


def _own_signature(row: Item) -> tuple[str, int] | None:
    """Return who signed what a row tells of with a key of their own, and at which revision of their row; None where nobody did."""
    if str(row["sk"]).startswith(("APPROVAL#", "PROMOTION#")) and row.get("signature"):
        return str(row["person"]), int(row["signature"].get("person_rev") or 1)
    if str(row["sk"]).startswith("TRANSITION#") and row.get("kind") == RECORDED:
        return str(row["principal"]["person"]), int(row["data"]["signature"].get("person_rev") or 1)
    return None
