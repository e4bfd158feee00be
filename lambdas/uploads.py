"""API: where a caller may upload a candidate's files, and what became of a submission."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.usecases.records import person_of
from attestry.usecases.upload import grant_upload, read_files, submission_status

world = World()


def create(request: Request) -> Answer:
    """Give URLs for exactly the announced files."""
    files = read_files(request.body("files"))
    by = person_of(world.meta, caller(request, world.settings))
    grant = grant_upload(world.meta, world.store, files, by=by, at=world.clock.now())
    uploads = [{"name": u.name, "key": u.key, "url": u.url, "headers": dict(u.headers)} for u in grant.uploads]
    return Answer({"submission": grant.submission, "prefix": grant.prefix, "uploads": uploads}, 201)


def status(request: Request) -> dict[str, Any]:
    """Tell what became of a submission of the caller's own."""
    return submission_status(world.meta, world.store, request.text("submission"), by=caller(request, world.settings))


ROUTES = {"POST /v1/uploads": create, "GET /v1/submissions/{submission}": status}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=world.guard, on_denied=lambda request, error: world.audit.denied(request, error))
