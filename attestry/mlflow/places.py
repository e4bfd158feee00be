"""Places: what a search sorts by, and where its next page goes on.

A place is the values of the keys that something is sorted by, the foremost first: of `version_number` the number, of every other key the
sort key in the registry's index (`attestry.domain.search_index`), which ends in model and number. So behind a time nothing is left to
sort by: two versions that changed in the same microsecond come by model and number, in the direction that the time has.

A cursor is a place. It may be shorter than the places of its search, and then stands behind everything that begins so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from attestry.mlflow.errors import invalid
from attestry.mlflow.ordering import CREATED, NAME, NUMBER, UPDATED, Order

Place = tuple[str | int, ...]

_TIMES = frozenset({CREATED, UPDATED})
_MAX_KEY = 1024
_MAX_NUMBER = 10**9


@dataclass(frozen=True)
class Sorting:
    """By which keys something is sorted.

    Attributes:
        orders: the keys, the foremost first; places are equal only where they are of the same thing.
    """

    orders: tuple[Order, ...]

    @classmethod
    def of_models(cls, asked: Sequence[Order]) -> Sorting:
        """Return how models are sorted: by name where nothing else is asked for."""
        return cls(tuple(asked[:1]) or (Order(NAME),))

    @classmethod
    def of_versions(cls, asked: Sequence[Order], *, one_model: bool) -> Sorting:
        """Return how versions are sorted, and those of one model by less, whose name they share.

        Where nothing is asked for, those of one model come by number, the highest first; others by their last change, the latest first.
        """
        orders = [*(asked or ([] if one_model else [Order(UPDATED, ascending=False)]))]
        orders += [tie for tie in (Order(NAME), Order(NUMBER, ascending=False)) if tie.key not in {o.key for o in orders}]
        needed: list[Order] = []
        for order in orders:
            if not (one_model and order.key == NAME):
                needed.append(order)
            if order.key in _TIMES or (one_model and order.key == NUMBER):
                break
        return cls(tuple(needed))

    @property
    def first(self) -> Order:
        """Return the foremost key."""
        return self.orders[0]

    def rank(self, place: Place) -> tuple[Ranked, ...]:
        """Return a place as what sorts in the order that is wanted."""
        return tuple(Ranked(value, order.ascending) for value, order in zip(place, self.orders, strict=False))

    def is_behind(self, place: Place, cursor: Place) -> bool:
        """Return whether a place comes behind a cursor; every one does behind the empty cursor of a first page."""
        return not cursor or self.rank(place[: len(cursor)]) > self.rank(cursor)

    def read_cursor(self, text: str) -> Place:
        """Return the place that a cursor names; empty for the empty cursor of a first page.

        Raises:
            MlflowError: no cursor of such a search; code INVALID_PARAMETER_VALUE.
        """
        if not text:
            return ()
        try:
            place = json.loads(text)
        except (ValueError, RecursionError):
            place = None
        if not isinstance(place, list) or not 0 < len(place) <= len(self.orders):
            raise invalid("Invalid page token, it is none that this registry gave")
        if not all(_fits(value, order) for value, order in zip(place, self.orders, strict=False)):
            raise invalid("Invalid page token, it is none that this registry gave")
        return tuple(place)


def write_cursor(place: Place) -> str:
    """Return the cursor behind a place; empty for none."""
    return json.dumps(list(place)) if place else ""


class Ranked:
    """A value that comes earlier the smaller it is, or the larger."""

    def __init__(self, value: str | int, ascending: bool) -> None:
        self.value = value
        self._ascending = ascending

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranked) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: Ranked) -> bool:
        first, second = (self.value, other.value) if self._ascending else (other.value, self.value)
        return bool(first < second)  # type: ignore[operator]  # values of one key are of one type

    def __gt__(self, other: Ranked) -> bool:
        return other < self


def _fits(value: object, order: Order) -> bool:
    """Return whether a value may stand in a place; one that comes from a client also has to be one that the table takes."""
    if order.key == NUMBER:
        return type(value) is int and abs(value) < _MAX_NUMBER
    if not isinstance(value, str) or (order.key == NAME and "\t" not in value):
        return False
    try:
        return 0 < len(value.encode()) <= _MAX_KEY
    except UnicodeEncodeError:
        return False
