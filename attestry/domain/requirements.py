"""Requirements: how many persons in which role a policy asks for, and whether those who approved are enough.

Rules:
- A person fills one place, whatever roles they have. Whether all places can be filled is a question of bipartite matching between persons
  and places: it is answered exactly (augmenting paths, Kuhn 1955), so no order of arrival makes a sufficient set of persons insufficient.
- Where the order counts, the requirements before another are filled before anybody approves for that one.
- An approval that fills no place is not taken: who gives it is told what is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import ConflictError, ForbiddenError

Approving = Mapping[str, Collection[str]]
"""Person who approved to the roles that they acted in."""


class ApprovalOrderError(ConflictError):
    """An approval comes before one that the policy asks for first."""

    code = "approval_order"


@dataclass(frozen=True)
class Requirement:
    """So many persons, each in one of these roles.

    Attributes:
        roles: the roles.
        count: how many persons, at least 1.
    """

    roles: tuple[str, ...]
    count: int = 1

    def to_item(self) -> dict[str, Any]:
        """Return the requirement as it is stored."""
        return {"roles": list(self.roles), "count": self.count}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Requirement:
        """Return the requirement that `to_item` wrote."""
        return cls(tuple(item["roles"]), int(item["count"]))

    def __str__(self) -> str:
        """Return `2 approvers` or `1 approver or validator`."""
        roles = " or ".join(self.roles)
        return f"{self.count} {roles}{'s' if self.count > 1 and len(self.roles) == 1 else ''}"


def filled(requirements: Sequence[Requirement], approving: Approving) -> int:
    """Return how many places of the requirements these persons can fill at most, each person one."""
    return sum(len(persons) for persons in match(requirements, approving))


def match(requirements: Sequence[Requirement], approving: Approving) -> list[list[str]]:
    """Return for each requirement the persons that fill it, as many in all as can be.

    Args:
        requirements: the requirements.
        approving: the persons; taken in the order of their IDs, so that the answer is always the same.
    """
    places: list[list[str]] = [[] for _ in requirements]

    def place(person: str, tried: set[int]) -> bool:
        for index, requirement in enumerate(requirements):
            if index in tried or not set(requirement.roles) & set(approving[person]):
                continue
            tried.add(index)
            if len(places[index]) < requirement.count:
                places[index].append(person)
                return True
            for other in places[index]:
                if place(other, tried):
                    places[index].remove(other)
                    places[index].append(person)
                    return True
        return False

    for person in sorted(approving):
        place(person, set())
    return places


def total(requirements: Sequence[Requirement]) -> int:
    """Return how many places there are."""
    return sum(requirement.count for requirement in requirements)


def are_met(requirements: Sequence[Requirement], approving: Approving) -> bool:
    """Return whether every place can be filled."""
    return filled(requirements, approving) >= total(requirements)


def missing(requirements: Sequence[Requirement], approving: Approving) -> list[Requirement]:
    """Return what is still asked for, by a matching that fills as many places as can be."""
    there = match(requirements, approving)
    left = [Requirement(r.roles, r.count - len(persons)) for r, persons in zip(requirements, there, strict=True)]
    return [r for r in left if r.count > 0]


def open_now(requirements: Sequence[Requirement], approving: Approving, *, in_order: bool) -> tuple[Requirement, ...]:
    """Return the requirements that an approval may fill now: all, or up to the first that is not filled where the order counts."""
    if in_order:
        for end in range(1, len(requirements)):
            if not are_met(requirements[:end], approving):
                return tuple(requirements[:end])
    return tuple(requirements)


def check_fills(requirements: Sequence[Requirement], approving: Approving, person: str, roles: Collection[str], *, in_order: bool) -> None:
    """Check that one more person fills a place that is open.

    Args:
        requirements: what the policy asks for.
        approving: who has approved.
        person: who approves.
        roles: the roles that they act in.
        in_order: whether the requirements are filled one after the other.

    Raises:
        ApprovalOrderError: the order counts, and what comes before is missing; the sentence names it.
        ForbiddenError: the places of these roles are taken; the sentence names what is missing.
    """
    also = {**approving, person: roles}
    now = open_now(requirements, approving, in_order=in_order)
    if filled(now, also) > filled(now, approving):
        return
    wanted = " and ".join(map(str, missing(now, approving))) or "nobody"
    acts = " and ".join(roles) or "nobody"
    if filled(requirements, also) > filled(requirements, approving):
        raise ApprovalOrderError(f"an approval as {acts} comes too early: the policy asks for {wanted} first", details={"first": wanted})
    raise ForbiddenError(f"an approval as {acts} adds nothing: what is missing is {wanted}", details={"missing": wanted})
