"""Small words for JSON Schema 2020-12, the dialect of OpenAPI 3.1.

What a caller sends is closed: a field that nobody knows is refused, so that no field is set by accident or by guessing. What the registry
answers is open: fields are added, and a client passes over those that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]


def text(description: str = "", *, least: int | None = None, most: int | None = None, pattern: str = "") -> Schema:
    """Return the schema of a text, by its length in characters and its pattern."""
    schema: Schema = {"type": "string"}
    if least is not None:
        schema["minLength"] = least
    if most is not None:
        schema["maxLength"] = most
    if pattern:
        schema["pattern"] = pattern
    return _described(schema, description)


def one_of(*values: str, description: str = "") -> Schema:
    """Return the schema of a text that is one of these."""
    return _described({"type": "string", "enum": list(values)}, description)


def whole(description: str = "", *, least: int | None = 0, most: int | None = None) -> Schema:
    """Return the schema of a whole number."""
    schema: Schema = {"type": "integer"}
    if least is not None:
        schema["minimum"] = least
    if most is not None:
        schema["maximum"] = most
    return _described(schema, description)


def flag(description: str = "") -> Schema:
    """Return the schema of a truth value."""
    return _described({"type": "boolean"}, description)


def mapping(description: str = "", values: Schema | None = None) -> Schema:
    """Return the schema of an object whose names are not fixed."""
    schema: Schema = {"type": "object"}
    if values is not None:
        schema["additionalProperties"] = values
    return _described(schema, description)


def many(item: Schema, description: str = "", *, least: int | None = None, most: int | None = None) -> Schema:
    """Return the schema of a list."""
    schema: Schema = {"type": "array", "items": item}
    if least is not None:
        schema["minItems"] = least
    if most is not None:
        schema["maxItems"] = most
    return _described(schema, description)


def maybe(schema: Schema) -> Schema:
    """Return the schema of something that may be null."""
    if "$ref" in schema or "enum" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def told(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, description: str = "") -> Schema:
    """Return the schema of an object that the registry answers: open."""
    return _described({"type": "object", "properties": {**required, **(optional or {})}, "required": sorted(required)}, description)


def asked(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, description: str = "") -> Schema:
    """Return the schema of an object that a caller sends: closed."""
    schema = told(required, optional, description)
    if not required:
        del schema["required"]
    return {**schema, "additionalProperties": False}


def either(schemas: Sequence[Schema], description: str = "") -> Schema:
    """Return the schema of what fits at least one of these."""
    return _described({"anyOf": list(schemas)}, description)


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema


MODEL = text("The model's name.", least=1, most=63, pattern="^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
NUMBER = whole("Number of a version, counted from 1.", least=1, most=999_999_999)
SHA256 = text("SHA-256 in lower-case hex.", pattern="^[0-9a-f]{64}$")
TIME = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC."}
DAY = text("A day, UTC: `YYYY-MM-DD`.", pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
REASON = text("Why; who reads the record years later needs to know.", least=1, most=500)
ENVIRONMENT = text("Name of an environment; `production` where it is not said.", least=1, most=63)
URL = text("A URL that reads exactly these bytes until it expires, without further credentials.", least=1)
