"""What must become of canaries and shadows, told from the rules in prose and counted here: the machine holds the registry against it.

Nothing of `attestry.domain.rollout` or of the pointer is used. The book is kept from the events, in their order; what the table says stands
in an environment is compared with it after every command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from attestry.domain.commands import Command, Effect, Outcome, State, outcome
from attestry.domain.principal import Principal
from attestry.domain.stages import Standing, Status
from attestry.domain.version import Version
from tests.machine.promotions import SECOND, has_ended

CANARY, SHADOW = Standing.CANARY, Standing.SHADOW
ROLLED = (CANARY, SHADOW)
WAYS: Mapping[str, Standing] = {"production by canary": CANARY, "production by shadow": SHADOW}
SHARES = (10, 50)
STEP, SHADOWED = timedelta(minutes=30), timedelta(minutes=45)
ENOUGH_FAILURES = 2
REFUSED, NOTHING = "refused", "nothing"
_ARRIVALS = ("version.deployed", "version.rolled_back")
_BEGINNINGS = {"version.canaried": CANARY, "version.shadowed": SHADOW}
_LEAVINGS = {"rollout.halted": CANARY, "rollout.ended": SHADOW}
_ENDS = ("version.killed", "version.retired", "approval.lapsed", "promotion.lapsed")


@dataclass
class Beside:
    """A canary or a shadow: its version, the step that a canary is at, and since when."""

    number: int
    since: datetime
    step: int = 0


@dataclass
class Place:
    """What stands in an environment: deployed, kept for a rollback, beside; `promoted` where what stood there went on to the next."""

    deployed: int | None = None
    kept: int | None = None
    promoted: bool = False
    beside: dict[Standing, Beside] = field(default_factory=dict)

    def leave(self, number: int, *, promoted: bool = False) -> None:
        """A version is out of this place."""
        if self.deployed == number:
            self.deployed, self.promoted = None, promoted
        self.kept = None if self.kept == number else self.kept
        self.beside = {standing: there for standing, there in self.beside.items() if there.number != number}


def after(state: State, command: Command) -> Outcome:
    """What a command does in a state; what stands beside the deployed version is in no table of the registry, and is told here."""
    told = outcome(state, command)
    if state.standing not in ROLLED:
        return told
    if command is Command.ROLLBACK and not state.held:
        return Outcome(Effect.MOVES, replace(state, standing=Standing.DEPLOYED))
    if command is Command.DEPLOY_ANOTHER:
        status = Status.FAILED if state.standing is CANARY else Status.SUCCEEDED
        return Outcome(Effect.MOVES, replace(state, standing=Standing.APPROVED, status=status))
    return told


class Places:
    """The environments of a model.

    Attributes:
        deployments: number of a version to the name of what its candidate says of its deployment.
        failures: number of a version to when it failed a request as a canary.
    """

    def __init__(self, deployments: Mapping[int, str]) -> None:
        self.deployments = deployments
        self.failures: dict[int, list[datetime]] = {}
        self._places: dict[str, Place] = {}
        self._taken = 0

    def place(self, environment: str = SECOND) -> Place | None:
        """What stands in an environment; None where nothing ever did."""
        return self._places.get(environment)

    def take(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Take in the events that are new; those of one transaction are of one time.

        Raises:
            AssertionError: a canary came, went on or left in a way that no rule knows.
        """
        new = [e for e in events[self._taken :] if "to" in e["data"]]
        self._taken = len(events)
        for _, group in groupby(new, key=lambda e: str(e["at"])):
            self._take(list(group))

    def _take(self, events: list[Mapping[str, Any]]) -> None:
        before = {environment: place.deployed for environment, place in self._places.items()}
        arrived = {str(e["data"]["environment"]) for e in events if e["kind"] in _ARRIVALS}
        for event in events:
            kind, data, number = str(event["kind"]), event["data"], int(str(event["subject"]).rpartition("@")[2])
            if kind in _LEAVINGS:
                environment = str(data["environment"])
                assert self._places[environment].beside[_LEAVINGS[kind]].number == number, f"{kind} of what does not stand there"
                del self._places[environment].beside[_LEAVINGS[kind]]
                stays = self._places[environment].deployed == before[environment]
                assert environment in arrived or stays, "a rollout that was halted took the deployed version along"
            elif kind == "rollout.advanced":
                there = self._places[str(data["environment"])].beside[CANARY]
                there.step, there.since = there.step + 1, datetime.fromisoformat(str(event["at"]))
                assert (there.number, data["share"], data["from_share"]) == (number, SHARES[there.step], SHARES[there.step - 1])
            elif kind in _ENDS:
                for place in self._places.values():
                    place.leave(number)
        for event in (e for e in events if e["kind"] in (*_ARRIVALS, *_BEGINNINGS)):
            self._arrive(event)

    def _arrive(self, event: Mapping[str, Any]) -> None:
        kind, number, environment = str(event["kind"]), int(str(event["subject"]).rpartition("@")[2]), str(event["data"]["environment"])
        for other, place in self._places.items():
            if other != environment:
                place.leave(number, promoted=True)
        if kind in _ARRIVALS:
            place = self._places.setdefault(environment, Place())
            kept = place.deployed if place.deployed is not None else place.kept
            self._places[environment] = Place(number, None if kept == number else kept)
            return
        standing, place = _BEGINNINGS[kind], self._places[environment]
        assert place.deployed is not None, f"{kind} beside nothing"
        assert standing not in place.beside, f"two stand {standing}"
        assert number not in (place.deployed, place.kept)
        assert WAYS[self.deployments[number]] is standing
        assert standing is SHADOW or event["data"]["share"] == SHARES[0]
        place.beside[standing] = Beside(number, datetime.fromisoformat(str(event["at"])))

    def check(self, pointers: Sequence[Mapping[str, Any]], heads: Mapping[int, Version]) -> None:
        """The table names what the events led to, once each; a canary has the share of its step, and the deployed version the rest."""
        assert {str(p["environment"]) for p in pointers} == set(self._places)
        for pointer in pointers:
            place = self._places[str(pointer["environment"])]
            assert (pointer.get("number"), pointer.get("previous")) == (place.deployed, place.kept)
            for standing in ROLLED:
                told, there = pointer.get(standing.value.lower()) or {}, place.beside.get(standing)
                assert told.get("number") == (there.number if there else None), f"{standing} is {told.get('number')}"
                if told and there and standing is CANARY:
                    assert (told["step"], told["share"]) == (there.step, SHARES[there.step])
        for standing in ROLLED:
            stand = sorted(n for n, v in heads.items() if v.standing is standing)
            assert stand == sorted(p.beside[standing].number for p in self._places.values() if standing in p.beside)

    # What must become of an act

    def arrival(self, number: int, environment: str) -> Standing | None:
        """What a version comes to stand as when it is deployed; None where that is refused."""
        place, standing = self._places.get(environment), WAYS.get(self.deployments[number])
        if standing is None or place is None or number in (place.deployed, place.kept):
            return Standing.DEPLOYED
        if place.deployed is None:
            return Standing.DEPLOYED if place.promoted else None
        return None if standing in place.beside else standing

    def change(self, action: str, by: Principal, number: int | None, heads: Mapping[int, Version], at: datetime) -> tuple[int, str]:
        """What must become of it when somebody advances, halts or finishes what is rolled out in production: of which version, and how."""
        place = self._places.get(SECOND) or Place()
        first = next((place.beside[s] for s in ROLLED if s in place.beside), None)
        meant = number if number is not None else first.number if first else 0
        if "deployer" not in by.roles or (number is not None and number not in heads):
            return meant, REFUSED
        if action == "advance":
            canary = place.beside.get(CANARY)
            goes_on = canary is not None and number in (None, canary.number) and canary.step + 1 < len(SHARES)
            return (canary.number if canary else meant), "rollout.advanced" if goes_on else REFUSED
        if action == "halt":
            kinds = {there.number: kind for kind, s in _LEAVINGS.items() if (there := place.beside.get(s))}
            return meant, kinds.get(meant, NOTHING if number is not None else REFUSED)
        if number is not None and number == place.deployed:
            return meant, NOTHING
        if first is None or meant != first.number:
            return meant, REFUSED
        return meant, "version.deployed" if _may_arrive(heads[meant], at) else REFUSED

    def look(self, heads: Mapping[int, Version], at: datetime) -> dict[int, str]:
        """What the look of every minute must make of what is rolled out, by version."""
        fates: dict[int, str] = {}
        for place in self._places.values():
            canary, shadow = place.beside.get(CANARY), place.beside.get(SHADOW)
            if canary is not None:
                fates[canary.number] = self._ruling(place, canary, heads[canary.number], at)
            if shadow is not None:
                finished = canary is not None and fates[canary.number] == "version.deployed"
                fates[shadow.number] = "rollout.ended" if finished or at - shadow.since >= SHADOWED else NOTHING
        return fates

    def _ruling(self, place: Place, canary: Beside, version: Version, at: datetime) -> str:
        if sum(when > canary.since for when in self.failures.get(canary.number, [])) >= ENOUGH_FAILURES:
            return "rollout.halted"
        if place.deployed is None or at - canary.since < STEP:
            return NOTHING
        if canary.step + 1 < len(SHARES):
            return "rollout.advanced"
        return "version.deployed" if _may_arrive(version, at) else NOTHING


def _may_arrive(version: Version, at: datetime) -> bool:
    return not version.held and not version.is_due(at) and not has_ended(version, at)
