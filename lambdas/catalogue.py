"""API: what people say about models and versions: descriptions, tags, aliases, labels, remarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.catalogue import Mode, ModelSubject, RegisteredModel, Subject, VersionSubject, check_alias, identity_of
from attestry.domain.errors import InvalidInputError
from attestry.domain.principal import Principal
from attestry.usecases import catalogue
from attestry.usecases.annotate import annotate
from attestry.usecases.records import person_of

world = World()


def create(request: Request) -> Answer:
    """Create a model without versions."""
    body = request.body("name", "description", "tags", "mode")
    model = catalogue.create_model(
        world.meta,
        body.get("name", ""),
        description=body.get("description", ""),
        tags=body.get("tags", {}),
        mode=body.get("mode", Mode.GOVERNED.value),
        # Whoever's role counts for some models alone creates none but these.
        by=person_of(world.meta, request.require(identity_of(body.get("name", "")), "models.change")),
        at=world.clock.now(),
    )
    return Answer(model.to_dict(), 201)


def change(request: Request) -> dict[str, Any]:
    """Change a model's description or, of an open one, its name."""
    body = request.body("description", "name", "if_rev")
    model, rev, at = request.text("model"), _rev(body), world.clock.now()
    if "name" in body and "description" in body:
        raise InvalidInputError.of("name", "alone", "a model is renamed in a request of its own")
    changed: RegisteredModel
    if "name" in body:
        changed = _rename(request, model, body["name"], rev)
    else:
        changed = catalogue.change_model(world.meta, model, description=body.get("description"), by=_caller(request), at=at, if_rev=rev)
    return changed.to_dict()


def _rename(request: Request, model: str, new_name: str, rev: int | None) -> RegisteredModel:
    """Give an open model another name, as somebody who might make a model of that name, and may change the one that has the old name."""
    request.require(identity_of(new_name))
    known = catalogue.read_model(world.meta, model).model
    by = person_of(world.meta, request.require(known))
    return catalogue.rename_model(world.meta, known, new_name, by=by, at=world.clock.now(), if_rev=rev)


def delete(request: Request) -> dict[str, Any]:
    """Delete an open model from the catalogue."""
    catalogue.delete_model(world.meta, request.text("model"), by=_caller(request), at=world.clock.now())
    return {"model": request.text("model"), "deleted": True}


def label(request: Request) -> dict[str, Any]:
    """Change the description or all tags of a version."""
    body = request.body("description", "tags", "if_rev")
    changed = catalogue.change_labels(
        world.meta,
        request.text("model"),
        request.number("number"),
        description=body.get("description"),
        tags=body.get("tags"),
        by=_caller(request),
        at=world.clock.now(),
        if_rev=_rev(body),
    )
    return changed.to_dict()


def delete_version(request: Request) -> dict[str, Any]:
    """Delete a version of an open model from the catalogue."""
    model, number = request.text("model"), request.number("number")
    catalogue.delete_version(world.meta, model, number, by=_caller(request), at=world.clock.now())
    return {"model": model, "number": number, "deleted": True}


def set_tag(request: Request) -> dict[str, Any]:
    """Set a tag of a model or version."""
    body = request.body("value", "if_rev")
    subject, key, value = _subject(request), request.text("key"), body.get("value")
    catalogue.set_tag(world.meta, subject, key, value, by=_caller(request), at=world.clock.now(), if_rev=_rev(body))  # type: ignore[arg-type]
    return {"key": key, "value": value}


def delete_tag(request: Request) -> dict[str, Any]:
    """Take a tag away from a model or version."""
    catalogue.delete_tag(world.meta, _subject(request), request.text("key"), by=_caller(request), at=world.clock.now())
    return {"key": request.text("key"), "deleted": True}


def set_alias(request: Request) -> dict[str, Any]:
    """Let an alias name a version."""
    body = request.body("number", "if_rev")
    model, alias, number = request.text("model"), check_alias(request.text("alias")), body.get("number")
    if type(number) is not int or not 0 < number < 10**9:
        raise InvalidInputError.of("number", "number", "the number of a version is needed")
    by = request.require(model, alias=alias)
    made = catalogue.set_alias(world.meta, model, alias, number, by=person_of(world.meta, by), at=world.clock.now(), if_rev=_rev(body))
    return made.to_dict()


def delete_alias(request: Request) -> dict[str, Any]:
    """Take an alias away."""
    model, alias = request.text("model"), check_alias(request.text("alias"))
    by = request.require(model, alias=alias)
    catalogue.delete_alias(world.meta, model, alias, by=person_of(world.meta, by), at=world.clock.now())
    return {"alias": alias, "deleted": True}


def remark(request: Request) -> Answer:
    """Remark on a version or on one of its moves."""
    body = request.body("text", "transition")
    model, number = request.text("model"), request.number("number")
    text, transition = body.get("text", ""), body.get("transition", 0)
    made = annotate(world.meta, model, number, text, transition=transition, by=_caller(request), at=world.clock.now())
    return Answer(made.to_dict(), 201)


_VERSION = "/v1/models/{model}/versions/{number}"
ROUTES = {
    "POST /v1/models": create,
    "PATCH /v1/models/{model}": change,
    "DELETE /v1/models/{model}": delete,
    "PUT /v1/models/{model}/tags/{key}": set_tag,
    "DELETE /v1/models/{model}/tags/{key}": delete_tag,
    "PUT /v1/models/{model}/aliases/{alias}": set_alias,
    "DELETE /v1/models/{model}/aliases/{alias}": delete_alias,
    f"PATCH {_VERSION}": label,
    f"DELETE {_VERSION}": delete_version,
    f"PUT {_VERSION}/tags/{{key}}": set_tag,
    f"DELETE {_VERSION}/tags/{{key}}": delete_tag,
    f"POST {_VERSION}/annotations": remark,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    denied = world.audit.denied
    return serve(event, context, ROUTES, guard=world.guard, answers=world.answers, on_denied=lambda request, error: denied(request, error))


def _caller(request: Request) -> Principal:
    return person_of(world.meta, caller(request, world.settings))


def _subject(request: Request) -> Subject:
    model = request.text("model")
    return VersionSubject(model, request.number("number")) if "number" in request.parameters else ModelSubject(model)


def _rev(body: Mapping[str, Any]) -> int | None:
    rev = body.get("if_rev")
    if rev is not None and (type(rev) is not int or not 0 <= rev < 10**9):
        raise InvalidInputError.of("if_rev", "number", "a revision is a whole number from 0")
    return rev
