"""API: persons, their logins and their SSH keys, the registry's policies, and who may do what; for admins, and auditors who review."""

from __future__ import annotations

from typing import Any

from attestry.access.engine import default_policies
from attestry.access.scopes import Placement
from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.preconditions import expected_rev
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.errors import InvalidInputError
from attestry.domain.policies import Policy, read_document
from attestry.domain.principal import Principal
from attestry.usecases import access_review
from attestry.usecases.access_policies import added_policies, publish_access_policy
from attestry.usecases.grants import give_grant, list_grants, read_grant, read_subject, withdraw_grant
from attestry.usecases.matched import MatchedMeta
from attestry.usecases.people import Person, add_person, list_people, withdraw_keys
from attestry.usecases.placement import place_model, show_placement
from attestry.usecases.policies import policy_key, publish_policy
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


def show_all(request: Request) -> dict[str, Any]:
    """List the persons."""
    page = request.page()
    return page.answer("people", [_shown(p) for p in list_people(world.meta, page)], lambda row: str(row["person"]))


def publish(request: Request) -> Answer:
    """Put an edition of a policy in force."""
    body = request.body("document", "reason")
    by = person_of(world.meta, caller(request, world.settings))
    policy = Policy.from_mapping(read_document(body.get("document")))
    rev = expected_rev(request.headers)
    meta = world.meta if rev is None else MatchedMeta(world.meta, policy_key(policy.name), rev, attribute="number")
    edition = publish_policy(meta, policy, by=by, reason=read_reason(body.get("reason")), at=world.clock.now())
    return Answer(edition.to_item(), 201)


def show_grants(request: Request) -> dict[str, Any]:
    """List what was granted, to everybody or to one."""
    asked = {name: request.query[name] for name in ("person", "login") if name in request.query}
    held = list_grants(world.meta, read_subject(asked) if asked else "")
    return {"granted": [one.to_item() for one in held]}


def grant(request: Request) -> Answer:
    """Let a role count somewhere for somebody."""
    body, at = request.body("person", "login", "role", "scope", "until", "reason"), world.clock.now()
    reason, by = read_reason(body.get("reason")), caller(request, world.settings)
    return Answer(give_grant(world.meta, read_subject(body), read_grant(body, at), reason=reason, by=by, at=at).to_item(), 201)


def withdraw(request: Request) -> dict[str, Any]:
    """End a grant."""
    body, at = request.body("person", "login", "role", "scope", "reason"), world.clock.now()
    ended, reason, by = read_grant(body, at), read_reason(body.get("reason")), caller(request, world.settings)
    return withdraw_grant(world.meta, read_subject(body), ended.role, ended.scope, reason=reason, by=by, at=at).to_item()


def who_can(request: Request) -> dict[str, Any]:
    """Tell who can do something to a model, or to the registry."""
    alias, model = request.query_text("alias", ""), request.query_text("model", "")
    told = access_review.who_can(world.meta, request.query_text("action"), model, world.clock.now(), alias=alias)
    world.audit.allowed(request, "access.review", f"{told['action']} on {told['on']}")
    return told


def check(request: Request) -> dict[str, Any]:
    """Tell whether the caller can do something, or, to who may review, whether somebody else can."""
    asked = {name: request.query[name] for name in ("person", "login") if name in request.query}
    alias, model = request.query_text("alias", ""), request.query_text("model", "")
    if asked:
        request.require("", "access.review")
        standing = access_review.standing_of_subject(world.meta, read_subject(asked), world.clock.now())
    else:
        standing = request.standing
    return access_review.check(world.meta, standing, request.query_text("action"), model, alias=alias)


def show_access_policies(_: Request) -> dict[str, Any]:
    """Show the default policies, and the latest edition of each that was added."""
    return {"default": dict(default_policies()), "added": [edition.to_item() for edition in added_policies(world.meta)]}


def publish_access(request: Request) -> Answer:
    """Put an edition of an added access policy in force, or end the policy with an empty text."""
    body = request.body("name", "text", "reason")
    name, text = body.get("name"), body.get("text")
    if not isinstance(name, str) or not isinstance(text, str):
        field = "text" if isinstance(name, str) else "name"
        raise InvalidInputError.of(field, "type", "name and text are needed; an empty text ends what is in force under the name")
    reason, by = read_reason(body.get("reason")), caller(request, world.settings)
    edition = publish_access_policy(world.meta, name, text, reason=reason, by=by, at=world.clock.now())
    return Answer(edition.to_item(), 201)


def show_placed(request: Request) -> dict[str, Any]:
    """Show where a model is placed."""
    return show_placement(world.meta, request.query_text("model"))


def place(request: Request) -> dict[str, Any]:
    """Say where a model lies: its tags, its project and its business unit."""
    body = request.body("model", "tags", "project", "unit", "reason")
    if not isinstance(body.get("model"), str):
        raise InvalidInputError.of("model", "required", "the model's name is needed")
    reason, by = read_reason(body.get("reason")), caller(request, world.settings)
    return place_model(world.meta, body["model"], Placement.from_body(body), reason=reason, by=by, at=world.clock.now())


ROUTES = {
    "GET /v1/people": show_all,
    "POST /v1/people": add,
    "POST /v1/policies": publish,
    "GET /v1/access/grants": show_grants,
    "POST /v1/access/grants": grant,
    "POST /v1/access/withdrawals": withdraw,
    "GET /v1/access/who-can": who_can,
    "GET /v1/access/check": check,
    "GET /v1/access/policies": show_access_policies,
    "POST /v1/access/policies": publish_access,
    "GET /v1/access/placements": show_placed,
    "POST /v1/access/placements": place,
}


MATCHED = ("POST /v1/policies",)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    denied = world.audit.denied
    return serve(event, context, ROUTES, guard=world.guard, answers=world.answers, matched=MATCHED, on_denied=denied)


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
