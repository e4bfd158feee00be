"""The rules of rollouts: which requests a canary takes, and what a step needs before the next."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.agreement import compare_outputs
from attestry.domain.errors import InvalidInputError
from attestry.domain.manifest_sections import Canary, CanaryAlarm, Deployment
from attestry.domain.rollout import Act, Counts, Plan, is_taken, judge, percentile_95

DIGEST = "ab" * 32
PLAN = Plan("canary", (5, 25, 50), 10, 1, "0.05", 3, 500)
counts = st.builds(Counts, st.integers(0, 10**6), st.integers(0, 10**6), st.none() | st.integers(0, 10**5))


@given(st.binary(max_size=64), st.integers(1, 99), st.integers(1, 99))
def test_who_stands_under_a_share_stands_under_every_larger_one(key: bytes, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert not is_taken(small, DIGEST, key) or is_taken(large, DIGEST, key)


@given(st.binary(max_size=64))
def test_a_share_of_nothing_takes_none_and_of_a_hundred_takes_all(key: bytes) -> None:
    assert not is_taken(0, DIGEST, key)
    assert is_taken(100, DIGEST, key)


@pytest.mark.parametrize("share", [5, 25, 50, 99])
def test_a_canary_takes_its_share_of_the_requests(share: int) -> None:
    taken = sum(is_taken(share, DIGEST, hashlib.sha256(str(n).encode()).digest()) for n in range(20_000))
    # Six standard deviations of a binomial distribution.
    assert abs(taken - 200 * share) < 6 * (20_000 * share / 100 * (1 - share / 100)) ** 0.5


def test_another_canary_takes_other_requests() -> None:
    keys = [str(n).encode() for n in range(2000)]
    both = sum(is_taken(50, DIGEST, key) and is_taken(50, "cd" * 32, key) for key in keys)
    assert 350 < both < 650


@given(st.integers(0, 2), st.floats(0, 10**5), counts)
def test_the_same_time_and_counts_decide_the_same(step: int, minutes: float, seen: Counts) -> None:
    assert judge(PLAN, step, minutes, seen) == judge(PLAN, step, minutes, seen)


@given(st.integers(0, 2), st.floats(0, 10**5), counts)
def test_a_step_goes_on_only_when_its_minutes_and_predictions_are_there_and_no_alarm_is(step: int, minutes: float, seen: Counts) -> None:
    ruling = judge(PLAN, step, minutes, seen)
    if ruling.act in (Act.ADVANCE, Act.FINISH):
        assert minutes >= PLAN.minutes
        assert seen.answered >= PLAN.predictions
        assert seen.failed < PLAN.minimum_errors or Decimal(seen.failed) <= Decimal("0.05") * (seen.answered + seen.failed)
        assert (ruling.act is Act.FINISH) == (step == 2)


@given(st.lists(st.booleans(), max_size=200))
def test_time_alone_never_takes_a_canary_back_from_a_halt(failures: list[bool]) -> None:
    """Once an alarm is raised by the counts of a step, waiting longer with the same counts does not lower it."""
    seen = Counts(failures.count(False), failures.count(True))
    early, late = judge(PLAN, 0, 0.5, seen), judge(PLAN, 0, 10**4, seen)
    assert early.act is not Act.HALT or late.act is Act.HALT


@pytest.mark.parametrize(
    ("seen", "halted"),
    [
        (Counts(0, 2), False),  # too few to say anything
        (Counts(0, 3), True),
        (Counts(57, 3), False),  # exactly 5 percent
        (Counts(56, 3), True),
        (Counts(100, 0, 500), False),
        (Counts(100, 0, 501), True),
        (Counts(100, 0, None, ("orders-refused",)), True),
    ],
)
def test_a_canary_is_halted_by_what_its_plan_allows_no_more(seen: Counts, halted: bool) -> None:
    assert (judge(PLAN, 0, 1, seen).act is Act.HALT) == halted
    assert (judge(PLAN, 2, 10**4, seen).act is Act.HALT) == halted


def test_a_canary_that_nobody_asks_waits() -> None:
    assert judge(PLAN, 0, 10**6, Counts()).act is Act.WAIT


@pytest.mark.parametrize(("minutes", "seen", "act"), [(59, Counts(9), Act.WAIT), (59, Counts(8, 2), Act.END), (60, Counts(), Act.END)])
def test_a_shadow_ends_by_time_or_by_count_and_never_puts_itself_in_place(minutes: float, seen: Counts, act: Act) -> None:
    assert judge(Plan("shadow", minutes=60, predictions=10), 0, minutes, seen).act is act


@given(st.lists(st.integers(0, 10**6), max_size=300))
def test_the_percentile_is_a_value_that_at_least_95_of_100_do_not_exceed(times: list[int]) -> None:
    value = percentile_95(times)
    assert (value is None) == (len(times) < 20)
    if value is not None:
        assert value in times
        assert sum(t <= value for t in times) * 100 >= 95 * len(times)
        assert sum(t < value for t in times) * 100 < 95 * len(times)


def test_a_plan_is_read_from_a_manifest_and_back_from_a_row() -> None:
    deployment = Deployment(strategy="canary", canary=Canary((10, 50), 5, 20, CanaryAlarm(0.1, 4, 250, ("orders-refused",))))
    plan = Plan.of(deployment, column="label")
    assert plan == Plan("canary", (10, 50), 5, 20, "0.1", 4, 250, ("orders-refused",), "label")
    assert Plan.from_item(plan.to_item()) == plan
    assert Plan.of(Deployment(), column="label").strategy == "all-at-once"
    assert Plan.of(Deployment(strategy="shadow"), column="p").minutes == 60


def test_predictions_are_compared_in_their_column_and_numbers_by_how_far_they_lie_apart() -> None:
    told = compare_outputs([{"label": "a", "p": 0.5}, {"label": "b"}], [{"label": "a", "p": 0.9}, {"label": "c"}], "label")
    assert (told.instances, told.agreed, told.numeric) == (2, 1, 0)
    told = compare_outputs([1.5, 2.0], [1.5, 2.25], "prediction")
    assert (told.agreed, told.numeric, told.difference) == (1, 2, Decimal("0.25"))
    with pytest.raises(InvalidInputError):
        compare_outputs([1], [1, 2], "prediction")
