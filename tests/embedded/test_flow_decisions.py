"""Approval on the embedded AWS: who may decide, what a token is worth, and what goes on after a crash."""

from __future__ import annotations

import pytest

from tests.embedded.flow_versions import FUNCTIONS, NO_LONGER_WAITING, Crowded, Interrupted
from tests.embedded.flows import Registry, refusal

pytest_plugins = ("tests.embedded.flows", "tests.embedded.flow_versions")
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]


def test_nobody_but_the_gate_may_send_a_token(crowded: Crowded) -> None:
    assert set(crowded.sent_by.values()) == {"AccessDeniedException"}


def test_a_token_that_is_sent_without_a_decision_deploys_nothing(crowded: Crowded) -> None:
    assert crowded.undecided == "FAILED"
    assert (crowded.after_undecided.stage, crowded.after_undecided.status) == ("APPROVAL", "RUNNING")
    assert crowded.after_undecided.standing == "CANDIDATE"


def test_a_version_whose_execution_is_gone_is_deployed_by_the_next_attempt_after_its_decision(crowded: Crowded, registry: Registry) -> None:
    version = registry.head(crowded.model, crowded.number)
    assert (version.stage, version.status, version.attempt) == ("DEPLOYMENT", "SUCCEEDED", 2)


def test_the_submitter_s_own_approval_is_refused(crowded: Crowded) -> None:
    assert (crowded.by_submitter.status, crowded.by_submitter.code) == (403, "self_approval")


def test_the_approval_of_a_login_that_maps_to_no_person_is_refused(crowded: Crowded) -> None:
    assert (crowded.by_stranger.status, crowded.by_stranger.code) == (403, "unproven_identity")


def test_of_sixteen_decisions_at_once_one_ends_the_stage(crowded: Crowded, registry: Registry) -> None:
    assert registry.kinds(crowded.model, crowded.number).count("version.approved") == 1
    assert len(registry.rows(crowded.model, crowded.number, "APPROVAL#")) == 1


def test_of_sixteen_decisions_at_once_fifteen_are_told_that_the_version_no_longer_waits(crowded: Crowded) -> None:
    assert sorted(answer.status for answer in crowded.decisions) == [200, *[409] * 15]


def test_a_version_whose_execution_died_in_a_stage_goes_on_by_itself(interrupted: Interrupted, registry: Registry) -> None:
    version = registry.head(interrupted.model, interrupted.number)
    assert (version.stage, version.status, version.attempt) == ("DEPLOYMENT", "SUCCEEDED", 2)


def test_the_next_attempt_runs_no_stage_that_is_done(interrupted: Interrupted, registry: Registry) -> None:
    stages = registry.rows(interrupted.model, interrupted.number, "STAGE#")
    assert [(s["stage"], s["attempt"], s["status"]) for s in stages] == [
        ("PROCESSING", 1, "SUCCEEDED"),
        ("TRAINING", 1, "RUNNING"),
        ("TRAINING", 2, "SUCCEEDED"),
        ("VALIDATION", 2, "SUCCEEDED"),
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_role_of_the_registry_s_functions_starts_a_decision(interrupted: Interrupted, function: str) -> None:
    assert interrupted.begun_by[function] == "AccessDeniedException"


def test_the_submitter_s_own_approval_is_refused_in_the_console_too(interrupted: Interrupted) -> None:
    execution = interrupted.in_console["submitter"]
    assert execution["status"] == "FAILED"
    assert "self_approval" in execution["cause"]


def test_a_session_name_alone_makes_nobody_an_approver_in_the_console(interrupted: Interrupted) -> None:
    execution = interrupted.in_console["impostor"]
    assert execution["status"] == "FAILED"
    assert "acts in no role of the registry" in execution["cause"]


def test_an_approval_in_the_console_is_that_of_who_cloudtrail_names(interrupted: Interrupted, registry: Registry) -> None:
    assert interrupted.in_console["erin"]["status"] == "SUCCEEDED"
    row = next(r for r in registry.rows(interrupted.model, interrupted.number, "APPROVAL#") if r["person"] == "erin")
    assert "CloudTrail" in row["principal"]["method"]


def test_the_first_of_two_approvals_does_not_end_the_stage(interrupted: Interrupted, registry: Registry) -> None:
    kinds = registry.kinds(interrupted.model, interrupted.number)
    assert [kind for kind in kinds if kind.startswith(("approval.", "version.a"))] == ["approval.given", "version.approved"]


def test_a_decision_is_in_the_table_before_the_pipeline_goes_on(interrupted: Interrupted) -> None:
    assert (interrupted.cut_off.stage, interrupted.cut_off.status, interrupted.cut_off.approved) == ("APPROVAL", "SUCCEEDED", True)
    assert interrupted.waiting == "RUNNING"


def test_a_decision_that_was_cut_off_before_the_gate_is_sent_on_by_the_sweep(interrupted: Interrupted, registry: Registry) -> None:
    kinds = registry.kinds(interrupted.model, interrupted.number)
    assert kinds.count("version.approved") == kinds.count("version.deployed") == 1


def test_a_token_that_is_sent_again_changes_nothing(interrupted: Interrupted, registry: Registry) -> None:
    before = registry.kinds(interrupted.model, interrupted.number)
    states = registry.aws("stepfunctions", registry.as_function("gate"))
    assert refusal(states.send_task_success, taskToken=interrupted.token, output="{}") in NO_LONGER_WAITING
    assert registry.invoke("gate", {"action": "decided", "model": interrupted.model, "version": interrupted.number}) == {"outcome": "sent"}
    assert registry.kinds(interrupted.model, interrupted.number) == before
