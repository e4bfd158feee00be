"""What a verifier and the reconciliation make of validation records: proven where they stand, BROKEN where somebody passed over them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestry.evidence.bundle import read_bundle
from attestry.evidence.validation_record import ValidationRecord
from attestry.ports import Update
from attestry.usecases import decide as decide_module
from attestry.usecases import records as records_module
from attestry.usecases import validate as validate_module
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.people import add_person
from attestry.usecases.reconcile_version import VersionExaminer
from attestry.usecases.records import version_key
from tests.evidence_world import ADMIN, ERIN, EvidenceWorld, rewrite
from tests.ssh_keys import SshPerson
from tests.validations import VICTORS, hand_in, record_of, sign, trial

DEMANDS = [
    {"kind": "champion-challenger", "p_value_at_most": 0.05, "effect_at_least": 0.0, "minimum_size": 1000},
    {"kind": "leakage-check", "overlap_at_most": 0},
]
LEAKAGE = {"method": "exact rows"}


def demanding(draft: dict[str, Any]) -> None:
    draft["approval"] = {"people": {"roles": ["approver"], "count": 1}}
    draft["gates"]["records"] = DEMANDS


def opened() -> EvidenceWorld:
    world = EvidenceWorld()
    for person, login, key in (("victor", "victor", VICTORS), ("dana", "dana-elsewhere", SshPerson("dana"))):
        add_person(world.meta, person, [login], name="", by=ADMIN, at=world.clock.now(), ssh_keys=[key.public])
    world.validate(edit=demanding)
    world.open()
    return world


def record(world: EvidenceWorld, kind: str = "champion-challenger", content: dict[str, Any] | None = None, **more: Any) -> ValidationRecord:
    made = record_of(world.head, kind, content, made=f"2026-03-01T00:00:{world.head.transition:02d}.000000Z")
    hand_in(world.meta, world.flow.attestors["decide"], world.store, world.head, made, world.clock.now(), **more)
    return made


def validated() -> EvidenceWorld:
    world = opened()
    record(world)
    record(world, "leakage-check", LEAKAGE)
    return world


def bundle_of(world: EvidenceWorld) -> bytes:
    world.sequence()
    return world.version_bundle()


def verdict_of(world: EvidenceWorld, bundle: bytes | None = None) -> tuple[str, str]:
    verification = world.verify(bundle or bundle_of(world))
    return verification.verdict, verification.reason


def findings(world: EvidenceWorld) -> list[str]:
    examiner = VersionExaminer(world.meta, world.store, LedgerBytes(world.meta, world.store))
    return [o.what for o in examiner.examine(world.head.model, world.head.number)]


@pytest.fixture(scope="module")
def proven() -> EvidenceWorld:
    world = validated()
    world.approve()
    world.swap()
    world.sequence()
    return world


def test_records_and_the_approval_that_rests_on_them_are_proven(proven: EvidenceWorld) -> None:
    bundle = bundle_of(proven)
    verification = proven.verify(bundle)
    assert (verification.verdict, verification.reason) == ("PROVEN", verification.reason)
    told = {t["check"]: t for t in verification.facts["validations"]}
    assert (told["champion-challenger"]["person"], told["champion-challenger"]["grade"]) == ("victor", "signed by person")
    assert (told["leakage-check"]["overlap_rows"], told["leakage-check"]["counted_by"]) == (0, "registry")
    names = read_bundle(bundle).files
    assert sum(n.startswith("version/validations/") for n in names) == 2
    assert sum(n.startswith("signatures/victor#") for n in names) == 2
    assert findings(proven) == []


def test_a_bundle_with_another_record_signature_or_none_is_not_proven(proven: EvidenceWorld) -> None:
    bundle = bundle_of(proven)
    names = read_bundle(bundle).files
    (kept,) = (n for n, raw in names.items() if n.startswith("version/validations/") and b"conversion" in raw)
    digest = kept.removeprefix("version/validations/").removesuffix(".json")
    better = record_of(proven.head, content=trial(900))
    assert verdict_of(proven, rewrite(bundle, {kept: better.raw}))[0] == "BROKEN"
    forged = sign(record_of(proven.head), SshPerson("mallory"))
    assert verdict_of(proven, rewrite(bundle, {f"signatures/victor#{digest}.sig": forged}))[0] == "BROKEN"
    for gone in (kept, f"signatures/victor#{digest}.sig"):
        assert verdict_of(proven, rewrite(bundle, {gone: None}))[0] == "INCOMPLETE"
    added = rewrite(bundle, {f"version/validations/{better.sha256}.json": better.raw})
    assert verdict_of(proven, added)[0] == "BROKEN"


def test_an_approval_that_passed_over_the_demands_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = opened()
    monkeypatch.setattr(decide_module, "_require_validated", lambda *_: {})
    monkeypatch.setattr(records_module, "APPROVED", "never")
    world.approve()
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "what its manifest demands did not stand" in reason


def test_an_approval_that_names_other_records_than_the_latest_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = validated()
    monkeypatch.setattr(decide_module, "_require_validated", lambda *_: {"leakage-check": "ab" * 32})
    world.approve()
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "other validation records than the latest" in reason


def test_a_record_by_who_submitted_the_version_is_broken_wherever_it_was_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    world = opened()
    monkeypatch.setattr(validate_module, "_check_may_validate", lambda *_: None)
    row = world.meta.get(version_key(world.head.model, 1)) or {}
    world.meta.transact([Update(version_key(world.head.model, 1), {"submitter_person": "somebody"})])
    from tests.versions import session

    record(world, by=session("validator", "dana", person="dana"))
    world.meta.transact([Update(version_key(world.head.model, 1), {"submitter_person": row["submitter_person"]})])
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "submitted the version" in reason


def test_numbers_that_do_not_follow_from_the_record_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = opened()
    monkeypatch.setattr(validate_module, "_computed", lambda t, _: {**told(t), "effect": "0.5", "low": "0.4", "high": "0.6"})

    def told(of: Any) -> dict[str, Any]:
        return {
            "metric": of.metric,
            "better": of.better,
            "confidence": repr(of.confidence),
            "size": of.smallest,
            "p_value": "0.0",
            "method": "m",
        }

    record(world)
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "effect does not follow from its counts" in reason


def test_counts_that_are_not_those_of_processing_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = opened()
    monkeypatch.setattr(validate_module, "processing_record", lambda *_: {"rows": {"train": 1, "holdout": 9}, "overlap_rows": 0})
    record(world, "leakage-check", LEAKAGE)
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "not those of the data" in reason


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"unvalidated": False}, "head.unvalidated"),
        ({"validations": {}}, "head.validations"),
    ],
)
def test_a_head_that_was_edited_to_let_an_approval_pass_is_found(changes: dict[str, Any], what: str) -> None:
    world = opened()
    record(world, content=trial(390, 400))
    world.sequence()
    assert findings(world) == []
    world.meta.transact([Update(version_key(world.head.model, 1), changes)])
    assert findings(world) == [what]


def test_a_record_or_signature_that_was_replaced_in_the_store_is_found_and_the_bundle_has_the_true_one() -> None:
    world = validated()
    world.sequence()
    (key,) = (k for k, v in world.store.versions.items() if "/validations/" in k and b"conversion" in v[0].body)
    signature = next(k for k in world.store.versions if "/signatures/victor#" in k)
    for name in (key, signature):
        world.store.put(name, b"{}")
        assert len(findings(world)) == 1
        world.store.versions[name].pop()
    world.store.put(key, b"{}")
    assert world.verify(bundle_of(world)).facts["validations"][0]["check"] == "champion-challenger"


def test_the_statement_of_a_record_says_who_and_what(proven: EvidenceWorld) -> None:
    bundle = read_bundle(bundle_of(proven)).files
    events = [json.loads(raw)["event"] for name, raw in bundle.items() if name.startswith("ledger/leaves/")]
    told = [e for e in events if e["kind"] == "validation.recorded"]
    assert [e["principal"]["person"] for e in told] == ["victor", "victor"]
    approved = next(e for e in events if e["kind"] == "version.approved")
    assert sorted(approved["data"]["validations"]) == ["champion-challenger:conversion", "leakage-check"]
    assert approved["principal"]["person"] == ERIN.person
