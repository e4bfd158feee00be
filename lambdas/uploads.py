"""API: where a caller may upload files, what became of a submission, and versions made of files that were made elsewhere."""

from __future__ import annotations

from typing import Any

from attestry.aws.answers import relayed
from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.usecases.ask_import import ask_import
from attestry.usecases.begin_import import begin_import, read_import_files, read_import_key
from attestry.usecases.records import person_of
from attestry.usecases.upload import Grant, grant_upload, read_files, submission_status

world = World(call_seconds=25)


def create(request: Request) -> Answer:
    """Give URLs for exactly the announced files."""
    files = read_files(request.body("files"))
    by = person_of(world.meta, caller(request, world.settings))
    grant = grant_upload(world.meta, world.store, files, by=by, at=world.clock.now())
    return _granted(request, "uploads.create", grant)


def _granted(request: Request, act: str, grant: Grant) -> Answer:
    uploads = [{"name": u.name, "key": u.key, "url": u.url, "headers": dict(u.headers)} for u in grant.uploads]
    # Nothing that was changed tells of it in the ledger: the files come later, or never.
    world.audit.allowed(request, act, grant.submission)
    return Answer({"submission": grant.submission, "prefix": grant.prefix, "uploads": uploads}, 201)


def announce_import(request: Request) -> Answer:
    """Give URLs for exactly the announced files of a version that was made elsewhere."""
    body = request.body("files", "key")
    files, key = read_import_files(body), read_import_key(body.get("key"))
    by = person_of(world.meta, caller(request, world.settings))
    grant = begin_import(world.meta, world.store, files, by=by, at=world.clock.now(), key=key)
    return _granted(request, "imports.create", grant)


def import_model(request: Request) -> Answer:
    """Make a version of files that the caller uploaded; they are frozen right afterwards."""
    body = request.body("submission", "source", "run", "description", "tags")
    by = person_of(world.meta, caller(request, world.settings))
    status, answer = ask_import(world.functions, world.settings.register_function, request.text("model"), body, by=by)
    if status >= 400:
        raise relayed(answer["error"], status)
    return Answer(answer, status)


def status(request: Request) -> dict[str, Any]:
    """Tell what became of a submission of the caller's own."""
    return submission_status(world.meta, world.store, request.text("submission"), by=caller(request, world.settings))


ROUTES = {
    "POST /v1/uploads": create,
    "GET /v1/submissions/{submission}": status,
    "POST /v1/imports": announce_import,
    "POST /v1/models/{model}/versions": import_model,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=world.guard, on_denied=lambda request, error: world.audit.denied(request, error))
