"""API: persons, their logins and their SSH keys, and the registry's policies; for admins."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.errors import InvalidInputError
from attestry.domain.policies import Policy, read_document
from attestry.domain.principal import Principal
from attestry.usecases.people import Person, add_person, list_people, withdraw_keys
from attestry.usecases.policies import publish_policy
from attestry.usecases.records import person_of

world = World()


def add(request: Request) -> Answer:
    """Add a person, or logins and keys to one; or withdraw keys of one."""
    body = request.body("person", "logins", "name", "ssh_keys", "withdraw", "reason")
    if not isinstance(body.get("person"), str):
        raise InvalidInputError.of("person", "required", "the person's ID is needed")
    logins, keys = _texts(body, "logins"), _texts(body, "ssh_keys")
    by = person_of(world.meta, caller(request, world.settings))
    if "withdraw" in body:
        return Answer(_shown(_withdraw(body, by)))
    name = str(body.get("name") or "")
    person = add_person(world.meta, body["person"], logins, name=name, by=by, at=world.clock.now(), ssh_keys=keys)
    return Answer(_shown(person), 201)


def _withdraw(body: dict[str, Any], by: Principal) -> Person:
    if {"logins", "ssh_keys", "name"} & set(body):
        raise InvalidInputError.of("withdraw", "alone", "keys are withdrawn in a request of their own: person, withdraw, reason")
    fingerprints, reason = _texts(body, "withdraw"), read_reason(body.get("reason"))
    return withdraw_keys(world.meta, body["person"], fingerprints, reason=reason, by=by, at=world.clock.now())


def show_all(_: Request) -> dict[str, Any]:
    """List all persons."""
    return {"people": [_shown(p) for p in list_people(world.meta)]}


def publish(request: Request) -> Answer:
    """Put an edition of a policy in force."""
    body = request.body("document", "reason")
    by = person_of(world.meta, caller(request, world.settings))
    policy = Policy.from_mapping(read_document(body.get("document")))
    edition = publish_policy(world.meta, policy, by=by, reason=read_reason(body.get("reason")), at=world.clock.now())
    return Answer(edition.to_item(), 201)


ROUTES = {"POST /v1/people": add, "GET /v1/people": show_all, "POST /v1/policies": publish}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=world.guard, on_denied=lambda request, error: world.audit.denied(request, error))


def _texts(body: dict[str, Any], field: str) -> list[str]:
    values = body.get(field, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidInputError.of(field, "type", "a list of texts is needed")
    return values


def _shown(person: Person) -> dict[str, Any]:
    return {
        "person": person.person,
        "name": person.name,
        "logins": list(person.logins),
        "added": person.added,
        "ssh_keys": [
            {"fingerprint": f, "added": at, "withdrawn": person.ssh_keys_withdrawn.get(f)} for f, at in person.ssh_keys_added.items()
        ],
    }
