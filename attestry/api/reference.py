"""docs/api.md: the reference, made of the table of operations.

python -m attestry.cli.main api reference > docs/api.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attestry.api.components import COMPONENTS
from attestry.api.headers import MATCHED, TAGGED, UNKEYED
from attestry.api.operation import ALL, READERS, Operation
from attestry.api.operations import OPERATIONS
from attestry.api.preface import PREFACE
from attestry.api.schema import Schema

_GROUPS: Final[Mapping[str, str]] = {
    "api": "The API itself",
    "audit": "Audited acts",
    "compliance": "Compliance",
    "conflicts": "Conflicts of interest",
    "findings": "Findings",
    "ledger": "The ledger",
    "lineage": "Lineage",
    "me": "Who calls",
    "models": "Models",
    "people": "People",
    "policies": "Policies",
    "predictions": "Predictions",
    "refreshes": "Refreshes",
    "rollouts": "Rollouts",
    "root": "The root of trust",
    "imports": "Imports",
    "submissions": "Submissions",
    "uploads": "Uploads",
    "versions": "Versions",
}


_WORDS: Final[Mapping[str, str]] = {"string": "text", "integer": "whole number", "boolean": "true or false"}


def page() -> str:
    """Return the page."""
    lines = [PREFACE.strip(), "", "## Operations", "", "| operation | request | who, by default |", "|---|---|---|"]
    lines += [f"| [`{o.id}`](#{_anchor(o)}) | `{o.route}` | {_who(o)} |" for o in OPERATIONS]
    group = ""
    for operation in sorted(OPERATIONS, key=lambda o: list(dict.fromkeys(p.group for p in OPERATIONS)).index(o.group)):
        if operation.group != group:
            group = operation.group
            lines += ["", f"## {_GROUPS.get(group, group.capitalize())}"]
        lines += ["", *_operation(operation)]
    lines += ["", "## Schemas", "", "What several operations answer. A field marked ? is not always there.", ""]
    for name, schema in COMPONENTS.items():
        lines += [f"### {name}", "", *([schema["description"], ""] if "description" in schema else []), *_fields(schema), ""]
    return "\n".join(lines).rstrip() + "\n"


def _operation(operation: Operation) -> Iterator[str]:
    yield f"### {operation.id}"
    yield ""
    yield f"`{operation.route}`: {operation.summary}" + (f" {operation.note}" if operation.note else "")
    if operation.query:
        yield ""
        yield from _table("query", {p.name: p.schema for p in operation.query}, [p.name for p in operation.query if p.required])
    if operation.body is not None:
        yield ""
        if operation.body["properties"]:
            yield from _table("body", operation.body["properties"], operation.body.get("required", ()))
        else:
            yield "The body is an empty object."
    yield ""
    answered = " or ".join(str(status) for status in operation.status)
    shown = _type(operation.answer)
    if operation.answer.get("properties"):
        yield f"Answers {answered}:"
        yield ""
        yield from _fields(operation.answer)
    else:
        yield f"Answers {answered}: {shown}."
    yield from _heeds(operation)
    if operation.errors:
        yield ""
        yield f"Errors besides those of every operation: {', '.join(map(str, operation.errors))}."


def _heeds(operation: Operation) -> Iterator[str]:
    if operation.id in TAGGED:
        yield from ("", "The answer has an `ETag`; `If-None-Match` is heeded.")
    if operation.id in MATCHED:
        yield from ("", f"Heeds `If-Match`, with the `ETag` of `{MATCHED[operation.id]}`.")
    if operation.id in UNKEYED:
        yield from ("", f"Takes no `Idempotency-Key`. {UNKEYED[operation.id]}")


def _fields(schema: Schema) -> Iterator[str]:
    yield from _table("field", schema.get("properties", {}), schema.get("required", ()))


def _table(what: str, properties: Mapping[str, Schema], required: Any) -> Iterator[str]:
    yield f"| {what} | type | |"
    yield "|---|---|---|"
    for name, schema in properties.items():
        yield f"| `{name}`{'' if name in required else ' ?'} | {_type(schema)} | {_cell(_description(schema))} |"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    told = schema.get("type", "anything")
    kinds: list[str] = told if isinstance(told, list) else [told]
    words: list[str] = []
    for kind in kinds:
        if kind == "array":
            words.append(f"list of {_type(schema['items'])}")
        elif kind == "object" and schema.get("properties"):
            words.append("{" + ", ".join(f"`{name}`" for name in schema["properties"]) + "}")
        else:
            words.append(_WORDS.get(kind, kind))
    return " or ".join(words) + _limits(schema)


def _limits(schema: Schema) -> str:
    for low, high, unit in (("minLength", "maxLength", " characters"), ("minimum", "maximum", ""), ("minItems", "maxItems", " of them")):
        if low in schema and high in schema:
            return f", {schema[low]} to {schema[high]}{unit}"
        if high in schema:
            return f", at most {schema[high]}{unit}"
    return ""


def _description(schema: Schema) -> str:
    if "description" in schema:
        return str(schema["description"])
    return next((str(one["description"]) for one in schema.get("anyOf", ()) if "description" in one), "")


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def _who(operation: Operation) -> str:
    if operation.roles == ALL:
        return "every role"
    return "every role but consumer" if operation.roles == READERS else ", ".join(operation.roles)


def _anchor(operation: Operation) -> str:
    return operation.id.replace(".", "")
