"""Lineage: what a version was made of, and what was made with it, as a graph.

Rules:
- A node is named by kind and name, `dataset:<digest>`; wherever bytes have a digest, the digest is the name.
- An edge goes from what was used to what was made of it: source data → data set → version → deployment → predictions.
- Predictions are shown by the signing key that made them, with their count; a single one is a node when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from attestry.domain.errors import InvalidInputError


class NodeKind(StrEnum):
    """What a node is, in the order in which one is made of another."""

    COMMIT = "commit"
    CANDIDATE = "candidate"
    ENVIRONMENT = "environment"
    SOURCE = "source"
    DATASET = "dataset"
    VERSION = "version"
    DEPLOYMENT = "deployment"
    KEY = "key"
    PREDICTION = "prediction"


INPUTS = (NodeKind.COMMIT, NodeKind.CANDIDATE, NodeKind.ENVIRONMENT, NodeKind.SOURCE, NodeKind.DATASET)
"""Kinds that versions are made of; from each of them the versions can be found."""

BY_DIGEST = (NodeKind.CANDIDATE, NodeKind.ENVIRONMENT, NodeKind.SOURCE, NodeKind.DATASET)

_NAMES: Mapping[NodeKind, re.Pattern[str]] = {
    NodeKind.COMMIT: re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?"),
    NodeKind.CANDIDATE: re.compile(r"[0-9a-f]{64}"),
    NodeKind.ENVIRONMENT: re.compile(r"[0-9a-f]{64}"),
    NodeKind.SOURCE: re.compile(r"[0-9a-f]{64}"),
    NodeKind.DATASET: re.compile(r"[0-9a-f]{64}"),
    NodeKind.VERSION: re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?@[1-9][0-9]{0,8}"),
    NodeKind.DEPLOYMENT: re.compile(r"[a-z0-9][a-z0-9-]*@[1-9][0-9]{0,8}/[1-9][0-9]*"),
    NodeKind.KEY: re.compile(r"[a-z2-7]{52}"),
    NodeKind.PREDICTION: re.compile(r"[a-z2-7]{52}-[1-9][0-9]{0,11}"),
}
_PLAIN = (NodeKind.VERSION, NodeKind.PREDICTION, NodeKind.KEY)


@dataclass(frozen=True, order=True)
class Node:
    """A thing in the graph.

    Attributes:
        kind: what it is.
        name: its name among its kind: a digest, a commit, `MODEL@N`, `MODEL@N/<transition>` of a deployment, a key or prediction ID.
    """

    kind: NodeKind
    name: str

    def __post_init__(self) -> None:
        if _NAMES[self.kind].fullmatch(self.name) is None:
            raise InvalidInputError.of("node", "node", f"{self.name!r} is no name of a {self.kind}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Edge:
    """One thing made of another.

    Attributes:
        source: what was used.
        target: what was made.
        role: as what: `training`, `hold-out`, `source data`, `code`, ...
    """

    source: Node
    target: Node
    role: str


@dataclass
class Graph:
    """What a walk found.

    Attributes:
        start: where it began.
        nodes: facts of each node.
        edges: the edges, each once.
        truncated: whether the walk ended at its limit, so that more is there than is shown.
    """

    start: Node
    nodes: dict[Node, dict[str, Any]] = field(default_factory=dict)
    edges: set[Edge] = field(default_factory=set)
    truncated: bool = False

    def to_item(self) -> dict[str, Any]:
        """Return the graph as JSON: `start`, `nodes` (`id`, `kind`, `name`, `facts`), `edges` (`from`, `to`, `role`), `truncated`."""
        return {
            "start": str(self.start),
            "nodes": [{"id": str(n), "kind": n.kind.value, "name": n.name, "facts": self.nodes[n]} for n in sorted(self.nodes)],
            "edges": sorted(
                ({"from": str(e.source), "to": str(e.target), "role": e.role} for e in self.edges),
                key=lambda e: (e["from"], e["to"], e["role"]),
            ),
            "truncated": self.truncated,
        }


def read_node(text: str) -> tuple[Node, ...]:
    """Return what a text may name: a version, a prediction or key ID, a commit, a digest, or `kind:name`.

    A digest alone can be of several kinds; all are returned, and the caller sees which one is known.

    Raises:
        InvalidInputError: the text names nothing.
    """
    kind, colon, name = text.partition(":")
    if colon:
        if kind not in [k.value for k in NodeKind]:
            raise InvalidInputError.of("node", "kind", f"{kind!r} is none of {', '.join(NodeKind)}")
        return (Node(NodeKind(kind), name),)
    for plain in _PLAIN:
        if _NAMES[plain].fullmatch(text):
            return (Node(plain, text),)
    if _NAMES[NodeKind.CANDIDATE].fullmatch(text):
        return tuple(Node(k, text) for k in (*BY_DIGEST, NodeKind.COMMIT))
    if _NAMES[NodeKind.COMMIT].fullmatch(text):
        return (Node(NodeKind.COMMIT, text),)
    raise InvalidInputError.of(
        "node", "node", f"{text!r} is no MODEL@N, prediction ID, commit, SHA-256, or kind:name with a kind of {', '.join(NodeKind)}"
    )
