"""What one request may do: the decision at the gate, and those that only the function can ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from attestry.access.actions import ACTIONS, FIND, Action, Resource
from attestry.access.engine import OnRegistry, Ruling, Target
from attestry.access.reader import AccessReader, Known
from attestry.access.scopes import placed_as
from attestry.access.standing import Caller, Standing
from attestry.domain.errors import ForbiddenError
from attestry.domain.principal import Principal
from attestry.ports import MetaStore


class Warrant:
    """The decisions on one request.

    Args:
        reader: reads what they rest on.
        caller: whom the platform authenticated.
        action: what is asked for.
        at: the time.
        table: what the request reads through, see `AccessReader.read`.
        expected: the model that the function will most likely find out, whose placement is read with the rest.

    Attributes:
        model: the model that was decided on last; empty where none was.
    """

    def __init__(
        self,
        reader: AccessReader,
        caller: Caller,
        action: Action,
        at: datetime,
        *,
        table: MetaStore | None = None,
        expected: str | None = None,
    ) -> None:
        self._reader = reader
        self._table = table
        self._expected = expected
        self._caller = caller
        self._action = action
        self._at = at
        self._open = action.resource is Resource.LATER
        self._known: Known | None = None
        self.model = ""

    @classmethod
    def for_route(
        cls,
        reader: AccessReader,
        caller: Caller,
        route: str,
        at: datetime,
        *,
        table: MetaStore | None = None,
        expected: str | None = None,
    ) -> Warrant:
        """Return the warrant for a request on a route.

        Raises:
            ForbiddenError: the route is no known action.
        """
        action = ACTIONS.get(route)
        if action is None:
            raise ForbiddenError(f"{route} is no action that policies know, so it is let to nobody")
        return cls(reader, caller, action, at, table=table, expected=expected)

    @property
    def standing(self) -> Standing:
        """Return what the caller holds; asked for once the gate has decided."""
        return self._read(None).standing

    def admit(self, model: str | None, **context: str) -> Principal:
        """Decide at the gate, and return the caller with the person and with the roles that count there.

        Args:
            model: the model that the request names, if any.
            context: further facts for policies, see the schema.

        Raises:
            ForbiddenError: it is denied.
        """
        if self._open:
            return self._decide(FIND, None, context)
        return self._decide(self._action.name, model, context)

    def require(self, model: str, action: str | None = None, **context: str) -> Principal:
        """Decide on a model that the function has found out.

        Args:
            model: its name; empty for the registry as a whole.
            action: another action than that of the route.
            context: further facts for policies.

        Raises:
            ForbiddenError: it is denied.
        """
        self._open = False
        return self._decide(action or self._action.name, model, context)

    def may(self, action: str, models: Iterable[str]) -> list[str]:
        """Return the models on which an action is let, in their order; for lists that show each caller what they may read."""
        names, known = list(models), self._read(None)
        placed = self._reader.models(names)
        return [name for name in names if self._rule(known, action, placed[name], {}).allowed]

    def readable(self, models: Iterable[str]) -> list[str]:
        """Return the models that the caller may read, in their order, for searches that show each caller no others."""
        known = self._read(None)
        if not (known.standing.governed or known.engine.has_added):
            # Their roles count everywhere, and the default policies tell no model from another.
            return list(models)
        return self.may("models.read", models)

    def require_settled(self) -> None:
        """Check that a function has asked for the model which it answers about.

        Raises:
            RuntimeError: it has not; its answer must not leave.
        """
        if self._open:
            raise RuntimeError(f"{self._action.name} was answered without a decision on the model")

    def _decide(self, action: str, model: str | None, context: dict[str, str]) -> Principal:
        model = placed_as(model) if model else None
        self.model = model or self.model
        known = self._read(model)
        target: Target = known.model(model) if model else OnRegistry()
        ruling = self._rule(known, action, target, context)
        if not ruling.allowed:
            raise _denied(known, action, target, ruling, self._context(context))
        standing = known.standing
        roles = standing.roles_in(target.places) if model else standing.roles
        return replace(self._caller.principal, roles=roles, person=standing.person)

    def _rule(self, known: Known, action: str, target: Target, context: dict[str, str]) -> Ruling:
        return known.engine.decide(known.standing, action, target, self._context(context))

    def _context(self, context: dict[str, str]) -> dict[str, str]:
        return {"method": self._caller.principal.method, **context}

    def _read(self, model: str | None) -> Known:
        known = self._known
        if known is not None and (model in (None, known.of) or not (known.standing.governed or known.engine.has_added)):
            # Where the model is placed makes no difference to roles that count everywhere.
            return known
        self._known = self._reader.read(self._caller, model or self._expected, self._at, fresh=self._action.fresh, table=self._table)
        return self._known


def _denied(known: Known, action: str, target: Target, ruling: Ruling, context: dict[str, str]) -> ForbiddenError:
    standing, roles = known.standing, known.engine.roles_for(action, target, context)
    where = "; ".join(f"{role} in {', '.join(sorted(standing.scopes[role]))}" for role in standing.roles)
    acts = (
        f"acts as {where if standing.governed else ' and '.join(standing.roles)}" if standing.roles else "acts in no role of the registry"
    )
    why = f"takes the role {' or '.join(roles)}" if roles else "is let in no role"
    if ruling.policies:
        why = f"is forbidden by the policy {', '.join(ruling.policies)}"
    elif ruling.errors:
        why = "could not be decided, so it is denied"
    details = {
        "action": action,
        "roles": list(roles),
        "login": standing.login,
        "acts_as": list(standing.roles),
        "policies": ruling.policies,
    }
    return ForbiddenError(f"{action} on {target} {why}; {standing.login} {acts}", details=details)
