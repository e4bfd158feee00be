"""The gate: opens the approval with the pipeline's token, and sends it once the table says that the stage has ended."""

from __future__ import annotations

import pytest

from attestry.domain.approvals import ApprovalPolicy, Verdict
from attestry.domain.errors import ConflictError, UnavailableError
from attestry.domain.stages import Stage, Standing, Status
from attestry.usecases.sweep import sweep
from tests.approvals import MODEL, ApprovalWorld
from tests.fakes import MemoryFunctions, MemoryMetaStore, MemoryPipeline
from tests.versions import AT, ATTESTOR, POLICY, make_version


class World(ApprovalWorld):
    def __init__(self, policy=POLICY, **changes):
        super().__init__()
        self.version = self.judged(policy=policy, **changes)
        self.token = self.pipeline.wait_for_token(self.version.execution_id)

    def open(self, token=None):
        return super().open(token=token or self.token)

    def approve(self):
        return self.decide(reason="good")


def test_opening_waits_and_tells_the_approvers():
    world = World()
    world.open()
    assert (world.head().stage, world.head().status) == (Stage.APPROVAL, Status.RUNNING)
    assert world.token in world.pipeline.waiting
    assert world.notifier.messages[0][0] == "credit-risk@1 waits for approval"


def test_nothing_is_sent_before_a_decision():
    world = World()
    world.open()
    assert world.send() == "waiting"
    assert world.token in world.pipeline.waiting


def test_a_decision_sends_the_token_and_a_second_send_is_harmless():
    world = World()
    world.open()
    world.approve()
    assert world.send() == "sent"
    assert world.pipeline.resumed[world.token] == {"model": MODEL, "version": 1}
    assert world.send() == "sent"
    assert len(world.pipeline.resumed) == 1


def test_an_automatic_policy_sends_at_once():
    world = World(ApprovalPolicy(automatic=True))
    world.open()
    assert world.token in world.pipeline.resumed
    assert world.head().standing is Standing.APPROVED


def test_the_token_of_a_second_attempt_replaces_the_first():
    world = World()
    world.open()
    second = world.pipeline.wait_for_token(world.version.execution_id)
    world.open(second)
    world.approve()
    world.send()
    assert second in world.pipeline.resumed


def test_a_decision_whose_execution_is_gone_starts_the_next_attempt():
    world = World()
    world.open()
    world.pipeline.end(world.version.execution_id, "TIMED_OUT")
    world.approve()
    assert world.send() == "restarted"
    assert world.head().attempt == 2
    assert any("-2-" in name for name in world.pipeline.executions)


def test_a_gate_that_is_opened_after_the_decision_passes_through():
    world = World()
    world.open()
    world.pipeline.end(world.version.execution_id, "FAILED")
    world.approve()
    world.send()
    token = world.pipeline.wait_for_token(next(n for n in world.pipeline.executions if "-2-" in n))
    world.open(token)
    assert token in world.pipeline.resumed


def test_a_version_before_its_validation_is_not_opened():
    world = ApprovalWorld()
    make_version(world.meta, stage=Stage.TRAINING, status=Status.RUNNING)
    with pytest.raises(ConflictError, match="not at its approval"):
        world.open()
    assert world.head().packet == {}


def test_the_sweeper_sends_on_what_a_crash_left_after_the_decision():
    world = World()
    world.open()
    world.approve()
    functions = MemoryFunctions({"gate": lambda payload: world.send()})
    later = AT.replace(hour=5)
    assert sweep(world.meta, functions, world.pipeline, gate_function="gate", at=later)["sent"] == 1
    functions.deliver()
    assert world.token in world.pipeline.resumed


def test_the_sweeper_starts_a_registered_version_whose_pipeline_was_never_started():
    meta, pipeline = MemoryMetaStore(), MemoryPipeline()
    make_version(meta, stage=Stage.REGISTERED)
    counts = sweep(meta, MemoryFunctions(), pipeline, gate_function="gate", at=AT.replace(hour=5))
    assert counts["started"] == 1
    assert len(pipeline.executions) == 1


def test_the_sweeper_starts_the_next_attempt_where_the_execution_died_in_a_stage():
    meta, pipeline = MemoryMetaStore(), MemoryPipeline()
    version = make_version(meta, stage=Stage.TRAINING, status=Status.RUNNING)
    pipeline.start(version.execution_id, {})
    pipeline.end(version.execution_id, "ABORTED")
    assert sweep(meta, MemoryFunctions(), pipeline, gate_function="gate", at=AT.replace(hour=5))["restarted"] == 1


@pytest.mark.parametrize(
    ("stage", "status"), [(Stage.VALIDATION, Status.REJECTED), (Stage.TRAINING, Status.FAILED), (Stage.DEPLOYMENT, Status.SUCCEEDED)]
)
def test_the_sweeper_leaves_what_has_ended_and_what_moved_lately(stage, status):
    meta, pipeline = MemoryMetaStore(), MemoryPipeline()
    make_version(meta, stage=stage, status=status)
    for at in (AT, AT.replace(hour=5)):
        counts = sweep(meta, MemoryFunctions(), pipeline, gate_function="gate", at=at)
        assert counts["started"] + counts["restarted"] + counts["sent"] == 0


def test_an_automatic_policy_waits_while_the_submitter_is_unproven_and_goes_on_when_claimed():
    from attestry.usecases.operate import claim_submission
    from tests.versions import session

    unknown = session("scientist", "by-hand")
    world = World(ApprovalPolicy(automatic=True), submitter=unknown)
    world.open()
    assert world.send() == "waiting"
    claim_submission(world.meta, ATTESTOR, MODEL, 1, by=unknown.as_person("dana"), at=AT)
    assert world.send() == "sent"
    assert world.head().standing is Standing.APPROVED


def test_an_approval_by_policy_is_told_later_than_the_opening_made_at_the_same_moment():
    world = World(ApprovalPolicy(automatic=True))
    world.open()
    assert [event["kind"] for event in world.events()][-2:] == ["stage.started", "version.approved"]
    assert world.events()[-2]["at"] < world.events()[-1]["at"]


def test_a_next_attempt_that_was_counted_and_not_started_is_the_one_to_start():
    world = World()
    world.open()
    world.pipeline.end(world.version.execution_id, "FAILED")
    world.approve()
    world.faults.fail_before(method="start")
    with pytest.raises(UnavailableError):
        world.send()
    assert world.send() == "restarted"
    assert world.head().attempt == 2
    assert [name.split("-")[-2] for name in world.pipeline.executions] == ["1", "2"]


def test_the_token_of_a_rejection_whose_wait_is_over_is_forgotten():
    world = World()
    world.open()
    world.pipeline.end(world.version.execution_id, "TIMED_OUT")
    world.decide(verdict=Verdict.REJECT, reason="no")
    world.send()
    assert world.head().token == ""
    assert sweep(world.meta, MemoryFunctions(), world.pipeline, gate_function="gate", at=AT.replace(hour=5))["sent"] == 0


def test_the_sweeper_does_not_start_a_version_for_ever():
    meta, pipeline = MemoryMetaStore(), MemoryPipeline()
    version = make_version(meta, stage=Stage.TRAINING, status=Status.RUNNING, attempt=10)
    name = version.execution_id.replace("-1-1-", "-1-10-")
    pipeline.start(name, {})
    pipeline.end(name, "ABORTED")
    told: list[tuple[str, str]] = []
    later = AT.replace(hour=5)
    counts = sweep(meta, MemoryFunctions(), pipeline, gate_function="gate", at=later, on_unmended=lambda *why: told.append(why))
    assert (counts["failed"], counts["restarted"]) == (1, 0)
    assert [version for version, _ in told] == ["credit-risk@1"]
    assert "10 times" in told[0][1]
