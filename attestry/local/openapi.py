"""What API Gateway makes of an OpenAPI document that it imports as an HTTP API: routes, integrations and authorizers. Pure.

Read is what the template of this project has, in the form that AWS documents for HTTP APIs ("Working with OpenAPI definitions for HTTP
APIs", and the extensions `x-amazon-apigateway-integration`, `-integrations`, `-authorizer` and `-authtype`):
- each operation is a route, whose key is its method and its path;
- its integration is a reference into the components;
- its security names one scheme: IAM's (`awsSigv4`), or one with a Lambda authorizer.

Everything else is refused and not passed over. AWS makes an open route of an operation without security; here that is an error, so that a
template which lost a scheme is never deployed for a test to find it working.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})
_INTEGRATIONS: Final = "x-amazon-apigateway-integrations"
_REFERENCE: Final = f"#/components/{_INTEGRATIONS}/"
_OPERATION: Final = {"responses", "security", "x-amazon-apigateway-integration"}
_INTEGRATION: Final = {
    "type": "IntegrationType",
    "httpMethod": "IntegrationMethod",
    "uri": "IntegrationUri",
    "payloadFormatVersion": "PayloadFormatVersion",
}
_AUTHORIZER: Final = {
    "authorizerUri": "AuthorizerUri",
    "authorizerPayloadFormatVersion": "AuthorizerPayloadFormatVersion",
    "enableSimpleResponses": "EnableSimpleResponses",
    "identitySource": "IdentitySource",
    "authorizerResultTtlInSeconds": "AuthorizerResultTtlInSeconds",
}


class ImportRefusedError(ValueError):
    """A document that is not of the form which is read here."""


@dataclass(frozen=True)
class ImportedRoute:
    """A route.

    Attributes:
        key: method and path.
        authorization: `AWS_IAM`, or `CUSTOM` for a Lambda authorizer.
        authorizer: name of the authorizer; empty under IAM.
        integration: name of the integration.
    """

    key: str
    authorization: str
    authorizer: str
    integration: str


@dataclass(frozen=True)
class Imported:
    """What a document makes.

    Attributes:
        title, description: name and description of the API.
        routes: the routes.
        integrations: by name, the properties that CloudFormation has for one (`AWS::ApiGatewayV2::Integration`).
        authorizers: the same (`AWS::ApiGatewayV2::Authorizer`).
    """

    title: str
    description: str
    routes: tuple[ImportedRoute, ...]
    integrations: Mapping[str, Mapping[str, Any]]
    authorizers: Mapping[str, Mapping[str, Any]]

    def in_force(self) -> dict[str, tuple[str, str, str]]:
        """Return for each route how it is authorised, and the URIs of its authorizer (empty under IAM) and of what it invokes."""
        return {
            route.key: (
                route.authorization,
                str(self.authorizers[route.authorizer]["AuthorizerUri"]) if route.authorizer else "",
                str(self.integrations[route.integration]["IntegrationUri"]),
            )
            for route in self.routes
        }


def read_openapi(document: Mapping[str, Any]) -> Imported:
    """Return what a document makes.

    Raises:
        ImportRefusedError: it holds what is not read here, or an operation that would be open or lead nowhere.
    """
    if not str(document.get("openapi", "")).startswith("3.0."):
        raise ImportRefusedError("an OpenAPI document of version 3.0 is needed")
    components = document.get("components") or {}
    integrations = {name: _named(name, entry, _INTEGRATION) for name, entry in (components.get(_INTEGRATIONS) or {}).items()}
    schemes = components.get("securitySchemes") or {}
    authorizers = dict(_authorizers(schemes))
    routes = tuple(_routes(document.get("paths") or {}, schemes, authorizers))
    if missing := sorted({route.integration for route in routes} - integrations.keys()):
        raise ImportRefusedError(f"there is no integration {missing[0]}")
    info = document.get("info") or {}
    return Imported(str(info.get("title", "")), str(info.get("description", "")), routes, integrations, authorizers)


def _authorizers(schemes: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, scheme in schemes.items():
        told = dict(scheme.get("x-amazon-apigateway-authorizer") or {})
        if scheme.get("x-amazon-apigateway-authtype") == "awsSigv4" and not told:
            continue
        if told.pop("type", "") != "request":
            raise ImportRefusedError(f"the scheme {name} is neither IAM's nor one with a Lambda authorizer")
        properties = _named(name, told, _AUTHORIZER)
        sources = [source.strip() for source in str(properties["IdentitySource"]).split(",")]
        yield name, {**properties, "IdentitySource": sources, "AuthorizerType": "REQUEST", "Name": name}


def _named(name: str, entry: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    if entry.keys() != fields.keys():
        raise ImportRefusedError(f"{name} has other fields than {', '.join(fields)}: {', '.join(sorted(entry.keys() ^ fields.keys()))}")
    made = {fields[field]: value for field, value in entry.items()}
    return {**made, "IntegrationType": str(made["IntegrationType"]).upper()} if "IntegrationType" in made else made


def _routes(paths: Mapping[str, Any], schemes: Mapping[str, Any], authorizers: Mapping[str, Any]) -> Iterator[ImportedRoute]:
    for path, item in paths.items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            key = f"{method.upper()} {path}"
            if method not in METHODS or operation.keys() != _OPERATION:
                raise ImportRefusedError(f"{key} is no operation of the form that is read here")
            # One requirement of one scheme: an empty one beside it would mean that the scheme may be left out.
            named = [tuple(requirement) for requirement in operation["security"]]
            if len(named) != 1 or len(named[0]) != 1 or named[0][0] not in schemes:
                raise ImportRefusedError(f"{key} does not name one scheme, so it would be open")
            (scheme,) = named[0]
            reference = operation["x-amazon-apigateway-integration"]
            integration = str(reference.get("$ref", "")).removeprefix(_REFERENCE)
            custom = scheme in authorizers
            yield ImportedRoute(key, "CUSTOM" if custom else "AWS_IAM", scheme if custom else "", integration)
