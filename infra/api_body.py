"""The API as one OpenAPI document, which the gateway imports: routes, integrations and authorizers are entries of it.

As resources of their own they would be some 250 of the 500 that a stack may hold. The form is that of API Gateway's extensions to OpenAPI
3.0 as they are for HTTP APIs: an integration stands once among the components and each operation refers to it, and an operation names
the scheme by which it is authorised. One that named none would be open to everybody, so none can be made here: an operation belongs to
a tree, and a tree has a scheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]

INTEGRATIONS = "x-amazon-apigateway-integrations"
_VARIABLE = re.compile(r"\{([^}]+)\}")

SIGNED: Mapping[str, str] = {"type": "apiKey", "name": "Authorization", "in": "header", "x-amazon-apigateway-authtype": "awsSigv4"}
"""The scheme of callers who sign with AWS credentials: IAM decides on each route."""


@dataclass(frozen=True)
class Operation:
    """One route: method, path with its variables in braces, and the function that answers it."""

    method: str
    path: str
    function: str


@dataclass(frozen=True)
class Tree:
    """Routes that are authorised alike.

    Attributes:
        scheme: name of the security scheme.
        security: the security scheme.
        operations: the routes.
    """

    scheme: str
    security: Mapping[str, Any]
    operations: tuple[Operation, ...]


def lambda_uri(partition: str, region: str, arn: str) -> str:
    """Return the URI by which the gateway invokes a function."""
    return f"arn:{partition}:apigateway:{region}:lambda:path/2015-03-31/functions/{arn}/invocations"


def bearer_scheme(authorizer_uri: str, cache_seconds: int) -> JsonObject:
    """Return the scheme of callers who come with a bearer token: a function of ours says yes or no, and whose the token is.

    Args:
        authorizer_uri: URI of the function.
        cache_seconds: for how long its answer to a token counts.
    """
    authorizer = {
        "type": "request",
        "authorizerUri": authorizer_uri,
        "authorizerPayloadFormatVersion": "2.0",
        "enableSimpleResponses": True,
        "identitySource": "$request.header.Authorization",
        "authorizerResultTtlInSeconds": cache_seconds,
    }
    return {"type": "apiKey", "name": "Authorization", "in": "header", "x-amazon-apigateway-authorizer": authorizer}


def openapi(title: str, description: str, uris: Mapping[str, str], trees: Iterable[Tree]) -> JsonObject:
    """Return the document.

    Args:
        title: becomes the API's name.
        description: becomes the API's description.
        uris: the URI of each function that answers a route.
        trees: the routes.
    """
    paths: dict[str, JsonObject] = {}
    schemes: JsonObject = {}
    for tree in trees:
        schemes[tree.scheme] = dict(tree.security)
        for operation in tree.operations:
            item = paths.setdefault(operation.path, _parameters(operation.path))
            item[operation.method.lower()] = _operation(operation, tree.scheme)
    components = {"securitySchemes": schemes, INTEGRATIONS: {name: _integration(uri) for name, uri in sorted(uris.items())}}
    info = {"title": title, "description": description, "version": "1"}
    return {"openapi": "3.0.1", "info": info, "paths": paths, "components": components}


def _operation(operation: Operation, scheme: str) -> JsonObject:
    return {
        "responses": {"default": {"description": "an answer, or an error"}},
        "security": [{scheme: []}],
        "x-amazon-apigateway-integration": {"$ref": f"#/components/{INTEGRATIONS}/{operation.function}"},
    }


def _integration(uri: str) -> JsonObject:
    return {"type": "aws_proxy", "httpMethod": "POST", "uri": uri, "payloadFormatVersion": "2.0"}


def _parameters(path: str) -> JsonObject:
    """Return what a path says of its variables; that of one which takes slashes is named with its plus, as the gateway exports it."""
    names = _VARIABLE.findall(path)
    declared = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return {"parameters": declared} if declared else {}
