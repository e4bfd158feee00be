"""Requirements: exactly when those who approved are enough, whoever has which roles, and who comes too early."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import ForbiddenError
from attestry.domain.requirements import ApprovalOrderError, Requirement, are_met, check_fills, filled, match, missing, total

ROLES = ("validator", "approver", "admin")
VALIDATOR, APPROVERS = Requirement(("validator",), 1), Requirement(("approver",), 2)

roles = st.frozensets(st.sampled_from(ROLES), min_size=1)
requirements = st.lists(st.builds(Requirement, roles.map(lambda r: tuple(sorted(r))), st.integers(1, 3)), max_size=3)
persons = st.dictionaries(st.sampled_from("abcdef"), roles, max_size=6)


def most_places(asked, approving):
    """By Hall's theorem with deficits: the places less the worst shortage over all sets of requirements."""
    shortages = [0]
    for size in range(1, len(asked) + 1):
        for chosen in combinations(asked, size):
            able = sum(any(set(r.roles) & set(has) for r in chosen) for has in approving.values())
            shortages.append(sum(r.count for r in chosen) - able)
    return total(asked) - max(shortages)


@given(requirements, persons)
def test_as_many_places_are_filled_as_halls_theorem_allows(asked, approving):
    assert filled(asked, approving) == most_places(asked, approving)


@given(requirements, persons)
def test_a_person_fills_one_place_in_a_role_of_theirs(asked, approving):
    places = match(asked, approving)
    taken = [person for filling in places for person in filling]
    assert len(taken) == len(set(taken))
    for requirement, filling in zip(asked, places, strict=True):
        assert len(filling) <= requirement.count
        assert all(set(approving[person]) & set(requirement.roles) for person in filling)


@given(requirements, persons, st.sampled_from("abcdef"), roles)
def test_one_more_person_never_unmeets_what_is_met(asked, approving, person, has):
    if are_met(asked, approving):
        assert are_met(asked, {person: has, **approving})


@given(requirements, persons)
def test_what_is_missing_is_what_is_not_filled(asked, approving):
    assert total(missing(asked, approving)) == total(asked) - filled(asked, approving)


@given(requirements.filter(bool), st.lists(st.tuples(st.sampled_from("abcdef"), roles), max_size=8), st.booleans())
def test_whoever_is_let_in_fills_a_place_and_in_order_none_before_its_turn(asked, arrivals, in_order):
    approving: dict[str, frozenset[str]] = {}
    for person, has in arrivals:
        if person in approving:
            continue
        try:
            check_fills(asked, approving, person, has, in_order=in_order)
        except (ApprovalOrderError, ForbiddenError):
            continue
        approving[person] = has
        assert filled(asked, approving) == len(approving)
        if in_order:
            begun = [i for i in range(len(asked)) if len(approving) > total(asked[:i])]
            assert all(are_met(asked[:i], approving) for i in begun)


def test_a_person_with_both_roles_does_not_fill_both_places():
    both = Requirement(("approver",), 1)
    assert not are_met((VALIDATOR, both), {"erin": ("validator", "approver")})
    assert are_met((VALIDATOR, both), {"erin": ("validator", "approver"), "frank": ("approver",)})
    assert are_met((VALIDATOR, both), {"erin": ("validator", "approver"), "frank": ("validator",)})


def test_an_approver_who_comes_before_the_validator_is_told_who_is_missing():
    with pytest.raises(ApprovalOrderError, match="as approver comes too early: the policy asks for 1 validator first"):
        check_fills((VALIDATOR, APPROVERS), {}, "erin", ("approver",), in_order=True)
    check_fills((VALIDATOR, APPROVERS), {}, "erin", ("approver",), in_order=False)
    check_fills((VALIDATOR, APPROVERS), {"victor": ("validator",)}, "erin", ("approver",), in_order=True)


def test_an_approval_that_fills_no_place_is_refused_by_what_is_missing():
    there = {"erin": ("approver",), "frank": ("approver",)}
    with pytest.raises(ForbiddenError, match="as approver adds nothing: what is missing is 1 validator"):
        check_fills((VALIDATOR, APPROVERS), there, "grace", ("approver",), in_order=False)
