"""Writes the reference part of docs/manifest.md out of the schema: `python -m tests.unit.manifest_reference`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from attestry.domain.manifest_schema import describe_field, load_schema
from attestry.domain.metrics import METRIC_FUNCTIONS

PAGE = Path(__file__).parents[2] / "docs" / "manifest.md"
BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"
KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "array": "list", "object": "mapping"}


def render_reference() -> str:
    """Return the reference of all sections, and the table of metrics."""
    schema = load_schema()
    parts = [render_section(name, required=name in schema["required"]) for name in schema["properties"]]
    return "\n".join([*parts, render_metrics()])


def render_section(name: str, *, required: bool) -> str:
    node = describe_field([name]) or {}
    rows = list(rows_of([name], name, node, required=required))
    table = ["| field | what it is | value | without it |", "|---|---|---|---|", *(rows[1:] or rows)]
    return "\n".join([f"### `{name}`", "", node["description"], "", *table, ""])


def rows_of(path: list[str | int], name: str, node: dict[str, Any], *, required: bool) -> list[str]:
    rows = [row(name, node, required=required)]
    if name == "deployment.promotion[].people":
        return rows
    if node.get("title") == "Resources":
        return [*rows, *([] if name != "processing.resources" else children(path, name, node))]
    if "properties" in node:
        rows += children(path, name, node)
    item = describe_field([*path, 0]) if node.get("type") == "array" else None
    if item and "properties" in item:
        rows += children([*path, 0], f"{name}[]", item)
    return rows


def children(path: list[str | int], name: str, node: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for key in node["properties"]:
        child = describe_field([*path, key]) or {}
        found += rows_of([*path, key], f"{name}.{key}", child, required=key in node.get("required", []))
    return found


def row(name: str, node: dict[str, Any], *, required: bool) -> str:
    default = f"`{json.dumps(node['default'])}`" if "default" in node else "left out"
    cells = [f"`{name}`", node["description"], value_of(name, node), "**required**" if required else default]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def value_of(name: str, node: dict[str, Any]) -> str:
    if name == "validation.metrics[].name":
        return "a name of [the table below](#metrics)"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if name.endswith(".resources") and name != "processing.resources":
        return "mapping, as `processing.resources`"
    if name == "deployment.promotion[].people":
        return "mapping, as `approval.people`"
    kind = node.get("type", "whole number" if "const" in node else "text")
    text = " or ".join(KINDS[k] for k in kind) if isinstance(kind, list) else KINDS.get(kind, kind)
    if "minimum" in node or "maximum" in node:
        text += f", {node.get('minimum', 'more than 0')} to {node['maximum']}" if "maximum" in node else f", at least {node['minimum']}"
    if "properties" in node or "properties" in node.get("items", {}):
        return text
    examples = node.get("examples", [])
    return f"{text}; for example `{json.dumps(examples[0], ensure_ascii=False)}`" if examples else text


def render_metrics() -> str:
    rows = [f"| `{f.name}` | {f.task} | {f.reads} | {f.better} |" for f in METRIC_FUNCTIONS.values()]
    head = ["### Metrics", "", "Functions of `sklearn.metrics`; parameters are their keyword arguments.", ""]
    return "\n".join([*head, "| `validation.metrics[].name` | task | reads | better is |", "|---|---|---|---|", *rows, ""])


def replace_reference(page: str) -> str:
    """Return the page with its reference as the schema has it."""
    return re.sub(rf"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{render_reference()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(replace_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
