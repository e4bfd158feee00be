"""What is played with canaries and shadows, and with the records of validators; each act is held against the book."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import note

from attestry.domain.errors import AttestryError
from attestry.domain.stages import Standing
from attestry.usecases.records import transition_key
from tests.machine.commander import LEAKAGE
from tests.machine.rollouts import ENOUGH_FAILURES, NOTHING, REFUSED, ROLLED

if TYPE_CHECKING:
    from attestry.domain.version import Version
    from tests.machine.commander import Commander
    from tests.machine.flow import MachineFlow, Rows
    from tests.machine.invariants import Watch

ROLLING = 0.7
"""Share of the commands by which a canary or a shadow goes on."""

ACTIONS = ("advance", "halt", "finish")
BY_DEPLOYERS = ("deployer", "deployer", "deployer", "other deployer", "approver", "consumer", "stranger")
VALIDATING = ("validator", "validator", "validator", "submitter", "approver")


class RolloutPlay:
    """A part of the machine."""

    commander: Commander
    flow: MachineFlow
    watch: Watch
    rows: Rows
    head: Callable[[int], Version]
    heads: Callable[[], dict[int, Version]]
    attempt: Callable[[Callable[[], Any]], AttestryError | None]

    def go_on_beside(self, chance: random.Random, number: int) -> bool:
        """What leads on what stands beside the deployed version, or what waits for a validator's record; False where neither does."""
        version = self.head(number)
        if version.standing in ROLLED and chance.random() < ROLLING:
            if version.standing is Standing.CANARY and chance.random() < 0.25:
                self.fail_canary(number)
            (self.look if chance.random() < 0.7 else self.roll_any)(chance)
            return True
        demands = bool(version.approval_policy.get("records")) and LEAKAGE not in version.validations
        if demands and version.version_digest and version.standing is Standing.CANDIDATE and chance.random() < 0.5:
            self.validate(chance, number)
            return True
        return False

    def look(self, chance: random.Random) -> None:
        """Time passes, and what is rolled out is looked at; each does what its plan says, and nothing else."""
        self.flow.clock.advance(minutes=chance.choice((1, 31, 31, 46)))
        before, at = self.heads(), self.flow.clock.at
        fates = self.watch.places.look(before, at)
        note(f"the look of a minute: {fates}")
        refused = self.attempt(self.commander.watch_rollouts)
        assert refused is None, f"the look does not end by {refused}"
        for number, fate in fates.items():
            assert self.made_of(number, before[number]) == fate, f"{fate} was to be of version {number}"

    def roll_any(self, chance: random.Random) -> None:
        """Somebody advances, halts or finishes a rollout: whichever there is, or of a version that is named."""
        heads = self.heads()
        action, who, number = chance.choice(ACTIONS), chance.choice(BY_DEPLOYERS), chance.choice((None, None, 99, *heads))
        meant, fate = self.watch.places.change(action, self.commander.who(who), number, heads, self.flow.clock.at)
        note(f"{who}: {action} the rollout of {number or 'whichever'}: {fate}")
        refused = self.attempt(lambda: self.commander.change_rollout(action, who, number))
        if refused is not None:
            assert fate == REFUSED, f"{action} of {number}: {fate} was to be, and it was refused: {refused.message}"
            return
        assert fate != REFUSED, f"{action} of {number} was to be refused"
        if meant in heads:
            assert self.made_of(meant, heads[meant]) == fate, f"{action} of {number}: {fate} was to be of version {meant}"

    def fail_canary(self, number: int) -> None:
        """The canary fails requests that the deployed version answers."""
        note(f"version {number} fails as a canary")
        self.attempt(lambda: self.commander.fail_canary(number))
        self.watch.places.failures.setdefault(number, []).extend([self.flow.clock.at] * ENOUGH_FAILURES)

    def validate(self, chance: random.Random, number: int) -> None:
        """Somebody hands in the record that the manifest demands."""
        who, version = chance.choice(VALIDATING), self.head(number)
        by = self.commander.who(who)
        may = "validator" in by.roles and by.person not in (None, version.submitter_person, *version.barred)
        refused = self.attempt(lambda: self.commander.validate(number, who))
        note(f"{who}: a record of version {number}: {refused}")
        assert (refused is None) == may, f"{who} hands in a record of version {number}: {refused}"

    def made_of(self, number: int, before: Version) -> str:
        """The kind of the last move that an act made of a version."""
        moved = self.head(number).transition
        return str(self.rows[transition_key(self.flow.model, number, moved)]["kind"]) if moved > before.transition else NOTHING
