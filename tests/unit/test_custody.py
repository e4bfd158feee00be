"""Legal holds and disposals: two persons, no hold, retention over; crashes anywhere; what is gone keeps its digest and its proof."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from attestry.domain.custody import custody_after, is_erasable, is_payload, retention_over
from attestry.domain.errors import (
    AttestryError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnprovenIdentityError,
)
from attestry.domain.manifest_sections import Retention
from attestry.domain.policies import Policy
from attestry.domain.policy_checks import check_manifest
from attestry.evidence.verdict import Verdict
from attestry.ports import Key, Put, When
from attestry.usecases.browse import list_data, list_files
from attestry.usecases.custody import Attended, Keeper, custody_key, due_custody, lift_legal_hold, place_legal_hold
from attestry.usecases.dispose import StoppedError, attend_all, attend_version, confirm_disposal, request_disposal
from attestry.usecases.manifests import load_manifest
from attestry.usecases.records import load_version, transition_key, version_key
from attestry.usecases.trace import trace_prediction, trace_version
from tests.evidence_world import ADMIN, ERIN, EvidenceWorld
from tests.fakes import Faults, MemoryObjectCustody
from tests.unit.test_reconcile import found, reconcile
from tests.versions import session

MODEL = "tumour-diagnosis"
HEAD = version_key(MODEL, 1)
DANA = session("admin", "dana", person="dana")
NOBODY = session("admin", "nobody")
NEVER = lambda: False  # noqa: E731 - there is always time


def keeper(world: EvidenceWorld, faults: Faults | None = None) -> Keeper:
    objects = MemoryObjectCustody(world.store, lambda: world.clock.at, faults)
    return Keeper(world.meta, world.store, objects, world.flow.attestors["custody"])


@pytest.fixture(scope="module")
def retired() -> EvidenceWorld:
    world = EvidenceWorld()
    world.deploy()
    world.predict()
    world.seal()
    world.kill(1)
    world.sequence()
    return world


@pytest.fixture
def world(retired: EvidenceWorld) -> Iterator[EvidenceWorld]:
    rows, versions, at = copy.deepcopy(retired.meta.rows), copy.deepcopy(retired.store.versions), retired.clock.at
    yield retired
    retired.meta.rows, retired.store.versions, retired.clock.at = rows, versions, at


def request(world: EvidenceWorld, by: Any = ADMIN, **ports: Any) -> Attended:
    return request_disposal(keeper(world, **ports), MODEL, 1, by=by, reason="the schedule says so", at=world.clock.now())


def confirm(world: EvidenceWorld, by: Any = ERIN, **ports: Any) -> Attended:
    return confirm_disposal(keeper(world, **ports), MODEL, 1, by=by, reason="checked", at=world.clock.now())


def attend(world: EvidenceWorld, **ports: Any) -> Attended:
    return attend_version(keeper(world, **ports), MODEL, 1, at=world.clock.now(), enough=NEVER)


def hold(world: EvidenceWorld, by: Any = ERIN) -> Attended:
    return place_legal_hold(keeper(world), MODEL, 1, by=by, reason="a lawsuit", at=world.clock.now())


def lift(world: EvidenceWorld, by: Any = ADMIN) -> Attended:
    return lift_legal_hold(keeper(world), MODEL, 1, by=by, reason="it was settled", at=world.clock.now())


def disposed(world: EvidenceWorld) -> EvidenceWorld:
    request(world)
    confirm(world)
    assert attend(world).complete
    return world


def payload(world: EvidenceWorld) -> list[str]:
    return sorted(k for k, versions in world.store.versions.items() if versions and is_payload(k, MODEL, 1))


def kinds(world: EvidenceWorld) -> list[str]:
    return [t["kind"] for t in world.meta.query(HEAD.partition, prefix="TRANSITION#")]


def test_what_is_payload_and_what_stays() -> None:
    folder = "models/tumour-diagnosis/1-abc"
    gone = ("frozen/model/model.joblib", "frozen/source.tar.gz", "stages/PROCESSING/1/data/train/x.parquet")
    gone += ("stages/VALIDATION/2/predictions.json", "predictions/payloads/kid/000000000001.request", "predictions/kid/1-3.private.ndjson")
    stays = ("frozen/artifact-manifest.json", "frozen/manifest.json", "stages/TRAINING/1/record.json", "evidence/model.sig")
    stays += ("predictions/kid/000000000001-000000000003.jsonl", "stages/PROCESSING/1/log.txt")
    assert all(is_payload(f"{folder}/{path}", MODEL, 1) for path in gone)
    assert not any(is_payload(f"{folder}/{path}", MODEL, 1) for path in stays)
    others = ("models/tumour-diagnosis/10-abc/frozen/model/m", "models/tumour/1-abc/frozen/model/m", f"datasets/{'a' * 64}/loans.csv")
    assert not any(is_payload(key, MODEL, 1) for key in others)
    assert is_erasable(f"{folder}/{gone[4]}", MODEL, 1)
    assert not is_erasable(f"{folder}/{gone[0]}", MODEL, 1)


def test_a_retention_begins_when_the_version_goes_out_of_use() -> None:
    assert retention_over(Retention("x", 10), "2026-03-04T05:06:07.000000Z") == "2036-03-04"
    assert retention_over(Retention("x", 1), "2028-02-29T00:00:00.000000Z") == "2029-02-28"
    assert retention_over(None, "2026-03-04T05:06:07.000000Z") == "2026-03-04"


def test_a_disposal_deletes_payload_and_leaves_digests_and_proof(world: EvidenceWorld) -> None:
    before = payload(world)
    kept = {k for k in world.store.versions if k not in before}
    assert before
    disposed(world)
    assert payload(world) == []
    assert kept <= {k for k, versions in world.store.versions.items() if versions}
    head = load_version(world.meta, MODEL, 1)
    assert (head.disposal["state"], head.disposal["objects"], head.disposal["left"]) == ("ended", len(before), 0)
    assert custody_key(MODEL, 1) not in world.meta.rows
    world.sequence()
    told = json.loads(world.store.versions[next(k for k in world.store.versions if "/evidence/disposals/" in k)][0].body)
    assert sorted(o["key"] for o in told["objects"]) == before


def test_a_trace_says_that_the_bytes_were_disposed_and_is_not_broken(world: EvidenceWorld) -> None:
    disposed(world)
    steps = {s["step"]: s for s in trace_version(world.meta, world.store, MODEL, 1, deep=True)}
    # The archive of the environment belongs to every version that runs in it: it stays.
    assert {s["outcome"] for s in steps.values()} == {"passed"}
    for step in ("disposal", "frozen files", "bytes of the frozen files", "bytes of the data set training"):
        assert "by alex, confirmed by erin, digest kept" in steps[step]["detail"], steps[step]


def test_a_prediction_of_a_disposed_version_is_traced_and_proven(world: EvidenceWorld) -> None:
    kid = next(k.partition for k in world.meta.rows if k.partition.startswith("KEY#")).removeprefix("KEY#")
    prediction = f"{kid}-1"
    disposed(world)
    world.sequence()
    told = trace_prediction(world.meta, world.store, prediction, delegator_key=world.delegator.public_key_der, deep=True)
    assert told["verdict"] == "SIGNED-UNANCHORED", told["steps"]
    proven = world.verify(world.version_bundle())
    assert proven.verdict is Verdict.PROVEN, proven
    assert any(note.startswith("DISPOSED on ") and "asked for by alex, confirmed by erin" in note for note in proven.notes)


def test_who_asks_for_files_that_are_gone_is_told_when_and_by_whom(world: EvidenceWorld) -> None:
    disposed(world)
    told = "was disposed on .* by alex, confirmed by erin, digest kept"
    with pytest.raises(NotFoundError, match=told):
        list_data(world.meta, world.store, MODEL, 1, "training", by=ERIN)
    with pytest.raises(NotFoundError, match=told):
        list_files(world.meta, world.store, MODEL, 1)
    source = list_data(world.meta, world.store, MODEL, 1, "source", by=ERIN)
    assert all(world.store.fetch(file["url"]) for file in source["files"])


def test_a_policy_asks_for_a_least_retention() -> None:
    world = EvidenceWorld()
    world.validate(edit=_with_retention)
    manifest = load_manifest(world.store, world.head)
    rule = {"name": "kept", "retention": {"years": 2, "compliance": True}}

    def objections(**floor: Any) -> list[str]:
        document = {"format": 1, "name": "schedule", "rules": [{**rule, "retention": {**rule["retention"], **floor}}]}
        return [objection.field for objection in check_manifest(Policy.from_mapping(document), manifest)]

    assert objections() == []
    assert objections(years=3) == ["retention.years"]
    with pytest.raises(InvalidInputError, match="1 to 100 years"):
        objections(years=0)


def test_reconciliation_does_not_miss_what_was_disposed(world: EvidenceWorld) -> None:
    disposed(world)
    world.sequence()
    reconcile(world)
    assert found(world) == []


def test_what_is_deleted_around_the_registry_is_still_missed_after_a_disposal(world: EvidenceWorld) -> None:
    disposed(world)
    world.sequence()
    gone = next(k for k in world.store.versions if k.endswith("frozen/manifest.json"))
    world.store.versions.pop(gone)
    reconcile(world)
    assert found(world) == ["object.deleted"]


def test_a_disposal_that_is_cut_off_after_any_call_goes_on(world: EvidenceWorld) -> None:
    request(world)
    confirm(world)
    rows, versions = copy.deepcopy(world.meta.rows), copy.deepcopy(world.store.versions)
    for step in range(1, 200):
        world.meta.rows, world.store.versions = copy.deepcopy(rows), copy.deepcopy(versions)
        faults = world.meta.faults = world.store.faults = Faults()
        faults.fail_after(step)
        try:
            attend(world, faults=faults)
        except UnavailableError:
            cut = True
        else:
            cut = False
        world.meta.faults, world.store.faults = Faults(), Faults()
        if not cut:
            break
        gone = {k for k in world.store.versions if not world.store.versions[k]}
        lists = [json.loads(v[0].body) for k, v in world.store.versions.items() if "/evidence/disposals/" in k]
        moves = [t["evidence"] for t in world.meta.query(HEAD.partition, prefix="TRANSITION#") if t["kind"] == "version.disposed"]
        assert not gone or (moves and gone <= {o["key"] for told in lists for o in told["objects"]}), "gone, and in no list"
        assert attend(world).complete
        assert payload(world) == []
        assert kinds(world).count("disposal.ended") == 1
        world.sequence()
        steps = trace_version(world.meta, world.store, MODEL, 1, deep=True)
        assert {s["outcome"] for s in steps} == {"passed"}
    assert step > 25


@pytest.mark.parametrize(
    ("by", "error"),
    [
        (ADMIN, ForbiddenError),
        (session("approver", "alex", person="alex"), ForbiddenError),
        (session("deployer", "henry", person="henry"), ForbiddenError),
        (session("approver", "dana", person="dana"), ForbiddenError),
        (session("approver", "nobody"), UnprovenIdentityError),
    ],
    ids=["the one who asked", "the same person in another role", "a deployer", "the submitter", "nobody's login"],
)
def test_a_disposal_is_confirmed_by_an_approver_who_is_somebody_else(world: EvidenceWorld, by: Any, error: type[AttestryError]) -> None:
    request(world)
    with pytest.raises(error):
        confirm(world, by)
    assert load_version(world.meta, MODEL, 1).disposal["state"] == "requested"


def test_nothing_is_confirmed_that_nobody_asked_for(world: EvidenceWorld) -> None:
    with pytest.raises(ConflictError, match="nobody has asked"):
        confirm(world)


def test_only_an_admin_with_a_person_asks(world: EvidenceWorld) -> None:
    with pytest.raises(ForbiddenError, match="takes the role admin"):
        request(world, ERIN)
    with pytest.raises(UnprovenIdentityError):
        request(world, NOBODY)


def test_asking_and_confirming_again_changes_nothing(world: EvidenceWorld) -> None:
    assert request(world).changed
    assert not request(world).changed
    assert confirm(world).changed
    assert not confirm(world).changed
    assert attend(world).complete
    assert attend(world).complete
    assert kinds(world)[-4:] == ["disposal.requested", "disposal.confirmed", "version.disposed", "disposal.ended"]


def test_a_version_in_use_is_not_disposed() -> None:
    world = EvidenceWorld()
    world.deploy()
    with pytest.raises(ConflictError, match="stands DEPLOYED"):
        request(world)


def _with_retention(draft: dict[str, Any]) -> None:
    draft["retention"] = {"name": "medical-2y", "years": 2, "mode": "compliance"}


def test_a_version_is_not_disposed_before_its_class_is_over_and_its_objects_are_locked_until_then() -> None:
    world = EvidenceWorld()
    world.deploy(edit=_with_retention)
    world.kill(1)
    assert [row["model"] for row in due_custody(world.meta, world.clock.at)] == [MODEL]
    attend(world)
    assert due_custody(world.meta, world.clock.at) == []
    over = retention_over(Retention("x", 2), str(world.head.retirement["at"]))
    locked = {k: v[-1] for k, v in world.store.versions.items() if k.startswith(f"models/{MODEL}/1-")}
    assert {(v.mode, v.until.date().isoformat() if v.until else "") for k, v in locked.items() if not is_erasable(k, MODEL, 1)} == {
        ("COMPLIANCE", over)
    }
    with pytest.raises(ConflictError, match=f"retained until {over} by the retention class medical-2y"):
        request(world)
    world.clock.advance(days=365 * 2 + 2)
    disposed(world)
    assert payload(world) == []


def test_what_a_lock_keeps_is_left_and_can_go_later(world: EvidenceWorld) -> None:
    model = next(k for k in payload(world) if "/frozen/model/" in k)
    until = world.clock.at + timedelta(days=30)
    world.store.versions[model][-1].until = until
    disposed(world)
    assert payload(world) == [model]
    head = load_version(world.meta, MODEL, 1)
    assert (head.disposal["left"], head.disposal["left_until"]) == (1, until.date().isoformat())
    world.clock.advance(days=31)
    disposed(world)
    assert payload(world) == []


# Attacks.


def test_nothing_is_asked_for_confirmed_or_deleted_under_a_legal_hold(world: EvidenceWorld) -> None:
    hold(world)
    with pytest.raises(ConflictError, match="under the legal hold of erin"):
        request(world)
    lift(world)
    request(world)
    hold(world)
    with pytest.raises(ConflictError, match="under the legal hold of erin"):
        confirm(world)
    lift(world)
    with pytest.raises(ConflictError, match="nobody has asked"):
        confirm(world)


def test_a_legal_hold_stops_a_disposal_that_runs(world: EvidenceWorld) -> None:
    request(world)
    confirm(world)
    before, ports = payload(world), keeper(world)
    record = ports.meta.transact

    def hold_in_between(writes: Any) -> None:
        record(writes)
        ports.meta.transact = record  # type: ignore[method-assign]
        hold(world)

    ports.meta.transact = hold_in_between  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        attend_version(ports, MODEL, 1, at=world.clock.now(), enough=NEVER)
    assert payload(world) == before
    attend(world)
    assert all(v.legal_hold for k in before for v in world.store.versions[k])
    lift(world)
    assert attend(world).complete
    assert not any(v.legal_hold for k in before for v in world.store.versions[k])
    assert payload(world) == before


def test_a_legal_hold_of_the_store_keeps_what_the_registry_would_delete(world: EvidenceWorld) -> None:
    for key in payload(world):
        world.store.versions[key][-1].legal_hold = True
    before = payload(world)
    disposed(world)
    assert payload(world) == before


def test_who_submitted_a_version_does_not_lift_its_hold_and_a_hold_is_lifted_by_an_admin(world: EvidenceWorld) -> None:
    hold(world)
    with pytest.raises(ForbiddenError, match="dana submitted"):
        lift(world, DANA)
    with pytest.raises(ForbiddenError, match="takes the role admin"):
        lift(world, ERIN)
    assert not hold(world, session("auditor", "grace", person="grace")).changed
    assert lift(world).changed
    assert not lift(world).changed


def test_rows_that_lead_to_what_others_share_delete_nothing_of_it(world: EvidenceWorld) -> None:
    shared = next(k for k in world.store.versions if k.startswith("datasets/"))
    world.store.put(f"models/{MODEL}/10-abc/frozen/model/m", b"x")
    others = {shared, f"models/{MODEL}/10-abc/frozen/model/m"}
    row = world.meta.rows[HEAD]
    row["folder"] = "datasets"
    for dataset in row["datasets"]:
        dataset["files"] = [{**f, "key": shared} for f in dataset["files"]]
    request(world)
    confirm(world)
    attend(world)
    assert all(world.store.versions[key] for key in others)


def test_a_forged_confirmation_deletes_nothing(world: EvidenceWorld) -> None:
    """Whoever may write rows writes head, work and transition, as if two persons had spoken; the key of the function did not sign it."""
    request(world)
    at, number = "2026-02-02T00:00:00.000000Z", world.meta.rows[HEAD]["transition"] + 1
    told = {"confirmed_by": "erin", "confirmed_at": at, "confirmation": number, "objects": 0, "state": "confirmed"}
    row = copy.deepcopy(world.meta.rows[transition_key(MODEL, 1, number - 1)])
    data = {"requested_by": "alex", "request": number - 1}
    forged = {**row, "kind": "disposal.confirmed", "number": number, "data": data, "at": at, "principal": ERIN.to_item()}
    world.meta._apply([Put(transition_key(MODEL, 1, number), {k: v for k, v in forged.items() if k not in ("pk", "sk")})])
    world.meta.rows[HEAD] |= {"disposal": {**world.meta.rows[HEAD]["disposal"], **told}, "transition": number}
    work = {"model": MODEL, "number": 1, "dispose": True, "serial": number}
    world.meta._apply([Put(Key("CUSTODY", f"{MODEL}@000000001"), work, When())])
    before = payload(world)
    with pytest.raises(IntegrityError, match="is of another move"):
        attend(world)
    assert payload(world) == before


def test_a_forged_head_alone_deletes_nothing_and_one_version_does_not_hold_up_another(world: EvidenceWorld) -> None:
    forged = {"state": "confirmed", "by": "alex", "confirmed_by": "erin", "confirmation": 3, "objects": 0, "reason": "x"}
    world.meta.rows[HEAD]["disposal"] = forged
    world.meta._apply([Put(Key("CUSTODY", f"{MODEL}@000000000"), {"model": MODEL, "number": 9, "serial": 1})])
    world.meta._apply([Put(Key("CUSTODY", f"{MODEL}@000000001"), {"model": MODEL, "number": 1, "dispose": True, "serial": 3}, When())])
    done, errors = attend_all(keeper(world), due_custody(world.meta, world.clock.at), at=world.clock.at, enough=NEVER)
    assert done == []
    assert len(errors) == 2
    assert "do not say that its disposal was confirmed" in errors[1]
    assert payload(world)


def test_a_forged_disposal_without_an_event_does_not_explain_what_is_gone(world: EvidenceWorld) -> None:
    """The list is there and the row names it, but no event does: trace and reconciliation say so, and miss the file."""
    rows, versions = copy.deepcopy(world.meta.rows), copy.deepcopy(world.store.versions)
    disposed(world)
    named = next(t for t in world.meta.query(HEAD.partition, prefix="TRANSITION#") if t["kind"] == "version.disposed")
    told = world.store.versions[named["data"]["list"]]
    world.meta.rows, world.store.versions = rows, versions
    number = world.meta.rows[HEAD]["transition"] + 1
    forged = {k: v for k, v in named.items() if k not in ("pk", "sk")} | {"number": number}
    world.meta._apply([Put(transition_key(MODEL, 1, number), forged)])
    world.meta.rows[HEAD]["transition"] = number
    world.store.versions[named["data"]["list"]] = told
    gone = next(k for k in payload(world) if "/frozen/model/" in k)
    world.store.versions.pop(gone)
    steps = {s["step"]: s for s in trace_version(world.meta, world.store, MODEL, 1, deep=True)}
    assert steps["disposal"]["outcome"] == "failed"
    assert "no event tells of it" in steps["disposal"]["detail"]
    assert steps["frozen files"]["outcome"] == "failed"
    reconcile(world)
    assert "transition.without_event" in found(world)


def test_a_list_that_was_changed_is_found_and_explains_nothing(world: EvidenceWorld) -> None:
    disposed(world)
    world.sequence()
    place = next(k for k in world.store.versions if "/evidence/disposals/" in k)
    world.store.tamper(place, b"{}")
    steps = {s["step"]: s for s in trace_version(world.meta, world.store, MODEL, 1)}
    assert steps["disposal"]["outcome"] == "failed"
    assert "is not the list that move" in steps["disposal"]["detail"]
    reconcile(world)
    assert found(world) == ["disposal.list"]


def test_edits_of_holds_and_disposals_by_hand_are_found(world: EvidenceWorld) -> None:
    hold(world)
    world.sequence()
    world.meta.rows[HEAD]["legal_hold"] = {}
    world.meta.rows[HEAD]["disposal"] = {"state": "ended", "left": 0}
    reconcile(world)
    assert found(world) == ["head.disposal", "head.legal_hold"]


def test_the_state_is_what_the_moves_make_of_it(world: EvidenceWorld) -> None:
    for act in (hold, lift, request, confirm, attend):
        act(world)
        moves = world.meta.query(HEAD.partition, prefix="TRANSITION#")
        head, told = load_version(world.meta, MODEL, 1), custody_after(moves)
        assert (dict(head.legal_hold), dict(head.disposal)) == (told.legal_hold, told.disposal)
