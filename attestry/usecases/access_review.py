"""Access reviews: who can do something to a model, and whether somebody can, by the policies that decide requests.

What the registry does not know is who may assume its IAM roles, or who is in which group of an identity provider: the platform does. So an
answer names the persons and logins that were granted something, and beside them the roles in which anybody may who was granted nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attestry.access.engine import Engine, OnModel, OnRegistry, Target
from attestry.access.rows import placement_key
from attestry.access.scopes import Placement
from attestry.access.standing import Caller, Standing, standing_of
from attestry.domain.catalogue import identity_of
from attestry.domain.errors import InvalidInputError
from attestry.domain.principal import Principal
from attestry.ports import MetaStore
from attestry.usecases.access_policies import added_policies
from attestry.usecases.grants import Held, list_grants

METHOD = "review"


def who_can(meta: MetaStore, action: str, model: str, at: datetime, *, alias: str = "") -> dict[str, Any]:
    """Tell who can do something.

    Args:
        meta: the table.
        action: name of the action.
        model: the model's name, or empty for the registry as a whole.
        at: the time.
        alias: the alias that would be set, for policies that ask.

    Returns:
        `granted`: subjects with the roles that let them and where those count; `roles`: the roles in which anybody may to whom nothing was
        ever granted; `governed`: the subjects to whom something was, whether it lets them or not.

    Raises:
        InvalidInputError: no such action on this.
    """
    engine, target = _engine(meta), _target(meta, model)
    context = {"method": METHOD, **({"alias": alias} if alias else {})}
    held = list_grants(meta)
    roles = engine.roles_for(action, target, context)
    _check_action(engine, action, target, context)
    let = [_entry(one, standing) for one in held if engine.decide(standing := _standing(one, at), action, target, context).allowed]
    return {"action": action, "on": model or "registry", "granted": let, "roles": list(roles), "governed": [one.subject for one in held]}


def check(meta: MetaStore, standing: Standing, action: str, model: str, *, alias: str = "") -> dict[str, Any]:
    """Tell whether somebody can do something, and by which policies.

    Raises:
        InvalidInputError: no such action on this.
    """
    engine, target = _engine(meta), _target(meta, model)
    context = {"method": METHOD, **({"alias": alias} if alias else {})}
    _check_action(engine, action, target, context)
    ruling = engine.decide(standing, action, target, context)
    told = {"action": action, "on": model or "registry", "allowed": ruling.allowed, "policies": list(ruling.policies)}
    return {**told, "login": standing.login, **standing.to_item(), "roles": list(engine.roles_for(action, target, context))}


def standing_of_subject(meta: MetaStore, subject: str, at: datetime) -> Standing:
    """Return what was granted to a person or a login; of who was granted nothing, the platform alone knows."""
    return _standing(next(iter(list_grants(meta, subject)), Held(subject)), at)


def _standing(held: Held, at: datetime) -> Standing:
    kind, _, name = held.subject.partition("/")
    nobody = Principal(name, name, "", METHOD, "", name)
    return standing_of(Caller(nobody, walled=False), name if kind == "person" else None, (held.to_item(),), at)


def _entry(held: Held, standing: Standing) -> dict[str, Any]:
    return {"subject": held.subject, **standing.to_item(), "grants": [grant.to_item() for grant in held.grants]}


def _engine(meta: MetaStore) -> Engine:
    return Engine([edition.text for edition in added_policies(meta) if edition.sha256])


def _target(meta: MetaStore, model: str) -> Target:
    if not model:
        return OnRegistry()
    identity = identity_of(model)
    return OnModel(identity, Placement.from_item(meta.get(placement_key(identity))))


def _check_action(engine: Engine, action: str, target: Target, context: Mapping[str, str]) -> None:
    """Refuse an action that the schema does not know, or not on this."""
    ruling = engine.decide(Standing("nobody"), action, target, context)
    if ruling.errors:
        raise InvalidInputError.of("action", "action", f"there is no action {action:.80} on {target}")
