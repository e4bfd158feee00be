"""API: the root of trust: what is published, what the deployment signs with, and, for admins, publishing what the key holders signed."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.signer import KmsSigner
from attestry.aws.world import World
from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.usecases.records import person_of
from attestry.usecases.root import Publication, publish_root, show_root
from attestry.usecases.root_keys import deployed_keys

world = World()


def show(_: Request) -> dict[str, Any]:
    """Show all metadata, verified from the first root on."""
    published = show_root(world.meta, world.store)
    if published is None:
        raise NotFoundError("this registry has no root of trust yet; an admin makes it: attestry root init")
    return _shown(published)


def keys(_: Request) -> dict[str, Any]:
    """Show the public keys that the deployment signs with."""
    settings = world.settings
    origin = settings.text("ATTESTRY_LEDGER_ORIGIN")
    named = settings.text("ATTESTRY_KEYS"), settings.text("ATTESTRY_WITNESSES")
    return {"registry": origin, "keys": deployed_keys(origin, *named, lambda arn: KmsSigner(world.clients.kms, arn).public_key_der())}


def publish(request: Request) -> Answer:
    """Publish metadata; who may come here, IAM and the gate say, and what may be published, the signatures."""
    files = request.body("files").get("files")
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise InvalidInputError.of("files", "type", "an object of file names and texts is needed")
    by = person_of(world.meta, caller(request, world.settings))
    published = publish_root(
        world.meta,
        world.store,
        {name: text.encode() for name, text in files.items()},
        registry=world.settings.text("ATTESTRY_LEDGER_ORIGIN"),
        by=by,
        at=world.clock.now(),
    )
    return Answer(_shown(published), 201 if published.changed else 200)


ROUTES = {"GET /v1/root": show, "GET /v1/root/keys": keys, "POST /v1/root": publish}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=world.guard, answers=world.answers, on_denied=world.audit.denied)


def _shown(published: Publication) -> dict[str, Any]:
    verified = published.verified
    return {
        "registry": verified.trusted_root.registry,
        "demo": verified.trusted_root.demo,
        "trusted_root_sha256": verified.trusted_root.sha256,
        "first_root_sha256": verified.fingerprint,
        "versions": dict(verified.versions),
        "expires": dict(verified.expires),
        "files": {name: data.decode() for name, data in sorted(published.files.items())},
    }
