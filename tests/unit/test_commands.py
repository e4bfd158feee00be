"""The table of commands: complete, printed in the documents, and what the use cases do."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from attestry.domain.commands import Command, Effect, State, outcome, path_to, reachable
from attestry.domain.errors import AttestryError
from attestry.domain.stages import Stage, Standing, Status, may_begin
from tests.fakes import MemoryMetaStore, MemoryObjectStore
from tests.machine.commander import Commander
from tests.machine.flow import MachineFlow
from tests.machine.invariants import Watch
from tests.machine.people import PIPELINE_PRINCIPAL
from tests.unit import transitions_page

PASSED = (Command.START, Command.SUCCEED) * 3 + (Command.START, Command.APPROVE)


def one_approver(mapping: dict[str, Any]) -> None:
    mapping["approval"] = {"people": {"roles": ["approver"], "count": 1}}


class Prepared:
    """A registry in which version 1 has just been registered, 2 is deployed and 3 approved; any moment can be gone back to."""

    def __init__(self) -> None:
        self.commander = commander = Commander(MachineFlow())
        for _ in range(3):
            commander.submit(one_approver)
        for number in (2, 3):
            for command in PASSED:
                commander.give(command, number)
        commander.swap(2, PIPELINE_PRINCIPAL)
        self.moment = self.keep()

    def keep(self) -> tuple[Any, ...]:
        flow = self.commander.flow
        assert isinstance(flow.meta, MemoryMetaStore)
        buckets = [{key: list(versions) for key, versions in b.versions.items()} for b in (flow.store, flow.scratch)]
        executions = (copy.deepcopy(flow.pipeline.executions), dict(flow.pipeline.waiting), list(flow.functions.sent))
        return dict(flow.meta.rows), buckets, executions, flow.clock.at

    def go_back(self, moment: tuple[Any, ...]) -> None:
        flow = self.commander.flow
        rows, buckets, (executions, waiting, sent), at = moment
        assert isinstance(flow.store, MemoryObjectStore)
        flow.meta.rows = dict(rows)
        flow.store.versions, flow.scratch.versions = ({key: list(versions) for key, versions in b.items()} for b in buckets)
        flow.pipeline.executions, flow.pipeline.waiting = copy.deepcopy(executions), dict(waiting)
        flow.functions.sent, flow.clock.at = list(sent), at


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return Prepared()


@pytest.mark.parametrize("state", reachable(), ids=str)
def test_the_use_cases_do_in_every_state_what_the_table_says_of_each_command(prepared: Prepared, state: State) -> None:
    commander = prepared.commander
    prepared.go_back(prepared.moment)
    for command in path_to(state):
        commander.give(command, 1)
    assert commander.state(1) == state
    Watch(commander.flow).check(commander.flow.rows())
    moment = prepared.keep()
    for command in Command:
        prepared.go_back(moment)
        expected, before = outcome(state, command), commander.version(1).transition
        try:
            commander.give(command, 1)
            effect = Effect.NOTHING if commander.version(1).transition == before else Effect.RECORDS
        except AttestryError:
            effect = Effect.REFUSED
        if effect is Effect.REFUSED:
            assert commander.flow.rows() == moment[0], f"{command} was refused in {state}, and changed something"
        after = commander.state(1)
        effect = Effect.MOVES if after != state else effect
        assert (effect, after) == (expected.effect, expected.to), f"{command} in {state}"


def test_the_page_is_what_the_table_says() -> None:
    page = transitions_page.PAGE.read_text(encoding="utf-8")
    assert page == transitions_page.render(), "run: python -m tests.unit.transitions_page"


def test_every_command_has_an_outcome_in_every_state_and_a_place_on_the_page() -> None:
    assert {c for _, commands in transitions_page.GROUPS for c in commands} == set(Command)
    for state in reachable():
        for command in Command:
            done = outcome(state, command)
            assert (done.to == state) == (done.effect is not Effect.MOVES)
            assert done.rule or done.effect is Effect.MOVES


def test_no_command_passes_over_a_stage() -> None:
    for state in reachable():
        for command in Command:
            to = outcome(state, command).to
            if to.stage is not state.stage and not command.startswith("redo"):
                assert may_begin(to.stage, state.stage, state.status) or to.standing is Standing.DEPLOYED


def test_nothing_leads_into_use_but_an_approval_and_nothing_out_of_retirement() -> None:
    for state in reachable():
        if state.standing in (Standing.APPROVED, Standing.DEPLOYED, Standing.ROLLBACK):
            assert state.stage in (Stage.APPROVAL, Stage.DEPLOYMENT)
        for command in Command:
            to = outcome(state, command).to
            if state.standing is Standing.CANDIDATE and to.standing is Standing.APPROVED:
                assert command is Command.APPROVE
            if state.standing is Standing.RETIRED:
                assert to == state
            if state.status is Status.REJECTED and state.standing is Standing.REJECTED:
                assert to.standing in (Standing.REJECTED, Standing.RETIRED)


def test_a_held_version_comes_no_nearer_to_its_use() -> None:
    order = list(Stage)
    for state in (s for s in reachable() if s.held):
        for command in Command:
            to = outcome(state, command).to
            if to.held:
                assert order.index(to.stage) <= order.index(state.stage), (state, command)
                assert to.status is not Status.RUNNING or state.status is Status.RUNNING
                assert to.standing in (state.standing, Standing.ROLLBACK, Standing.RETIRED, Standing.REJECTED) or (
                    state.standing is Standing.ROLLBACK and to.standing is Standing.APPROVED
                )
