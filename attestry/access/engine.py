"""The decision: Cedar over the default policies and those that admins have added. Deny by default.

    engine = Engine(())
    ruling = engine.decide(standing, "versions.decide", OnModel("tumour-diagnosis", placement), {"method": "AWS_IAM SigV4"})

Rules:
- What no policy permits is denied; a policy that forbids outweighs every one that permits.
- Policies are checked against the schema in strict mode when they are published, and the request against it for every decision. A policy
  that fails while it is evaluated denies, since Cedar passes over such a policy and it may be one that forbids.
- A decision follows from the policies and from the facts that it is made on, and from nothing else. So one that was made on the same facts
  is not made again; which facts hold is read for each request (`attestry.access.reader`).
- The same policies and the same schema are what Amazon Verified Permissions takes: one namespace, static policies, entities by request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any, ClassVar, Final

import cedarpy

from attestry.access.scopes import REGISTRY, Placement
from attestry.access.standing import Standing
from attestry.domain.errors import InvalidInputError
from attestry.domain.principal import ROLES

NAMESPACE: Final = "Attestry"
DECISIONS: Final = 4096
"""Decisions that are kept, those that were asked for last."""

MAX_POLICY_BYTES: Final = 10_000
"""What Amazon Verified Permissions takes of one policy."""

_FOLDER = files("attestry.access") / "policies"


@dataclass(frozen=True)
class OnRegistry:
    """The registry as a whole.

    Attributes:
        kind: what Cedar knows it as.
        name: its name there.
    """

    kind: ClassVar[str] = "Registry"
    name: ClassVar[str] = REGISTRY

    @property
    def places(self) -> tuple[str, ...]:
        """Return the scopes in which it lies."""
        return (REGISTRY,)

    def __str__(self) -> str:
        return "the registry"


@dataclass(frozen=True)
class OnModel:
    """A model, where an admin has placed it.

    Attributes:
        kind: what Cedar knows it as.
        name: its identity.
        placement: where it is placed.
    """

    kind: ClassVar[str] = "Model"
    name: str
    placement: Placement = field(default_factory=Placement)

    @property
    def places(self) -> tuple[str, ...]:
        """Return the scopes in which it lies."""
        return self.placement.scopes_of(self.name)

    def __str__(self) -> str:
        return f"the model {self.name}"


Target = OnRegistry | OnModel


@dataclass(frozen=True)
class Ruling:
    """A decision.

    Attributes:
        allowed: whether it is let.
        policies: IDs of the policies that made the difference; none where nothing permits it.
        errors: what went wrong while policies were evaluated; the decision is to deny then.
    """

    allowed: bool
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Engine:
    """Decides by the default policies and `added` ones.

    Args:
        added: texts of further policies, each checked by `check_policies` before it was published.

    Attributes:
        has_added: whether there are any of those.
    """

    def __init__(self, added: Sequence[str] = ()) -> None:
        self.has_added = bool(added)
        self._policies, self._schema = _policies(tuple(added)), _schema()
        self._decide = lru_cache(DECISIONS)(self._decide_anew)

    def decide(self, standing: Standing, action: str, target: Target, context: Mapping[str, str]) -> Ruling:
        """Decide whether somebody may do something.

        Args:
            standing: what they hold.
            action: name of the action.
            target: what they would do it to.
            context: `method`, and `alias` where one is set.
        """
        held = tuple((role, standing.scopes[role]) for role in standing.roles)
        return self._decide(standing.login, standing.person, held, action, target.kind, target.name, target.places, tuple(context.items()))

    def _decide_anew(
        self,
        login: str,
        person: str | None,
        held: tuple[tuple[str, frozenset[str]], ...],
        action: str,
        kind: str,
        name: str,
        places: tuple[str, ...],
        context: tuple[tuple[str, str], ...],
    ) -> Ruling:
        """Have Cedar decide; all that it is told is in the arguments."""
        who = _principal(login, person, dict(held))
        entity = {"uid": _uid(kind, name), "attrs": {}, "parents": [_uid("Scope", place) for place in places]}
        request = {"principal": who["uid"], "action": _uid("Action", action), "resource": entity["uid"], "context": dict(context)}
        found = cedarpy.is_authorized(request, self._policies, [who, entity], self._schema)
        errors = tuple(found.diagnostics.errors)
        named = found.diagnostics.id_annotations_by_reason
        policies = tuple(sorted(str(named.get(reason) or reason) for reason in found.diagnostics.reasons))
        return Ruling(bool(found.allowed) and not errors, policies, errors)

    def roles_for(self, action: str, target: Target, context: Mapping[str, str]) -> tuple[str, ...]:
        """Return the roles that would be let if they counted in the whole registry."""
        asked = ((role, Standing("anybody", None, {role: frozenset({REGISTRY})})) for role in ROLES)
        return tuple(role for role, standing in asked if self.decide(standing, action, target, context).allowed)


@lru_cache(maxsize=8)
def _policies(added: tuple[str, ...]) -> cedarpy.PolicySet:
    """Read policies, which takes longer than deciding by them; nothing changes them afterwards."""
    return cedarpy.PolicySet.from_str("\n".join((*default_policies().values(), *added)))


@lru_cache(maxsize=1)
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


@dataclass(frozen=True)
class CheckedPolicies:
    """Policies that the schema allows.

    Attributes:
        text: as they were written.
        count: how many.
    """

    text: str
    count: int


def check_policies(text: str) -> CheckedPolicies:
    """Check policies that an admin wants to add.

    Raises:
        InvalidInputError: no Cedar, templates, unknown actions or attributes, types that do not fit, one too large, or none at all.
    """
    try:
        parsed = cedarpy.PolicySet.from_str(text)
        result = cedarpy.validate_policies(text, schema_text())
    except ValueError as error:
        raise InvalidInputError.of("text", "cedar", f"that is no set of Cedar policies: {str(error)[:500]}") from error
    if parsed.templates():
        raise InvalidInputError.of("text", "no_templates", "policies are written out; templates are not linked here")
    if not len(parsed):
        raise InvalidInputError.of("text", "required", "one policy at least is needed")
    if not result.validation_passed:
        said = "; ".join(error.error for error in result.errors)
        raise InvalidInputError.of("text", "schema", f"the schema does not allow it: {said[:1000]}")
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise InvalidInputError.of("text", "size", f"a policy has at most {MAX_POLICY_BYTES} bytes")
    return CheckedPolicies(text, len(parsed))


def schema_text() -> str:
    """Return the schema, in Cedar's own syntax."""
    return _TEXTS.schema


def default_policies() -> Mapping[str, str]:
    """Return the policies that come with the registry, by the name of their file."""
    return _TEXTS.defaults


class _Texts:
    """The files beside this module, read once."""

    @cached_property
    def schema(self) -> str:
        return (_FOLDER / "schema.cedarschema").read_text(encoding="utf-8")

    @cached_property
    def defaults(self) -> Mapping[str, str]:
        names = sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".cedar"))
        return {name.removesuffix(".cedar"): (_FOLDER / name).read_text(encoding="utf-8") for name in names}


_TEXTS = _Texts()


def _principal(login: str, person: str | None, held: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    scopes = {role: [{"__entity": _uid("Scope", place)} for place in sorted(held.get(role, ()))] for role in ROLES}
    attributes = {"login": login, **({"person": person} if person else {}), "scopes": scopes}
    return {"uid": _uid("Principal", login), "attrs": attributes, "parents": [_uid("Role", role) for role in held]}


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"{NAMESPACE}::{kind}", "id": name}
