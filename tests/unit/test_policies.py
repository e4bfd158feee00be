"""Policies: editions are never edited, what is too weak is refused by field, and a replay judges the past by what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.cli.main import make_app
from attestry.client.policy_file import read_manifest_to_check, read_policy
from attestry.domain.approvals import Verdict
from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError, UnavailableError, UnprovenIdentityError
from attestry.domain.manifest import Manifest, read_manifest
from attestry.domain.policies import Approver, Policy, Promotion, read_since
from attestry.domain.policy_checks import check_manifest, replay_policy
from attestry.evidence.canonical import parse_canonical
from attestry.ports import Delete, Key, Update, When
from attestry.usecases.decide import decide_approval
from attestry.usecases.policies import (
    MAX_POLICIES,
    edition_key,
    list_editions,
    policies_in_force,
    policy_key,
    publish_policy,
)
from attestry.usecases.policy_replay import replay_promotions
from attestry.usecases.records import OUTBOX, transition_key
from tests.flow import EXAMPLE, Flow, Serving, example_manifest, example_source
from tests.promotions import GRACE, IVAN, PromotionWorld
from tests.versions import ERIN, session

ADMIN = session("admin", "root-admin", person="root-admin")
LONG_AGO = "2000-01-01T00:00:00.000000Z"


def policy(**rule: Any) -> Policy:
    return Policy.from_mapping({"format": 1, "name": "standard", "rules": [{"name": "all", **rule}]})


def publish(flow: Flow, asked: Policy, **changes: Any) -> Any:
    return publish_policy(flow.meta, asked, **{"by": ADMIN, "reason": "the board wants it", "at": flow.clock.now(), **changes})


def manifest(edit: Callable[[dict[str, Any]], Any] | None = None) -> Manifest:
    return read_manifest(example_manifest(example_source(), edit=edit)).manifest


def events(flow: Flow, kind: str) -> list[dict[str, Any]]:
    found = [parse_canonical(row["event"]) for key, row in flow.meta.rows.items() if key.partition == OUTBOX]
    return [event for event in found if event["kind"] == kind]


# The document


@pytest.mark.parametrize(
    ("document", "field", "rule"),
    [
        ({"format": 2, "name": "a"}, "format", "one_of"),
        ({"format": 1, "name": "Bank Standard"}, "name", "name"),
        ({"format": 1, "name": "a", "rules": [{"name": "x"}, {"name": "x"}]}, "rules", "unique"),
        ({"format": 1, "name": "a", "rules": [{"name": "x", "approval": {"roles": {"validator": 0}}}]}, "rules[0].approval", "minimum"),
        (
            {"format": 1, "name": "a", "rules": [{"name": "x", "promotion": {"production": {"persons": -1}}}]},
            "rules[0].promotion.production",
            "minimum",
        ),
        (
            {"format": 1, "name": "a", "rules": [{"name": "x", "gates": {"metrics": [{"metric": "r2"}]}}]},
            "rules[0].gates.metrics",
            "required",
        ),
    ],
)
def test_what_is_wrong_in_a_policy_is_named_by_field_and_rule(document: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Policy.from_mapping(document)
    assert (field, rule) in {(p.field, p.rule) for p in refused.value.problems}


def test_an_unknown_field_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_policy(b"format: 1\nname: standard\nrules:\n  - name: high\n    aproval: {persons: 2}\n")
    (problem,) = refused.value.problems
    assert (problem.field, problem.line) == ("rules[0].aproval", 5)


def test_order_comments_and_format_of_a_file_make_no_other_policy() -> None:
    one = read_policy(b"# ours\nname: standard\nformat: 1\nrules: [{name: all, approval: {persons: 2}}]\n")
    other = read_policy(b'{"format": 1, "rules": [{"approval": {"persons": 2}, "name": "all"}], "name": "standard"}')
    assert one.digest == other.digest
    assert Policy.from_mapping(one.to_mapping()) == one


@pytest.mark.parametrize("since", ["", "yesterday", "2026-13-01", None, 5])
def test_what_is_no_day_is_refused(since: object) -> None:
    with pytest.raises(InvalidInputError):
        read_since(since)


# Which rules apply, and what is too weak


@pytest.mark.parametrize(
    ("applies", "expected"),
    [
        ({}, True),
        ({"models": ["tumour-*"]}, True),
        ({"models": ["other"]}, False),
        ({"risk_tiers": ["high"]}, True),
        ({"risk_tiers": ["low"]}, False),
        ({"environments": ["staging"]}, False),
        ({"labels": {"unit": "retail"}}, False),
        ({"models": ["tumour-*"], "risk_tiers": ["low"]}, False),
    ],
)
def test_a_rule_applies_where_everything_holds_that_it_names(applies: dict[str, Any], expected: bool) -> None:
    def high(draft: dict[str, Any]) -> None:
        draft["model"]["risk_tier"] = "high"

    found = check_manifest(policy(applies=applies, approval={"persons": 9}), manifest(high))
    assert bool(found) is expected


def automatic(draft: dict[str, Any]) -> None:
    draft["approval"] = {"automatic": True}


def by_roles(*roles: str, count: int) -> Callable[[dict[str, Any]], None]:
    def edit(draft: dict[str, Any]) -> None:
        draft["approval"] = {"people": {"roles": list(roles), "count": count}}

    return edit


def promoted(*, count: int = 0, signed: bool = False) -> Callable[[dict[str, Any]], None]:
    """A manifest that goes to production by way of staging, and there asks so many approvers, or nobody."""

    def edit(draft: dict[str, Any]) -> None:
        asked = {"to": "production", "people": {"roles": ["approver"], "count": count}, **({"signed": True} if signed else {})}
        more = {"promotion": [asked]} if count else {}
        draft["deployment"] |= {"environment": "staging", "promotes_to": ["production"], **more}

    return edit


@pytest.mark.parametrize(
    ("rule", "edit", "fields"),
    [
        ({"approval": {"persons": 1}}, automatic, ["approval.automatic"]),
        ({"approval": {"roles": {"validator": 1}}}, automatic, ["approval.automatic"]),
        ({"approval": {"persons": 2}}, by_roles("approver", count=1), ["approval.people"]),
        ({"approval": {"persons": 2}}, by_roles("approver", count=2), []),
        ({"approval": {"roles": {"validator": 1}}}, by_roles("validator", count=1), []),
        ({"approval": {"roles": {"validator": 1}}}, by_roles("validator", "approver", count=1), ["approval.people"]),
        ({"approval": {"signed": True}}, by_roles("approver", count=1), ["approval.signed"]),
        ({"promotion": {"production": {"persons": 2}}}, by_roles("approver", count=1), ["approval.people"]),
        ({"promotion": {"production": {"persons": 2}}}, automatic, ["approval.automatic"]),
        ({"promotion": {"staging": {"persons": 2}}}, by_roles("approver", count=1), []),
        ({"promotion": {"production": {"persons": 2}}}, promoted(), ["deployment.promotion"]),
        ({"promotion": {"production": {"signed": True}}}, promoted(), ["deployment.promotion"]),
        ({"promotion": {"production": {}}}, promoted(), []),
        ({"promotion": {"production": {"persons": 2}}}, promoted(count=1), ["deployment.promotion.people"]),
        ({"promotion": {"production": {"persons": 2}}}, promoted(count=2), []),
        ({"promotion": {"production": {"roles": {"validator": 1}}}}, promoted(count=1), ["deployment.promotion.people"]),
        ({"promotion": {"production": {"signed": True}}}, promoted(count=1), ["deployment.promotion.signed"]),
        ({"promotion": {"production": {"signed": True}}}, promoted(count=1, signed=True), []),
        ({"promotion": {"other": {"persons": 9}}}, promoted(count=1), []),
        ({"applies": {"environments": ["production"]}, "approval": {"persons": 2}}, promoted(count=2), ["approval.people"]),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.5}]}}, None, []),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.9999}]}}, None, ["gates.metrics"]),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "maximum": 0.9999}]}}, None, ["gates.metrics"]),
        ({"gates": {"metrics": [{"metric": "unheard_of", "minimum": 0}]}}, None, ["gates.metrics"]),
        ({"gates": {"no_worse_than_deployed": ["unheard_of"]}}, None, ["gates.no_worse_than_deployed"]),
        ({"gates": {"required": ["model.purpose"]}}, None, []),
        ({"gates": {"required": ["model.unheard_of"]}}, None, ["model.unheard_of"]),
    ],
)
def test_a_manifest_that_asks_for_less_is_told_in_which_field(rule: dict[str, Any], edit: Any, fields: list[str]) -> None:
    assert [o.field for o in check_manifest(policy(**rule), manifest(edit))] == fields


def test_a_file_can_be_held_against_a_policy_before_it_is_submitted() -> None:
    drafted = read_manifest_to_check((EXAMPLE / "manifest.yaml").read_bytes())
    assert check_manifest(policy(approval={"persons": 99}), drafted)
    assert not check_manifest(policy(), drafted)


def test_a_person_who_approved_in_two_roles_fills_one_place() -> None:
    both = (Approver("erin", ("approver", "validator"), signed=False), Approver("frank", (), signed=False))
    asked = policy(approval={"roles": {"approver": 1, "validator": 1}})
    (objection,) = replay_policy(asked, Promotion(manifest(), "production", both))
    assert objection.message == "standard/all asks for 1 approver, 1 validator; approved by erin as approver and validator, frank as nobody"


def test_a_policy_without_floors_for_promotions_keeps_the_digest_that_it_had() -> None:
    """So that editions of former times are still what was published."""
    assert "promotion" not in policy(approval={"persons": 2}).to_mapping()["rules"][0]
    assert Policy.from_mapping(policy(promotion={"production": {"persons": 2}}).to_mapping()).rules[0].promotion is not None


# Editions


def test_an_edition_is_published_with_its_event_and_replaces_the_one_before() -> None:
    flow = Flow()
    first, second = publish(flow, policy()), publish(flow, policy(approval={"persons": 2}))
    assert (first.number, second.number) == (1, 2)
    assert [e.sha256 for e in policies_in_force(flow.meta)] == [second.sha256]
    assert [e.number for e in list_editions(flow.meta, "standard")] == [1, 2]
    told = events(flow, "policy.published")
    assert [(e["subject"], e["sequence"], e["data"]["sha256"]) for e in told] == [
        ("policy/standard", 1, first.sha256),
        ("policy/standard", 2, second.sha256),
    ]
    assert told[1]["data"]["previous"] == first.sha256


def test_the_same_document_again_makes_no_other_edition() -> None:
    flow = Flow()
    publish(flow, policy())
    rows = dict(flow.meta.rows)
    assert publish(flow, policy(), reason="once more").number == 1
    assert flow.meta.rows == rows


def test_who_maps_to_no_person_publishes_nothing() -> None:
    flow = Flow()
    with pytest.raises(UnprovenIdentityError):
        publish(flow, policy(), by=replace(ADMIN, person=None))
    assert policies_in_force(flow.meta) == []


def test_two_who_publish_at_once_do_not_overwrite_each_other() -> None:
    flow = Flow()
    publish(flow, policy())
    get = flow.meta.get

    def overtaken(key: Key) -> Any:
        row = get(key)
        if key == policy_key("standard"):
            flow.meta.get = get  # type: ignore[method-assign]
            publish(flow, policy(approval={"persons": 3}))
        return row

    flow.meta.get = overtaken  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        publish(flow, policy(approval={"persons": 2}))
    assert [e.policy.rules[0].approval.persons for e in list_editions(flow.meta, "standard")] == [0, 3]


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_call_leaves_one_edition_or_none_and_a_retry_goes_on(after: bool) -> None:
    for call in range(1, 20):
        flow = Flow()
        flow.faults.clear()
        (flow.faults.fail_after if after else flow.faults.fail_before)(call)
        try:
            publish(flow, policy())
        except UnavailableError:
            flow.faults.clear()
            publish(flow, policy())
            assert [e.number for e in list_editions(flow.meta, "standard")] == [1]
            assert len(events(flow, "policy.published")) == 1
        else:
            assert call > 2
            return
    pytest.fail("it never ended")


def test_a_registry_has_only_so_many_policies() -> None:
    flow = Flow()
    for number in range(MAX_POLICIES):
        publish(flow, Policy(f"p{number}"))
    with pytest.raises(InvalidInputError):
        publish(flow, Policy("one-more"))
    assert publish(flow, Policy("p0", description="a second edition")).number == 2


def test_a_policy_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        list_editions(Flow().meta, "standard")


# Registration under policies


def test_what_asks_for_less_than_a_policy_in_force_is_refused_and_changes_nothing() -> None:
    flow, source = Flow(), example_source()
    publish(flow, policy(approval={"persons": 5}))
    registration = flow.register(flow.upload(example_manifest(source), source))
    assert registration.state == "REFUSED"
    assert [(e.field, e.rule) for e in registration.errors] == [("approval.people", "policy")]
    assert flow.meta.list_collection("MODELS") == []
    assert "standard/all asks for 5 persons" in registration.errors[0].message


def test_the_first_event_of_a_version_names_the_policies_that_it_was_held_against() -> None:
    flow = Flow()
    edition = publish(flow, policy())
    flow.register_example()
    (told,) = events(flow, "candidate.registered")
    assert told["data"]["policies"] == [{"name": "standard", "number": 1, "sha256": edition.sha256}]


def test_a_policy_published_while_a_manifest_is_registered_is_not_slipped_past() -> None:
    flow, source = Flow(), example_source()
    publish(flow, policy())
    transact = flow.meta.transact

    def overtaken(writes: Any) -> None:
        flow.meta.transact = transact  # type: ignore[method-assign]
        publish(flow, policy(approval={"persons": 5}))
        transact(writes)

    upload = flow.upload(example_manifest(source), source)
    flow.meta.transact = overtaken  # type: ignore[method-assign]
    assert flow.register(upload).state == "REFUSED"


@pytest.mark.parametrize(
    "attack",
    [
        lambda w: Update(edition_key("standard", 1), {"document": policy().to_bytes()}),
        lambda w: Delete(edition_key("standard", 1), When()),
        lambda w: Update(policy_key("standard"), {"sha256": "0" * 64}),
    ],
)
def test_nothing_is_registered_while_the_rows_of_a_policy_are_not_what_was_published(attack: Any) -> None:
    """Somebody with rights on the table weakens the policy by hand."""
    flow, source = Flow(), example_source()
    publish(flow, policy(approval={"persons": 5}))
    flow.meta.transact([attack(flow)])
    with pytest.raises(IntegrityError):
        flow.register(flow.upload(example_manifest(source), source))
    assert flow.meta.list_collection("MODELS") == []


# Replay


@pytest.fixture(scope="module")
def serving() -> Serving:
    return Serving()


def replayed(serving: Serving, asked: Policy, since: str = LONG_AGO) -> list[Any]:
    found, following = replay_promotions(serving.flow.meta, serving.flow.store, asked, since=since)
    assert following is None
    return found


def test_a_replay_says_which_promotions_would_have_been_stopped_and_why(serving: Serving) -> None:
    found = replayed(serving, policy(approval={"persons": 2}))
    assert [(r.reference, r.kind) for r in found] == [
        (serving.version.reference, "version.approved"),
        (serving.version.reference, "version.deployed"),
    ]
    assert {o.message for r in found for o in r.objections} == {"standard/all asks for 2 persons; approved by erin"}


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ({}, []),
        ({"approval": {"persons": 1}}, []),
        ({"approval": {"roles": {"approver": 1}}}, []),
        ({"approval": {"roles": {"validator": 1}}}, ["approval.people"]),
        ({"approval": {"persons": 1, "signed": True}}, ["approval.people"]),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.1}]}}, []),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.99999}]}}, ["gates.metrics"]),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "maximum": 0.1}]}}, ["gates.metrics"]),
        ({"gates": {"metrics": [{"metric": "unheard_of", "minimum": 0.1}]}}, ["gates.metrics"]),
        ({"gates": {"no_worse_than_deployed": ["unheard_of"]}}, ["gates.no_worse_than_deployed"]),
        ({"gates": {"required": ["model.unheard_of"]}}, ["model.unheard_of"]),
        ({"applies": {"environments": ["staging"]}, "approval": {"persons": 9}}, []),
    ],
)
def test_a_replay_judges_what_was_recorded(serving: Serving, rule: dict[str, Any], fields: list[str]) -> None:
    assert {tuple(o.field for o in r.objections) for r in replayed(serving, policy(**rule))} == {tuple(fields)}


@pytest.fixture(scope="module")
def placed() -> PromotionWorld:
    """A version that two people let into production, one of whom signed it."""
    world = PromotionWorld().staged()
    world.ask()
    world.decide(GRACE, signed=True)
    world.decide(IVAN)
    world.place()
    return world


@pytest.mark.parametrize(
    ("rule", "objections"),
    [
        ({"promotion": {"production": {"persons": 2}}}, []),
        ({"promotion": {"production": {"roles": {"approver": 2}}}}, []),
        ({"promotion": {"staging": {"persons": 1}}}, []),
        ({"promotion": {"elsewhere": {"persons": 9}}}, []),
        (
            {"promotion": {"production": {"persons": 3}}},
            ["standard/all asks for 3 persons before a version comes to production; approved by grace, ivan"],
        ),
        (
            {"promotion": {"production": {"roles": {"validator": 1}}}},
            ["standard/all asks for 1 validator before a version comes to production; approved by grace as approver, ivan as approver"],
        ),
        (
            {"promotion": {"production": {"persons": 2, "signed": True}}},
            ["standard/all asks for 2 persons of their own signature before a version comes to production; approved by grace"],
        ),
    ],
)
def test_a_replay_judges_who_let_a_version_into_an_environment(placed: PromotionWorld, rule: dict[str, Any], objections: list[str]) -> None:
    found, _ = replay_promotions(placed.meta, placed.store, policy(**rule), since=LONG_AGO)
    assert [r.kind for r in found] == ["version.approved", "version.deployed", "version.deployed"]
    assert [[o.message for o in r.objections] for r in found] == [[], [], objections]


def test_a_replay_stops_what_nobody_was_asked_about() -> None:
    world = PromotionWorld()
    world.validate(edit=world.edit())
    world.open()
    world.approve()
    world.place("staging")
    world.place()
    found, _ = replay_promotions(world.meta, world.store, policy(promotion={"production": {"persons": 1}}), since=LONG_AGO)
    assert [[o.field for o in r.objections] for r in found] == [[], [], ["deployment.promotion"]]


def test_an_approval_of_an_earlier_promotion_counts_for_no_later_one() -> None:
    world = PromotionWorld().staged()
    world.ask()
    world.decide(ERIN)
    world.withdraw()
    world.approved(GRACE, IVAN)
    world.place()
    found, _ = replay_promotions(world.meta, world.store, policy(promotion={"production": {"persons": 3}}), since=LONG_AGO)
    assert found[-1].objections[0].message.endswith("approved by grace, ivan")


def test_promotions_before_the_day_are_passed_over(serving: Serving) -> None:
    assert replayed(serving, policy(), since="9999-01-01T00:00:00.000000Z") == []


def test_a_replay_changes_nothing(serving: Serving) -> None:
    rows, objects = dict(serving.flow.meta.rows), Counter(serving.flow.store.versions)
    replayed(serving, policy(approval={"persons": 2}))
    assert serving.flow.meta.rows == rows
    assert Counter(serving.flow.store.versions) == objects


def test_an_approval_that_came_after_a_promotion_does_not_count_for_it() -> None:
    flow = Flow()

    def two(draft: dict[str, Any]) -> None:
        draft["approval"] = {"people": {"roles": ["approver"], "count": 2}}

    version = flow.register_example(edit=two)
    flow.to_approval(version)
    for person in ("erin", "frank"):
        by = session("approver", person, person=person)
        given = {"reason": "good", "by": by, "at": flow.clock.now()}
        decide_approval(flow.meta, flow.attestor, flow.store, version.model, version.number, Verdict.APPROVE, **given)
        flow.clock.advance(seconds=60)
    found, _ = replay_promotions(flow.meta, flow.store, policy(approval={"persons": 2}), since=LONG_AGO)
    assert [r.objections for r in found] == [()]
    approved = flow.head(version).transition
    earlier = flow.meta.rows[transition_key(version.model, version.number, approved - 1)]["at"]
    flow.meta.transact([Update(transition_key(version.model, version.number, approved), {"at": earlier})])
    found, _ = replay_promotions(flow.meta, flow.store, policy(approval={"persons": 2}), since=LONG_AGO)
    assert [bool(r.objections) for r in found] == [True]


def test_a_long_replay_goes_on_where_it_stopped() -> None:
    flow = Flow()
    for name in ("a-model", "b-model", "c-model"):

        def named(draft: dict[str, Any], name: str = name) -> None:
            draft["model"]["name"] = name

        flow.to_approval(flow.register_example(edit=named))
        given = {"reason": "good", "by": ERIN, "at": flow.clock.now()}
        decide_approval(flow.meta, flow.attestor, flow.store, name, 1, Verdict.APPROVE, **given)
    seen, after = list[str](), ""
    for _ in range(3):
        found, following = replay_promotions(flow.meta, flow.store, policy(), since=LONG_AGO, after=after, seconds=0)
        seen += [r.reference for r in found]
        after = following or ""
    assert seen == ["a-model@1", "b-model@1", "c-model@1"]
    assert after == ""


def test_a_promotion_by_gates_alone_has_nobody_who_approved() -> None:
    promotion = Promotion(manifest(automatic), "production", metrics={"accuracy": 0.9})
    (objection,) = replay_policy(policy(approval={"persons": 1}), promotion)
    assert objection.message == "standard/all asks for 1 person; approved by nobody"


@pytest.mark.parametrize("missing", ["policy.yaml", "manifest.yaml"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    (tmp_path / "policy.yaml").write_bytes(policy().to_bytes())
    (tmp_path / "manifest.yaml").write_bytes((EXAMPLE / "manifest.yaml").read_bytes())
    (tmp_path / missing).unlink()
    told = CliRunner().invoke(make_app(), ["policy", "check", str(tmp_path / "policy.yaml"), str(tmp_path / "manifest.yaml")])
    assert told.exit_code == 2
    assert f"{missing} cannot be read" in "".join(told.output.split("\n")).replace("│", "").replace("  ", " ")
