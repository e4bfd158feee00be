"""Lineage and compliance as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree


def lineage_tree(graph: Mapping[str, Any]) -> RenderableType:
    """Return two trees from the start: what it was made of, and what was made of it."""
    nodes = {n["id"]: n for n in graph["nodes"]}
    up: dict[str, list[tuple[str, str]]] = defaultdict(list)
    down: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for edge in graph["edges"]:
        up[edge["to"]].append((edge["from"], edge["role"]))
        down[edge["from"]].append((edge["to"], edge["role"]))
    start = graph["start"]
    parts: list[RenderableType] = [_label(nodes[start], "")]
    for title, edges in (("made of", up), ("made of it", down)):
        if edges.get(start):
            tree = Tree(Text(title, style="dim"))
            _grow(tree, start, edges, nodes, {start})
            parts.append(tree)
    if graph.get("truncated"):
        parts.append(Text("More is there than is shown; begin at a node further on.", style="yellow"))
    return Group(*parts)


def compliance_table(answer: Mapping[str, Any]) -> RenderableType:
    """Return the deployed versions and what their lineage lacks."""
    table = Table("version", "environment", "lineage", "what is missing or does not hold", box=None, pad_edge=False, header_style="dim")
    for row in answer["deployed"]:
        lacking = "; ".join(f"{s['step']}: {s['detail']}" for s in row["failed"])
        verdict = Text("complete and verified", style="green") if row["complete"] else Text("not complete", style="bold red")
        table.add_row(f"{row['model']}@{row['version']}", row["environment"], verdict, Text(lacking))
    count = Text(f"{len(answer['deployed'])} versions in production, {answer['incomplete']} without complete, verified lineage")
    return Group(table, count)


def _grow(tree: Tree, at: str, edges: Mapping[str, list[tuple[str, str]]], nodes: Mapping[str, Any], above: set[str]) -> None:
    for other, role in sorted(edges.get(at, [])):
        if other in above:
            continue
        branch = tree.add(_label(nodes[other], role))
        _grow(branch, other, edges, nodes, {*above, other})


def _label(node: Mapping[str, Any], role: str) -> Text:
    facts = ", ".join(f"{k} {v}" for k, v in (node.get("facts") or {}).items() if v not in (None, ""))
    text = Text()
    text.append(f"{node['kind']} ", style="cyan")
    text.append(str(node["name"]), style="bold")
    if role and role != node["kind"]:
        text.append(f"  ({role})", style="dim")
    if facts:
        text.append(f"  {facts}", style="dim")
    return text
