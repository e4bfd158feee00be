"""API: persons and their logins; for admins."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.errors import InvalidInputError
from attestry.usecases.people import Person, add_person, list_people
from attestry.usecases.records import person_of

world = World()


def add(request: Request) -> Answer:
    """Add a person, or logins to one."""
    body = request.body("person", "logins", "name")
    logins = body.get("logins")
    if not isinstance(body.get("person"), str):
        raise InvalidInputError.of("person", "required", "the person's ID is needed")
    if not isinstance(logins, list) or not all(isinstance(login, str) for login in logins):
        raise InvalidInputError.of("logins", "type", "a list of texts is needed")
    by = person_of(world.meta, caller(request, world.settings))
    return Answer(
        _shown(add_person(world.meta, body["person"], logins, name=str(body.get("name") or ""), by=by, at=world.clock.now())), 201
    )


def show_all(_: Request) -> dict[str, Any]:
    """List all persons."""
    return {"people": [_shown(p) for p in list_people(world.meta)]}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, {"POST /v1/people": add, "GET /v1/people": show_all})


def _shown(person: Person) -> dict[str, Any]:
    return {"person": person.person, "name": person.name, "logins": list(person.logins), "added": person.added}
