"""Lineage: walk the graph of what was made of what, backwards and forwards, from any node.

Backwards everything is in the rows of the version. Forwards, from data, commits and environments to versions, there is an edge row per
input, written in the transaction that records PROCESSING; whoever walks meets each node once, and at most `MAX_NODES` of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.lineage import INPUTS, Edge, Graph, Node, NodeKind, read_node
from attestry.domain.replay import PLACINGS
from attestry.domain.version import DataSet, Version
from attestry.evidence.prediction_id import PredictionId
from attestry.ports import Item, Key, MetaStore, ObjectStore, Put, When
from attestry.usecases.manifests import load_manifest
from attestry.usecases.records import version_key
from attestry.usecases.sign import delegation_key

MAX_NODES = 500
MAX_DEPTH = 20
DIRECTIONS = ("up", "down", "both")
_ROLES = {
    NodeKind.COMMIT: "code",
    NodeKind.CANDIDATE: "manifest",
    NodeKind.ENVIRONMENT: "environment",
}


def edge_partition(node: Node) -> str:
    """Return the partition of the rows that lead from an input to what was made of it."""
    return f"EDGE#{node}"


def edge_puts(version: Version, revision: str) -> list[Put]:
    """Return the rows by which the version is found from its inputs; the same again writes the same.

    Args:
        version: with its data sets and environment.
        revision: the commit that the manifest names; empty where there is none.
    """
    edges = list(_inputs(version, revision))
    return [
        Put(Key(edge_partition(e.source), str(e.target)), {"source": str(e.source), "target": str(e.target), "role": e.role}, When())
        for e in sorted(edges, key=lambda e: (e.source, e.target))
    ]


def _inputs(version: Version, revision: str) -> Iterator[Edge]:
    """Yield the edges into a version and into its prepared data."""
    target = Node(NodeKind.VERSION, version.reference)
    plain = [*([(NodeKind.COMMIT, revision)] if revision else []), (NodeKind.CANDIDATE, version.candidate)]
    if version.environment is not None:
        plain.append((NodeKind.ENVIRONMENT, version.environment.id))
    for kind, name in plain:
        yield Edge(Node(kind, name), target, _ROLES[kind])
    if version.cause.get("parent") is not None:
        yield Edge(Node(NodeKind.VERSION, f"{version.model}@{version.cause['parent']}"), target, str(version.cause["kind"]))
    sources = [d for d in version.datasets if d.name.startswith("source/")]
    prepared = {Node(NodeKind.DATASET, d.digest): d.name for d in version.datasets if not d.name.startswith("source/")}
    for node, name in prepared.items():
        yield Edge(node, target, name)
    for source in {Node(NodeKind.SOURCE, d.digest) for d in sources}:
        # Where nothing is prepared yet, or to be found in one step, the source leads to the version as well.
        yield Edge(source, target, "source data")
        for node in prepared:
            yield Edge(source, node, "prepared")


class LineageWalker:
    """Walks the graph."""

    def __init__(self, meta: MetaStore, store: ObjectStore, *, limit: int = MAX_NODES) -> None:
        """Take the ports.

        Args:
            meta: the table.
            store: the model store, for the manifests.
            limit: how many nodes a walk meets at most.
        """
        self._meta = meta
        self._store = store
        self._limit = limit
        self._versions: dict[str, tuple[Version, list[Item]]] = {}

    def walk(self, text: str, *, direction: str = "both", depth: int = MAX_DEPTH) -> Graph:
        """Return the graph around a node.

        Args:
            text: what `attestry.domain.lineage.read_node` reads.
            direction: `up` to what it was made of, `down` to what was made of it, or `both`.
            depth: how many steps at most.

        Raises:
            InvalidInputError: no node, direction or depth.
            NotFoundError: nothing of that name is known.
        """
        if direction not in DIRECTIONS:
            raise InvalidInputError.of("direction", "enum", f"the direction is one of {', '.join(DIRECTIONS)}")
        if not 1 <= depth <= MAX_DEPTH:
            raise InvalidInputError.of("depth", "range", f"the depth is 1 to {MAX_DEPTH}")
        start = self._known(read_node(text), text)
        graph = Graph(start)
        graph.nodes[start] = self._facts(start)
        for way in ("up", "down"):
            if direction in (way, "both"):
                self._spread(graph, start, way, depth)
        return graph

    def _spread(self, graph: Graph, start: Node, way: str, depth: int) -> None:
        met = {start}
        queue = deque([(start, 0)])
        while queue:
            node, steps = queue.popleft()
            if steps >= depth:
                continue
            for edge in self._up(node) if way == "up" else self._down(node):
                other = edge.source if way == "up" else edge.target
                if other not in graph.nodes and len(graph.nodes) >= self._limit:
                    graph.truncated = True
                    continue
                if other not in graph.nodes:
                    graph.nodes[other] = self._facts(other)
                graph.edges.add(edge)
                if other not in met:
                    met.add(other)
                    queue.append((other, steps + 1))

    def _known(self, nodes: tuple[Node, ...], text: str) -> Node:
        for node in nodes:
            if node.kind in INPUTS:
                if self._meta.query(edge_partition(node), limit=1):
                    return node
            elif node.kind in (NodeKind.VERSION, NodeKind.DEPLOYMENT):
                self._version(node.name.partition("/")[0])
                return node
            elif self._meta.get(delegation_key(_kid(node))) is not None:
                return node
        raise NotFoundError(f"nothing that is called {text} has made, or was used by, a version here")

    def _up(self, node: Node) -> Iterator[Edge]:
        if node.kind is NodeKind.PREDICTION:
            yield Edge(Node(NodeKind.KEY, _kid(node)), node, "signed")
        elif node.kind is NodeKind.KEY:
            yield Edge(self._deployment_of(node), node, "predictions")
        elif node.kind is NodeKind.DEPLOYMENT:
            yield Edge(Node(NodeKind.VERSION, node.name.partition("/")[0]), node, "deployed")
        elif node.kind is NodeKind.VERSION:
            version, _ = self._version(node.name)
            # Of an imported version nothing is known that it was made of: what is claimed makes no lineage.
            revision = "" if version.imported else load_manifest(self._store, version).source.revision
            yield from (e for e in _inputs(version, revision) if e.target == node)
        elif node.kind is NodeKind.DATASET:
            for row in self._meta.query(edge_partition(node), limit=1):
                version, _ = self._version(_node(row["target"]).name)
                yield from (e for e in _inputs(version, load_manifest(self._store, version).source.revision) if e.target == node)

    def _down(self, node: Node) -> Iterator[Edge]:
        if node.kind in INPUTS:
            for row in self._meta.query(edge_partition(node), limit=self._limit + 1):
                yield Edge(node, _node(row["target"]), str(row["role"]))
        elif node.kind is NodeKind.VERSION:
            for row in self._meta.query(edge_partition(node), limit=self._limit + 1):
                yield Edge(node, _node(row["target"]), str(row["role"]))
            _, rows = self._version(node.name)
            for transition in _deployments(rows):
                yield Edge(node, Node(NodeKind.DEPLOYMENT, f"{node.name}/{transition['number']}"), "deployed")
        elif node.kind is NodeKind.DEPLOYMENT:
            reference = node.name.partition("/")[0]
            model, _, number = reference.partition("@")
            for row in self._meta.list_collection(f"VERSION_KEYS#{model}#{number}", limit=self._limit + 1):
                key = Node(NodeKind.KEY, str(row["kid"]))
                if self._deployment_of(key, row) == node:
                    yield Edge(node, key, "predictions")

    def _deployment_of(self, key: Node, row: Item | None = None) -> Node:
        """Return the deployment under which a key was given: the last one in its environment before it."""
        row = row or self._meta.get(delegation_key(key.name))
        if row is None:
            raise NotFoundError(f"there is no signing key {key.name}")
        reference = f"{row['model']}@{row['number']}"
        _, rows = self._version(reference)
        before = [
            t for t in _deployments(rows) if (t.get("data") or {}).get("environment") == row["environment"] and t["at"] <= row["issued"]
        ]
        if not before:
            raise NotFoundError(f"{reference} was given the key {key.name} without a deployment on record")
        return Node(NodeKind.DEPLOYMENT, f"{reference}/{before[-1]['number']}")

    def _version(self, reference: str) -> tuple[Version, list[Item]]:
        if reference not in self._versions:
            model, _, number = reference.partition("@")
            rows = self._meta.query(version_key(model, int(number)).partition)
            head = next((r for r in rows if r["sk"] == "HEAD"), None)
            if head is None:
                raise NotFoundError(f"there is no version {reference}")
            self._versions[reference] = (Version.from_item(head), rows)
        return self._versions[reference]

    def _facts(self, node: Node) -> dict[str, Any]:
        """Return what is worth saying of a node beside its name."""
        if node.kind is NodeKind.VERSION:
            version, _ = self._version(node.name)
            return {
                "standing": version.standing.value,
                "stage": version.stage.value,
                "status": version.status.value,
                "version_digest": version.version_digest,
                "submitted_by": version.submitter_person or "unproven",
                "cause": str(version.cause["kind"]),
                "created": version.created,
            }
        if node.kind is NodeKind.DEPLOYMENT:
            reference, _, number = node.name.partition("/")
            _, rows = self._version(reference)
            found = next((t for t in _deployments(rows) if int(t["number"]) == int(number)), None)
            if found is None:
                raise NotFoundError(f"transition {number} of {reference} is no deployment")
            facts = found.get("data") or {}
            return {
                "environment": facts.get("environment"),
                "capture_rate": facts.get("capture_rate"),
                "at": found["at"],
                "kind": found["kind"],
            }
        if node.kind is NodeKind.KEY:
            row = self._meta.get(delegation_key(node.name)) or {}
            return {
                "issued": row.get("issued"),
                "environment": row.get("environment"),
                "predictions": row.get("count"),
                "closed": row.get("closed"),
            }
        if node.kind is NodeKind.DATASET:
            dataset = self._dataset(node)
            return {"name": dataset.name, "files": len(dataset.files), "bytes": sum(f.size for f in dataset.files)} if dataset else {}
        if node.kind is NodeKind.SOURCE:
            dataset = self._dataset(node)
            return {"name": dataset.name.removeprefix("source/"), "bytes": sum(f.size for f in dataset.files)} if dataset else {}
        return {}

    def _dataset(self, node: Node) -> DataSet | None:
        for row in self._meta.query(edge_partition(node), limit=self._limit):
            target = _node(row["target"])
            if target.kind is NodeKind.VERSION:
                version, _ = self._version(target.name)
                return next((d for d in version.datasets if d.digest == node.name), None)
        return None


def _deployments(rows: list[Item]) -> list[Item]:
    return [r for r in rows if str(r["sk"]).startswith("TRANSITION#") and r["kind"] in PLACINGS]


def _kid(node: Node) -> str:
    return PredictionId.parse(node.name).kid if node.kind is NodeKind.PREDICTION else node.name


def _node(text: str) -> Node:
    kind, _, name = text.partition(":")
    return Node(NodeKind(kind), name)
