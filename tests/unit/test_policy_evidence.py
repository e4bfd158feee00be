"""The registry's own policies, proven offline: which were in force, and that approvals and placings had what they ask for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.import_floor import ONE_APPROVER
from attestry.domain.policies import Policy, named_editions
from attestry.evidence import checks_policies as checks_module
from attestry.evidence.bundle import policy_file, read_bundle
from attestry.evidence.verdict import Verification
from attestry.ports import Delete, Update
from attestry.usecases import import_version as import_module
from attestry.usecases import register as register_module
from attestry.usecases.policies import Edition, edition_key, publish_policy
from attestry.usecases.policy_replay import replay_promotions
from attestry.usecases.records import model_key, transition_key
from tests.evidence_world import ADMIN, ERIN, GRACE, EvidenceWorld, find_leaf, rewrite
from tests.promotions import IVAN, TWO, VERA, PromotionWorld
from tests.unit.test_imported_version import ImportedWorld

ASKED: Mapping[str, Any] = {
    "approval": {"persons": 1, "roles": {"approver": 1}, "signed": False},
    "promotion": {"production": {"persons": 2, "roles": {"approver": 2}}},
    "gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.9}], "required": ["model.owner"]},
}
FILE = policy_file("standard", 1)


def policy(name: str = "standard", **rule: Any) -> Policy:
    return Policy.from_mapping({"format": 1, "name": name, "rules": [{"name": "all", **rule}]})


def publish(world: EvidenceWorld, asked: Policy) -> Edition:
    """Publish a policy, and have it in the ledger well after what was before, and well before anything else happens."""
    world.clock.advance(seconds=180)
    edition = publish_policy(world.meta, asked, by=ADMIN, reason="the board wants it", at=world.clock.now())
    world.sequence()
    world.clock.advance(seconds=180)
    return edition


def step(verified: Verification) -> tuple[str, str]:
    found = next(s for s in verified.steps if s.name == "policies")
    return found.outcome, found.detail


def judged(world: EvidenceWorld, bundle: bytes | None = None) -> tuple[str, str]:
    """The verdict on a version's bundle, and what the step says."""
    world.sequence()
    verified = world.verify(bundle if bundle is not None else world.version_bundle())
    return verified.verdict, step(verified)[1]


@pytest.fixture(scope="module")
def kept() -> PromotionWorld:
    """A world whose version kept a policy all the way into production; only read."""
    world = PromotionWorld()
    publish(world, policy(**ASKED))
    world.staged()
    publish(world, policy(**ASKED, applies={"risk_tiers": ["high", "low"]}))
    world.approved(GRACE, IVAN)
    world.place()
    world.sequence()
    return world


def test_a_version_that_kept_the_policies_is_proven_down_to_a_prediction(kept: PromotionWorld) -> None:
    prediction = kept.predict_in("production")
    kept.seal()
    verified = kept.verify(kept.bundle(prediction))
    assert verified.verdict == "PROVEN", verified.reason
    (told,) = verified.facts["policies"]
    assert (told["name"], told["number"], told["sha256"]) == ("standard", 1, policy(**ASKED).digest)
    assert [told[name].split()[0] for name in ("published", "replaced")] == ["leaf", "leaf"]
    assert step(verified)[1].endswith("the manifest asks for no less; 3 approvals and placings have what they ask for")


def test_the_report_names_the_policies_and_when_they_were_in_force(kept: PromotionWorld) -> None:
    files = read_bundle(kept.version_bundle()).files
    row = next(line for line in files["REPORT.md"].decode().splitlines() if policy(**ASKED).digest in line)
    assert row.count("leaf ") == 2
    assert "sha256sum policies/*.json" in files["README.md"].decode()


def test_a_version_without_policies_is_proven_and_says_so() -> None:
    world = PromotionWorld().staged()
    verdict, detail = judged(world)
    assert (verdict, detail) == ("PROVEN", checks_module.NOT_RECORDED)
    assert detail.startswith("no registry policy recorded")
    assert not [name for name in read_bundle(world.version_bundle()).files if name.startswith("policies/")]


def test_a_policy_published_after_the_registration_is_none_of_the_version_s() -> None:
    world = PromotionWorld().staged()
    publish(world, policy(approval={"persons": 9}))
    assert judged(world) == ("PROVEN", checks_module.NOT_RECORDED)


def test_a_bundle_with_the_policy_left_out_is_incomplete(kept: PromotionWorld) -> None:
    bundle = rewrite(kept.version_bundle(), {FILE: None})
    verdict, detail = judged(kept, bundle)
    assert (verdict, "is not in the bundle" in detail) == ("INCOMPLETE", True)


def test_a_bundle_with_the_publication_left_out_is_incomplete(kept: PromotionWorld) -> None:
    bundle = without_leaf(kept.version_bundle(), find_leaf(kept.version_bundle(), "policy.published", "policy/standard", 1))
    verdict, detail = judged(kept, bundle)
    assert (verdict, "it is not shown when it was in force" in detail) == ("INCOMPLETE", True)


def test_a_bundle_with_a_laxer_policy_is_broken(kept: PromotionWorld) -> None:
    verdict, detail = judged(kept, rewrite(kept.version_bundle(), {FILE: policy().to_bytes()}))
    assert (verdict, "another document than the one that the registration names" in detail) == ("BROKEN", True)


@pytest.mark.parametrize("name", [policy_file("standard", 2), policy_file("other", 1)])
def test_a_policy_that_the_registration_does_not_name_is_a_stranger(kept: PromotionWorld, name: str) -> None:
    verified = kept.verify(rewrite(kept.version_bundle(), {name: policy().to_bytes()}))
    assert (verified.verdict, verified.steps[-1].detail) == ("BROKEN", f"{name} is there, and nothing rests on it")


@pytest.mark.parametrize("name", ["policies/standard.json", "policies/../x#000001.json", "policies/Standard#000001.json"])
def test_a_name_that_no_policy_has_is_in_no_bundle(kept: PromotionWorld, name: str) -> None:
    with pytest.raises(InvalidInputError, match="is no file of a bundle"):
        rewrite(kept.version_bundle(), {name: b"{}"})


def test_the_laxer_edition_from_before_is_broken_though_the_registry_named_and_signed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PromotionWorld()
    lax = publish(world, policy())
    publish(world, policy(approval={"persons": 2}))
    monkeypatch.setattr(register_module, "policies_in_force", lambda _: [lax])
    monkeypatch.setattr(register_module, "check_policies", lambda *_: [])
    world.staged()
    verdict, detail = judged(world)
    assert (verdict, "was in force no more when the version was registered: replaced at leaf" in detail) == ("BROKEN", True)


def test_a_policy_that_was_published_only_afterwards_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PromotionWorld()
    later = policy()
    named = Edition(later, 1, later.digest, "alex", "backdated", "2026-01-01T00:00:00.000000Z")
    with monkeypatch.context() as patched:
        patched.setattr(register_module, "policies_in_force", lambda _: [named])
        patched.setattr(register_module, "check_policies", lambda *_: [])
        world.staged()
    world.sequence()
    publish(world, later)
    verdict, detail = judged(world)
    assert (verdict, "was not in force yet when the version was registered" in detail) == ("BROKEN", True)


def test_what_was_registered_while_a_policy_was_published_may_come_behind_it_in_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PromotionWorld()
    before = publish(world, policy())
    publish_policy(world.meta, policy(approval={"persons": 1}), by=ADMIN, reason="next", at=world.clock.now())
    world.sequence()
    # The registration read the table before that edition was in force, and is logged a second behind it.
    monkeypatch.setattr(register_module, "policies_in_force", lambda _: [before])
    monkeypatch.setattr(register_module, "check_policies", lambda *_: [])
    world.staged()
    assert judged(world)[0] == "PROVEN"


def test_a_policy_that_nobody_ever_published_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PromotionWorld()
    invented = policy()
    named = Edition(invented, 1, invented.digest, "alex", "invented", "2026-01-01T00:00:00.000000Z")
    monkeypatch.setattr(register_module, "policies_in_force", lambda _: [named])
    monkeypatch.setattr(register_module, "check_policies", lambda *_: [])
    world.staged()
    world.sequence()
    bundle = rewrite(world.version_bundle(), {FILE: invented.to_bytes()})
    assert judged(world, bundle)[0] == "INCOMPLETE"


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"approval": {"persons": 2}}, "asks for 2 persons, the manifest for 1"),
        ({"promotion": {"production": {"roles": {"validator": 1}}}}, "1 person in the role validator before a version comes to production"),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.999}]}}, "asks for a minimum of 0.999 for roc_auc_score"),
        ({"retention": {"years": 10}}, "asks for a retention of 10 years"),
    ],
)
def test_a_manifest_that_asks_for_less_breaks_the_proof_though_the_registry_took_it(
    monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], reason: str
) -> None:
    world = PromotionWorld()
    publish(world, policy(**rule))
    monkeypatch.setattr(register_module, "check_policies", lambda *_: [])
    world.validate(edit=world.edit(TWO))
    verdict, detail = judged(world)
    assert (verdict, "the manifest asks for less than standard edition 1" in detail, reason in detail) == ("BROKEN", True, True)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"approval": {"roles": {"validator": 1}}}, "(version.approved) does not have what standard edition 1"),
        ({"approval": {"persons": 2}, "applies": {"environments": ["production"]}}, "(version.deployed) does not have what standard"),
        ({"promotion": {"staging": {"persons": 2}}}, "before a version comes to staging; approved by erin"),
        ({"promotion": {"production": {"persons": 3}}}, "before a version comes to production; approved by erin, vera"),
        ({"promotion": {"production": {"roles": {"approver": 2}}}}, "approved by erin as approver, vera as validator"),
        ({"promotion": {"production": {"signed": True, "persons": 2}}}, "of their own signature before a version comes to production"),
        ({"gates": {"metrics": [{"metric": "roc_auc_score", "minimum": 0.999}]}}, "it was 0.99"),
        ({"gates": {"no_worse_than_deployed": ["log_loss"]}}, "is compared with the deployed version's, which it was not"),
    ],
)
def test_what_was_really_decided_and_measured_is_held_against_the_floor_whatever_the_manifest_asks(
    mixed: PromotionWorld, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], reason: str
) -> None:
    # The manifest would be told to ask for too little before: that comparison is taken away, so that what was decided is judged alone. The
    # policy takes the place of the one that was named, as if it had its digest, so that one world does for all rules.
    monkeypatch.setattr(checks_module, "check_manifest", lambda *_: [])
    asked = policy(**rule)
    bundle = rewrite(mixed.version_bundle(), {FILE: asked.to_bytes()})
    monkeypatch.setattr(checks_module, "sha256_hex", lambda _: policy().digest)
    verdict, detail = judged(mixed, bundle)
    assert (verdict, reason in detail) == ("BROKEN", True), detail


@pytest.fixture(scope="module")
def mixed() -> PromotionWorld:
    """A version approved by erin, promoted by erin and vera under an empty policy; only read."""
    world = PromotionWorld()
    publish(world, policy())
    people = {"roles": ["approver", "validator"], "count": 2}
    world.staged({"to": "production", "people": people})
    world.ask()
    world.decide(ERIN)
    world.decide(VERA)
    world.place()
    world.sequence()
    return world


def test_a_comparison_with_confidence_is_a_comparison() -> None:
    world = PromotionWorld()
    publish(world, policy(gates={"no_worse_than_deployed": ["roc_auc_score"]}))

    def edit(manifest: dict[str, Any]) -> None:
        comparison = {"metric": "roc_auc_score", "by_more_than": 0.01, "confidence": 0.95}
        manifest["gates"] |= {"no_worse_than_deployed": [comparison]}

    world.deploy(edit=edit)
    world.sequence()
    verified = world.verify(world.version_bundle())
    assert verified.verdict == "PROVEN", verified.reason
    found, _ = replay_promotions(world.meta, world.store, policy(gates={"no_worse_than_deployed": ["roc_auc_score"]}), since="2000-01-01")
    assert [one.objections for one in found] == [(), ()]


def test_decisions_of_a_promotion_that_was_withdrawn_count_for_no_later_one() -> None:
    world = PromotionWorld()
    publish(world, policy(promotion={"production": {"persons": 2}}))
    world.staged()
    world.ask()
    world.decide(ERIN)
    world.withdraw()
    world.approved(GRACE, IVAN)
    world.place()
    world.sequence()
    verified = world.verify(world.version_bundle())
    assert verified.verdict == "PROVEN", verified.reason


def test_what_is_in_the_registry_but_not_in_the_ledger_yet_is_signed_and_unanchored() -> None:
    world = PromotionWorld()
    publish_policy(world.meta, policy(), by=ADMIN, reason="the board wants it", at=world.clock.now())
    world.validate(edit=world.edit(TWO))
    verified = world.verify(world.version_bundle())
    assert (verified.verdict, step(verified)[0]) == ("SIGNED-UNANCHORED", "passed")


@pytest.mark.parametrize("attack", ["document", "edition", "first move"])
def test_rows_edited_in_the_table_make_a_bundle_that_proves_less_and_never_more(attack: str) -> None:
    world = PromotionWorld()
    publish(world, policy(**ASKED))
    world.staged()
    edition, first = edition_key("standard", 1), transition_key(world.head.model, 1, 1)
    facts = dict(world.meta.rows[first]["data"])
    edits = {
        "document": Update(edition, {"document": policy().to_bytes()}),
        "edition": Delete(edition),
        "first move": Update(first, {"data": {**facts, "policies": []}}),
    }
    world.meta.transact([edits[attack]])
    assert judged(world)[0] == "INCOMPLETE"


@pytest.mark.parametrize(
    "named",
    [
        [{"name": "standard", "number": 1, "sha256": "0" * 63}],
        [{"name": "../standard", "number": 1, "sha256": "0" * 64}],
        [{"name": "standard", "number": 0, "sha256": "0" * 64}],
        [{"name": "standard", "number": True, "sha256": "0" * 64}],
        [{"name": "standard", "number": 1, "sha256": "0" * 64, "more": 1}],
        [{"name": "standard", "number": 1, "sha256": "0" * 64}, {"name": "standard", "number": 2, "sha256": "1" * 64}],
    ],
)
def test_policies_that_are_named_in_another_form_are_refused(named: list[dict[str, Any]]) -> None:
    with pytest.raises(IntegrityError):
        named_editions({"policies": named})


def test_a_registration_that_names_one_policy_twice_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PromotionWorld()
    edition = publish(world, policy())
    monkeypatch.setattr(register_module, "policies_in_force", lambda _: [edition, replace(edition, number=2)])
    monkeypatch.setattr(register_module, "check_policies", lambda *_: [])
    world.validate(edit=world.edit(TWO))
    world.sequence()
    verified = world.verify(world.version_bundle())
    assert (verified.verdict, "names two editions of one policy" in verified.reason) == ("BROKEN", True)


# Versions that were made elsewhere


def test_an_import_that_kept_the_policies_is_proven_by_what_its_model_was() -> None:
    world = ImportedWorld()
    publish(world, policy(approval={"persons": 1, "signed": True}, applies={"labels": {"unit": "retail"}}))
    world.bring({"weights.bin": b"first"})
    world.meta.transact([Update(model_key(world.model), {"labels": {"unit": "retail", "other": "x"}, "risk_tier": "high"})])
    world.approved()
    world.sequence()
    verified = world.verify(world.version_bundle(2))
    assert verified.verdict == "PROVEN", verified.reason
    assert "what was asked of the import is no less; 1 approvals" in step(verified)[1]
    first = json.loads(read_bundle(world.version_bundle(2)).files[find_leaf_of_import(world)])["event"]
    assert first["data"]["judged_as"] == {"labels": {"unit": "retail"}, "risk_tier": "high"}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"approval": {"persons": 2}}, "asks for less than standard edition 1"),
        ({"approval": {"signed": True, "persons": 1}, "applies": {"risk_tiers": ["high"]}}, "asks for less than standard edition 1"),
        ({"gates": {"required": ["model.owner"]}}, "lets no import pass"),
    ],
)
def test_an_import_that_was_taken_although_a_policy_asks_for_more_is_broken(
    monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], reason: str
) -> None:
    world = ImportedWorld()
    publish(world, policy(**rule))
    monkeypatch.setattr(import_module, "require_met", lambda *_, **__: None)
    monkeypatch.setattr(import_module, "policy_for_import", lambda *_, **__: ONE_APPROVER)
    world.bring()
    verdict, detail = judged(world)
    assert (verdict, reason in detail) == ("BROKEN", True), detail


def test_an_import_that_does_not_tell_what_its_model_was_says_which_rules_were_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ImportedWorld()
    publish(world, policy(approval={"persons": 2}, applies={"risk_tiers": ["low"]}))
    monkeypatch.setattr(import_module, "_governed", lambda _model, _head, editions: {"policies": [e.reference for e in editions]})
    world.bring()
    world.sequence()
    verified = world.verify(world.version_bundle())
    assert verified.verdict == "PROVEN", verified.reason
    assert any("1 rules of policies narrow by risk tier or labels" in note for note in verified.notes)


def find_leaf_of_import(world: ImportedWorld) -> str:
    return find_leaf(world.version_bundle(2), "version.imported", world.head.reference, 1)


def without_leaf(bundle: bytes, name: str) -> bytes:
    """A bundle without a leaf and its proof."""
    proofs = json.loads(read_bundle(bundle).files["ledger/proofs.json"])
    del proofs["proofs"][str(int(name[-17:-5]))]
    kept = json.dumps(proofs, separators=(",", ":"), sort_keys=True).encode()
    return rewrite(bundle, {name: None, "ledger/proofs.json": kept})
