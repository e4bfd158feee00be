"""Reconcile promotions: who asked and who decided, by the rows, with the transitions that they were written with; and the packets.

What stands of promotions in a version's head is compared with its transitions where the version is examined.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attestry.domain.errors import AttestryError
from attestry.domain.promotion import DECIDED, OPENED, Promotion, promotions_after
from attestry.evidence.digests import sha256_hex
from attestry.evidence.packet import MAX_PACKET_BYTES
from attestry.evidence.promotion_packet import promotion_packet_key
from attestry.ports import Item, ObjectStore
from attestry.usecases.findings import Observed
from attestry.usecases.promotion_rows import PREFIX
from attestry.usecases.recorded import opening_problem, promotion_problem


def examine_promotions(where: str, rows: Sequence[Item], holding: Sequence[Item], known: Collection[int]) -> Iterable[Observed]:
    """Compare rows of promotions with transitions, each way.

    Args:
        where: the version's partition.
        rows: the rows of its promotions and of the decisions on them.
        holding: its transitions that hold, in their order.
        known: the numbers of all its transitions; what rests on one that does not hold is not judged again.
    """
    by_number = {int(t["number"]): t for t in holding}
    there: set[str] = set()
    for row in rows:
        there.add(str(row["sk"]))
        number = row.get("transition")
        moved = by_number.get(number) if isinstance(number, int) else None
        if moved is None and number in known:
            continue
        problem = _problem(row, moved, by_number)
        if problem and moved is None:
            yield Observed("promotion.without_event", f"{where}/{row['sk']}", "a transition that it was written with", f"it {problem}")
        elif problem:
            yield Observed("promotion.changed", f"{where}/{row['sk']}", f"transition {number}", f"it {problem}")
    for number, moved in by_number.items():
        sort = _sort_of(moved)
        if sort and sort not in there:
            yield Observed("promotion.deleted", f"{where}/{sort}", f"what transition {number} was written with", "nothing")


def examine_packets(store: ObjectStore, folder: str, holding: Sequence[Item]) -> Iterable[Observed]:
    """Compare the packets of promotions with the digests that were recorded; each lies under its own digest.

    Raises:
        UnavailableError: the store did not answer.
    """
    for moved in holding:
        if moved["kind"] != OPENED:
            continue
        key, digest = promotion_packet_key(folder, str(moved["evidence"])), str(moved["evidence"])
        try:
            found = sha256_hex(store.read(key, None, max_bytes=MAX_PACKET_BYTES))
        except AttestryError as error:
            if error.status >= 500:
                raise
            found = error.message
        if found != digest:
            yield Observed("promotion.packet", key, f"SHA-256 {digest}", found)


def _problem(row: Mapping[str, Any], moved: Mapping[str, Any] | None, by_number: Mapping[int, Mapping[str, Any]]) -> str:
    """Return in what a row differs from its transition, and from the one that opened its promotion."""
    opening = "decision" not in row
    if moved is None or (moved["kind"] != OPENED if opening else moved["kind"] not in DECIDED):
        return "has no transition"
    if row["sk"] != _sort_of(moved):
        return "stands in the place of another"
    opened = moved if opening else by_number.get(int(moved["data"]["opened"]))
    if opened is None or opened["kind"] != OPENED:
        return "is about a promotion that was not opened"
    environment = str(opened["data"]["environment"])
    promotion = Promotion.from_item(environment, promotions_after([opened])[environment])
    return opening_problem(promotion, row, moved) if opening else promotion_problem(promotion, row, moved)


def _sort_of(moved: Mapping[str, Any]) -> str:
    """Return the sort key of the row that a transition was written with; empty where it is about no promotion."""
    data: Mapping[str, Any] = moved["data"]
    if moved["kind"] == OPENED:
        return f"{PREFIX}{data['environment']}#{int(moved['number']):06d}"
    return f"{PREFIX}{data['environment']}#{int(data['opened']):06d}#{data['person']}" if moved["kind"] in DECIDED else ""
