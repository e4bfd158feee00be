"""Promotions, afterwards: what the offline verifier proves and breaks at, and what reconciliation finds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.domain.promotion import Promotion
from attestry.evidence.bundle import read_bundle
from attestry.evidence.promotion_packet import PromotionPacket, promotion_packet_key
from attestry.ports import Check, Put, Update, When
from attestry.usecases import decide_promotion as decide_module
from attestry.usecases import delegate as delegate_module
from attestry.usecases import deploy as deploy_module
from attestry.usecases import open_promotion as open_module
from attestry.usecases import promotion_rows as rows_module
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.promotion_rows import promotion_key
from attestry.usecases.reconcile_model import ModelExaminer
from attestry.usecases.reconcile_version import VersionExaminer
from attestry.usecases.records import version_key
from attestry.usecases.trace import trace_prediction
from tests.evidence_world import ERIN, rewrite
from tests.promotions import TWO, PromotionWorld
from tests.versions import session

MODEL = "tumour-diagnosis"
HEAD = version_key(MODEL, 1)


@pytest.fixture
def world() -> PromotionWorld:
    return PromotionWorld().staged()


def verdict_of(world: PromotionWorld, number: int = 1) -> tuple[str, str]:
    world.sequence()
    verified = world.verify(world.version_bundle(number))
    return verified.verdict, verified.reason


def findings(world: PromotionWorld, number: int = 1) -> list[str]:
    ledger = LedgerBytes(world.meta, world.store)
    seen = [*VersionExaminer(world.meta, world.store, ledger).examine(MODEL, number), *ModelExaminer(world.meta, ledger).examine(MODEL)]
    return sorted(o.what for o in seen)


def without_conditions(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that nobody's condition holds against, as for who writes it around the registry."""
    apply = world.meta._apply
    monkeypatch.setattr(world.meta, "transact", lambda writes: apply([replace(w, when=When()) for w in writes if not isinstance(w, Check)]))


def test_a_promotion_is_proven_down_to_a_prediction_in_the_environment(world: PromotionWorld) -> None:
    world.approved()
    world.place()
    prediction = world.predict_in("production")
    world.seal()
    verified = world.verify(world.bundle(prediction))
    assert verified.verdict == "PROVEN", verified.reason
    told = verified.facts["promotions"][0]
    assert (told["environment"], told["asked_by"], told["approved_by"], told["state"]) == (
        "production",
        "henry",
        ["erin", "grace"],
        "APPROVED",
    )
    assert findings(world) == []


@pytest.mark.parametrize("end", ["open", "rejected", "withdrawn"])
def test_a_promotion_that_was_not_made_is_proven_as_that(world: PromotionWorld, end: str) -> None:
    world.ask()
    if end == "rejected":
        world.decide(ERIN, Verdict.REJECT)
    elif end == "withdrawn":
        world.withdraw()
    assert verdict_of(world)[0] == "PROVEN"
    assert findings(world) == []


def test_a_rollback_in_the_environment_is_proven(world: PromotionWorld) -> None:
    world.approved()
    world.place()
    world.staged()
    world.approved()
    world.place()
    world.back(1)
    assert verdict_of(world, 1)[0] == verdict_of(world, 2)[0] == "PROVEN"
    assert findings(world, 1) == findings(world, 2) == []


def test_placing_without_the_approval_breaks_the_proof_though_the_registry_signed_it(
    world: PromotionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy_module, "grounds_of", lambda *_: None)
    world.place()
    verdict, reason = verdict_of(world)
    assert (verdict, "without the approval that this environment asks for" in reason) == ("BROKEN", True)


def test_placing_while_it_waits_breaks_the_proof(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask()
    world.decide(ERIN)
    monkeypatch.setattr(deploy_module, "grounds_of", lambda *_: None)
    world.place()
    assert verdict_of(world)[0] == "BROKEN"


def test_a_decision_by_who_asked_breaks_the_proof(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask()
    world.decide(ERIN)
    with monkeypatch.context() as patched:
        patched.setattr(decide_module, "check_may_decide_promotion", lambda *_: "henry")
        without_conditions(world, patched)
        patched.setattr(decide_module, "counted_on", lambda rows, *_: [r for r in rows if r.get("decision") == "approve"])
        world.decide(session("approver", "henry", person="henry"))
    verdict, reason = verdict_of(world)
    assert (verdict, "henry asked for the promotion to production and decided on it" in reason) == ("BROKEN", True)


def test_a_decision_by_the_submitter_breaks_the_proof(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask()
    with monkeypatch.context() as patched:
        patched.setattr(decide_module, "check_may_decide_promotion", lambda *_: "dana")
        without_conditions(world, patched)
        world.decide(session("approver", "dana", person="dana"))
    assert verdict_of(world)[0] == "BROKEN"


def test_too_few_approvals_break_the_proof(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask()
    with monkeypatch.context() as patched:
        for module in (decide_module, rows_module):
            patched.setattr(module, "is_met", lambda *_: True)
        world.decide(ERIN)
        world.place()
    verdict, reason = verdict_of(world)
    assert (verdict, "production asks for 2 approvals, and 1 approver are missing" in reason) == ("BROKEN", True)


def test_a_decision_after_the_version_was_replaced_breaks_the_proof(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask()
    first = world.head
    world.staged()
    world.version = first
    with monkeypatch.context() as patched:
        patched.setattr(Promotion, "why_not", lambda *_: "")
        world.decide(ERIN)
    verdict, reason = verdict_of(world)
    assert (verdict, "does not stand deployed in staging any more" in reason) == ("BROKEN", True)


def test_an_approval_under_another_policy_than_the_manifests_breaks_the_proof(
    world: PromotionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = open_module.policy_for(world.head, "production")
    assert asked is not None
    lighter = replace(asked, count=1)
    monkeypatch.setattr(open_module, "policy_for", lambda *_: lighter)
    world.ask()
    verdict, reason = verdict_of(world)
    assert (verdict, "packet or policy" in reason) == ("BROKEN", True)


def test_placing_after_the_approval_had_ended_breaks_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PromotionWorld().staged({**TWO, "valid_days": 30})
    world.approved()
    world.clock.at += timedelta(days=31)
    with monkeypatch.context() as patched:
        patched.setattr(rows_module, "require_promoted", lambda v, e, _: Promotion.from_item(e, v.promotions[e]))
        world.place()
    verdict, reason = verdict_of(world)
    assert (verdict, "had ended at" in reason) == ("BROKEN", True)


def test_a_key_that_outlives_the_approval_breaks_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PromotionWorld().staged({**TWO, "valid_days": 30})
    world.approved()
    world.place()
    world.clock.at += timedelta(days=29, hours=23, minutes=50)
    with monkeypatch.context() as patched:
        patched.setattr(delegate_module, "_lifetime", lambda *_: 3600)
        prediction = world.predict_in("production")
    world.seal()
    verified = world.verify(world.bundle(prediction))
    assert (verified.verdict, "the approval for production ended at" in verified.reason) == ("BROKEN", True)


def test_a_bundle_without_the_packet_is_incomplete_and_with_another_one_broken(world: PromotionWorld) -> None:
    world.approved()
    world.place()
    world.sequence()
    bundle = world.version_bundle()
    name = next(n for n in read_bundle(bundle).files if n.startswith("version/packets/"))
    assert world.verify(rewrite(bundle, {name: None})).verdict == "INCOMPLETE"
    packet = PromotionPacket.parse(read_bundle(bundle).files[name])
    other = PromotionPacket.make({**packet.content, "reason": "another one"})
    assert world.verify(rewrite(bundle, {name: other.raw})).verdict == "BROKEN"


def test_a_bundle_from_which_the_approval_is_cut_is_incomplete(world: PromotionWorld) -> None:
    world.approved()
    world.place()
    world.sequence()
    bundle = world.version_bundle()
    files = read_bundle(bundle).files
    given = [n for n, body in files.items() if n.startswith("ledger/leaves/") and b'"promotion.approved"' in body]
    assert len(given) == 1
    assert world.verify(rewrite(bundle, {given[0]: None})).verdict in ("INCOMPLETE", "BROKEN")


def _decision(world: PromotionWorld, person: str) -> Any:
    return promotion_key(MODEL, 1, "production", int(world.head.promotions["production"]["opened"]), person)


def _insert(world: PromotionWorld) -> None:
    row = {k: v for k, v in world.meta.rows[_decision(world, "grace")].items() if k not in ("pk", "sk")}
    world.meta._apply([Put(_decision(world, "ivan"), {**row, "person": "ivan"}, When())])


def _packet(world: PromotionWorld) -> None:
    digest = str(world.head.promotions["production"]["packet"])
    world.store.versions.pop(promotion_packet_key(world.head.folder, digest))


def _head(world: PromotionWorld, **changes: Any) -> None:
    promotions = {"production": {**world.head.promotions["production"], **changes}}
    world.meta._apply([Update(HEAD, {"promotions": promotions})])


EDITS: list[tuple[str, Callable[[PromotionWorld], Any], list[str]]] = [
    ("state", lambda w: _head(w, state="OPEN"), ["head.promotions"]),
    ("asker in the head", lambda w: _head(w, asked_by="ivan"), ["head.promotions"]),
    ("no promotion", lambda w: w.meta._apply([Update(HEAD, {"promotions": {}})]), ["head.promotions"]),
    ("asker", lambda w: w.meta._apply([Update(_decision(w, ""), {"asked_by": "ivan"})]), ["promotion.changed"]),
    ("decision's reason", lambda w: w.meta._apply([Update(_decision(w, "erin"), {"reason": "better"})]), ["promotion.changed"]),
    ("decision deleted", lambda w: w.meta.rows.pop(_decision(w, "erin")), ["promotion.deleted"]),
    ("promotion deleted", lambda w: w.meta.rows.pop(_decision(w, "")), ["promotion.deleted"]),
    ("decision inserted", _insert, ["promotion.changed"]),
    ("packet deleted", _packet, ["promotion.packet"]),
]


@pytest.mark.parametrize(("act", "expected"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_an_edit_by_hand_is_found(world: PromotionWorld, act: Callable[[PromotionWorld], Any], expected: list[str]) -> None:
    world.approved()
    world.place()
    world.sequence()
    assert findings(world) == []
    rows = copy.deepcopy(world.meta.rows)
    act(world)
    assert findings(world) == expected
    world.meta.rows = rows


def test_a_placing_on_what_counts_no_more_breaks_the_proof(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Approved, then rolled back and put back in staging: what was approved was another deployment there."""
    world.approved()
    first = world.head
    world.staged()
    world.back(1, environment="staging")
    world.version = first
    with monkeypatch.context() as patched:
        patched.setattr(Promotion, "why_not", lambda *_: "")
        world.place()
    verdict, reason = verdict_of(world)
    assert (verdict, "on an approval that counts no more" in reason) == ("BROKEN", True)


def test_the_trace_of_a_prediction_names_who_asked_and_who_approved(world: PromotionWorld) -> None:
    world.approved()
    world.place()
    prediction = world.predict_in("production")
    document = trace_prediction(world.meta, world.store, prediction, delegator_key=world.delegator.public_key_der)
    approval = next(s for s in document["steps"] if s["step"] == "approval")
    assert approval["detail"].endswith("; for production approved by erin, grace, asked for by henry"), approval
    assert document["people"]["deployed_by"]["value"]["promotion"]["approved_by"] == ["erin", "grace"]
    del world.meta.rows[_decision(world, "grace")]
    document = trace_prediction(world.meta, world.store, prediction, delegator_key=world.delegator.public_key_der)
    approval = next(s for s in document["steps"] if s["step"] == "approval")
    assert (approval["outcome"], "without the approval that this environment asks for" in approval["detail"]) == ("failed", True)
