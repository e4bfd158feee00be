"""Manual transitions: by the right role, with a reason and a record, never past a stage; and what a hold stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from attestry.domain.approvals import Verdict as Decision
from attestry.domain.errors import AttestryError, ConflictError, ForbiddenError, HeldError, UnavailableError, UnprovenIdentityError
from attestry.domain.principal import Principal
from attestry.domain.replay import compare_version, replay
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.evidence.verdict import Verdict
from attestry.ports import Update
from attestry.usecases.deploy import begin_deployment
from attestry.usecases.gate import open_approval, send_on
from attestry.usecases.manual import Acted, Hand, hold_version, redo_stage, release_version, retry_version
from attestry.usecases.readiness import check_frozen_files
from attestry.usecases.reconcile import Reconciler
from attestry.usecases.records import OUTBOX, load_version, version_key
from attestry.usecases.request_transition import WANTED, request_transition
from attestry.usecases.revoke import kill_version
from attestry.usecases.stage_result import StageResult
from attestry.usecases.sweep import sweep
from tests.evidence_world import EvidenceWorld
from tests.flow import GOOD
from tests.versions import session

DANA = session("scientist", "dana", person="dana")
OTHER = session("scientist", "judy", person="judy")
ERIN = session("approver", "erin", person="erin")
DANA_APPROVER = session("approver", "dana", person="dana")
HENRY = session("deployer", "henry", person="henry")
ALEX = session("admin", "alex", person="alex")
CONSUMER = session("consumer", "frank", person="frank")
STRANGER = session("approver", "mallory")
ALL = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)
FAILURE = StageResult({"outcome": "FAILED", "error": "out of memory"}, None, None, "t")


class World:
    """A registry whose functions sign with keys of their own, and the pipeline's steps as an execution takes them."""

    def __init__(self) -> None:
        self.evidence = EvidenceWorld()
        self.flow, self.meta = self.evidence.flow, self.evidence.meta
        self.flow.functions.handlers["gate"] = self._gate

    def begin(self, *stages: Stage) -> Version:
        self.evidence.version = version = self.flow.register_example()
        self.flow.build_environments(version)
        for stage in stages:
            assert self.flow.pass_stage(version, stage)["outcome"] == "SUCCEEDED"
        return self.head

    @property
    def head(self) -> Version:
        return self.evidence.head

    def hand(self, by: Principal = ERIN, reason: str = "to look at the data") -> Hand:
        attestor, flow = self.flow.attestors["operate"], self.flow
        return Hand(self.meta, attestor, flow.pipeline, flow.functions, "gate", by, reason, self.evidence.clock.now())

    def hold(self, by: Principal = ERIN) -> Acted:
        return hold_version(self.hand(by), self.head.model, 1)

    def release(self, by: Principal = ERIN) -> Acted:
        return release_version(self.hand(by, "looked at"), self.head.model, 1)

    def redo(self, stage: Stage, by: Principal = DANA, **more: Any) -> Acted:
        return redo_stage(self.hand(by, "the champion has changed"), self.head.model, 1, stage, **more)

    def ask(self, to: str, by: Principal = DANA) -> Acted:
        return request_transition(self.hand(by, "by hand"), self.head.model, 1, to, deploy_function="deploy")

    def open(self, attempt: int | None = None) -> str:
        version, flow = self.head, self.flow
        token = flow.pipeline.wait_for_token(version.execution_id)
        ports = (self.meta, flow.attestors["gate"], flow.store, flow.pipeline, flow.notifier)
        at = self.evidence.clock.now()
        open_approval(*ports, model=version.model, number=1, token=token, at=at, attempt=attempt)
        return token

    def end(self, attempt: int = 1) -> None:
        """Let the execution of an attempt end."""
        (name,) = [n for n in self.flow.pipeline.executions if n.startswith(f"{self.head.model}-1-{attempt}-")]
        self.flow.pipeline.end(name, "SUCCEEDED")

    def sweep(self) -> dict[str, int]:
        self.evidence.clock.advance(minutes=20)
        return sweep(self.meta, self.flow.functions, self.flow.pipeline, gate_function="gate", at=self.evidence.clock.now())

    def kinds(self) -> list[str]:
        return [t["kind"] for t in self.meta.query(f"VERSION#{self.head.model}#1", prefix="TRANSITION#")]

    def check(self) -> None:
        """Ledger, rows and objects agree, and a verifier who knows only the root proves every move."""
        self.evidence.sequence()
        gateway: Any = type("Gateway", (), {"answered": lambda self, day: None})()
        done = Reconciler(self.meta, self.flow.store, gateway, self.evidence.clock, verifiers=[self.evidence.log_key]).run()
        assert not done.opened, [dict(r) for k, r in self.meta.rows.items() if k.partition.startswith("FINDING")]
        verified = self.evidence.verify(self.evidence.version_bundle())
        assert verified.verdict is Verdict.PROVEN, verified.steps

    def _gate(self, event: Any) -> None:
        ports = (self.meta, self.flow.attestors["gate"], self.flow.store, self.flow.pipeline)
        send_on(*ports, model=event["model"], number=event["version"], at=self.evidence.clock.now())


@pytest.fixture
def world() -> World:
    return World()


def test_a_hold_is_a_move_with_who_why_and_its_attestation(world: World) -> None:
    world.begin(*ALL)
    acted = world.hold()
    assert acted.changed
    assert acted.version.held == {"by": "erin", "reason": "to look at the data", "at": acted.version.updated}
    assert (acted.version.stage, acted.version.status, acted.version.standing) == (Stage.VALIDATION, Status.SUCCEEDED, Standing.CANDIDATE)
    before = dict(world.meta.rows)
    assert not world.hold(ALEX).changed
    assert world.meta.rows == before
    world.check()


def test_a_held_version_begins_no_stage_and_goes_on_when_it_is_released(world: World) -> None:
    version = world.begin(Stage.PROCESSING)
    world.hold()
    assert world.flow.prepare(version, Stage.TRAINING) == {"skip": False, "held": True}
    world.end()
    assert world.sweep()["restarted"] == 0
    assert world.release().version.attempt == 2
    assert world.flow.pipeline.status([*world.flow.pipeline.executions][-1]) == "RUNNING"
    assert world.flow.prepare(version, Stage.PROCESSING, 2) == {"skip": True}
    for stage in (Stage.TRAINING, Stage.VALIDATION):
        assert world.flow.pass_stage(version, stage, 2)["outcome"] == "SUCCEEDED"
    world.check()


def test_what_runs_when_a_version_is_held_ends_and_is_recorded(world: World) -> None:
    version = world.begin(Stage.PROCESSING)
    world.flow.prepare(version, Stage.TRAINING)
    world.hold()
    assert world.flow.record(version, Stage.TRAINING, world.flow.run(version, Stage.TRAINING))["outcome"] == "SUCCEEDED"
    assert world.flow.prepare(version, Stage.VALIDATION)["held"]
    assert world.release().version.attempt == 1, "its execution runs still, and goes on by itself"


def test_a_held_version_is_not_approved_but_can_be_rejected(world: World) -> None:
    world.begin(*ALL)
    world.open()
    world.hold(ALEX)
    with pytest.raises(HeldError, match=r"held since .* by alex: to look at the data; it is not approved before it is released"):
        world.evidence.approve()
    world.evidence.approve(verdict=Decision.REJECT, signed=False)
    assert world.head.standing is Standing.REJECTED
    world.check()


def test_a_held_version_that_its_policy_would_approve_waits_for_its_release(world: World) -> None:
    world.evidence.version = version = world.flow.register_example(edit=lambda d: d.update({"approval": {"automatic": True}}))
    world.flow.build_environments(version)
    for stage in ALL:
        world.flow.pass_stage(version, stage)
    world.hold(ALEX)
    token = world.open()
    assert token in world.flow.pipeline.resumed
    assert world.head.stage is Stage.VALIDATION
    outcome = world.flow.record(version, Stage.APPROVAL, StageResult({}, None, None, "t"))
    assert outcome["outcome"] == "HELD"
    world.end()
    assert world.release().version.attempt == 2
    world.open(attempt=2)
    assert world.head.approved


def test_a_hold_over_a_waiting_automatic_policy_ends_with_the_release(world: World) -> None:
    """An unproven submitter kept it waiting; the claim comes during the hold, and the release is what approves."""
    world.begin(*ALL)
    world.open()
    world.hold()
    world.release()
    assert world.flow.functions.sent == [("gate", {"action": "decided", "model": world.head.model, "version": 1})]


def test_a_held_version_is_neither_deployed_nor_rolled_back_to(world: World) -> None:
    world.evidence.deploy()
    world.hold(HENRY)
    with pytest.raises(HeldError, match="is not deployed before"):
        begin_deployment(world.meta, world.flow.attestors["deploy"], world.head, by=HENRY, reason="r", at=world.evidence.clock.now())
    first = world.evidence.version
    world.evidence.deploy(edit=lambda d: d["training"]["hyperparameters"].update({"C": 0.5}))
    with pytest.raises(HeldError):
        world.evidence.roll_back()
    assert load_version(world.meta, first.model, 1).standing is Standing.ROLLBACK  # type: ignore[union-attr]
    assert load_version(world.meta, first.model, 2).standing is Standing.DEPLOYED  # type: ignore[union-attr]


def test_a_held_version_that_is_deployed_goes_on_serving(world: World) -> None:
    world.evidence.deploy()
    world.hold(HENRY)
    assert world.evidence.predict()
    world.evidence.seal()
    world.check()


def test_a_held_version_is_killed_all_the_same(world: World) -> None:
    world.begin(*ALL)
    world.hold()
    world.evidence.kill()
    with pytest.raises(ConflictError, match="was killed"):
        world.release()
    world.check()


@pytest.mark.parametrize("by", [DANA, CONSUMER, OTHER], ids=lambda p: p.login)
@pytest.mark.parametrize("act", [World.hold, World.release])
def test_who_has_no_role_for_it_neither_holds_nor_releases(world: World, by: Principal, act: Callable[..., Any]) -> None:
    world.begin(Stage.PROCESSING)
    if act is World.release:
        world.hold()
    before = dict(world.meta.rows)
    with pytest.raises(ForbiddenError):
        act(world, by)
    assert world.meta.rows == before


def test_a_login_that_maps_to_no_person_holds_nothing(world: World) -> None:
    world.begin(Stage.PROCESSING)
    with pytest.raises(UnprovenIdentityError):
        world.hold(STRANGER)


def test_a_deployer_holds_what_is_approved_and_nothing_before(world: World) -> None:
    world.begin(*ALL)
    with pytest.raises(ForbiddenError, match="a deployer holds and releases what is approved"):
        world.hold(HENRY)
    world.open()
    world.evidence.approve()
    assert world.hold(HENRY).changed


def test_the_submitter_does_not_release_a_version_from_somebody_elses_hold(world: World) -> None:
    world.begin(Stage.PROCESSING)
    world.hold()
    with pytest.raises(ForbiddenError, match="dana submitted tumour-diagnosis@1, which erin holds; another person releases it"):
        world.release(DANA_APPROVER)
    world.release(ALEX)
    world.hold(DANA_APPROVER)
    assert world.release(DANA_APPROVER).changed


def test_what_has_come_to_its_end_is_not_held(world: World) -> None:
    world.begin(Stage.PROCESSING)
    world.evidence.kill()
    with pytest.raises(ConflictError, match="stands RETIRED; there is nothing left to hold"):
        world.hold()


def test_a_redo_of_validation_runs_it_again_and_judges_anew(world: World) -> None:
    version = world.begin(*ALL)
    token = world.open()
    acted = world.redo(Stage.VALIDATION)
    assert (acted.version.stage, acted.version.status, acted.version.attempt) == (Stage.TRAINING, Status.SUCCEEDED, 2)
    assert (acted.version.metrics, acted.version.gates, acted.version.packet) == ({}, (), {})
    world.flow.functions.deliver()
    assert token in world.flow.pipeline.resumed, "the execution that waited for a decision is over"
    assert world.flow.record(version, Stage.APPROVAL, StageResult({}, None, None, "t"))["outcome"] == "FAILED"
    assert world.flow.prepare(version, Stage.TRAINING, 2) == {"skip": True}
    assert world.flow.pass_stage(version, Stage.VALIDATION, 2, metrics={**GOOD, "roc_auc_score": 0.98})["outcome"] == "SUCCEEDED"
    assert world.head.metrics["roc_auc_score"] == "0.98"
    world.open(attempt=2)
    world.evidence.approve()
    world.evidence.swap()
    world.evidence.predict()
    world.evidence.seal()
    world.check()
    assert world.kinds().count("stage.reopened") == 1
    check_frozen_files(world.flow.store, world.head)


def test_a_redo_of_processing_before_training_makes_other_data(world: World) -> None:
    version = world.begin(Stage.PROCESSING)
    first = world.head.dataset("training")
    world.flow.prepare(version, Stage.TRAINING)
    world.flow.record(version, Stage.TRAINING, FAILURE)
    world.redo(Stage.PROCESSING)
    assert [d.name for d in world.head.datasets] == ["source/wisconsin-breast-cancer"]
    for stage in ALL:
        assert world.flow.pass_stage(version, stage, 2)["outcome"] == "SUCCEEDED"
    names = [d.name for d in world.head.datasets]
    assert len(names) == len(set(names)) == 4
    assert world.head.dataset("training").files[0].key != first.files[0].key
    world.check()


@pytest.mark.parametrize(
    ("stages", "stage", "sentence"),
    [
        ((), Stage.PROCESSING, "PROCESSING of .* has not succeeded yet"),
        ((Stage.PROCESSING,), Stage.VALIDATION, "no stage is passed over"),
        ((Stage.PROCESSING, Stage.TRAINING), Stage.TRAINING, "TRAINING has frozen .* a new version is needed"),
        (ALL, Stage.PROCESSING, "TRAINING has frozen .* a new version is needed"),
        (ALL, Stage.APPROVAL, "APPROVAL is not done again by a redo"),
        (ALL, Stage.DEPLOYMENT, "DEPLOYMENT is not done again by a redo"),
    ],
)
def test_a_redo_that_a_rule_forbids_names_it_and_changes_nothing(
    world: World, stages: tuple[Stage, ...], stage: Stage, sentence: str
) -> None:
    world.begin(*stages)
    before = dict(world.meta.rows)
    with pytest.raises(ConflictError, match=sentence):
        world.redo(stage)
    assert world.meta.rows == before


def test_what_runs_is_not_redone_and_what_failed_is_retried(world: World) -> None:
    version = world.begin()
    world.flow.prepare(version, Stage.PROCESSING)
    with pytest.raises(ConflictError, match=r"PROCESSING of \S+ runs"):
        world.redo(Stage.PROCESSING)
    world.flow.record(version, Stage.PROCESSING, FAILURE)
    with pytest.raises(ConflictError, match="attestry retry tumour-diagnosis@1"):
        world.redo(Stage.PROCESSING)


def test_what_somebody_has_decided_on_is_not_judged_again(world: World) -> None:
    def two(draft: dict[str, Any]) -> None:
        draft["approval"]["people"]["count"] = 2

    world.evidence.validate(edit=two)
    world.open()
    world.evidence.approve()
    with pytest.raises(ConflictError, match="erin has decided on tumour-diagnosis@1 as it was judged"):
        world.redo(Stage.VALIDATION)


def test_a_scientist_redoes_own_candidates_only(world: World) -> None:
    world.begin(*ALL)
    with pytest.raises(ForbiddenError, match="is not judy's own"):
        world.redo(Stage.VALIDATION, OTHER)
    with pytest.raises(ForbiddenError, match="takes the role scientist or validator or admin"):
        world.redo(Stage.VALIDATION, ERIN)
    assert world.redo(Stage.VALIDATION, ALEX).changed


def test_the_same_redo_again_is_one_redo(world: World) -> None:
    version = world.begin(*ALL)
    world.redo(Stage.VALIDATION, attempt=1)
    assert not world.redo(Stage.VALIDATION, attempt=1).changed
    assert not world.redo(Stage.VALIDATION).changed
    world.flow.pass_stage(version, Stage.VALIDATION, 2)
    assert not world.redo(Stage.VALIDATION, attempt=1).changed
    assert world.redo(Stage.VALIDATION, attempt=2).version.attempt == 3


def test_nothing_that_an_earlier_attempt_still_does_is_taken(world: World) -> None:
    """The execution of attempt 1 was between two stages when the redo came; its next steps come late."""
    version = world.begin(*ALL)
    world.redo(Stage.VALIDATION)
    late = world.open(attempt=1)
    assert late in world.flow.pipeline.resumed
    with pytest.raises(ConflictError, match="attempt 1 of tumour-diagnosis@1 is over: attempt 2 goes on"):
        world.flow.prepare(version, Stage.VALIDATION, 1)
    before = dict(world.meta.rows)
    caught = StageResult(None, None, {"Error": "ConflictError", "Cause": ""}, "t")
    for stage in (Stage.PROCESSING, Stage.VALIDATION, Stage.APPROVAL, Stage.DEPLOYMENT):
        assert world.flow.record(version, stage, caught, 1)["outcome"] == "FAILED"
    assert {k: v for k, v in world.meta.rows.items() if k not in before} == {}
    assert world.head.transition == len(world.kinds())
    assert (world.head.stage, world.head.status) == (Stage.TRAINING, Status.SUCCEEDED)


def test_an_attempt_that_stumbles_fails_the_stage_that_would_have_begun(world: World) -> None:
    """Its first state says PROCESSING, which an earlier attempt has done: nothing that is frozen is made again."""
    version = world.begin(*ALL)
    caught = StageResult(None, None, {"Error": "States.Timeout", "Cause": "the environment did not build"}, "t")
    world.end()
    assert world.sweep()["restarted"] == 1
    assert world.flow.record(version, Stage.PROCESSING, caught, 2)["outcome"] == "FAILED"
    assert (world.head.stage, world.head.status) == (Stage.APPROVAL, Status.FAILED)
    world.end(2)
    assert retry_version(world.hand(DANA), version.model, 1).version.attempt == 3
    assert world.flow.prepare(version, Stage.VALIDATION, 3) == {"skip": True}
    world.open(attempt=3)
    world.evidence.approve()
    world.check()


def test_a_failure_that_would_pass_over_a_stage_is_not_recorded(world: World) -> None:
    version = world.begin(Stage.PROCESSING)
    caught = StageResult(None, None, {"Error": "X", "Cause": ""}, "t")
    world.flow.record(version, Stage.VALIDATION, caught, 1)
    assert (world.head.stage, world.head.status) == (Stage.PROCESSING, Status.SUCCEEDED)


def test_a_retry_is_recorded_with_who_and_why(world: World) -> None:
    version = world.begin()
    world.flow.prepare(version, Stage.PROCESSING)
    world.flow.record(version, Stage.PROCESSING, FAILURE)
    acted = retry_version(world.hand(DANA, "more memory"), version.model, 1)
    moved = world.meta.query(f"VERSION#{version.model}#1", prefix="TRANSITION#")[-1]
    assert (moved["kind"], moved["principal"]["person"], moved["reason"]) == ("stage.retried", "dana", "more memory")
    assert acted.version.attempt == 2
    assert not retry_version(world.hand(DANA), version.model, 1).changed
    for stage in ALL:
        world.flow.pass_stage(version, stage, 2)
    world.check()


@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("act", ["hold", "release", "redo", "retry"])
def test_an_act_cut_off_at_any_call_is_finished_by_asking_again(act: str, kind: str) -> None:
    for point in range(1, 40):
        world = World()
        version = world.begin(*(() if act == "retry" else ALL))
        if act == "retry":
            world.flow.prepare(version, Stage.PROCESSING)
            world.flow.record(version, Stage.PROCESSING, FAILURE)
        if act == "redo":
            world.open()
        if act == "release":
            world.hold()
        world.end()
        acts: dict[str, Callable[[], Acted]] = {
            "hold": world.hold,
            "release": world.release,
            "redo": lambda w=world: w.redo(Stage.VALIDATION, attempt=1),  # type: ignore[misc]
            "retry": lambda w=world: retry_version(w.hand(DANA), w.head.model, 1),  # type: ignore[misc]
        }
        moves = len(world.kinds())
        world.flow.faults.clear()
        getattr(world.flow.faults, f"fail_{kind}")(point)
        cut = False
        try:
            acts[act]()
        except UnavailableError:
            cut = True
            acts[act]()
        world.flow.faults.clear()
        assert len(world.kinds()) == moves + 1
        assert len(world.meta.query(OUTBOX)) >= moves + 1
        assert world.head.attempt == (1 if act == "hold" else 2)
        assert bool(world.head.held) == (act == "hold")
        running = [n for n, e in world.flow.pipeline.executions.items() if e.status == "RUNNING"]
        assert len(running) == (0 if act == "hold" else 1)
        if not cut:
            assert point > 4
            return
    raise AssertionError("the act never ended unharmed")


def test_the_sweep_goes_on_where_a_redo_was_cut_off(world: World) -> None:
    world.begin(*ALL)
    token = world.open()
    world.flow.faults.fail_after(method="MemoryMetaStore.transact")
    with pytest.raises(UnavailableError):
        world.redo(Stage.VALIDATION)
    assert world.sweep()["sent"] == 1
    world.flow.functions.deliver()
    assert token in world.flow.pipeline.resumed
    assert world.sweep()["started"] == 1


def test_replayed_events_tell_the_hold_and_one_set_by_hand_is_found(world: World) -> None:
    world.begin(Stage.PROCESSING)
    world.hold()
    events = [json.loads(row["event"]) for row in world.meta.query(OUTBOX)]
    index = replay(events)
    rows = world.meta.query(f"VERSION#{world.head.model}#1", prefix="TRANSITION#")
    head = world.head.to_item()
    assert compare_version(index, "tumour-diagnosis@1", head, rows) == []
    (found,) = compare_version(index, "tumour-diagnosis@1", {**head, "held": {}}, rows)
    assert (found.what, found.table) == ("held", {})


def test_a_hold_that_was_lifted_by_an_edit_of_the_table_is_found(world: World) -> None:
    world.begin(Stage.PROCESSING)
    world.hold()
    world.evidence.sequence()
    world.meta.transact([Update(version_key(world.head.model, 1), {"held": {}})])
    gateway: Any = type("Gateway", (), {"answered": lambda self, day: None})()
    Reconciler(world.meta, world.flow.store, gateway, world.evidence.clock, verifiers=[world.evidence.log_key]).run()
    found = [r["what"] for k, r in world.meta.rows.items() if k.partition.startswith("FINDING")]
    assert "head.held" in found


@pytest.mark.parametrize(
    ("stages", "to", "sentence"),
    [
        ((), "TRAINING", "no stage is passed over: .* REGISTERED SUCCEEDED, so PROCESSING comes before TRAINING"),
        ((Stage.PROCESSING,), "APPROVAL", "so TRAINING comes before APPROVAL"),
        ((Stage.PROCESSING,), "DEPLOYED", "so TRAINING comes before DEPLOYMENT"),
        (ALL, "DEPLOYMENT", "so APPROVAL comes before DEPLOYMENT"),
        (ALL, "APPROVED", "attestry approve tumour-diagnosis@1"),
        (ALL, "REJECTED", "attestry reject"),
        (ALL, "ROLLBACK", "kept for rollback when another one takes its place"),
        (ALL, "TRAINING", "TRAINING has frozen"),
    ],
)
def test_no_transition_passes_over_a_stage(world: World, stages: tuple[Stage, ...], to: str, sentence: str) -> None:
    world.begin(*stages)
    before = dict(world.meta.rows)
    by = HENRY if to.startswith("DEPLOY") else DANA
    with pytest.raises(ConflictError, match=sentence):
        world.ask(to, by)
    assert world.meta.rows == before


@pytest.mark.parametrize("to", WANTED)
def test_a_consumer_gets_nowhere_by_asking(world: World, to: str) -> None:
    world.begin(*ALL)
    before = dict(world.meta.rows)
    if to == world.head.standing:
        assert not world.ask(to, CONSUMER).changed
    else:
        with pytest.raises(AttestryError):
            world.ask(to, CONSUMER)
    assert world.meta.rows == before


def test_a_transition_ends_in_the_use_case_that_leads_there(world: World) -> None:
    version = world.begin(*ALL)
    assert world.ask("held", ERIN).version.held
    assert not world.ask("RELEASED", ERIN).version.held
    assert world.ask("VALIDATION").version.attempt == 2
    world.flow.prepare(version, Stage.VALIDATION, 2)
    assert not world.ask("VALIDATION").changed
    world.flow.record(version, Stage.VALIDATION, FAILURE, 2)
    assert world.ask("VALIDATION").version.attempt == 3
    world.flow.pass_stage(version, Stage.VALIDATION, 3)
    world.end(3)
    assert world.ask("APPROVAL").version.attempt == 4
    world.open(attempt=4)
    world.evidence.approve()
    world.flow.functions.sent.clear()
    assert world.ask("DEPLOYED", HENRY).version.stage is Stage.DEPLOYMENT
    assert world.flow.functions.sent[0][0] == "deploy"
    assert world.ask("RETIRED", HENRY).version.standing is Standing.RETIRED
    world.check()


def test_two_acts_at_once_make_one_move_each_and_no_gap(world: World) -> None:
    world.begin(*ALL)
    act = world.meta._apply
    once = iter([True])

    def meanwhile(writes: Any) -> None:
        if next(once, False):
            kill_version(
                world.meta, world.flow.attestors["operate"], world.head.model, 1, reason="it harms", by=ALEX, at=world.evidence.clock.now()
            )
        act(writes)

    world.meta._apply = meanwhile  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="RETIRED"):
        world.hold()
    assert world.kinds()[-1] == "version.killed"
    assert not world.head.held
