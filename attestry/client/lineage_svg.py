"""A lineage graph as an SVG picture: columns from what was used to what was made, one box per node.

The picture holds no script and refers to nothing, so it can be kept and printed; every text in it is escaped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

BOX_WIDTH, BOX_HEIGHT = 230, 58
GAP_X, GAP_Y = 90, 18
MARGIN, HEADER = 28, 40
_COLUMNS = {
    "commit": 0,
    "candidate": 0,
    "environment": 0,
    "source": 0,
    "dataset": 1,
    "version": 2,
    "deployment": 3,
    "key": 4,
    "prediction": 5,
}
_TITLES = ("what it was made of", "prepared data", "versions", "deployments", "predictions", "prediction")
_COLOURS = {
    "commit": "#6b5b95",
    "candidate": "#6b5b95",
    "environment": "#6b5b95",
    "source": "#2f6f9f",
    "dataset": "#2f6f9f",
    "version": "#1d7a4c",
    "deployment": "#b5651d",
    "key": "#8a3b5c",
    "prediction": "#8a3b5c",
}
_LABELS = {"key": "predictions", "source": "source data", "dataset": "data set"}


@dataclass(frozen=True)
class _Box:
    x: int
    y: int


def draw_lineage(graph: Mapping[str, Any]) -> str:
    """Return the SVG document of a graph in the API's form (`start`, `nodes`, `edges`, `truncated`)."""
    columns = _columns(graph)
    boxes: dict[str, _Box] = {}
    tallest = max(len(nodes) for nodes in columns.values())
    for place, column in enumerate(sorted(columns)):
        nodes = columns[column]
        offset = (tallest - len(nodes)) * (BOX_HEIGHT + GAP_Y) // 2
        for row, node in enumerate(nodes):
            boxes[node["id"]] = _Box(MARGIN + place * (BOX_WIDTH + GAP_X), MARGIN + HEADER + offset + row * (BOX_HEIGHT + GAP_Y))
    width = 2 * MARGIN + len(columns) * BOX_WIDTH + (len(columns) - 1) * GAP_X
    height = 2 * MARGIN + HEADER + tallest * (BOX_HEIGHT + GAP_Y)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif" font-size="12">',
        f"<title>Lineage of {escape(str(graph['start']))}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_headings(columns),
        *(_edge(boxes[e["from"]], boxes[e["to"]], str(e["role"])) for e in _shown_edges(graph["edges"])),
        *(_box(node, boxes[node["id"]], is_start=node["id"] == graph["start"]) for nodes in columns.values() for node in nodes),
    ]
    if graph.get("truncated"):
        parts.append(f'<text x="{MARGIN}" y="{height - 10}" fill="#a33">More is there than is shown.</text>')
    return "\n".join([*parts, "</svg>", ""])


def _shown_edges(edges: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the edges but those that say in one step what the picture shows in two: source data by way of a prepared set."""
    prepared = {e["from"] for e in edges if e["role"] == "prepared"}
    return [e for e in edges if e["role"] != "source data" or e["from"] not in prepared]


def _columns(graph: Mapping[str, Any]) -> dict[int, list[Mapping[str, Any]]]:
    columns: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for node in graph["nodes"]:
        columns[_COLUMNS[node["kind"]]].append(node)
    for nodes in columns.values():
        nodes.sort(key=lambda n: (list(_COLUMNS).index(n["kind"]), _natural(n["name"])))
    return columns


def _natural(name: str) -> tuple[str, int]:
    head, _, number = name.replace("/", "@").partition("@")
    digits = number.partition("@")[0]
    return head, int(digits) if digits.isdigit() else 0


def _headings(columns: Mapping[int, Any]) -> list[str]:
    return [
        f'<text x="{MARGIN + place * (BOX_WIDTH + GAP_X)}" y="{MARGIN + 12}" fill="#555" font-weight="600">{_TITLES[column]}</text>'
        for place, column in enumerate(sorted(columns))
    ]


def _edge(source: _Box, target: _Box, role: str) -> str:
    x1, y1 = source.x + BOX_WIDTH, source.y + BOX_HEIGHT // 2
    x2, y2 = target.x, target.y + BOX_HEIGHT // 2
    if x2 <= source.x:
        x1, x2 = source.x, target.x + BOX_WIDTH
    bend = (x1 + x2) // 2
    path = f"M {x1} {y1} C {bend} {y1}, {bend} {y2}, {x2} {y2}"
    return f'<path d="{path}" fill="none" stroke="#9aa5b1" stroke-width="1.4"><title>{escape(role)}</title></path>'


def _box(node: Mapping[str, Any], box: _Box, *, is_start: bool) -> str:
    colour = _COLOURS[node["kind"]]
    frame = f'fill="#fbfcfd" stroke="{colour}" stroke-width="{3 if is_start else 1}"'
    kind = _LABELS.get(node["kind"], node["kind"])
    return (
        f"<g><title>{escape(str(node['id']))}</title>"
        f'<rect x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" {frame}/>'
        f'<rect x="{box.x}" y="{box.y}" width="5" height="{BOX_HEIGHT}" rx="2" fill="{colour}"/>'
        f'<text x="{box.x + 14}" y="{box.y + 17}" fill="{colour}" font-size="10.5">{escape(kind)}</text>'
        f'<text x="{box.x + 14}" y="{box.y + 33}" fill="#1b1f24" font-weight="600">{escape(_short(str(node["name"])))}</text>'
        f'<text x="{box.x + 14}" y="{box.y + 49}" fill="#57606a" font-size="10.5">{escape(_facts(node))}</text></g>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:16]}…{name[-6:]}"


def _facts(node: Mapping[str, Any]) -> str:
    facts = node.get("facts") or {}
    wanted = {
        "version": ("standing", "submitted_by"),
        "deployment": ("environment", "at"),
        "key": ("predictions", "issued"),
        "dataset": ("name", "bytes"),
        "source": ("name", "bytes"),
    }.get(node["kind"], ())
    units = {"bytes": " bytes", "predictions": " sealed"}
    shown = [_fact(k, str(facts[k])) + units.get(k, "") for k in wanted if facts.get(k) is not None]
    return " · ".join(shown)


def _fact(name: str, value: str) -> str:
    if name in ("at", "issued"):
        return value[:19]
    return value if len(value) <= 24 else f"{value[:23]}…"
