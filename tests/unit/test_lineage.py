"""Lineage: both ways from any node, over what the use cases wrote."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.client.lineage_svg import draw_lineage
from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.lineage import Graph, Node, NodeKind, read_node
from attestry.domain.version import Version
from attestry.usecases.lineage import LineageWalker, edge_puts
from tests.flow import Serving


@pytest.fixture(scope="module")
def serving() -> Serving:
    return Serving()


@pytest.fixture(scope="module")
def prediction(serving: Serving) -> str:
    return serving.predict()


def walk(serving: Serving, text: str, **options: object) -> Graph:
    return LineageWalker(serving.flow.meta, serving.flow.store).walk(text, **options)  # type: ignore[arg-type]


def kinds(graph: Graph) -> set[NodeKind]:
    return {n.kind for n in graph.nodes}


def head(serving: Serving) -> Version:
    return serving.flow.head(serving.version)


def test_a_prediction_leads_back_to_data_code_environment_and_manifest(serving: Serving, prediction: str) -> None:
    graph = walk(serving, prediction, direction="up")
    version = head(serving)
    named = {str(n) for n in graph.nodes}
    assert kinds(graph) == set(NodeKind)
    assert f"version:{version.reference}" in named
    assert {f"dataset:{d.digest}" for d in version.datasets if not d.name.startswith("source/")} <= named
    assert {f"source:{d.digest}" for d in version.datasets if d.name.startswith("source/")} <= named
    assert version.environment is not None
    assert f"environment:{version.environment.id}" in named
    assert f"candidate:{version.candidate}" in named


@pytest.mark.parametrize("kind", [NodeKind.SOURCE, NodeKind.DATASET, NodeKind.COMMIT, NodeKind.ENVIRONMENT, NodeKind.CANDIDATE])
def test_every_input_leads_forward_to_versions_deployments_and_predictions(serving: Serving, prediction: str, kind: NodeKind) -> None:
    start = next(n for n in walk(serving, prediction, direction="up").nodes if n.kind is kind)
    graph = walk(serving, start.name, direction="down")
    assert graph.start == start
    assert {NodeKind.VERSION, NodeKind.DEPLOYMENT, NodeKind.KEY} <= kinds(graph)
    assert prediction.rpartition("-")[0] in {n.name for n in graph.nodes if n.kind is NodeKind.KEY}


def test_walking_up_shows_nothing_that_was_made_of_the_node(serving: Serving, prediction: str) -> None:
    graph = walk(serving, head(serving).reference, direction="up")
    assert not kinds(graph) & {NodeKind.DEPLOYMENT, NodeKind.KEY, NodeKind.PREDICTION}
    assert all(edge.target in graph.nodes and edge.source in graph.nodes for edge in graph.edges)


def test_the_depth_ends_the_walk(serving: Serving, prediction: str) -> None:
    assert kinds(walk(serving, prediction, direction="up", depth=1)) == {NodeKind.PREDICTION, NodeKind.KEY}


def test_a_walk_that_meets_its_limit_says_so(serving: Serving, prediction: str) -> None:
    walker = LineageWalker(serving.flow.meta, serving.flow.store, limit=3)
    graph = walker.walk(prediction, direction="up")
    assert graph.truncated
    assert len(graph.nodes) == 3


def test_writing_the_edges_again_changes_nothing(serving: Serving) -> None:
    version = head(serving)
    before = dict(serving.flow.meta.get_many([p.key for p in edge_puts(version, "a" * 40)][:100]))
    revision = next(n.name for n in walk(serving, version.reference, direction="up").nodes if n.kind is NodeKind.COMMIT)
    serving.flow.meta.transact(edge_puts(version, revision))
    assert before.items() <= dict(serving.flow.meta.get_many([p.key for p in edge_puts(version, revision)])).items()


@pytest.mark.parametrize("text", ["unknown-model@7", "0" * 64, "b" * 40, "a" * 52 + "-1"])
def test_what_nobody_knows_is_not_found(serving: Serving, text: str) -> None:
    with pytest.raises(NotFoundError):
        walk(serving, text)


@pytest.mark.parametrize("text", ["", "..", "version:", "nonsense:x", "Model@1", "model@0", "../../x@1", "dataset:xyz", "MODEL#x@1"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        read_node(text)


@pytest.mark.parametrize("options", [{"direction": "sideways"}, {"depth": 0}, {"depth": 1000}])
def test_an_unknown_direction_or_depth_is_refused(serving: Serving, options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        walk(serving, head(serving).reference, **options)


@given(st.text(max_size=80))
def test_reading_a_node_gives_nodes_that_print_and_read_the_same_or_an_error(text: str) -> None:
    try:
        nodes = read_node(text)
    except InvalidInputError:
        return
    for node in nodes:
        assert read_node(str(node)) == (node,)


def test_the_picture_is_well_formed_and_shows_every_node_once(serving: Serving, prediction: str, tmp_path: Path) -> None:
    graph = walk(serving, prediction).to_item()
    root = ET.fromstring(draw_lineage(graph))
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    for node in graph["nodes"]:
        assert titles.count(node["id"]) == 1


def test_the_picture_escapes_what_people_named() -> None:
    node = {"id": "source:" + "a" * 64, "kind": "source", "name": "a" * 64, "facts": {"name": "<script>alert(1)</script>"}}
    picture = draw_lineage({"start": node["id"], "nodes": [node], "edges": [], "truncated": False})
    assert "<script" not in picture
    ET.fromstring(picture)


def test_a_node_has_the_name_of_its_kind() -> None:
    with pytest.raises(InvalidInputError):
        Node(NodeKind.VERSION, "a" * 64)
