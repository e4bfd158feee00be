"""The state machine of hypothesis: random commands by random principals on the versions of one model; the invariants after each of them."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from attestry.domain.approvals import Verdict
from attestry.domain.commands import Command, Effect, Outcome, State
from attestry.domain.errors import AttestryError, NotFoundError
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.usecases.records import transition_key, version_key
from attestry.usecases.request_transition import WANTED
from tests.machine.chances import (
    ANYBODY,
    ANYWHERE,
    COMMANDS_PER_STEP,
    DECIDING,
    DEFYING,
    DEMAND,
    DEMANDING,
    ENDING,
    LEADING,
    MAX_VERSIONS,
    NOBODY,
    PEOPLE,
    POLICIES,
    PROMOTING,
    RIGHTLY,
    SCRIPTS,
    TO_APPROVAL,
    TO_PROMOTE,
    WAYS,
    WAYS_TO_APPROVE,
    WEIGHTS,
)
from tests.machine.commander import Commander
from tests.machine.flow import MachineFlow, Rows
from tests.machine.invariants import Watch
from tests.machine.people import RIGHTFUL
from tests.machine.promotions import ENVIRONMENTS, SECOND, Fate, has_ended
from tests.machine.rollout_play import RolloutPlay
from tests.machine.rollouts import ROLLED, after


class RegistryMachine(RolloutPlay, RuleBasedStateMachine):
    """Random commands on one model; a subclass says over which ports."""

    make_flow: ClassVar[Callable[[], MachineFlow]] = MachineFlow

    @initialize(
        policy=st.sampled_from(WAYS_TO_APPROVE),
        steps=st.sampled_from([TO_APPROVAL, 5, 2, 0]),
        deployed=st.booleans(),
        asked=st.booleans(),
        ways=st.tuples(st.sampled_from(WAYS), st.sampled_from(WAYS)),
        beside=st.sampled_from(["", "", "production by canary", "production by canary", "production by shadow"]),
    )
    def begin(self, policy: str, steps: int, deployed: bool, asked: bool, ways: tuple[str, str], beside: str) -> None:
        self.flow = type(self).make_flow()
        self.commander = Commander(self.flow)
        self.watch = Watch(self.flow, self.commander.deployments)
        self.rows: Rows = {}
        if beside:
            self.begin_beside(beside)
            return
        self.submit_new(policy, by_hand=False, way=ways[0])
        self.advance(1, steps)
        if deployed:
            self.submit_new("automatic", by_hand=False, way=ways[1])
            self.advance(2, TO_APPROVAL + 2)
            if asked and self.is_promotable(2):
                self.promote(2, "deployer", SECOND)

    def begin_beside(self, way: str) -> None:
        """Let a version stand deployed, and another one beside it as canary or shadow."""
        for number, planned in ((1, "production alone"), (2, way)):
            self.submit_new("automatic", by_hand=False, way=planned)
            self.advance(number, TO_APPROVAL + 2)
        assert self.head(2).standing in ROLLED

    # Rules

    @precondition(lambda self: len(self.commander.manifests) < MAX_VERSIONS)
    @rule(policy=st.sampled_from(WAYS_TO_APPROVE), by_hand=st.booleans(), way=st.sampled_from(WAYS))
    def submit_new(self, policy: str, by_hand: bool, way: str) -> None:
        def edit(mapping: dict[str, Any]) -> None:
            mapping["approval"] = POLICIES["one approver" if policy == DEMANDING else policy]
            mapping["gates"] |= {"records": DEMAND} if policy == DEMANDING else {}

        note(f"submitted: {policy}, {way}")
        self.attempt(lambda: self.commander.submit(edit, by_hand=by_hand, deployment=way))

    @rule(seed=st.integers(0, 2**32 - 1))
    def play(self, seed: int) -> None:
        """Some commands: mostly such as lead on from where the versions are, else anything by anybody; chance alone seldom comes far."""
        chance = random.Random(f"{seed} {len(self.rows)}")
        for _ in range(COMMANDS_PER_STEP):
            share = chance.random()
            if share < LEADING:
                self.go_on(chance)
            elif share < LEADING + DEFYING:
                self.defy(chance)
            else:
                acts = (self.ask, self.ask, self.wish, self.report_late, self.let_time_pass, self.roll_back, self.delegate)
                chance.choice((*acts, self.let_time_pass, self.promote_any, self.refresh, self.roll_any, self.look))(chance)

    def advance(self, number: int, steps: int) -> None:
        """The pipeline takes several steps, up to where it waits for a decision."""
        for _ in range(steps):
            if not self.waits(number):
                self.command(Command.SUCCEED if self.head(number).status is Status.RUNNING else Command.START, number, "")

    # What is played

    def go_on(self, chance: random.Random) -> None:
        """A command that leads on from where a version is, by somebody who may give it, or nearly."""
        there = list(self.commander.manifests)
        (number,) = chance.choices(there, [self.weight(n) for n in there])
        if self.is_promotable(number) and chance.random() < PROMOTING:
            self.go_on_promoting(chance, number)
            return
        if self.stands_for_days(number) and chance.random() < ENDING:
            self.go_on_ending(chance, number)
            return
        if self.go_on_beside(chance, number):
            return
        state = self.state(number)
        leading = [c for c in WEIGHTS if after(state, c).effect in (Effect.MOVES, Effect.RECORDS)]
        if not leading:
            return
        (command,) = chance.choices(leading, [WEIGHTS[c] for c in leading])
        who = RIGHTFUL.get(command, "")
        if command in (Command.APPROVE, Command.REJECT):
            who = chance.choice(DECIDING)
        elif chance.random() < ANYBODY:
            who = chance.choice(PEOPLE)
        self.command(command, number, who)

    def go_on_promoting(self, chance: random.Random, number: int) -> None:
        """What leads a version on to the second environment: ask, decide, and put it in place, by somebody who may, or nearly."""
        asked = self.watch.book.course(number).ask
        if asked is not None and asked.state == "OPEN" and chance.random() < 0.9:
            verdict = Verdict.REJECT if chance.random() < 0.06 else Verdict.APPROVE
            rightly = chance.random() < RIGHTLY
            who = chance.choice(("approver", "second approver", "validator") if rightly else TO_PROMOTE)
            self.decide_promotion(number, who, verdict, SECOND)
        elif asked is not None and chance.random() < 0.08:
            self.withdraw(number, "deployer", SECOND)
        else:
            deployers = ("deployer", "deployer", "other deployer", "submitter as deployer")
            self.promote(number, chance.choice(PEOPLE if chance.random() < ANYBODY else deployers), SECOND)
            if chance.random() < 0.8:
                self.attempt(self.commander.deliver)

    def go_on_ending(self, chance: random.Random, number: int) -> None:
        """What leads to the end of an approval that counts for some days: days pass; then it is asked for again, or the schedule comes."""
        while self.watch.book.may_stand(number, SECOND, self.flow.clock.at):
            self.attempt(self.commander.wait)
        if chance.random() < 0.5:
            self.promote(number, "deployer", SECOND)
        else:
            self.attempt(self.commander.lapse_due)

    def promote_any(self, chance: random.Random) -> None:
        """Anything about a promotion, by anybody, of any version or of none, to anywhere."""
        number, who = self.number(chance), chance.choice((*PEOPLE, *TO_PROMOTE, "deployer", "other deployer"))
        to = chance.choice((*ANYWHERE, SECOND, SECOND, SECOND))
        act = chance.choice(("promote", "withdraw", "decide", "decide"))
        if act == "decide":
            self.decide_promotion(number, who, chance.choice(tuple(Verdict)), to)
        else:
            (self.promote if act == "promote" else self.withdraw)(number, who, to)

    def defy(self, chance: random.Random) -> None:
        """A command that the table refuses where a version is, by somebody who may give it elsewhere."""
        there = list(self.commander.manifests)
        (number,) = chance.choices(there, [3 if self.head(n).held else 1 for n in there])
        state = self.state(number)
        refused = [c for c in Command if after(state, c).effect is Effect.REFUSED and c in (*RIGHTFUL, Command.APPROVE, Command.REJECT)]
        if refused:
            # Before all what nothing but the hold stops.
            free = State(state.stage, state.status, state.standing)
            (command,) = chance.choices(refused, [8 if after(free, c).effect is Effect.MOVES else 1 for c in refused])
            self.command(command, number, RIGHTFUL.get(command, chance.choice(("approver", "second approver"))))

    def ask(self, chance: random.Random) -> None:
        """Any command, by anybody, on any version or on none."""
        number, command = self.number(chance), chance.choice([c for c in Command if c is not Command.DEPLOY_ANOTHER])
        self.command(command, number, chance.choice((*PEOPLE, RIGHTFUL.get(command, "approver"))))

    def wish(self, chance: random.Random) -> None:
        number, to, who = self.number(chance), chance.choice(WANTED), chance.choice(PEOPLE)
        self.attempt(lambda: self.commander.transition(number, to, who))

    def roll_back(self, chance: random.Random) -> None:
        who, environment = chance.choice(("deployer", "deployer", "deployer", "approver", "consumer")), chance.choice(ENVIRONMENTS)
        self.attempt(lambda: self.commander.roll_back(who, environment=environment))

    def report_late(self, chance: random.Random) -> None:
        """An execution is lost, the next attempt begins, and then the first one reports a success after all: nothing moves."""
        number = self.number(chance)
        if number == NOBODY:
            return
        self.attempt(lambda: self.commander.lose(number))
        before = self.head(number)
        if before.attempt > 1:
            runs = before.status is Status.RUNNING and before.stage in SCRIPTS
            stage = before.stage if runs else chance.choice(SCRIPTS)
            self.attempt(lambda: self.commander.report(number, stage, attempt=before.attempt - 1))
            assert self.head(number).transition == before.transition, "a report of an attempt that is over was taken"

    def let_time_pass(self, chance: random.Random) -> None:
        """What was sent arrives, and schedules run."""
        commander = self.commander
        schedules = (commander.sweep, commander.retire_due, commander.lapse_due, commander.wait)
        self.attempt(chance.choice((commander.deliver, commander.deliver, *schedules)))

    def refresh(self, chance: random.Random) -> None:
        """Somebody has a version made anew; it is of the same candidate, and neither its submitter nor who asks decides on it."""
        if len(self.commander.manifests) >= MAX_VERSIONS:
            return
        number, who = chance.choice(list(self.commander.manifests)), chance.choice(("submitter", "deployer", "other scientist", *PEOPLE))
        note(f"{who}: refresh, version {number}")
        self.attempt(lambda: self.commander.refresh(number, who))
        made = self.head(max(self.commander.manifests))
        if made.cause["kind"] == "manual":
            # The parent may be made anew as well, and whoever asked for that stands behind the parent alone.
            first = min((v for v in self.heads().values() if v.candidate == made.candidate), key=lambda version: version.number)
            assert {made.submitter_person, first.submitter_person} <= set(made.barred)

    def delegate(self, chance: random.Random) -> None:
        """Invariant 2: a key is delegated to what stands deployed with all its approvals, and to nothing else."""
        environment = chance.choice(ENVIRONMENTS)
        public = base64.urlsafe_b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).rstrip(b"=").decode()
        deployed = [v for v in self.heads().values() if (v.standing, v.deployment_environment) == (Standing.DEPLOYED, environment)]
        (may_stand,) = [self.watch.book.may_stand(v.number, environment, self.flow.clock.at) for v in deployed] or [False]
        try:
            delegation = self.commander.delegate({"kty": "OKP", "crv": "Ed25519", "x": public}, environment)
        except AttestryError:
            assert self.flow.rows() == self.rows
            assert not may_stand or deployed[0].is_due(self.flow.clock.at) or has_ended(deployed[0], self.flow.clock.at), "it may sign"
            return
        assert may_stand, "nobody let it stand there"
        assert [v.number for v in deployed] == [delegation.grant.version.number]
        assert delegation.grant.version.digest == deployed[0].version_digest
        self.rows = self.flow.rows()

    def teardown(self) -> None:
        if hasattr(self, "watch"):
            self.watch.check_objects(self.rows)

    # Helpers

    def number(self, chance: random.Random) -> int:
        """One of the versions, or seldom none that is there."""
        return chance.choice([*self.commander.manifests, *self.commander.manifests, NOBODY])

    def heads(self) -> dict[int, Version]:
        return {number: self.head(number) for number in self.commander.manifests}

    def head(self, number: int) -> Version:
        """A version as the rows have it that were read after the last command."""
        return Version.from_item(self.rows[version_key(self.flow.model, number)])

    def weight(self, number: int) -> float:
        """How often a version is led on: seldom once it is at an end or in place, so that another one comes to take that place."""
        standing = self.head(number).standing
        if self.is_promotable(number) or standing in ROLLED:
            return 8
        if self.stands_for_days(number):
            return 4
        return 0.3 if standing in (Standing.RETIRED, Standing.REJECTED) else 1 if standing is Standing.DEPLOYED else 4

    def waits(self, number: int) -> bool:
        """Whether a version waits for a decision."""
        return (self.head(number).stage, self.head(number).status) == (Stage.APPROVAL, Status.RUNNING)

    def state(self, number: int) -> State:
        version = self.head(number)
        return State(version.stage, version.status, version.standing, bool(version.held))

    def is_promotable(self, number: int) -> bool:
        """Whether a version stands where it may be promoted from."""
        version = self.head(number)
        return version.standing is Standing.DEPLOYED and version.deployment_environment != SECOND

    def stands_for_days(self, number: int) -> bool:
        """Whether a version stands in the second environment by an approval that ends."""
        version, rule = self.head(number), self.watch.book.course(number).rule
        placed = version.standing in (Standing.DEPLOYED, Standing.ROLLBACK) and version.deployment_environment == SECOND
        return placed and rule is not None and rule.days > 0

    def promote(self, number: int, who: str, to: str) -> None:
        self.decided(
            f"{who}: promote to {to}, version {number}",
            number,
            lambda: self.watch.book.promote(self.head(number), self.commander.who(who), to, self.flow.clock.at),
            lambda: self.commander.promote(number, who, to),
        )

    def withdraw(self, number: int, who: str, to: str) -> None:
        self.decided(
            f"{who}: withdraw the promotion to {to}, version {number}",
            number,
            lambda: self.watch.book.withdraw(self.head(number), self.commander.who(who), to),
            lambda: self.commander.withdraw(number, who, to),
        )

    def decide_promotion(self, number: int, who: str, verdict: Verdict, to: str) -> None:
        self.decided(
            f"{who}: {verdict} the promotion to {to}, version {number}",
            number,
            lambda: self.watch.book.decide(self.head(number), self.commander.who(who), verdict, to, self.flow.clock.at),
            lambda: self.commander.decide_promotion(number, who, verdict, to),
        )

    def decided(self, told: str, number: int, expect: Callable[[], Fate], act: Callable[[], Any]) -> None:
        """Do something about a promotion, and hold what became of it against the book."""
        expected = expect() if number != NOBODY else Fate.REFUSED
        note(f"{told}: {expected}")
        before = self.head(number).transition if number != NOBODY else 0
        refused = self.attempt(act)
        if refused is not None:
            assert expected is Fate.REFUSED, f"{told}: {expected} was to be, and it was refused: {refused.message}"
            return
        moved = self.head(number).transition
        kind = self.rows[transition_key(self.flow.model, number, moved)]["kind"] if moved > before else Fate.NOTHING
        assert kind == expected, f"{told}: {expected} was to be, and it is {kind}"

    def command(self, command: Command, number: int, who: str) -> None:
        """Give a command, and hold what it did against the table."""
        note(f"{who or 'the pipeline'}: {command}, version {number}")
        if number == NOBODY:
            if command is not Command.SUBMIT_AGAIN:
                refused = self.attempt(lambda: self.commander.give(command, number, who or "admin"))
                assert refused is None or isinstance(refused, AttestryError)
            return
        state, before = self.state(number), self.head(number).transition
        expected = self.outcome(number, command)
        refused = self.attempt(lambda: self.commander.give(command, number, who))
        now = self.state(number)
        assert not isinstance(refused, NotFoundError) or command is Command.ROLLBACK
        if now != state and command not in (Command.START, Command.APPROVE, Command.EXPIRE):
            assert now == expected.to, f"{command} in {state} led to {now}; the table says {expected.effect}, {expected.to}"
        if expected.effect is Effect.REFUSED:
            assert now == state
            assert self.head(number).transition == before, f"{command} in {state} is to be refused"

    def outcome(self, number: int, command: Command) -> Outcome:
        """What the table says, but that no deployment succeeds in an environment that has not let the version in, or does not any more."""
        state, version = self.state(number), self.head(number)
        told, environment = after(state, command), version.deployment_environment
        arrives = command is Command.SUCCEED and (state.stage, state.status) == (Stage.DEPLOYMENT, Status.RUNNING)
        if not arrives or told.to.standing is not Standing.DEPLOYED:
            return told
        standing = self.watch.places.arrival(number, environment)
        if standing is None or not self.watch.book.may_stand(number, environment, self.flow.clock.at):
            return Outcome(Effect.MOVES, replace(state, status=Status.FAILED))
        return replace(told, to=replace(told.to, standing=standing))

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
        self.watch.check(rows)
        return refused
