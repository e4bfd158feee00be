"""Patch: an HTTP API whose routes stand in an OpenAPI document.

What AWS does (CloudFormation, `AWS::ApiGatewayV2::Api`, property `Body`; API Gateway, `ImportApi` and `ReimportApi`) and the emulator does
not, which drops the property in silence: the document's routes, integrations and authorizers are made with the API, and an update with
another document puts its own in the place of all that were there.

Only what `attestry.local.openapi` reads is imported; another document fails the deployment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from attestry.local.openapi import Imported, read_openapi
from attestry.local.patching import PatchError, expect, load

_TYPE = "AWS::ApiGatewayV2::Api"
_EXPECTED = {"create": "0002e18b41984434", "update": "d12d60c12ed7d9aa"}


def apply() -> None:
    """Patch the making of HTTP APIs.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    provisioners = load("ministack.services.cloudformation.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS.get(_TYPE) or {}
    for verb, digest in _EXPECTED.items():
        if handlers.get(verb) is not expect(provisioners, f"_apigw_v2_api_{verb}", digest):
            raise PatchError(f"CloudFormation does not {verb} APIs the way the patch expects")
    handlers["create"] = _with_body(handlers["create"], properties_at=1)
    handlers["update"] = _with_body(handlers["update"], properties_at=2)


def _with_body(original: Callable[..., Any], *, properties_at: int) -> Callable[..., Any]:
    # The emulator asks for the parameters of a handler by name, so the replacement must show those of the original.
    @functools.wraps(original)
    def provision(*args: Any, **kwargs: Any) -> Any:
        body = args[properties_at].get("Body")
        document = read_openapi(body) if body else None
        api_id, attributes = original(*args, **kwargs)
        if document is not None:
            _import(api_id, document)
        return api_id, attributes

    return provision


def _import(api_id: str, document: Imported) -> None:
    provisioners, gateway = load("ministack.services.cloudformation.provisioners"), load("ministack.services.apigateway")
    gateway._apis[api_id].update(name=document.title, description=document.description)
    stores = (gateway._routes, gateway._integrations, gateway._authorizers)
    before = [(store, list(store.get(api_id, {}))) for store in stores]
    authorizers, integrations = (
        {name: create(name, {"ApiId": api_id, **properties}, "")[0] for name, properties in found.items()}
        for create, found in (
            (provisioners._apigw_v2_authorizer_create, document.authorizers),
            (provisioners._apigw_v2_integration_create, document.integrations),
        )
    )
    for route in document.routes:
        properties = {
            "ApiId": api_id,
            "RouteKey": route.key,
            "AuthorizationType": route.authorization,
            "AuthorizerId": authorizers.get(route.authorizer),
            "Target": f"integrations/{integrations[route.integration]}",
        }
        provisioners._apigw_v2_route_create(route.key, properties, "")
    # What was there goes last: no request meets an API without routes.
    for store, identifiers in before:
        for identifier in identifiers:
            store[api_id].pop(identifier, None)
