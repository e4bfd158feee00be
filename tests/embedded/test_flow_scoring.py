"""A file of rows on the embedded AWS: scored by the state machine's distributed map, and one of its rows proven offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attestry.client.scoring import ScoringFailedError, prove_row, score_file
from attestry.evidence.row_proof import verify_row_proof
from attestry.evidence.scored_rows import Row
from attestry.evidence.verdict import Verdict
from tests.embedded.flows import Registry, example_rows, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]


def test_a_file_is_scored_by_the_deployed_version_and_each_row_is_proven_offline(
    registry: Registry, deployed: tuple[str, int], tmp_path: Path
) -> None:
    model, number = deployed
    lines = [json.dumps(row).encode() for row in example_rows() * 2]
    given, output = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    given.write_bytes(b"\n".join(lines) + b"\n")
    client = registry.client("frank-consumer")
    scored = score_file(client, model, given, output, timeout_seconds=240)
    assert (scored.version, scored.rows) == (number, len(lines))
    answered = [Row.parse(line) for line in output.read_bytes().splitlines()]
    assert len(answered) == len(lines) > 1000
    assert answered[7].value == client.predict(model, [json.loads(lines[7])])["output"][0]
    pin = str(client.root()["files"]["1.root.json"]).encode()

    def proven() -> bool:
        return verify_row_proof(prove_row(client, output, 1007), pin=pin, line=lines[1007]).verdict is Verdict.PROVEN

    until(proven, "the event of the file was in the ledger")
    machine = registry.stack.outputs["ScoringArn"]
    (execution,) = registry.aws("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    assert execution["status"] == "SUCCEEDED"

    given.write_bytes(lines[0] + b'\n{"shoe_size": 43}\n')
    with pytest.raises(ScoringFailedError, match=r"rows\[1\]\."):
        score_file(client, model, given, tmp_path / "none.jsonl", timeout_seconds=120)
