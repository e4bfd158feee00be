"""The pure rule of promotions: whatever the moves are, what stands is what the last of them made of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.domain.manifest import read_manifest
from attestry.domain.promotion import (
    APPROVED,
    GIVEN,
    KINDS,
    LAPSED,
    OPENED,
    REJECTED,
    WITHDRAWN,
    Place,
    Promotion,
    State,
    promotions_after,
    require_open,
    require_promoted,
)
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from tests.deployed import make_version
from tests.unit.manifest_samples import COMPLETE, as_json

AT = datetime(2026, 5, 1, tzinfo=UTC)
TO = ("preproduction", "production")
OWN = ApprovalPolicy(False, ("approver",), 2)
POLICY = ApprovalPolicy(False, ("approver",), 1, promotion=tuple((name, OWN) for name in TO))
_STATES = {APPROVED: State.APPROVED, REJECTED: State.REJECTED, WITHDRAWN: State.WITHDRAWN, LAPSED: State.LAPSED}

acts = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(TO), st.sampled_from(["", "2026-06-01T00:00:00.000000Z"])), max_size=30)


def moves_of(told: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Moves in which each act is about the promotion that was opened last there."""
    opened: dict[str, int] = {}
    moves = []
    for number, (kind, environment, until) in enumerate(told, start=2):
        data: dict[str, Any] = {"environment": environment, "opened": opened.get(environment, 0)}
        if kind == OPENED:
            opened[environment] = number
            data = {"environment": environment, "origin": "staging", "asked_by": "henry", "since": "t", "approval": 1}
            data |= {"packet_sha256": f"{number:064d}", "policy_sha256": OWN.digest}
        elif kind == APPROVED and until:
            data["terms"] = {"until": until}
        moves.append({"kind": kind, "number": number, "data": data})
    return moves


def version(promotions: dict[str, Any], **changes: Any) -> Version:
    made = replace(make_version(1), approval_policy=POLICY.to_item(), deployment_environment="staging", deployed_at="t")
    return replace(made, promotions=promotions, packet={"transition": 1}, **changes)


@settings(max_examples=200, deadline=None)
@given(acts)
def test_what_stands_is_the_last_opening_and_the_last_end_after_it(told: list[tuple[str, str, str]]) -> None:
    moves = moves_of(told)
    after = promotions_after(moves)
    for environment in TO:
        about = [m for m in moves if m["data"]["environment"] == environment]
        openings = [i for i, m in enumerate(about) if m["kind"] == OPENED]
        if not openings:
            assert environment not in after
            continue
        ends = [m["kind"] for m in about[openings[-1] + 1 :] if m["kind"] in _STATES]
        found = Promotion.from_item(environment, after[environment])
        assert found.opened == about[openings[-1]]["number"]
        assert found.state is (_STATES[ends[-1]] if ends else State.OPEN)
        assert found.to_item() == after[environment]


@settings(max_examples=100, deadline=None)
@given(acts, st.integers(0, 30))
def test_taking_moves_one_by_one_gives_what_they_give_together(told: list[tuple[str, str, str]], cut: int) -> None:
    moves = moves_of(told)
    assert promotions_after(moves[cut:], promotions_after(moves[:cut])) == promotions_after(moves)


@settings(max_examples=200, deadline=None)
@given(acts, st.sampled_from(TO), st.sampled_from(list(Standing)), st.booleans(), st.sampled_from(["staging", *TO]))
def test_nothing_is_in_force_that_is_not_approved_in_its_place(
    told: list[tuple[str, str, str]], environment: str, standing: Standing, approved: bool, here: str
) -> None:
    after = promotions_after(moves_of(told))
    subject = version(after, standing=standing, approved=approved)
    subject = replace(subject, deployment_environment=here)
    try:
        found = require_promoted(subject, environment, AT)
    except ConflictError:
        return
    assert found is not None
    assert (found.state, found.environment, found.approval, approved) == (State.APPROVED, environment, subject.opening, True)
    assert here == environment or (here == "staging" and standing is Standing.DEPLOYED)
    assert not found.until or found.until > "2026-05-01"


@settings(max_examples=100, deadline=None)
@given(acts, st.sampled_from(TO))
def test_what_is_open_is_decided_on_and_nothing_else(told: list[tuple[str, str, str]], environment: str) -> None:
    after = promotions_after(moves_of(told))
    if after.get(environment, {}).get("state") == "OPEN":
        assert require_open(version(after), environment)[1] == OWN
    else:
        with pytest.raises(ConflictError):
            require_open(version(after), environment)


@pytest.mark.parametrize(
    "changes",
    [{"packet": {"transition": 9}}, {"approved": False}, {"deployed_at": "later"}, {"standing": Standing.ROLLBACK}],
    ids=["approved anew", "not approved", "deployed again", "replaced"],
)
def test_what_changed_in_staging_meanwhile_ends_what_was_approved(changes: dict[str, Any]) -> None:
    after = promotions_after(moves_of([(OPENED, "production", ""), (GIVEN, "production", ""), (APPROVED, "production", "")]))
    assert require_promoted(version(after), "production", AT)
    with pytest.raises(ConflictError, match="counts no more"):
        require_promoted(replace(version(after), **changes), "production", AT)


def test_a_place_follows_from_the_moves_as_the_head_tells_it() -> None:
    def move(kind: str, standing: str, stage: str = "DEPLOYMENT", **data: Any) -> dict[str, Any]:
        return {"kind": kind, "number": 7, "at": "t7", "to": {"stage": stage, "standing": standing}, "data": data}

    place = Place("credit-risk@1", "staging")
    for told in (
        move("stage.started", "CANDIDATE", "APPROVAL"),
        move("version.approved", "APPROVED", "APPROVAL"),
        move("version.deployed", "DEPLOYED", environment="staging"),
    ):
        place = place.after(told)
    assert place == Place("credit-risk@1", "staging", "DEPLOYED", "t7", True, 7)
    canary = place.after({**move("version.canaried", "CANARY", environment="production"), "at": "t8"})
    assert (canary.environment, canary.since) == ("production", "t7")
    assert not place.after(move("approval.lapsed", "CANDIDATE", "APPROVAL")).approved


def test_an_environment_that_asks_for_nothing_needs_nothing() -> None:
    assert require_promoted(version({}), "staging", AT) is None


PEOPLE = {"roles": ["approver"]}
BOTH = [{"role": "approver"}, {"role": "approver", "count": 2}]


@pytest.mark.parametrize(
    ("promotion", "field", "rule", "told"),
    [
        ([{"to": "producton", "people": PEOPLE}], "deployment.promotion[0].to", "declared", "did you mean 'production'"),
        ([{"to": "staging", "people": PEOPLE}], "deployment.promotion[0].to", "declared", "there are: production"),
        ([{"to": "production", "people": PEOPLE}] * 2, "deployment.promotion[1].to", "unique", "deployment.promotion[0]"),
        ([{"to": "production"}], "deployment.promotion[0].people", "required", "is missing"),
        ([{"to": "production", "people": {}}], "deployment.promotion[0].people", "one_of", "either 'roles'"),
        ([{"to": "production", "people": {"require": BOTH}}], "deployment.promotion[0].people.require[1].role", "unique", "twice"),
        (
            [{"to": "production", "people": PEOPLE, "until": "2027-02-30"}],
            "deployment.promotion[0].until",
            "date",
            "no day of the calendar",
        ),
        ([{"to": "production", "people": PEOPLE, "automatic": True}], "deployment.promotion[0].automatic", "unknown_field", "known"),
    ],
)
def test_a_manifest_that_asks_for_what_cannot_be_is_refused_by_field_and_rule(
    promotion: list[dict[str, Any]], field: str, rule: str, told: str
) -> None:
    manifest = copy.deepcopy(COMPLETE)
    manifest["deployment"] = {"environment": "staging", "promotes_to": ["production"], "promotion": promotion}
    with pytest.raises(InvalidInputError) as refused:
        read_manifest(as_json(manifest))
    problems = {(p.field, p.rule): p.message for p in refused.value.problems}
    assert told in problems[field, rule], problems


def test_the_policy_of_an_environment_is_part_of_the_versions_and_changes_its_digest() -> None:
    manifest = copy.deepcopy(COMPLETE)
    manifest["deployment"] = {"environment": "staging", "promotes_to": ["production"]}
    plain = read_manifest(as_json(manifest)).manifest
    manifest["deployment"]["promotion"] = [{"to": "production", "people": {"require": [{"role": "approver", "count": 2}]}, "valid_days": 9}]
    asking = read_manifest(as_json(manifest)).manifest
    assert "promotion" not in plain.to_mapping()["deployment"]
    before, after = (ApprovalPolicy.of_manifest(m.approval, None, promotion=m.deployment.promotion) for m in (plain, asking))
    assert before == ApprovalPolicy.of_manifest(plain.approval, None)
    assert "promotion" not in before.to_item()
    assert before.digest != after.digest
    assert ApprovalPolicy.from_item(after.to_item()) == after
    own = after.for_promotion("production")
    assert own is not None
    assert (own.needed, own.valid_days, own.signed) == (2, 9, False)
    signed = ApprovalPolicy.of_manifest(asking.approval, None, signed=True, promotion=asking.deployment.promotion).for_promotion(
        "production"
    )
    assert signed == replace(own, signed=True)
