"""The state machine of hypothesis: random commands by random principals on the versions of one model; the invariants after each of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from attestry.domain.commands import Command, Effect, State, outcome
from attestry.domain.errors import AttestryError, NotFoundError
from attestry.domain.stages import Stage, Standing
from attestry.domain.version import Version
from attestry.usecases.records import version_key
from attestry.usecases.request_transition import WANTED
from tests.machine.commander import PRINCIPALS, Commander
from tests.machine.flow import MachineFlow, Rows
from tests.machine.invariants import Watch

MAX_VERSIONS = 4
NOBODY = 99
SCRIPTS = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)
PERSONAL = (
    Command.CLAIM,
    Command.APPROVE,
    Command.REJECT,
    Command.RETRY,
    Command.REDO_PROCESSING,
    Command.REDO_TRAINING,
    Command.REDO_VALIDATION,
    Command.HOLD,
    Command.RELEASE,
    Command.DEPLOY,
    Command.ROLLBACK,
    Command.KILL,
    Command.RETIRE,
    Command.SCHEDULE,
)
"""Commands that persons give."""

POLICIES: dict[str, dict[str, Any]] = {
    "one approver": {"people": {"roles": ["approver"], "count": 1}},
    "two approvers": {"people": {"roles": ["approver"], "count": 2}},
    "validator or approver": {"people": {"roles": ["approver", "validator"], "count": 1}},
    "automatic": {"automatic": True},
}
NUMBERS = st.sampled_from([0, 0, 0, 1, 1, 2, 3, NOBODY])
"""Which version: an index into those that are there, mostly the first ones, so that commands meet; or none that is there."""

PEOPLE = st.sampled_from(sorted(PRINCIPALS))


class RegistryMachine(RuleBasedStateMachine):
    """Random commands on one model; a subclass says over which ports."""

    make_flow: ClassVar[Callable[[], MachineFlow]] = MachineFlow

    @initialize(policy=st.sampled_from(sorted(POLICIES)), steps=st.integers(0, 8))
    def begin(self, policy: str, steps: int) -> None:
        self.flow = type(self).make_flow()
        self.commander = Commander(self.flow)
        self.watch = Watch(self.flow)
        self.rows: Rows = {}
        self.submit_new(policy, by_hand=False)
        self.go_on(0, steps)

    # Rules

    @precondition(lambda self: len(self.commander.manifests) < MAX_VERSIONS)
    @rule(policy=st.sampled_from(sorted(POLICIES)), by_hand=st.booleans())
    def submit_new(self, policy: str, by_hand: bool) -> None:
        def edit(mapping: dict[str, Any]) -> None:
            mapping["approval"] = POLICIES[policy]

        self.attempt(lambda: self.commander.submit(edit, by_hand=by_hand))

    @rule(which=NUMBERS, steps=st.integers(1, 8))
    def go_on(self, which: int, steps: int) -> None:
        """The pipeline takes several steps, and an approver decides where it waits."""
        for _ in range(steps):
            number = self.number(which)
            if number == NOBODY:
                return
            state = self.state(number)
            waits = state.stage is Stage.APPROVAL and state.status == "RUNNING"
            command = Command.SUCCEED if state.status == "RUNNING" else Command.START
            self.command(Command.APPROVE if waits else command, number, "approver" if waits else "")

    @rule(which=NUMBERS, command=st.sampled_from([Command.START, Command.SUCCEED, Command.FAIL, Command.GATES_FAIL, Command.SUBMIT_AGAIN]))
    def step(self, which: int, command: Command) -> None:
        self.command(command, self.number(which), "")

    @rule(which=NUMBERS, command=st.sampled_from(PERSONAL), who=PEOPLE)
    def ask(self, which: int, command: Command, who: str) -> None:
        self.command(command, self.number(which), who)

    @rule(which=NUMBERS, command=st.sampled_from(PERSONAL))
    def ask_rightfully(self, which: int, command: Command) -> None:
        """As above, by somebody who may; else most commands would be refused for who gives them."""
        number = self.number(which)
        if number != NOBODY and command in (Command.APPROVE, Command.REJECT):
            self.command(command, number, "second approver")
        else:
            self.command(command, number, "submitter" if command is Command.CLAIM else "")

    @rule(which=NUMBERS, to=st.sampled_from(WANTED), who=PEOPLE)
    def wish(self, which: int, to: str, who: str) -> None:
        self.attempt(lambda: self.commander.transition(self.number(which), to, who))

    @rule(who=PEOPLE)
    def roll_back(self, who: str) -> None:
        self.attempt(lambda: self.commander.roll_back(who))

    @rule(which=NUMBERS, stage=st.sampled_from(SCRIPTS))
    def report_late(self, which: int, stage: Stage) -> None:
        """An attempt that another one has followed reports a success: nothing moves."""
        number = self.number(which)
        version = self.head(number) if number != NOBODY else None
        if version is None or version.attempt == 1:
            return
        self.attempt(lambda: self.commander.report(number, stage, attempt=version.attempt - 1))
        assert self.head(number).transition == version.transition

    @rule()
    def deliver(self) -> None:
        self.attempt(self.commander.deliver)

    @rule()
    def sweep(self) -> None:
        self.attempt(self.commander.sweep)

    @rule()
    def let_days_pass(self) -> None:
        self.attempt(self.commander.retire_due)

    @rule(which=NUMBERS)
    def expire(self, which: int) -> None:
        self.command(Command.EXPIRE, self.number(which), "")

    @rule()
    def delegate(self) -> None:
        """Invariant 2: a key is delegated to what stands deployed with all its approvals, and to nothing else."""
        public = base64.urlsafe_b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).rstrip(b"=").decode()
        before = self.heads()
        deployed = [v for v in before.values() if v.standing is Standing.DEPLOYED]
        try:
            delegation = self.commander.delegate({"kty": "OKP", "crv": "Ed25519", "x": public})
        except AttestryError:
            assert self.flow.rows() == self.rows
            assert not deployed or deployed[0].is_due(self.flow.clock.at), "what stands deployed may sign"
            return
        assert [v.number for v in deployed] == [delegation.grant.version.number]
        assert delegation.grant.version.digest == deployed[0].version_digest
        self.rows = self.flow.rows()

    # What must hold

    @invariant()
    def everything_holds(self) -> None:
        if hasattr(self, "watch"):
            self.watch.check(self.rows)

    def teardown(self) -> None:
        if hasattr(self, "watch"):
            self.watch.check_objects(self.rows)

    # Helpers

    def number(self, which: int) -> int:
        """The version that is meant; none where nobody has one."""
        there = sorted(self.commander.manifests)
        return NOBODY if which == NOBODY else there[which % len(there)]

    def heads(self) -> dict[int, Version]:
        return {number: self.head(number) for number in self.commander.manifests}

    def head(self, number: int) -> Version:
        """A version as the rows have it that were read after the last command."""
        return Version.from_item(self.rows[version_key(self.flow.model, number)])

    def state(self, number: int) -> State:
        version = self.head(number)
        return State(version.stage, version.status, version.standing, bool(version.held))

    def command(self, command: Command, number: int, who: str) -> None:
        """Give a command, and hold what it did against the table."""
        if number == NOBODY:
            if command is not Command.SUBMIT_AGAIN:
                refused = self.attempt(lambda: self.commander.give(command, number, who or "admin"))
                assert refused is None or isinstance(refused, AttestryError)
            return
        state, before = self.state(number), self.head(number).transition
        expected = outcome(state, command)
        refused = self.attempt(lambda: self.commander.give(command, number, who))
        after = self.state(number)
        assert not isinstance(refused, NotFoundError) or command is Command.ROLLBACK
        if after != state and command not in (Command.START, Command.APPROVE, Command.EXPIRE):
            assert after == expected.to, f"{command} in {state} led to {after}; the table says {expected.effect}, {expected.to}"
        if expected.effect is Effect.REFUSED:
            assert after == state
            assert self.head(number).transition == before, f"{command} in {state} is to be refused"

    def attempt(self, act: Callable[[], Any]) -> AttestryError | None:
        """Do something; where it is refused, nothing may have changed, not a byte of a row."""
        refused: AttestryError | None = None
        try:
            act()
        except AttestryError as error:
            refused = error
        rows = self.flow.rows()
        if refused is not None:
            assert rows == self.rows, f"refused with a change: {refused.message}"
        self.rows = rows
        return refused
