"""Pages of lists, and the cursors that lead from one to the next.

    page = read_page("200", cursor, bound="GET /v1/models")
    rows = [...]                                     # at most `page.ahead`, those behind `page.after`
    page.answer("models", rows, lambda row: row["model"])   # {"models": [...], "next": "..." or None}

Rules:
- A cursor is opaque: it holds the place of the last row of the page before. It is bound to the route and to the query that it was made for;
  with another one, cut short or changed it is refused. It keeps no secret and gives no right: whoever makes one by the same rule reaches
  rows of a list that they may read anyway.
- A list reads one row more than a page has, to know whether there is a next one; never all of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.errors import InvalidInputError

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 200
MAX_CURSOR: Final = 1024
_CHECK_BYTES = 16


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        limit: how many rows at most; None for the whole list.
        after: place of the last row before it; None for the first page.
        bound: the route and the query, to which cursors are bound.
    """

    limit: int | None = None
    after: str | None = None
    bound: str = ""

    @property
    def ahead(self) -> int | None:
        """Return how many rows to read: one more than the page has."""
        return None if self.limit is None else self.limit + 1

    def answer(self, name: str, rows: Sequence[Mapping[str, Any]], place: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
        """Return the page as the API answers it: the rows under `name`, and in `next` the cursor of the next page or None.

        Args:
            name: what the rows are.
            rows: as they were read, `ahead` at most.
            place: gives a row's place in the list, behind which the next page begins.
        """
        shown = list(rows if self.limit is None else rows[: self.limit])
        following = write_cursor(self.bound, place(shown[-1])) if len(rows) > len(shown) else None
        return {name: shown, "next": following}


WHOLE: Final = Page()


def read_page(limit: str | None, cursor: str | None, *, bound: str) -> Page:
    """Return the page that a request asks for.

    Args:
        limit: 1 to 200 as text; None for 100.
        cursor: what the page before answered in `next`; None for the first page.
        bound: the route and the query.

    Raises:
        InvalidInputError: no such number, or a cursor that was not made for this list.
    """
    if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= MAX_LIMIT):
        raise InvalidInputError.of("limit", "range", f"the limit is a whole number from 1 to {MAX_LIMIT}")
    return Page(DEFAULT_LIMIT if limit is None else int(limit), None if cursor is None else read_cursor(bound, cursor), bound)


def write_cursor(bound: str, place: str) -> str:
    """Return the cursor of a place in a list."""
    return base64.urlsafe_b64encode(_check(bound, place) + place.encode()).decode().rstrip("=")


def read_cursor(bound: str, cursor: str) -> str:
    """Return the place that a cursor leads to.

    Raises:
        InvalidInputError: it was not made for this list.
    """
    if len(cursor) <= MAX_CURSOR and cursor.isascii():
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            place = raw[_CHECK_BYTES:].decode()
        except (binascii.Error, ValueError):
            place = ""
        # Compared as a whole, so that one place has one cursor: base64 has several spellings of its last character.
        if place and write_cursor(bound, place) == cursor:
            return place
    message = "the cursor is none that this list, asked with these parameters, has answered in `next`"
    raise InvalidInputError.of("cursor", "cursor", message)


def _check(bound: str, place: str) -> bytes:
    return hashlib.sha256(f"attestry cursor 1\n{bound}\n{place}".encode("utf-8", "surrogatepass")).digest()[:_CHECK_BYTES]
