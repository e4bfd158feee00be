"""Conditions of approvals: read strictly, the strictest holds, and requests outside of a segment are told by instance and feature."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.conditions import (
    Conditions,
    Terms,
    check_segments,
    ends_at,
    fit_conditions,
    read_conditions,
    strictest,
)
from attestry.domain.errors import InvalidInputError, OutsideConditionsError
from attestry.domain.events import timestamp

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = ApprovalPolicy(False, ("approver",), 1)
SCHEMA = (
    {"name": "age", "type": "int64"},
    {"name": "rate", "type": "double"},
    {"name": "region", "type": "string"},
    {"name": "new", "type": "bool"},
)
regions = st.sets(st.sampled_from(["EU", "CH", "US"]), min_size=1).map(lambda values: tuple(sorted(values)))
conditions = st.builds(
    Conditions,
    st.sampled_from(["", "2026-06-01", "2027-01-01"]),
    st.none() | st.integers(1, 1000),
    st.just({}) | st.fixed_dictionaries({"region": regions}),
)


@pytest.mark.parametrize(
    ("value", "field", "rule"),
    [
        ([], "conditions", "fields"),
        ({"when": "later"}, "conditions", "fields"),
        ({"until": "tomorrow"}, "conditions.until", "date"),
        ({"until": 20270101}, "conditions.until", "date"),
        ({"max_predictions": 0}, "conditions.max_predictions", "range"),
        ({"max_predictions": True}, "conditions.max_predictions", "range"),
        ({"max_predictions": "10"}, "conditions.max_predictions", "range"),
        ({"segments": ["region"]}, "conditions.segments", "type"),
        ({"segments": {"region": "EU"}}, "conditions.segments.region", "type"),
        ({"segments": {"region": []}}, "conditions.segments.region", "type"),
        ({"segments": {"region": ["a\u0000b"]}}, "conditions.segments.region", "type"),
        ({"segments": {"region": [f"{n:040d}" for n in range(20)]}}, "conditions.segments", "max_bytes"),
    ],
)
def test_what_is_no_condition_is_refused_by_field_and_rule(value, field, rule):
    with pytest.raises(InvalidInputError) as refused:
        read_conditions(value)
    assert (refused.value.problems[0].field, refused.value.problems[0].rule) == (field, rule)


@pytest.mark.parametrize(
    ("given_", "field", "rule"),
    [
        (Conditions(until="2026-03-01"), "conditions.until", "future"),
        (Conditions(segments={"regoin": ("EU",)}), "conditions.segments.regoin", "known_feature"),
        (Conditions(segments={"age": ("old",)}), "conditions.segments.age", "type"),
        (Conditions(segments={"rate": ("nan",)}), "conditions.segments.rate", "type"),
        (Conditions(segments={"new": ("yes",)}), "conditions.segments.new", "type"),
    ],
)
def test_conditions_that_the_version_cannot_meet_are_refused(given_, field, rule):
    with pytest.raises(InvalidInputError) as refused:
        fit_conditions(given_, SCHEMA, AT)
    assert (refused.value.problems[0].field, refused.value.problems[0].rule) == (field, rule)


def test_values_of_a_segment_are_kept_in_the_one_form_of_their_column():
    fitted = fit_conditions(Conditions(segments={"age": ("041", "7"), "rate": ("1", "0.50"), "new": ("true",)}), SCHEMA, AT)
    assert fitted.segments == {"age": ("41", "7"), "rate": ("0.5", "1.0"), "new": ("true",)}


@given(conditions)
def test_conditions_and_terms_are_read_as_they_were_stored(some):
    assert Conditions.from_item(some.to_item()) == some
    terms = strictest(POLICY, [(AT, some)])
    assert Terms.from_item(terms.to_item()) == terms


@given(
    st.lists(st.tuples(st.integers(0, 100).map(lambda d: AT + timedelta(days=d)), conditions), min_size=1, max_size=4), st.integers(0, 400)
)
def test_what_holds_is_as_strict_as_each_approval(approvals, valid_days):
    policy = ApprovalPolicy(False, ("approver",), 1, valid_days=valid_days)
    named = [set(some.segments["region"]) for _, some in approvals if some.segments]
    if named and not set.intersection(*named):
        with pytest.raises(InvalidInputError, match="no value of region is left"):
            strictest(policy, approvals)
        return
    terms = strictest(policy, approvals)
    for at, some in approvals:
        end = ends_at(policy, at, some)
        assert not end or terms.until <= end
        assert some.max_predictions is None or (terms.max_predictions or 0) <= some.max_predictions
        for name, values in some.segments.items():
            assert set(terms.segments[name]) <= set(values)


def test_an_approval_ends_by_the_policys_days_its_date_or_its_condition_whichever_comes_first():
    policy = ApprovalPolicy(False, ("approver",), 1, valid_days=30, until="2026-05-01")
    assert ends_at(policy, AT, Conditions()) == timestamp(AT + timedelta(days=30))
    assert ends_at(policy, AT, Conditions(until="2026-03-15")) == "2026-03-15T00:00:00.000000Z"
    assert ends_at(policy, AT + timedelta(days=50), Conditions()) == "2026-05-01T00:00:00.000000Z"
    assert ends_at(POLICY, AT, Conditions()) == ""


@pytest.mark.parametrize("instance", [{"region": "EU", "age": 41}, {"region": "CH", "age": 41}])
def test_a_request_in_the_segment_passes(instance):
    check_segments({"region": ("CH", "EU"), "age": ("41",)}, [instance], "m@1")


@pytest.mark.parametrize("value", ["US", "eu", "EU ", None, True, 1, ["EU"]])
def test_a_request_outside_of_the_segment_is_refused_by_instance_feature_and_condition(value):
    with pytest.raises(OutsideConditionsError, match=r"instances\[1\].region: m@1 is approved only where region is CH or EU"):
        check_segments({"region": ("CH", "EU")}, [{"region": "EU"}, {"region": value}], "m@1")


def test_a_request_that_leaves_the_feature_out_is_outside():
    with pytest.raises(OutsideConditionsError):
        check_segments({"region": ("EU",)}, [{}], "m@1")


@pytest.mark.parametrize(("allowed", "value"), [("1.0", 1), ("1.0", 1.0), ("41", 41), ("true", True)])
def test_numbers_are_compared_as_numbers(allowed, value):
    check_segments({"x": (allowed,)}, [{"x": value}], "m@1")


@pytest.mark.parametrize(("allowed", "value"), [("1", True), ("true", "TRUE"), ("0.5", 0.25)])
def test_values_that_only_look_alike_are_not_the_same(allowed, value):
    with pytest.raises(OutsideConditionsError):
        check_segments({"x": (allowed,)}, [{"x": value}], "m@1")
