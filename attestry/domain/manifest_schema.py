"""The JSON Schema of the manifest, and its errors as sentences for people.

The schema (`attestry/schemas/manifest.schema.json`, JSON Schema 2020-12) documents every field too; the sentences quote
it. Each problem has the field, a rule, and the line. A field has at most one problem of its value, so that one slip
does not tell three times.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from attestry.domain.errors import Problem
from attestry.domain.manifest_source import Path, SourceText, join_path

_RULES = {
    "additionalProperties": "unknown_field",
    "const": "one_of",
    "enum": "one_of",
    "exclusiveMinimum": "minimum",
    "maxItems": "length",
    "maxLength": "length",
    "maxProperties": "length",
    "minItems": "length",
    "minLength": "length",
    "uniqueItems": "unique",
}
_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
_LIMITS = {
    "minimum": "must be at least {}",
    "exclusiveMinimum": "must be more than {}",
    "maximum": "must be at most {}",
    "maxLength": "has more than {} characters",
    "minLength": "is empty",
    "minItems": "needs at least {} item",
    "maxItems": "has more than {} items",
    "maxProperties": "has more than {} entries",
    "uniqueItems": "names an item twice",
}
_MANY = 12
_LOOKS_BOOLEAN = frozenset({"yes", "no", "on", "off", "y", "n"})
_SECRET_PRONE = ("source", "repository")
"""A repository URL may hold a password, so its value is never repeated."""


@cache
def load_schema() -> dict[str, Any]:
    """Return the schema; callers do not change it."""
    text = (files("attestry") / "schemas" / "manifest.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def describe_field(path: Sequence[str | int]) -> dict[str, Any] | None:
    """Return the part of the schema that describes a field, `$ref` resolved, or None for a field that cannot exist.

    Args:
        path: keys from the root; any integer stands for an item of a list.
    """
    node = load_schema()
    for part in path:
        if isinstance(part, int):
            child = node.get("items")
        else:
            child = node.get("properties", {}).get(part)
            extra = node.get("additionalProperties")
            if child is None and isinstance(extra, dict):
                child = extra
        if child is None:
            return None
        node = _resolve(child)
    return node


@cache
def field_names() -> tuple[str, ...]:
    """Return the dotted name of every field that has one, `[]` behind the name of a list whose items have fields."""

    def walk(node: dict[str, Any], path: str) -> Iterator[str]:
        for name, child in node.get("properties", {}).items():
            below = _resolve(child)
            field = f"{path}.{name}" if path else name
            yield field
            yield from walk(below, field)
            yield from walk(_resolve(below.get("items", {})), f"{field}[]")

    return tuple(walk(load_schema(), ""))


def find_schema_problems(source: SourceText, *, draft: bool) -> list[Problem]:
    """Return what the schema has against the text's value.

    Args:
        source: a text whose value is a mapping.
        draft: allow that fields are missing which `complete_manifest` fills in.
    """
    told = {problem.field for problem in source.problems}
    problems: list[Problem] = []
    for error in _validator().iter_errors(source.value):
        for path, rule, message, at in _translate(error, source):
            name = join_path(path)
            if name in told or (draft and rule == "required" and _may_be_filled_in(path, source.value)):
                continue
            told.add(name)
            problems.append(Problem(name, rule, message, source.line_of(at)))
    return problems


def suggest(word: str, allowed: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` where an allowed word is near, else an empty text."""
    near = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6) or [a for a in allowed if word and a.startswith(word)][:1]
    return f"; did you mean '{near[0]}'?" if near else ""


@cache
def _validator() -> Any:
    validator: Any = extend  # types-jsonschema leaves it untyped
    return validator(Draft202012Validator, {"pattern": _check_pattern})(load_schema())


def _check_pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """Check a pattern as ECMA 262 means it: `$` is the end of the text, where Python's also stands before a last line feed."""
    if isinstance(instance, str) and re.search(re.sub(r"(?<!\\)\$$", r"\\Z", pattern), instance) is None:
        yield ValidationError("pattern")


def _translate(error: ValidationError, source: SourceText) -> Iterator[tuple[Path, str, str, Path]]:
    """Yield path, rule, message and the path whose line is shown."""
    path: Path = tuple(error.absolute_path)
    value: Any = error.instance
    schema: Any = error.schema
    wanted: Any = error.validator_value
    rule = _RULES.get(str(error.validator), str(error.validator))
    if error.validator == "required":
        for name in wanted:
            if name not in value:
                yield (*path, name), rule, f"is missing: {_described((*path, name))}", path
    elif error.validator == "additionalProperties":
        allowed = sorted(schema["properties"])
        for name in value:
            if name not in allowed:
                hint = suggest(name, allowed)
                yield ((*path, name), rule, f"is not known here{hint or '.'} Allowed: {', '.join(allowed)}", (*path, name))
    elif "propertyNames" in error.absolute_schema_path:
        yield ((*path, value), "name", "is no name for this: use a letter, then letters, digits, '_' or '-', at most 64", (*path, value))
    else:
        yield path, rule, _say(error, path, source), path


def _say(error: ValidationError, path: Path, source: SourceText) -> str:
    keyword = str(error.validator)
    value: Any = error.instance
    wanted: Any = error.validator_value
    if value is None:
        return f"has no value: {_described(path)}"
    if keyword == "type":
        return _say_type(wanted, value, source.unquoted.get(path))
    if keyword in ("enum", "const"):
        allowed = [str(w) for w in (wanted if keyword == "enum" else [wanted])]
        hint = suggest(value, allowed) if isinstance(value, str) else ""
        choice = "" if hint and len(allowed) > _MANY else f"{'' if hint else ';'} use one of: {', '.join(allowed)}"
        return f"{_shown(value, path)} is not allowed{hint}{choice}"
    if keyword == "pattern":
        examples = (describe_field(path) or {}).get("examples", [])
        example = f" For example: {examples[0]}" if examples and isinstance(examples[0], str) else ""
        return f"{_shown(value, path)} does not fit: {_described(path)}{example}"
    if keyword in _LIMITS:
        return (f"is {value}; " if isinstance(value, int | float) else "") + _LIMITS[keyword].format(wanted)
    return error.message


def _say_type(wanted: str | list[str], value: Any, written: str | None) -> str:
    names = [_TYPES[w] for w in ([wanted] if isinstance(wanted, str) else wanted)]
    if "whole number" in " ".join(names) and "a number" in names:
        names.remove("a whole number")
    text = f"must be {names[0] if len(names) == 1 else ', '.join(names[:-1]) + ' or ' + names[-1]}"
    if wanted == "string" and written is not None:
        return f'{text}; put {written} in quotes: "{written}"'
    if wanted == "boolean" and isinstance(value, str) and value.lower() in _LOOKS_BOOLEAN:
        return f"{text}; {value} is text in YAML 1.2"
    return f"{text}, not {_kind(value)}"


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return kinds.get(type(value), "that")


def _described(path: Path) -> str:
    return str((describe_field(path) or {}).get("description", "see docs/manifest.md"))


def _shown(value: Any, path: Path) -> str:
    if path == _SECRET_PRONE:
        return "the URL"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else f"{text[:76]}..."


def _may_be_filled_in(path: Path, value: Any) -> bool:
    """Return whether `complete_manifest` fills the missing field in."""
    match path:
        case ("source",) | ("source", "repository" | "revision" | "author" | "sha256"):
            return True
        case ("data", "source", int(index), "sha256"):
            uri = value["data"]["source"][index].get("uri")
            return isinstance(uri, str) and not uri.startswith("s3://")
    return False


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    target = load_schema()["$defs"][reference.removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
