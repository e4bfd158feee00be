"""Reconcile: compare table, ledger and store, a unit of work at a time; whatever was done by hand becomes a finding.

Units, in this order: the registry itself; the ledger in parts of 256 leaves; the policies; the predictions of the last days; the root of
trust; of each model the model, its versions, and of each version the keys that signed for it; the persons; who may do what; and the
development runs by the hour of their start.

Rules:
- A run goes on where the last one stopped, for as long as it may; the row RECONCILE/CURSOR says where. After the last unit it begins anew.
- What a unit sees has to be seen twice, one reading after the other, before it counts: moves that happen meanwhile are no findings. While
  two readings differ it is read again, so that whoever keeps something moving hides nothing that stands beside it.
- The trouble of one unit does not hold up the others; it is told, and the unit is looked at again in the next round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from attestry.domain.errors import AttestryError
from attestry.domain.events import timestamp
from attestry.evidence.note import Verifier
from attestry.ports import Clock, Key, MetaStore, ObjectStore, Put, Update, When
from attestry.usecases.catalogue_rows import COLLECTION as CATALOGUE
from attestry.usecases.findings import Observed, Scope, settle
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.reconcile_access import AccessExaminer
from attestry.usecases.reconcile_catalogue import CatalogueExaminer
from attestry.usecases.reconcile_ledger import LedgerExaminer
from attestry.usecases.reconcile_model import ModelExaminer
from attestry.usecases.reconcile_people import PeopleExaminer
from attestry.usecases.reconcile_policies import PolicyExaminer
from attestry.usecases.reconcile_predictions import GatewayCounts, KeyExaminer, count_day, examine_day
from attestry.usecases.reconcile_root import RootExaminer
from attestry.usecases.reconcile_runs import RunExaminer
from attestry.usecases.reconcile_version import VersionExaminer
from attestry.usecases.records import MODELS, model_key

CURSOR: Final = Key("RECONCILE", "CURSOR")
DAYS: Final = 3
"""How many whole days back predictions are counted; the last one only once its keys are closed."""

LOOKS: Final = 5
"""How often a unit is read at most until two readings agree."""

DAY_ENDS: Final = timedelta(hours=3)
_POLICIES_UNIT = "2/policies"
_DAYS_UNIT = "2/predictions"
_ROOT_UNIT = "2/root"
_PEOPLE_UNIT = "4/people"
_ACCESS_UNIT = "5/access"
_RUNS_UNIT = "6/runs/"


@dataclass(frozen=True)
class _Unit:
    scope: Scope
    examine: Callable[[], Sequence[Observed]]

    @property
    def name(self) -> str:
        return self.scope.unit


@dataclass
class Reconciled:
    """What a run did.

    Attributes:
        units: units of work that were looked at.
        opened: findings that were opened.
        closed: findings that were closed.
        errors: one sentence for each unit that could not be looked at.
        finished: whether the last unit was reached; the next run begins anew.
    """

    units: int = 0
    opened: int = 0
    closed: int = 0
    errors: list[str] = field(default_factory=list)
    finished: bool = False


class Reconciler:
    """Reconciles one registry.

    Args:
        meta: the table.
        store: the model store.
        gateway: the gateway's own counts.
        clock: the time.
        verifiers: the ledger's keys; none where they are not known, and signatures are not checked.
        monotonic: measures how long a run takes.
    """

    def __init__(
        self,
        meta: MetaStore,
        store: ObjectStore,
        gateway: GatewayCounts,
        clock: Clock,
        *,
        verifiers: Sequence[Verifier] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meta = meta
        self._gateway = gateway
        self._clock = clock
        self._monotonic = monotonic
        ledger = LedgerBytes(meta, store)
        self._ledger = LedgerExaminer(meta, store, ledger, verifiers)
        self._models = ModelExaminer(meta, ledger)
        self._catalogue = CatalogueExaminer(meta, ledger)
        self._versions = VersionExaminer(meta, store, ledger)
        self._keys = KeyExaminer(meta, store, ledger)
        self._people = PeopleExaminer(meta, ledger)
        self._policies = PolicyExaminer(meta, ledger)
        self._access = AccessExaminer(meta, ledger)
        self._root = RootExaminer(meta, store, ledger)
        self._runs = RunExaminer(meta, ledger)

    def run(self, *, seconds: float = 600.0) -> Reconciled:
        """Go on with the round until it is through or the time is up.

        Args:
            seconds: how long to take on; a unit that has begun is finished.

        Raises:
            UnavailableError: a service did not answer.
        """
        end = self._monotonic() + seconds
        done = Reconciled()
        row = self._meta.get(CURSOR)
        after = str(row.get("after") or "") if row else ""
        for unit in self._units(after):
            if self._monotonic() >= end:
                return done
            done.units += 1
            try:
                self._settle(unit, done)
            except AttestryError as error:
                done.errors.append(f"{unit.name}: {error.message}")
            self._meta.transact([Update(CURSOR, {"after": unit.name, "at": timestamp(self._clock.now())}, When())])
        done.finished = True
        self._meta.transact([Put(CURSOR, {"after": "", "finished": timestamp(self._clock.now())}, When())])
        return done

    def _settle(self, unit: _Unit, done: Reconciled) -> None:
        settled = settle(self._meta, unit.scope, _look_until_same(unit), self._clock.now())
        done.opened += settled.opened
        done.closed += settled.closed

    def _units(self, after: str) -> Iterator[_Unit]:
        """Yield the units whose names come after one, in the order of their names."""
        for unit in self._all(after):
            if unit.name > after:
                yield unit

    def _all(self, after: str) -> Iterator[_Unit]:
        yield _Unit(Scope("0/registry"), lambda: self._ledger.examine_head(self._clock.now()))
        for part in range(self._ledger.parts()):
            yield _Unit(Scope(f"1/ledger/{part:09d}"), lambda part=part: self._ledger.examine_part(part))  # type: ignore[misc]
        yield _Unit(Scope(_POLICIES_UNIT), self._policies.examine)
        yield _Unit(Scope(_DAYS_UNIT), self._count_days)
        yield _Unit(Scope(_ROOT_UNIT), self._root.examine)
        listed = {c: {str(row["model"]) for row in self._meta.list_collection(c)} for c in (MODELS, CATALOGUE)}
        for model in sorted(listed[MODELS] | listed[CATALOGUE]):
            name = f"3/{model}#"  # sorts before whatever a longer name goes on with
            if f"{name}~" <= after:
                continue
            numbered = model in listed[MODELS]
            yield _Unit(Scope(f"{name}000000000", model), lambda model=model, numbered=numbered: self._model(model, numbered=numbered))  # type: ignore[misc]
            yield from self._of_model(model, name)
        yield _Unit(Scope(_PEOPLE_UNIT), self._people.examine)
        yield _Unit(Scope(_ACCESS_UNIT), self._access.examine)
        for hour in self._runs.hours(after.removeprefix(_RUNS_UNIT) if after.startswith(_RUNS_UNIT) else ""):
            yield _Unit(Scope(f"{_RUNS_UNIT}{hour}"), lambda hour=hour: self._runs.examine(hour))  # type: ignore[misc]

    def _of_model(self, model: str, name: str) -> Iterator[_Unit]:
        head = self._meta.get(model_key(model))
        listed = (int(row["number"]) for row in self._meta.list_collection(f"VERSIONS#{model}"))
        for number in range(1, max([int(head["next"]) if head else 1, *(n + 1 for n in listed)])):
            scope = Scope(f"{name}{number:09d}", model, number)
            yield _Unit(scope, lambda number=number: self._versions.examine(model, number))  # type: ignore[misc]
            for kid in sorted(self._keys.keys_of(model, number)):
                scope = Scope(f"{name}{number:09d}/{kid}", model, number)
                yield _Unit(scope, lambda kid=kid: self._keys.examine(kid))  # type: ignore[misc]

    def _model(self, model: str, *, numbered: bool) -> list[Observed]:
        """Examine a model; one that was only created has nothing but its row in the catalogue."""
        return [*(self._models.examine(model) if numbered else []), *self._catalogue.examine(model)]

    def _count_days(self) -> list[Observed]:
        """Count the predictions of the last whole days, and keep the counts."""
        today = (self._clock.now() - DAY_ENDS).date()
        observed: list[Observed] = []
        for back in range(1, DAYS + 1):
            counted = count_day(self._meta, self._gateway, today - timedelta(days=back))
            self._meta.transact([Put(Key("RECONCILE", f"COUNTS#{counted.day.isoformat()}"), counted.to_item(), When())])
            observed += examine_day(counted)
        return observed


def _look_until_same(unit: _Unit) -> list[Observed]:
    """Look until two readings agree, and return what they saw; where they never do, what the last two have in common."""
    before, both = _look(unit), list[Observed]()
    for _ in range(LOOKS - 1):
        if not before:
            return []
        after, ids = _look(unit), {one.id for one in before}
        both = [one for one in after if one.id in ids]
        if len(both) == len(ids) == len(after):
            break
        before = after
    return both


def _look(unit: _Unit) -> list[Observed]:
    """Return what a unit sees; rows on which reading itself fails are seen too, so that nobody hides behind them."""
    try:
        return list(unit.examine())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return [Observed("rows.malformed", unit.name, "rows as the registry writes them", f"{type(error).__name__}: {error}")]
