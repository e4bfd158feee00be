"""API: the description of the API. It has no rights and reads nothing."""

from __future__ import annotations

from typing import Any

from attestry.api.openapi import served_text
from attestry.aws.http import Answer, Request, serve


def describe(_: Request) -> Answer:
    """Return the OpenAPI document."""
    return Answer(served_text(), headers={"cache-control": "private, max-age=3600"}, encoded=True)


ROUTES = {"GET /v1/openapi.json": describe}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=None)
