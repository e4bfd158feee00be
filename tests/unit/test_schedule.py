"""Schedules: what is due when follows from text and anchor alone, and what was missed is due once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.domain.schedule import read_schedule

ANCHOR = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)


def due(text: str, at: datetime, anchor: datetime = ANCHOR) -> str:
    found = read_schedule(text).next_after(at, anchor)
    assert found is not None
    return found.strftime("%Y-%m-%d %H:%M")


def test_a_rate_is_due_at_multiples_after_its_anchor_however_late_somebody_asks():
    assert due("rate(6 hours)", ANCHOR) == "2026-01-02 09:04"
    assert due("rate(6 hours)", ANCHOR + timedelta(days=2, hours=1)) == "2026-01-04 09:04"
    assert due("rate(1 day)", ANCHOR - timedelta(days=9)) == "2026-01-03 03:04"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cron(0 3 * * ? *)", "2026-01-03 03:00"),
        ("cron(0 3 ? * MON *)", "2026-01-05 03:00"),
        ("cron(0 3 ? * 2-6 *)", "2026-01-05 03:00"),
        ("cron(0/15 * * * ? *)", "2026-01-02 03:15"),
        ("cron(30 8,20 * * ? *)", "2026-01-02 08:30"),
        ("cron(0 0 29 FEB ? *)", "2028-02-29 00:00"),
        ("cron(0 0 1 1 ? 2030-2032)", "2030-01-01 00:00"),
    ],
)
def test_a_cron_is_due_at_the_first_minute_that_fits(text, expected):
    assert due(text, ANCHOR) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hourly",
        "rate(0 hours)",
        "rate(4 minutes)",
        "rate(400 days)",
        "rate(1 week)",
        "rate(1 hour) ",
        "cron(0 3 * * *)",
        "cron(0 3 * * * *)",
        "cron(0 3 ? * ? *)",
        "cron(60 3 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 3 L * ? *)",
        "cron(0 3 ? * MON#1 *)",
        "cron(0 3 31 2 ? *)",
        "cron(0 3 5-1 * ? *)",
        "cron(0 3 * * ? 1999)",
        "cron(0/0 3 * * ? *)",
        "cron(٣ 3 * * ? *)",
    ],
)
def test_what_is_no_schedule_or_never_due_is_refused(text):
    with pytest.raises(InvalidInputError):
        read_schedule(text)


@given(st.integers(5, 40_000), st.integers(0, 10**8))
def test_the_next_due_time_is_later_than_now_and_no_more_than_a_period_away(minutes, seconds):
    at = ANCHOR + timedelta(seconds=seconds)
    found = read_schedule(f"rate({minutes} minutes)").next_after(at, ANCHOR)
    assert found is not None
    assert timedelta(0) < found - at <= timedelta(minutes=minutes)
