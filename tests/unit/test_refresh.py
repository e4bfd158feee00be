"""Refresh: one version for each trigger, made from what is in force, that says why; nobody approves what is his by refreshing it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.domain.cause import CauseKind
from attestry.domain.errors import (
    ConditionFailedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SelfApprovalError,
    UnavailableError,
    UnprovenIdentityError,
)
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Stage, Standing
from attestry.ports import Update, When
from attestry.usecases.decide import decide_approval
from attestry.usecases.manifests import load_manifest, load_registered_manifest
from attestry.usecases.records import OUTBOX, version_key
from attestry.usecases.refresh import Refreshed, Trigger
from attestry.usecases.revoke import kill_version
from attestry.usecases.source_data import NewData, read_data
from tests.attestations import attested
from tests.evidence_world import ADMIN, ERIN, EvidenceWorld
from tests.fakes import Faults
from tests.flow import APPROVER, DATA, GOOD, Flow, Serving, example_manifest, example_source
from tests.unit.test_reconcile import found, reconcile, serve_and_prove
from tests.versions import DANA, FRANK, session

MODEL = "tumour-diagnosis"
SOURCE = "wisconsin-breast-cancer"
MORE = DATA + b"5,6,1\n"
GRACE = session("scientist", "grace", person="grace")


def put(flow: Flow, body: bytes = MORE, *, name: str = "monday.csv", by: str = "") -> NewData:
    """Drop a file where data come in."""
    key = f"datasets-in/{MODEL}/{SOURCE}/AROADATA:feed/{name}"
    flow.store.put(key, body)
    return read_data(flow.store, key, None, by=by)


def dropped(new: NewData) -> Trigger:
    """The trigger that a dropped file is."""
    return Trigger(CauseKind.DATA, registry_principal("refresh-data"), "new data have arrived", data={SOURCE: new})


def by_hand(by: Principal = GRACE, *, request: str = "r1", data: Mapping[str, NewData] | None = None) -> Trigger:
    """The trigger of a person."""
    return Trigger(CauseKind.MANUAL, by, "the clinic asked for it", identity={"request": request}, data=data or {})


def refresh(flow: Flow, trigger: Trigger, **kwargs: Any) -> Refreshed:
    return flow.refresher.refresh(MODEL, trigger, flow.clock.now(), **kwargs)


def approve(flow: Flow, number: int, by: Principal) -> None:
    version = (flow.meta, flow.attestor, flow.store, MODEL, number, Verdict.APPROVE)
    decide_approval(*version, reason="good", by=by, at=flow.clock.now())


def test_new_data_make_a_version_of_the_same_candidate_that_says_why_and_from_which_parent():
    flow = Serving().flow
    new = put(flow)
    made = refresh(flow, dropped(new))
    assert (made.state, made.number) == ("MADE", 2)
    first, second = flow.head(flow.refresher._parent(MODEL, 1)), flow.refresher._parent(MODEL, 2)
    assert (second.candidate, second.number) == (first.candidate, 2)
    before = first.dataset(f"source/{SOURCE}").digest
    assert second.cause["kind"] == "data"
    assert second.cause["parent"] == 1
    assert second.cause["changed"] == [{"name": SOURCE, "before": before, "after": new.sha256}]
    assert second.submitter_person == "dana"
    assert list(flow.pipeline.executions)[-1] == second.execution_id
    assert load_registered_manifest(flow.store, second).data.source[0].sha256 == before
    assert load_manifest(flow.store, second).data.source[0].sha256 == new.sha256
    statement = attested(flow.meta, flow.store, flow.mover, MODEL, 2)[0]
    assert statement.predicate["data"]["cause"] == second.cause


def test_a_refreshed_version_runs_on_the_new_data_and_its_evidence_is_proven_and_reconciled():
    world = EvidenceWorld()
    world.deploy()
    new = put(world.flow)
    refresh(world.flow, dropped(new))
    world.version = world.flow.refresher._parent(MODEL, 2)
    world.flow.build_environments(world.version)
    for stage in (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION):
        assert world.flow.pass_stage(world.version, stage)["outcome"] == "SUCCEEDED"
    assert world.head.dataset(f"source/{SOURCE}").digest == new.sha256
    document = serve_and_prove(world)
    assert document["version"]["cause"]["value"]["parent"] == 1


@pytest.mark.parametrize("name", ["cause", "barred"])
def test_a_cause_that_was_changed_by_hand_is_found(name):
    world = EvidenceWorld()
    world.deploy()
    refresh(world.flow, by_hand())
    value = {"kind": "registration", "parent": None} if name == "cause" else []
    world.meta.transact([Update(version_key(MODEL, 2), {name: value}, When())])
    world.sequence()
    reconcile(world)
    assert f"head.{name}" in found(world)


def test_the_same_manifest_uploaded_again_makes_no_version_of_a_candidate_that_was_refreshed():
    flow = Flow()
    version = flow.register_example()
    refresh(flow, by_hand(data={SOURCE: put(flow)}), parent=version.number)
    again = flow.register_example()
    assert again.number == 1
    assert [r["next"] for r in flow.meta.list_collection("MODELS")] == [3]


def test_another_revision_of_the_same_manifest_names_its_parent():
    flow = Flow()
    flow.register_example()
    other = example_source(train=b"print('other')\n")
    version = flow.register(flow.upload(example_manifest(other), other)).version
    assert version is not None
    assert version.cause["kind"] == "revision"
    assert version.cause["parent"] == 1
    assert version.cause["revision"]["after"] == "3f" * 20


def test_a_manifest_with_another_setting_is_a_candidate_of_its_own():
    flow = Flow()
    flow.register_example()

    def edit(draft: dict[str, Any]) -> None:
        draft["training"]["hyperparameters"]["C"] = 0.3

    assert flow.register_example(edit=edit).cause == {"kind": "registration", "parent": None}


def test_ten_triggers_for_the_same_data_at_once_make_one_version():
    flow = Serving().flow
    new = put(flow)
    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(lambda _: refresh(flow, dropped(new)), range(10)))
    assert [o.state for o in outcomes].count("MADE") == 1
    assert {o.number for o in outcomes} == {2}
    assert [r["next"] for r in flow.meta.list_collection("MODELS")] == [3]
    assert len(flow.pipeline.executions) == 2


def test_ten_triggers_of_different_kinds_at_once_make_one_version():
    flow = Serving().flow
    new = put(flow)
    triggers = [dropped(new) if i % 2 else by_hand(request=f"r{i}", data={SOURCE: new}) for i in range(10)]
    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(lambda t: refresh(flow, t), triggers))
    assert [o.state for o in outcomes].count("MADE") == 1
    assert [r["next"] for r in flow.meta.list_collection("MODELS")] == [3]


def test_data_that_the_parent_is_made_of_already_make_nothing_and_say_so():
    flow = Serving().flow
    outcome = refresh(flow, dropped(put(flow, DATA)))
    assert (outcome.state, outcome.number) == ("NOTHING", 1)
    assert "made of these data already" in outcome.reason


def test_a_second_refresh_waits_for_the_one_on_its_way_or_is_recorded_as_skipped():
    flow = Serving().flow
    refresh(flow, dropped(put(flow)))
    waiting = refresh(flow, dropped(put(flow, MORE + b"7,8,0\n", name="tuesday.csv")))
    assert waiting.state == "WAITS"
    assert f"{MODEL}@2 is on its way" in waiting.reason
    assert refresh(flow, by_hand()).state == "SKIPPED"
    rows = flow.meta.query(f"REFRESH#{MODEL}", prefix="SKIP#")
    assert [(r["kind"], r["facts"]["parent"]) for r in rows] == [("manual", 2)]


def cooled(draft: dict[str, Any]) -> None:
    draft["refresh"] = {"cooldown": "6 hours", "data": True, "schedule": "rate(1 day)"}


def test_after_a_refresh_none_is_made_by_itself_before_the_cool_down_has_passed_but_a_person_may():
    flow = Flow()
    flow.register_example(edit=cooled)
    refresh(flow, by_hand())
    kill_version(flow.meta, flow.attestor, MODEL, 2, reason="it was a try", by=ADMIN, at=flow.clock.now())
    scheduled = Trigger(CauseKind.SCHEDULE, registry_principal("refresh-schedule"), "it is time", identity={"due": "x"})
    assert "cool-down" in refresh(flow, scheduled).reason
    assert refresh(flow, by_hand(request="r2")).state == "MADE"
    kill_version(flow.meta, flow.attestor, MODEL, 3, reason="it was a try", by=ADMIN, at=flow.clock.now())
    flow.clock.advance(hours=6)
    assert refresh(flow, scheduled).state == "MADE"


def test_what_is_refreshed_is_what_is_deployed_and_not_a_rejected_newer_version():
    serving = Serving()
    flow = serving.flow
    refresh(flow, dropped(put(flow)))
    second = flow.refresher._parent(MODEL, 2)
    flow.build_environments(second)
    flow.pass_stage(second, Stage.PROCESSING)
    flow.pass_stage(second, Stage.TRAINING)
    flow.pass_stage(second, Stage.VALIDATION, metrics={**GOOD, "roc_auc_score": 0.5})
    assert flow.head(second).standing is Standing.REJECTED
    again = refresh(flow, dropped(put(flow)))
    assert (again.state, again.number) == ("MADE_BEFORE", 2)
    flow.clock.advance(hours=2)  # past the cool-down
    third = refresh(flow, dropped(put(flow, MORE + b"9,9,0\n", name="c.csv")))
    assert flow.refresher._parent(MODEL, third.number).cause["parent"] == 1


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_refresh_killed_at_any_call_is_finished_by_the_next_delivery(kind):
    tried = 0
    for point in range(1, 100):
        faults = Faults()
        flow = Flow(faults)
        flow.register_example()
        new = put(flow)
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        try:
            refresh(flow, dropped(new))
        except UnavailableError:
            tried += 1
            faults.clear()
            assert refresh(flow, dropped(new)).number == 2
        else:
            break
        assert len(flow.pipeline.executions) == 2
        assert [m["next"] for m in flow.meta.list_collection("MODELS")] == [3]
        assert len([r for r in flow.meta.query(OUTBOX) if b"@2" in r["event"]]) == 1
    assert tried >= 12


class TestFourEyes:
    """Nobody becomes the approver of what is his by refreshing it."""

    def waiting(self, flow: Flow, trigger: Trigger) -> int:
        number = refresh(flow, trigger).number
        assert number is not None
        flow.to_approval(flow.refresher._parent(MODEL, number))
        return number

    def test_the_submitter_of_the_candidate_is_barred_when_somebody_else_asks_for_the_refresh(self):
        flow = Serving().flow
        number = self.waiting(flow, by_hand(GRACE))
        with pytest.raises(SelfApprovalError, match="stands behind"):
            approve(flow, number, session("approver", "dana", person="dana"))
        approve(flow, number, APPROVER)

    def test_who_asked_for_the_refresh_is_barred_under_every_login(self):
        flow = Serving().flow
        number = self.waiting(flow, by_hand(session("scientist", "erin", person="erin")))
        with pytest.raises(SelfApprovalError):
            approve(flow, number, session("approver", "erin-other-login", person="erin"))

    def test_who_asked_is_not_barred_from_what_he_has_no_part_in(self):
        flow = Serving().flow
        refresh(flow, by_hand(session("scientist", "erin", person="erin")))
        kill_version(flow.meta, flow.attestor, MODEL, 2, reason="no", by=ADMIN, at=flow.clock.now())
        number = self.waiting(flow, by_hand(GRACE, request="r2"))
        approve(flow, number, ERIN)

    def test_who_brought_the_data_is_barred_from_every_version_that_is_made_of_them(self):
        flow = Flow()
        flow.register_example()
        number = self.waiting(flow, dropped(put(flow, by="erin")))
        with pytest.raises(SelfApprovalError):
            approve(flow, number, ERIN)
        later = self.waiting(flow, by_hand(GRACE))
        assert flow.refresher._parent(MODEL, later).cause["parent"] == number
        with pytest.raises(SelfApprovalError):
            approve(flow, later, ERIN)
        approve(flow, later, FRANK)

    def test_the_table_refuses_the_approval_of_a_barred_person_too(self):
        flow = Serving().flow
        number = self.waiting(flow, by_hand(GRACE))
        with pytest.raises(ConditionFailedError):
            flow.meta.transact([Update(version_key(MODEL, number), {"x": 1}, When(lacks={"barred": "dana"}))])

    def test_a_login_without_a_person_cannot_ask(self):
        flow = Serving().flow
        with pytest.raises(UnprovenIdentityError):
            refresh(flow, by_hand(session("scientist", "mallory")))

    def test_a_candidate_that_nobody_stands_behind_is_not_laundered_by_a_refresh(self):
        flow = Flow()
        source = example_source()
        flow.register(flow.upload(example_manifest(source), source, by=session("scientist", "mallory")))
        with pytest.raises(UnprovenIdentityError, match="claim"):
            refresh(flow, by_hand(GRACE))
        number = self.waiting(flow, dropped(put(flow)))
        assert flow.refresher._parent(MODEL, number).submitter_person is None
        with pytest.raises(UnprovenIdentityError):
            approve(flow, number, APPROVER)

    def test_an_approval_that_a_barred_person_gave_around_the_registry_proves_nothing(self):
        world = EvidenceWorld()
        world.deploy()
        refresh(world.flow, by_hand(session("scientist", "grace", person="grace")))
        world.version = world.flow.refresher._parent(MODEL, 2)
        world.flow.build_environments(world.version)
        for stage in (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION):
            world.flow.pass_stage(world.version, stage)
        world.open()
        # Who can write the table forgets the rule there; the event of the registration has it still.
        world.meta.transact([Update(version_key(MODEL, 2), {"barred": [], "submitter_person": "nobody"}, When())])
        world.approve(session("approver", "grace", person="grace"))
        world.sequence()
        verification = world.verify(world.version_bundle(2))
        assert verification.verdict == "BROKEN"
        assert "grace submitted the candidate" in next(s.detail for s in verification.steps if s.name == "approvals")


def test_a_source_that_the_manifest_does_not_have_is_refused():
    flow = Serving().flow
    with pytest.raises(InvalidInputError, match="no source of the manifest"):
        refresh(flow, by_hand(data={"other": put(flow)}))


def test_nothing_is_made_of_a_model_that_is_not_there_or_of_a_version_out_of_use():
    flow = Flow()
    with pytest.raises(NotFoundError):
        refresh(flow, by_hand())
    flow.register_example()
    kill_version(flow.meta, flow.attestor, MODEL, 1, reason="bad", by=ADMIN, at=flow.clock.now())
    with pytest.raises(NotFoundError):
        refresh(flow, by_hand())
    with pytest.raises(ConflictError):
        refresh(flow, by_hand(), parent=1)


def test_the_person_who_submitted_stays_the_submitter_of_what_is_made_by_itself():
    flow = Serving().flow
    refresh(flow, dropped(put(flow)))
    second = flow.refresher._parent(MODEL, 2)
    assert (second.submitter, second.barred) == (DANA, ("dana",))
