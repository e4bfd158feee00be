"""What somebody holds: which roles, and where each counts.

Rules:
- Who has never been granted anything holds what the platform says, everywhere: the IAM role of the session, or the roles that the identity
  provider's groups stand for.
- Who has been granted something once, to the person or to the login, is governed by grants from then on, whatever became of them: a grant
  that was withdrawn or has ended never widens what somebody may do.
- The platform stays the outer wall: of what is granted, only the roles count in which the platform lets the caller act. An identity
  provider that says nothing of roles is no such wall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from attestry.access.scopes import REGISTRY
from attestry.domain.events import timestamp
from attestry.domain.principal import ROLES, Principal


@dataclass(frozen=True)
class Grant:
    """A role that counts somewhere.

    Attributes:
        role: one of `ROLES`.
        scope: where, see `attestry.access.scopes`.
        until: RFC 3339, when it ends by itself; empty where it does not.
    """

    role: str
    scope: str
    until: str = ""

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Grant:
        """Return the grant that a row lists."""
        return cls(str(item["role"]), str(item["scope"]), str(item.get("until") or ""))

    def to_item(self) -> dict[str, str]:
        """Return the grant as rows and events have it."""
        return {"role": self.role, "scope": self.scope, "until": self.until}

    def holds(self, at: datetime) -> bool:
        """Return whether it has not ended."""
        return not self.until or timestamp(at) < self.until


@dataclass(frozen=True)
class Caller:
    """Whom the platform authenticated.

    Attributes:
        principal: who; its roles are those that the platform says.
        walled: whether the platform says in which roles they may act.
    """

    principal: Principal
    walled: bool = True


@dataclass(frozen=True)
class Standing:
    """What a caller holds.

    Attributes:
        login: the caller's login.
        person: ID of the person, or None.
        scopes: role to the scopes where it counts; a role without one is not there.
        governed: whether grants say so, not the platform alone.
    """

    login: str
    person: str | None = None
    scopes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    governed: bool = False

    @property
    def roles(self) -> tuple[str, ...]:
        """Return the roles that are held somewhere."""
        return tuple(role for role in ROLES if role in self.scopes)

    def roles_in(self, places: Iterable[str]) -> tuple[str, ...]:
        """Return the roles that count in one of the places at least."""
        where = frozenset(places)
        return tuple(role for role in self.roles if self.scopes[role] & where)

    def to_item(self) -> dict[str, Any]:
        """Return what is held as JSON."""
        return {"governed": self.governed, "scopes": {role: sorted(self.scopes[role]) for role in self.roles}}


def standing_of(caller: Caller, person: str | None, rows: Iterable[Mapping[str, Any] | None], at: datetime) -> Standing:
    """Return what a caller holds.

    Args:
        caller: whom the platform authenticated.
        person: the person behind the login, or None.
        rows: the rows of grants to the person and to the login; None where there is no row.
        at: the time.
    """
    there = [row for row in rows if row is not None]
    login = caller.principal.login
    if not there:
        return Standing(login, person, {role: frozenset({REGISTRY}) for role in caller.principal.roles})
    wall = caller.principal.roles if caller.walled else ROLES
    held: dict[str, set[str]] = {}
    for grant in (Grant.from_item(item) for row in there for item in row["grants"]):
        if grant.role in wall and grant.holds(at):
            held.setdefault(grant.role, set()).add(grant.scope)
    return Standing(login, person, {role: frozenset(places) for role, places in held.items()}, governed=True)
