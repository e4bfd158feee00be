"""Days: the dates at whose beginning, 00:00 UTC, something ends."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from attestry.domain.errors import InvalidInputError

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def is_day(text: str) -> bool:
    """Return whether a text is a day of the calendar in the form `YYYY-MM-DD`."""
    try:
        return _DAY.fullmatch(text) is not None and date.fromisoformat(text) is not None
    except ValueError:
        return False


def read_day(field: str, value: object) -> str:
    """Return a checked day.

    Raises:
        InvalidInputError: no day of the form `YYYY-MM-DD`.
    """
    if not isinstance(value, str) or not is_day(value):
        raise InvalidInputError.of(field, "date", "the date is of the form YYYY-MM-DD")
    return value


def beginning_of(day: str) -> datetime:
    """Return 00:00 UTC of a day."""
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)


def end_of(expires: str, at: datetime) -> str:
    """Return the day from which on a version may not be used.

    Args:
        expires: a day, or a number of days.
        at: when it is first put in place, from which days count.
    """
    return day_after(at, int(expires)) if expires.isdigit() else expires


def day_after(at: datetime, days: int) -> str:
    """Return the day that is so many days after the day of a moment, both in UTC."""
    return (at.astimezone(UTC).date() + timedelta(days=days)).isoformat()
