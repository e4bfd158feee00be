"""What must become of promotions, told from the rules in prose and counted here by itself: the machine holds the registry against it.

Nothing of `attestry.domain.promotion` is used. The book is kept from the moves of the versions, which others hold against their events.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from attestry.domain.approvals import Verdict
from attestry.domain.principal import Principal
from attestry.domain.stages import Standing, Status
from attestry.domain.version import Version

FIRST, SECOND = "staging", "production"
ENVIRONMENTS = (FIRST, SECOND)
_ARRIVALS = ("version.deployed", "version.rolled_back", "version.canaried", "version.shadowed")


@dataclass(frozen=True)
class Rule:
    """What an environment asks for before a version is promoted to it.

    Attributes:
        places: the roles whose approvals it takes, one person each.
        in_order: whether they are filled in that order.
        days: for how many days an approval counts; 0 for no end.
        section: the same as a manifest says it.
    """

    places: tuple[str, ...]
    in_order: bool = False
    days: int = 0
    section: Mapping[str, Any] = field(default_factory=dict)

    def is_met(self, given: Mapping[str, Given]) -> bool:
        """Whether the persons who approved fill every place."""
        return not self.left(given)

    def left(self, given: Mapping[str, Given]) -> list[str]:
        """The places that nobody fills yet, in their order."""
        places = list(self.places)
        for approval in given.values():
            role = next((r for r in approval.roles if r in places), None)
            if role is not None:
                places.remove(role)
        return places

    def fits(self, given: Mapping[str, Given], roles: Collection[str]) -> bool:
        """Whether somebody who acts in these roles fills a place that is open now."""
        left = self.left(given)
        return bool(set(left[:1] if self.in_order else left) & set(roles))


_TWO = {"to": SECOND, "people": {"roles": ["approver"], "count": 2}}
_BOTH = {"to": SECOND, "people": {"require": [{"role": "validator"}, {"role": "approver"}], "in_order": True}}
_DAYS = {"to": SECOND, "people": {"roles": ["approver"], "count": 1}, "valid_days": 5, "on_lapse": "rollback"}
_CANARY = {"steps": [10, 50], "minutes": 30, "predictions": 0, "alarm": {"error_rate": 0.5, "minimum_errors": 2}}
_STAGED = {"environment": FIRST, "promotes_to": [SECOND]}
DEPLOYMENTS: Mapping[str, tuple[Mapping[str, Any], Rule | None]] = {
    "production alone": ({}, None),
    "staging, then production": (_STAGED, None),
    "staging, production by two approvers": ({**_STAGED, "promotion": [_TWO]}, Rule(("approver", "approver"))),
    "staging, production by validator and approver": ({**_STAGED, "promotion": [_BOTH]}, Rule(("validator", "approver"), in_order=True)),
    "production by canary": ({"strategy": "canary", "canary": _CANARY}, None),
    "production by shadow": ({"strategy": "shadow", "shadow": {"minutes": 45}}, None),
    "staging, production for some days": ({**_STAGED, "promotion": [_DAYS]}, Rule(("approver",), days=5)),
}
"""What a candidate says of its deployment, and what that asks for before production."""


class Fate(StrEnum):
    """What becomes of an act on a promotion."""

    REFUSED = "refused"
    NOTHING = "nothing"
    BEGINS = "stage.started"
    OPENS = "promotion.opened"
    GIVES = "promotion.given"
    APPROVES = "promotion.approved"
    REJECTS = "promotion.rejected"
    WITHDRAWS = "promotion.withdrawn"


@dataclass(frozen=True)
class Given:
    """An approval: the roles that the person acted in, and when."""

    roles: tuple[str, ...]
    at: datetime


@dataclass
class Ask:
    """A promotion that somebody asked for.

    Attributes:
        by: the person.
        origin: where the version belonged.
        stay: number of the move by which it had come to stand deployed there; 0 where it did not stand so.
        round: how often its own approval had been opened.
        state: OPEN, APPROVED, REJECTED, WITHDRAWN or LAPSED.
        given: person to approval.
        against: who rejected it.
    """

    by: str
    origin: str
    stay: int
    round: int
    state: str = "OPEN"
    given: dict[str, Given] = field(default_factory=dict)
    against: str = ""


@dataclass
class Course:
    """What the moves of one version tell so far."""

    rule: Rule | None
    environment: str
    taken: int = 0
    stay: int = 0
    round: int = 0
    standing: str = ""
    approved: bool = False
    ask: Ask | None = None

    def counts(self, environment: str) -> bool:
        """Whether a version may stand in an environment by who approved that, whatever the day is."""
        return environment != SECOND or self.rule is None or (self.ask is not None and self.ask.state == "APPROVED" and self.is_current())

    def is_current(self) -> bool:
        """Whether what was asked for is about the approval and the stay that the version has."""
        ask = self.ask
        if ask is None or not self.approved or ask.round != self.round:
            return False
        stands = (self.standing, self.environment, self.stay) == ("DEPLOYED", ask.origin, ask.stay)
        return stands or self.environment == SECOND

    def end(self) -> datetime | None:
        """When the approval of the promotion ends: the first of those that were given; None for never."""
        days = self.rule.days if self.rule else 0
        given = [g.at for g in self.ask.given.values()] if self.ask else []
        return min(given) + timedelta(days=days) if given and days else None


class Book:
    """The promotions of all versions of a model.

    Attributes:
        deployments: number of a version to the name of what its candidate says of its deployment.
    """

    def __init__(self, deployments: Mapping[int, str]) -> None:
        self.deployments = deployments
        self._courses: dict[int, Course] = {}

    def course(self, number: int) -> Course:
        """What the moves of a version told so far."""
        if number not in self._courses:
            section, rule = DEPLOYMENTS[self.deployments.get(number, "production alone")]
            self._courses[number] = Course(rule, str(section.get("environment", SECOND)))
        return self._courses[number]

    def take(self, version: Version, moves: Sequence[Mapping[str, Any]]) -> None:
        """Take in the moves of a version that are new.

        Raises:
            AssertionError: somebody decided who must not, or a version has come where nobody let it.
        """
        course = self.course(version.number)
        for move in moves[course.taken :]:
            _take(course, version, move)
        course.taken = len(moves)

    # What must become of an act

    def promote(self, version: Version, by: Principal, to: str, at: datetime) -> Fate:
        """What must become of it when somebody promotes a version."""
        course = self.course(version.number)
        waits = self._waits(version.number, to)
        if "deployer" not in by.roles:
            return Fate.REFUSED
        if not waits and not self._may_promote(version, to, at):
            return Fate.REFUSED
        if not self._counts(version.number, to, at):
            if by.person is None or (not waits and version.held):
                return Fate.REFUSED
            return Fate.NOTHING if waits else Fate.REFUSED if version.standing is Standing.RETIRED else Fate.OPENS
        if version.held or version.is_due(at) or course.standing == "RETIRED" or has_ended(version, at):
            return Fate.REFUSED
        return Fate.NOTHING if version.status is Status.RUNNING else Fate.BEGINS

    def withdraw(self, version: Version, by: Principal, to: str) -> Fate:
        """What must become of it when somebody withdraws a promotion."""
        course = self.course(version.number)
        ask = course.ask if to == SECOND else None
        if "deployer" not in by.roles or by.person is None or ask is None:
            return Fate.REFUSED
        if ask.state == "WITHDRAWN":
            return Fate.NOTHING
        came = ask.state == "APPROVED" and course.environment == SECOND
        return Fate.REFUSED if ask.state not in ("OPEN", "APPROVED") or came or course.standing == "RETIRED" else Fate.WITHDRAWS

    def decide(self, version: Version, by: Principal, verdict: Verdict, to: str, at: datetime) -> Fate:
        """What must become of it when somebody decides on a promotion."""
        course = self.course(version.number)
        ask, rule = course.ask if to == SECOND else None, course.rule
        if not {"approver", "validator"} & set(by.roles) or by.person is None or ask is None or rule is None:
            return Fate.REFUSED
        said = "reject" if by.person == ask.against else "approve" if by.person in ask.given else ""
        if said and ask.state in ("OPEN", "APPROVED", "REJECTED"):
            return Fate.NOTHING if said == verdict.value else Fate.REFUSED
        if ask.state != "OPEN" or not course.is_current() or course.standing == "RETIRED":
            return Fate.REFUSED
        if by.person in (None, version.submitter_person, ask.by, *version.barred) or not set(by.roles) & set(rule.places):
            return Fate.REFUSED
        if verdict is Verdict.REJECT:
            return Fate.REJECTS
        end = course.end()
        if version.held or not rule.fits(ask.given, by.roles) or (end is not None and end <= at):
            return Fate.REFUSED
        return Fate.APPROVES if rule.is_met({**ask.given, by.person: Given(by.roles, at)}) else Fate.GIVES

    def may_stand(self, number: int, environment: str, at: datetime) -> bool:
        """Whether a version may be put in an environment, and be delegated to there, by who approved that."""
        return self._counts(number, environment, at)

    def _may_promote(self, version: Version, to: str, at: datetime) -> bool:
        course = self.course(version.number)
        if to == course.environment and to == SECOND and course.rule is not None:
            # What still stands there by an approval that has ended leaves first; the sweep sees to that within minutes.
            return course.approved and version.standing is Standing.APPROVED and not self._counts(version.number, to, at)
        return (course.environment, to) == (FIRST, SECOND) and version.standing is Standing.DEPLOYED

    def _waits(self, number: int, to: str) -> bool:
        course = self.course(number)
        return to == SECOND and course.ask is not None and course.ask.state == "OPEN" and course.is_current()

    def _counts(self, number: int, environment: str, at: datetime) -> bool:
        course = self.course(number)
        end = course.end() if environment == SECOND else None
        return course.counts(environment) and (end is None or end > at)


def has_ended(version: Version, at: datetime) -> bool:
    """Whether the version's own approval has ended by its date, though nobody may have said so yet."""
    until = str(version.terms.get("until") or "")
    return bool(until) and datetime.fromisoformat(until) <= at


def _take(course: Course, version: Version, move: Mapping[str, Any]) -> None:
    kind, data, number = str(move["kind"]), move["data"], int(move["number"])
    if kind.startswith("promotion."):
        _take_promotion(course, version, kind, move)
    if kind in _ARRIVALS:
        _arrive(course, version, move)
        course.environment, course.stay = str(data["environment"]), number
    if kind == "stage.started" and move["to"]["stage"] == "APPROVAL":
        course.round += 1
    course.standing = str(move["to"]["standing"])
    course.approved = kind == "version.approved" or (course.approved and kind not in ("version.rejected", "approval.lapsed"))


def _take_promotion(course: Course, version: Version, kind: str, move: Mapping[str, Any]) -> None:
    by: Mapping[str, Any] = move["principal"]
    person, at = str(by["person"]), datetime.fromisoformat(str(move["at"]))
    assert move["data"]["environment"] == SECOND, "a promotion to where nobody asks for one"
    if kind == Fate.OPENS:
        assert "deployer" in by["roles"], "somebody opened a promotion who deploys nothing"
        assert move["data"]["asked_by"] == person
        stay = course.stay if course.standing == "DEPLOYED" else 0
        course.ask = Ask(person, course.environment, stay, course.round)
        return
    ask = course.ask
    assert ask is not None, f"{kind} of a promotion that nobody asked for"
    if kind in (Fate.GIVES, Fate.APPROVES, Fate.REJECTS):
        assert course.rule is not None, "somebody decided where nobody has to"
        assert ask.state == "OPEN"
        behind = (ask.by, version.submitter_person, *version.barred)
        assert person not in ("None", *behind), f"{person} decided, who asked for it or stands behind it"
        assert set(by["roles"]) & set(course.rule.places), f"{person} decided as {by['roles']}"
        assert person not in ask.given, f"{person} decided twice"
    if kind == Fate.REJECTS:
        ask.state, ask.against = "REJECTED", person
    elif kind in (Fate.GIVES, Fate.APPROVES):
        ask.given[person] = Given(tuple(by["roles"]), at)
        assert course.rule is not None
        assert course.rule.is_met(ask.given) == (kind == Fate.APPROVES), f"{kind} by {sorted(ask.given)}"
        ask.state = "APPROVED" if kind == Fate.APPROVES else ask.state
    else:
        ask.state = {"promotion.withdrawn": "WITHDRAWN", "promotion.lapsed": "LAPSED"}[kind]


def _arrive(course: Course, version: Version, move: Mapping[str, Any]) -> None:
    """No version comes to an environment that asks people first, but by those whom it asks."""
    environment, at = str(move["data"]["environment"]), datetime.fromisoformat(str(move["at"]))
    assert environment in (course.environment, SECOND), f"{version.reference} came back to {environment}"
    if environment != SECOND or course.rule is None:
        assert "promotion" not in move["data"]
        return
    end = course.end()
    assert course.counts(environment), f"{version.reference} came to {environment}, and nobody let it"
    assert end is None or end > at, f"{version.reference} came to {environment} after the approval had ended"
    assert course.ask is not None
    assert move["data"]["promotion"]["approved_by"] == sorted(course.ask.given)
