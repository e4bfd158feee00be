"""Schedules: `rate(6 hours)` and `cron(0 3 ? * MON-FRI *)`, as EventBridge writes them, and when they are due.

Rules:
- Times are UTC, and whole minutes. What is due when follows from the text and the moment it was registered at, and from nothing else:
  two who ask get one answer, and what was missed is due once, not as often as it was missed.
- A rate is due at whole multiples of it after its anchor, and is at least five minutes, which is how often somebody looks.
- A cron has the six fields of EventBridge: minutes, hours, day of month, month, day of week (1 is Sunday), year; numbers, names, `*`, `?`,
  lists, ranges and steps. One of the two days is `?`. `L`, `W` and `#` are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from attestry.domain.errors import InvalidInputError

LEAST = timedelta(minutes=5)
MOST = timedelta(days=366)

_PERIOD = re.compile(r"([1-9][0-9]{0,4}) (minute|hour|day)s?")
_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_MONTHS = {n: i for i, n in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], start=1)}
_DAYS = {n: i for i, n in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], start=1)}
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
_LOOK_AHEAD = 366 * 9
"""Days within which a date that comes at all comes again: 29 February skips eight years where a century is no leap year."""


@dataclass(frozen=True)
class Rate:
    """A period."""

    period: timedelta

    def next_after(self, at: datetime, anchor: datetime) -> datetime | None:
        """Return the first whole multiple of the period after the anchor that is later than `at`."""
        start = _minute(anchor)
        return start + self.period * ((max(at, start) - start) // self.period + 1)


@dataclass(frozen=True)
class Cron:
    """Minutes, hours, days, months and years on which something is due; `month_days` or `week_days` is None, where any will do."""

    minutes: frozenset[int]
    hours: frozenset[int]
    month_days: frozenset[int] | None
    months: frozenset[int]
    week_days: frozenset[int] | None
    years: frozenset[int]

    def next_after(self, at: datetime, anchor: datetime) -> datetime | None:  # noqa: ARG002 - a cron has no anchor
        """Return the first due minute that is later than `at`, or None where there is none any more."""
        begin = _minute(at) + timedelta(minutes=1)
        for days in range(_LOOK_AHEAD):
            day = begin.date() + timedelta(days=days)
            if day.year > _LAST_YEAR or day.year > max(self.years):
                return None
            if not self._holds(day):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    due = datetime.combine(day, time(hour, minute), UTC)
                    if due >= begin:
                        return due
        return None

    def _holds(self, day: date) -> bool:
        week_day = (day.weekday() + 1) % 7 + 1
        return (
            day.year in self.years
            and day.month in self.months
            and (self.month_days is None or day.day in self.month_days)
            and (self.week_days is None or week_day in self.week_days)
        )


Schedule = Rate | Cron


def read_schedule(text: str, *, field: str = "refresh.schedule") -> Schedule:
    """Return the schedule.

    Raises:
        InvalidInputError: neither a rate nor a cron, too often, or never due.
    """
    body = re.fullmatch(r"(rate|cron)\((.*)\)", text)
    if body is None:
        raise InvalidInputError.of(field, "schedule", f"{text!r:.80} is neither rate(...) nor cron(...)")
    if body[1] == "rate":
        period = read_period(body[2], field=field)
        if not LEAST <= period <= MOST:
            raise InvalidInputError.of(field, "schedule", "a rate is 5 minutes to 366 days")
        return Rate(period)
    cron = _read_cron(body[2], field)
    if cron.next_after(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)) is None:
        raise InvalidInputError.of(field, "schedule", "no day is like this, so it would never be due")
    return cron


def read_period(text: str, *, field: str) -> timedelta:
    """Return a period such as `6 hours`.

    Raises:
        InvalidInputError: no number of minutes, hours or days.
    """
    found = _PERIOD.fullmatch(text)
    if found is None:
        raise InvalidInputError.of(field, "schedule", f"{text!r:.80} is no period; write '30 minutes', '6 hours' or '1 day'")
    return int(found[1]) * _UNITS[found[2]]


def _read_cron(text: str, field: str) -> Cron:
    parts = text.split()
    if len(parts) != 6:
        raise InvalidInputError.of(field, "schedule", "a cron has six fields: minutes, hours, day of month, month, day of week, year")
    if (parts[2] == "?") == (parts[4] == "?"):
        raise InvalidInputError.of(field, "schedule", "of day of month and day of week exactly one is '?'")
    minutes, hours = (_values(p, 0, top, {}, field) for p, top in ((parts[0], 59), (parts[1], 23)))
    return Cron(
        minutes=minutes,
        hours=hours,
        month_days=None if parts[2] == "?" else _values(parts[2], 1, 31, {}, field),
        months=_values(parts[3], 1, 12, _MONTHS, field),
        week_days=None if parts[4] == "?" else _values(parts[4], 1, 7, _DAYS, field),
        years=_values(parts[5], _FIRST_YEAR, _LAST_YEAR, {}, field),
    )


def _values(text: str, low: int, high: int, names: dict[str, int], field: str) -> frozenset[int]:
    """Return the values of one field: a list of `*`, values and ranges, each with an optional step."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _value(step_text, 1, high, {}, field) if slash else 1
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _value(first, low, high, names, field)
            end = _value(last, low, high, names, field) if dash else high if slash else begin
        if end < begin:
            raise InvalidInputError.of(field, "schedule", f"the range {span} runs backwards")
        found.update(range(begin, end + 1, step))
    return frozenset(found)


def _value(text: str, low: int, high: int, names: dict[str, int], field: str) -> int:
    value = names.get(text.upper())
    if value is None and text.isascii() and text.isdigit() and len(text) < 5:
        value = int(text)
    if value is None or not low <= value <= high:
        raise InvalidInputError.of(field, "schedule", f"{text!r:.40} is no value from {low} to {high}")
    return value


def _minute(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(second=0, microsecond=0)
