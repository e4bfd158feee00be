"""Reconcile a model: its head, and its pointers with the versions and events that they rest on.

Each version's own standing is compared with the ledger where the version is examined; here the pointers have to be what these say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from attestry.domain.stages import LAPSED, PROMOTION_LAPSED, Standing
from attestry.evidence.leaf import event_id, parse_event
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.capture import SET
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.pointer import KILLED, PROMOTED, RETIRED, ROLLOUTS, kept_in, number_in, rollout_in
from attestry.usecases.records import OUTBOX, model_key, transition_key, version_key

DEPLOYED: Final = ("version.deployed", "version.rolled_back")
ROLLOUT_BEGINNINGS: Final = ("version.canaried", "version.shadowed")
PLACED: Final = (*DEPLOYED, *ROLLOUT_BEGINNINGS)
_LOOK_BACK: Final = 40
"""How many changes of a pointer back the last change of its capture rate is looked for."""

_ENDS: Final = (KILLED, RETIRED, LAPSED, PROMOTION_LAPSED)
_COPIED: Final = ("version_digest", "execution_id", "folder")


class ModelExaminer:
    """Examines models.

    Args:
        meta: the table.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._ledger = ledger

    def examine(self, model: str) -> list[Observed]:
        """Return what is not as the registry left it.

        Raises:
            UnavailableError: a service did not answer.
        """
        rows = {str(row["sk"]): row for row in self._meta.query(model_key(model).partition)}
        heads = self._meta.list_collection(f"VERSIONS#{model}")
        # The index is behind at times; what is compared is read again where it counts.
        current = self._meta.get_many([version_key(model, int(h["number"])) for h in heads][:100]) if heads else {}
        versions = [current.get(version_key(model, int(h["number"])), h) for h in heads]
        where = model_key(model).partition
        observed: list[Observed] = []
        head, last = rows.get("HEAD"), max((int(v["number"]) for v in versions), default=0)
        if head is None:
            observed.append(Observed("model.deleted", f"{where}/HEAD", model, "nothing"))
        elif int(head.get("next") or 0) <= last:
            observed.append(Observed("model.next", f"{where}/HEAD", f"more than {last}", str(head.get("next"))))
        pointers = {sort.removeprefix("POINTER#"): row for sort, row in rows.items() if sort.startswith("POINTER#")}
        observed += _places(where, pointers, versions)
        for environment, pointer in pointers.items():
            observed += self._pointer(model, environment, pointer)
        return observed

    def _pointer(self, model: str, environment: str, pointer: Item) -> Iterable[Observed]:
        where, number = f"{model_key(model).partition}/POINTER#{environment}", number_in(pointer)
        for standing in ROLLOUTS:
            yield from self._rollout(model, environment, pointer, standing, where)
        if number is None:
            yield from self._vacancy(model, environment, pointer, where)
            return
        version = self._meta.get(version_key(model, number)) or {}
        if Standing.DEPLOYED.value != version.get("standing"):
            return
        moved = next((t for t in reversed(self._moves(model, number)) if t.get("kind") in DEPLOYED), None)
        if moved is not None and not isinstance(moved.get("data"), dict):
            return  # found where the version is examined
        if moved is None or moved["data"].get("environment") != environment:
            yield Observed("pointer.without_event", where, f"a deployment of {model}@{number} in {environment}", "none")
            return
        for name, value in {**{n: version.get(n) for n in _COPIED}, "at": moved["at"], "by": moved["principal"]}.items():
            if pointer.get(name) != value:
                yield Observed(f"pointer.{name}", where, str(value), str(pointer.get(name)))
        rate = self._rate(model, environment, pointer, moved)
        if not _same_rate(pointer.get("capture_rate"), rate):
            yield Observed("pointer.capture_rate", where, rate, str(pointer.get("capture_rate")))

    def _rollout(self, model: str, environment: str, pointer: Item, standing: Standing, where: str) -> Iterable[Observed]:
        """Compare a canary or a shadow with its version and the move that put it there or advanced it."""
        told, name = rollout_in(pointer, standing), ROLLOUTS[standing]
        version = self._meta.get(version_key(model, int(told["number"]))) if told else None
        if not version or version.get("standing") != standing.value:
            return  # found where versions and pointers are compared
        moves = [t for t in self._moves(model, int(told["number"])) if isinstance(t.get("data"), dict)]
        begun = next((t for t in reversed(moves) if t.get("kind") in ROLLOUT_BEGINNINGS), None)
        if begun is None or begun["data"].get("environment") != environment:
            yield Observed("pointer.without_event", where, f"a {name} {model}@{told['number']} in {environment}", "none")
            return
        last = next(t for t in reversed(moves) if t["number"] == begun["number"] or t.get("kind") == "rollout.advanced")
        expected = {n: version.get(n) for n in _COPIED} | {"plan": begun["data"]["plan"], "begun": begun["at"], "since": last["at"]}
        expected |= {n: last["data"][n] for n in ("share", "step") if n in last["data"]}
        for field, value in {**expected, "capture_rate": begun["data"]["capture_rate"]}.items():
            if told.get(field) != value:
                yield Observed(f"pointer.{name}.{field}", where, str(value), str(told.get(field)))

    def _vacancy(self, model: str, environment: str, pointer: Item, where: str) -> Iterable[Observed]:
        told: Mapping[str, Any] = pointer.get("vacant") or {}
        number = int(told.get("number") or 0)
        if told.get("kind") == PROMOTED:
            placed = [t for t in self._moves(model, number) if t.get("kind") in PLACED and t.get("at") == told.get("at")]
            if not any(t["data"].get("environment") not in (None, environment) for t in placed if isinstance(t.get("data"), dict)):
                yield Observed("pointer.without_event", where, "a promotion that emptied it", str(dict(told)))
            return
        ends = [t for t in self._moves(model, number) if t.get("kind") in _ENDS and isinstance(t.get("data"), dict)]
        moved = next((t for t in reversed(ends) if environment in t["data"].get("vacated", [])), None)
        said = {name: told.get(name) for name in ("kind", "reason", "at")}
        if moved is None or said != {name: moved[name] for name in said}:
            yield Observed("pointer.without_event", where, "a kill, retirement or lapse that emptied it", str(dict(told)))

    def _moves(self, model: str, number: int) -> list[Item]:
        return self._meta.query(transition_key(model, number, 1).partition, prefix="TRANSITION#")

    def _rate(self, model: str, environment: str, pointer: Item, deployed: Mapping[str, Any]) -> str:
        """Return the capture rate that was set last for what is deployed."""
        rev, subject = int(pointer["rev"]), f"{model}/{environment}"
        ids = {event_id(SET, subject, n): n for n in range(rev, max(0, rev - _LOOK_BACK), -1)}
        events = [leaf.event for leaf in self._ledger.find(list(ids)).values()]
        told: Mapping[str, Any] = pointer.get("capture") or {}
        for n, id_ in ((n, id_) for id_, n in ids.items()):
            row = self._meta.get(Key(OUTBOX, f"{told.get('at')}#{id_[:32]}")) if told and n == rev else None
            if row is not None:
                events.append(parse_event(row["event"]))
        since = [e for e in events if str(e["at"]) >= str(deployed["at"]) and e["data"]["number"] == number_in(pointer)]
        return str(max(since, key=lambda e: int(e["sequence"]))["data"]["rate"] if since else deployed["data"].get("capture_rate"))


def _places(where: str, pointers: Mapping[str, Item], versions: Sequence[Mapping[str, Any]]) -> Iterable[Observed]:
    """Compare what pointers name with what versions stand as."""
    places = (
        (Standing.DEPLOYED, number_in, "pointer.moved"),
        (Standing.ROLLBACK, kept_in, "pointer.previous"),
        (Standing.CANARY, _canary_in, "pointer.canary"),
        (Standing.SHADOW, _shadow_in, "pointer.shadow"),
    )
    for standing, named, what in places:
        for environment in sorted({*pointers, *(str(v.get("deployment_environment")) for v in versions if v.get("standing") == standing)}):
            stand = sorted(int(v["number"]) for v in versions if v.get("standing") == standing and _place_of(v) == environment)
            pointer = pointers.get(environment)
            given = [n for n in [named(pointer)] if n is not None]
            if pointer is None and stand and standing is Standing.DEPLOYED:
                yield Observed("pointer.deleted", f"{where}/POINTER#{environment}", f"version {stand[0]}", "nothing")
            elif pointer is not None and stand != given:
                yield Observed(what, f"{where}/POINTER#{environment}", f"version {_numbers(stand)}", f"version {_numbers(given)}")


def _canary_in(pointer: Mapping[str, Any] | None) -> int | None:
    told = rollout_in(pointer, Standing.CANARY)
    return int(told["number"]) if told else None


def _shadow_in(pointer: Mapping[str, Any] | None) -> int | None:
    told = rollout_in(pointer, Standing.SHADOW)
    return int(told["number"]) if told else None


def _place_of(version: Mapping[str, Any]) -> str:
    return str(version.get("deployment_environment") or "production")


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(str(n) for n in numbers) or "none"


def _same_rate(given: Any, expected: str) -> bool:
    try:
        return Decimal(str(given)) == Decimal(expected)
    except InvalidOperation:
        return False
