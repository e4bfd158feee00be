"""Reconcile the catalogue: its rows with the events that tell of them, and the index with the rows that it leads to.

Rules:
- The latest event of a row has the digest of all that the row says; so that event alone says whether the row was changed by hand. An event
  behind it means that the row was set back.
- Every entry that a row gives rise to is in the index. An entry that was planted leads to a row that does not bear it out, and shows
  nothing in a search; since nothing leads to it, it is not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.catalogue import Labels, RegisteredModel, identity_of
from attestry.domain.errors import AttestryError
from attestry.domain.search_index import Entry, entries_of_labels, entries_of_model, entries_of_version
from attestry.domain.version import Version
from attestry.evidence.leaf import event_id, parse_event
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.aliases import Aliases
from attestry.usecases.annotate import ANNOTATED, annotation_of
from attestry.usecases.catalogue_rows import (
    aliases_key,
    aliases_subject,
    annotation_key,
    annotations_subject,
    catalogue_key,
    labels_key,
    labels_subject,
    model_subject,
    name_key,
    state_digest,
)
from attestry.usecases.findings import Observed
from attestry.usecases.index_rows import entry_item, entry_key
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.manifests import load_manifest
from attestry.usecases.records import OUTBOX, version_key
from attestry.usecases.traits import traits_of

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "HEAD": ("model.created", "model.changed", "model.renamed", "model.deleted", "tag.set", "tag.deleted"),
    "ALIASES": ("alias.set", "alias.deleted"),
    "LABELS": ("version.labelled", "version.deleted", "tag.set", "tag.deleted"),
    "ANNOTATION": (ANNOTATED,),
}
"""Sort of row to the kinds of events that change one."""

EVERY_KIND: Final = frozenset(kind for kinds in KINDS.values() for kind in kinds)
_ROW: Final = "catalogue.changed"


@dataclass(frozen=True)
class _Told:
    """What a row says of itself: the state that its latest event has to have, and which event that is."""

    sort: str
    subject: str
    state: Mapping[str, Any]
    rev: int
    kind: str
    at: str


class CatalogueExaminer:
    """Examines what people said about a model and its versions.

    Args:
        meta: the table.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._ledger = ledger

    def examine(self, model: str) -> list[Observed]:
        """Return what is not as the registry left it; a row that is gone is found where the ledger is examined.

        Raises:
            UnavailableError: a service did not answer.
        """
        partition = catalogue_key(model).partition
        observed: list[Observed] = []
        whole: dict[str, Item] = {}
        for row in self._meta.query(partition):
            sort = str(row["sk"])
            if sort == "NAME":
                continue
            told = _told(model, sort, row)
            problem = self._problem(f"{partition}/{sort}", told) if told else _unknown(f"{partition}/{sort}")
            if problem:
                observed.append(problem)
            else:
                whole[sort] = row
        return [*observed, *self._name(model, whole), *self._entries(model, whole)]

    def _problem(self, where: str, told: _Told) -> Observed | None:
        kinds = KINDS[told.sort]
        event = self._event(told) if told.kind in kinds else None
        if event is None:
            return Observed("catalogue.without_event", where, f"an event of {told.subject} with number {told.rev}", f"none of {told.kind}")
        if event["data"].get("state") != state_digest(told.state):
            return Observed(_ROW, where, f"the state of SHA-256 {event['data'].get('state')}", f"that of {state_digest(told.state)}")
        further = [event_id(kind, told.subject, told.rev + 1) for kind in kinds]
        if told.sort != "ANNOTATION" and self._ledger.find(further):
            return Observed("catalogue.set_back", where, f"a revision behind {told.rev}", str(told.rev))
        return None

    def _event(self, told: _Told) -> Mapping[str, Any] | None:
        id_ = event_id(told.kind, told.subject, told.rev)
        waiting = self._meta.get(Key(OUTBOX, f"{told.at}#{id_[:32]}"))
        leaf = self._ledger.find([id_]).get(id_)
        if leaf is not None:
            return leaf.event
        return parse_event(waiting["event"]) if waiting is not None else None

    def _name(self, model: str, rows: Mapping[str, Item]) -> Iterable[Observed]:
        head = rows.get("HEAD")
        if head is None or head.get("deleted") or identity_of(str(head["name"])) == model:
            return
        key = name_key(str(head["name"]))
        row = self._meta.get(key)
        if row is None or row.get("model") != model:
            yield Observed("catalogue.name", f"{key.partition}/{key.sort}", model, str((row or {}).get("model", "nothing")))

    def _entries(self, model: str, rows: Mapping[str, Item]) -> Iterable[Observed]:
        """Compare the entries of a model, and those of its versions' labels; rows that are wrong themselves are left out."""
        wanted: list[Entry] = [*entries_of_model(RegisteredModel.from_item(rows["HEAD"]))] if "HEAD" in rows else []
        for sort, row in rows.items():
            if sort.startswith("LABELS#"):
                number = int(sort[-9:])
                head = self._meta.get(version_key(model, number))
                wanted += entries_of_labels(Labels.from_item(model, number, row), str(head["created"])) if head else []
        yield from _missing(self._meta, wanted)


def examine_version(meta: MetaStore, store: ObjectStore, version: Version) -> Iterable[Observed]:
    """Yield what a version's traits and entries in the index are not; of a version whose rows hold otherwise.

    Args:
        meta: the table.
        store: the model store.
        version: the version.
    """
    if not version.indexed:
        return
    if version.imported and dict(version.traits) != (linked := {"run": run} if (run := version.cause.get("run")) else {}):
        where = f"{version_key(version.model, version.number).partition}/HEAD"
        yield Observed("head.traits", where, str(linked), str(dict(version.traits)))
        return
    if version.source is not None and version.traits:
        try:
            expected = traits_of(load_manifest(store, version), version.inputs)
        except AttestryError:
            return  # found where the version's own files are compared
        if expected != dict(version.traits):
            wrong = sorted(name for name in {*expected, *version.traits} if expected.get(name) != version.traits.get(name))
            where = f"{version_key(version.model, version.number).partition}/HEAD"
            yield Observed("head.traits", where, str({n: expected.get(n) for n in wrong}), str({n: version.traits.get(n) for n in wrong}))
            return
    labels = meta.get(labels_key(version.model, version.number))
    if not (labels or {}).get("deleted"):
        yield from _missing(meta, entries_of_version(version))


def catalogue_row_of(event: Mapping[str, Any]) -> Key | None:
    """Return the key of the row that an event of the catalogue changed; None of every other event."""
    parts, number = str(event["subject"]).split("/"), int(event["sequence"])
    if event["kind"] not in EVERY_KIND or parts[0] != "model" or len(parts) < 2:
        return None
    model, rest = parts[1], parts[2:]
    if not rest:
        return catalogue_key(model)
    if rest == ["aliases"]:
        return aliases_key(model)
    if rest[0] != "version" or len(rest) < 2 or not rest[1].isdigit():
        return None
    return annotation_key(model, int(rest[1]), number) if rest[2:] == ["annotations"] else labels_key(model, int(rest[1]))


def _told(model: str, sort: str, row: Item) -> _Told | None:
    kind, at, rev = str(row.get("kind")), str(row.get("updated")), int(row.get("rev") or 0)
    if sort == "HEAD":
        return _Told("HEAD", model_subject(model), RegisteredModel.from_item(row).state(), rev, kind, at)
    if sort == "ALIASES":
        return _Told("ALIASES", aliases_subject(model), Aliases.from_item(model, row).state(), rev, kind, at)
    name, *numbers = sort.split("#")
    if name == "LABELS" and len(numbers) == 1:
        number = int(numbers[0])
        return _Told("LABELS", labels_subject(model, number), Labels.from_item(model, number, row).state(), rev, kind, at)
    if name == "ANNOTATION" and len(numbers) == 2:
        number, sequence = (int(n) for n in numbers)
        remark = annotation_of(row)
        return _Told("ANNOTATION", annotations_subject(model, number), remark.to_dict(), sequence, ANNOTATED, remark.at)
    return None


def _unknown(where: str) -> Observed:
    return Observed("catalogue.without_event", where, "rows as the registry writes them", "a row of another kind")


def _missing(meta: MetaStore, entries: Iterable[Entry]) -> Iterable[Observed]:
    wanted = {entry_key(entry): entry_item(entry) for entry in entries}
    keys = sorted(wanted, key=lambda key: (key.partition, key.sort))
    for start in range(0, len(keys), 100):
        rows = meta.get_many(keys[start : start + 100])
        for key in keys[start : start + 100]:
            row, item = rows.get(key), wanted[key]
            if row is None or {name: row.get(name) for name in item} != item:
                given = "nothing" if row is None else str({name: row.get(name) for name in item})
                yield Observed("search.deleted" if row is None else "search.changed", f"{key.partition}/{key.sort}", str(item), given)
