"""Row proofs: from a scored file's row to the ledger under a pinned root; and what forges one."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.cli.main import make_app
from attestry.client.scoring import EVIDENCE_SUFFIX, find_event, prove_row, read_evidence
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.replay import Index
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.dsse import sign_envelope
from attestry.evidence.leaf import parse_event
from attestry.evidence.row_proof import RowProof, read_row_proof, verify_row_proof, write_row_proof
from attestry.evidence.scored_rows import Row
from attestry.evidence.statement import Statement
from attestry.evidence.verdict import Outcome, Verdict, Verification
from attestry.usecases.ask import Versions
from attestry.usecases.reconcile import Reconciler
from attestry.usecases.score_file import Scorer
from attestry.usecases.scorings import ScoringRequest, ask_scoring
from attestry.verifier.__main__ import main
from tests.evidence_world import CONSUMER, EvidenceWorld
from tests.fakes import MemoryObjectStore, MemoryPipeline
from tests.unit.client_double import ApiDouble

ROWS = b"".join(json.dumps({"a": n / 2, "b": 1.0}).encode() + b"\n" for n in range(5))


class Place:
    """A registry with a scored file, as its client sees it: published files of ledger and root."""

    def __init__(self, folder: Path) -> None:
        self.world = EvidenceWorld()
        self.world.deploy()
        self.folder = folder
        self.scratch = MemoryObjectStore()

    def ledger_file(self, path: str) -> bytes:
        return self.world.store.read(f"ledger/{path}", max_bytes=1 << 24)

    def root(self) -> dict[str, Any]:
        return {"files": {name: body.decode() for name, body in self.world.root_files.items()}}

    def score(self, data: bytes, name: str) -> Path:
        """Score a file; return the output with its evidence beside it."""
        world, pipeline = self.world, MemoryPipeline()
        request = ScoringRequest(_sha256(data), len(data), "jsonl", "production")

        def ask() -> dict[str, Any]:
            ports = (world.meta, self.scratch, world.store, pipeline)
            return ask_scoring(*ports, request, model=world.head.model, by=CONSUMER, at=world.clock.now())

        told = ask()
        self.scratch.upload(told["upload"]["url"], data)
        scorer = Scorer(
            meta=world.meta,
            store=world.store,
            scratch=self.scratch,
            attestor=world.flow.attestors["deploy"],
            versions=Versions(world.meta, world.store, world.flow.functions, inference="inference", clock=lambda: 0.0),
            clock=world.clock,
            monotonic=lambda: 0.0,
        )
        for number in scorer.plan(told["scoring"]):
            scorer.score_chunk(told["scoring"], number)
        assert scorer.finish(told["scoring"]) == "DONE", ask()["error"]
        told = ask()
        output = self.folder / name
        output.write_bytes(world.store.fetch(told["output"]["url"]))
        output.with_name(name + EVIDENCE_SUFFIX).write_text(json.dumps({k: told[k] for k in ("attestation", "event")}))
        return output

    def prove(self, output: Path, index: int) -> bytes:
        client: Any = self
        return prove_row(client, output, index)

    def verify(self, data: bytes, **given: Any) -> Verification:
        return verify_row_proof(data, pin=self.world.pin, **given)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("place"))
    made.world.sequence()
    return made


@pytest.fixture(scope="module")
def output(place: Place) -> Path:
    scored = place.score(ROWS, "scores.jsonl")
    place.world.sequence()
    return scored


def failed(verification: Verification) -> str:
    assert verification.verdict is Verdict.BROKEN, verification.reason
    return next(step.name for step in verification.steps if step.outcome is Outcome.FAILED)


@pytest.mark.parametrize("index", range(5))
def test_a_row_is_proven_from_the_pin_to_the_ledger(place: Place, output: Path, index: int) -> None:
    found = place.verify(place.prove(output, index), line=ROWS.splitlines()[index])
    assert found.verdict is Verdict.PROVEN, found.reason
    assert found.facts["row"]["output"] == 0.25
    assert found.facts["file"]["version_digest"] == place.world.head.version_digest
    assert [step.name for step in found.steps] == [
        *("proof", "root", "checkpoint", "leaves", "validity"),
        *("attestation", "row", "input"),
    ]


def test_a_proof_is_small_and_holds_no_other_row(place: Place, output: Path) -> None:
    data = place.prove(output, 2)
    others = [line for n, line in enumerate(output.read_text().splitlines()) if n != 2]
    assert len(data) < 64 << 10
    assert not any(Row.parse(line.encode()).salt in data.decode() for line in others)


def test_without_a_pin_nothing_is_proven(place: Place, output: Path) -> None:
    assert verify_row_proof(place.prove(output, 0), pin=None).verdict is Verdict.INCOMPLETE


def test_a_pin_of_another_registry_leads_nowhere(place: Place, output: Path) -> None:
    other = EvidenceWorld()
    assert verify_row_proof(place.prove(output, 0), pin=other.pin).verdict is not Verdict.PROVEN


def test_a_file_whose_event_waits_for_the_ledger_is_signed_and_unanchored(place: Place) -> None:
    scored = place.score(ROWS[: ROWS.index(b"\n") + 1], "waiting.jsonl")
    found = place.verify(place.prove(scored, 0))
    assert found.verdict is Verdict.SIGNED_UNANCHORED, found.reason
    place.world.sequence()
    assert place.verify(place.prove(scored, 0)).verdict is Verdict.PROVEN


def test_a_proof_without_the_registry_lacks_what_only_that_has(output: Path) -> None:
    assert verify_row_proof(prove_row(None, output, 0), pin=None).verdict is Verdict.INCOMPLETE


def test_an_input_that_the_row_was_not_made_of_is_told(place: Place, output: Path) -> None:
    assert failed(place.verify(place.prove(output, 1), line=ROWS.splitlines()[2])) == "input"


def changed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    body = json.loads(data)
    change(body)
    return canonical_bytes(body)


def other_row(body: dict[str, Any]) -> None:
    body["row"] = body["row"].replace('"output":0.25', '"output":0.75')


def other_index(body: dict[str, Any]) -> None:
    body["row"] = body["row"].replace('"index":1', '"index":2')


def other_hash(body: dict[str, Any]) -> None:
    body["hashes"][0] = "0" * 64


def fewer_hashes(body: dict[str, Any]) -> None:
    body["hashes"].pop()


def no_row(body: dict[str, Any]) -> None:
    body["row"] = "{}"


@pytest.mark.parametrize("change", [other_row, other_index, other_hash, fewer_hashes, no_row])
def test_a_changed_row_index_or_hash_is_broken(place: Place, output: Path, change: Callable[[dict[str, Any]], None]) -> None:
    assert failed(place.verify(changed(place.prove(output, 1), change))) == "row"


def test_a_row_of_another_file_is_broken_under_this_files_statement(place: Place, output: Path) -> None:
    other = place.score(ROWS * 2, "other.jsonl")
    place.world.sequence()
    mine, theirs = read_row_proof(place.prove(output, 1)), read_row_proof(place.prove(other, 1))
    for forged in (RowProof(theirs.line, theirs.hashes, mine.files), RowProof(theirs.line, mine.hashes, mine.files)):
        assert failed(place.verify(write_row_proof(forged))) == "row"
    swapped = {**mine.files, **{n: b for n, b in theirs.files.items() if n.startswith("attestations/")}}
    del swapped[mine.attestation[0]]
    assert failed(place.verify(write_row_proof(RowProof(theirs.line, theirs.hashes, swapped)))) == "attestation"


def forge(place: Place, output: Path, function: str, **facts: Any) -> bytes:
    """A proof whose statement somebody else signed, or that says something else than the event."""
    proof = read_row_proof(place.prove(output, 1))
    envelope = json.loads(proof.attestation[1])
    statement = Statement.parse(base64.b64decode(envelope["payload"]))
    told = Statement(statement.subjects, statement.predicate_type, {**statement.predicate, **facts})
    signed = sign_envelope(told.to_bytes(), place.world.flow.signers[function])
    files = {n: b for n, b in proof.files.items() if not n.startswith("attestations/")}
    return write_row_proof(RowProof(proof.line, proof.hashes, {**files, f"attestations/{_sha256(signed)}.json": signed}))


@pytest.mark.parametrize(("function", "facts"), [("operate", {}), ("deploy", {}), ("deploy", {"root": "0" * 64}), ("deploy", {"rows": 4})])
def test_a_statement_that_the_ledgers_event_does_not_name_is_broken(
    place: Place, output: Path, function: str, facts: dict[str, Any]
) -> None:
    assert failed(place.verify(forge(place, output, function, **facts))) == "attestation"


def test_a_function_that_may_not_sign_scored_files_is_refused_although_the_root_knows_it(place: Place, output: Path) -> None:
    found = place.verify(forge(place, output, "gate"))
    assert "gate may not sign file.scored" in found.reason


@pytest.mark.parametrize("name", ["ledger/checkpoint", "ledger/proofs.json", "root/timestamp.json"])
def test_evidence_that_was_changed_is_broken(place: Place, output: Path, name: str) -> None:
    proof = read_row_proof(place.prove(output, 1))
    for body in (proof.files[name].replace(b"1", b"2"), b"{}"):
        forged = RowProof(proof.line, proof.hashes, {**proof.files, name: body})
        assert place.verify(write_row_proof(forged)).verdict is Verdict.BROKEN


def test_evidence_that_is_missing_is_named(place: Place, output: Path) -> None:
    proof = read_row_proof(place.prove(output, 1))
    without = RowProof(proof.line, proof.hashes, {n: b for n, b in proof.files.items() if n != "ledger/checkpoint"})
    found = place.verify(write_row_proof(without))
    assert found.verdict is Verdict.INCOMPLETE
    assert "ledger/checkpoint" in found.reason


def test_a_stranger_among_the_files_is_broken(place: Place, output: Path) -> None:
    proof = read_row_proof(place.prove(output, 1))
    for name in ("root/other.json", "ledger/other"):
        forged = RowProof(proof.line, proof.hashes, {**proof.files, name: b"{}"})
        assert place.verify(write_row_proof(forged)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format":1,"kind":"row"}', b"\xff", b"PK"])
def test_what_is_no_proof_is_broken_and_never_a_crash(place: Place, data: bytes) -> None:
    assert failed(place.verify(data)) == "proof"


@pytest.mark.parametrize("how", ["row", "cut", "more", "order"])
def test_an_output_that_was_changed_cut_off_or_reordered_proves_nothing(place: Place, output: Path, tmp_path: Path, how: str) -> None:
    lines = output.read_bytes().splitlines(keepends=True)
    forged = {
        "row": [lines[0].replace(b"0.25", b"0.75"), *lines[1:]],
        "cut": lines[:-1],
        "more": [*lines, lines[-1]],
        "order": [lines[1], lines[0], *lines[2:]],
    }[how]
    copy = tmp_path / "scores.jsonl"
    copy.write_bytes(b"".join(forged))
    evidence = output.with_name(output.name + EVIDENCE_SUFFIX).read_bytes()
    copy.with_name(copy.name + EVIDENCE_SUFFIX).write_bytes(evidence)
    with pytest.raises(IntegrityError, match="changed, or cut off"):
        place.prove(copy, 2)


def test_a_row_that_is_not_there_and_evidence_that_is_not_are_named(place: Place, output: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="5 rows"):
        place.prove(output, 5)
    with pytest.raises(InvalidInputError, match="evidence"):
        place.prove(tmp_path / "nothing.jsonl", 0)


def test_the_event_is_found_by_bisection_in_a_long_ledger(place: Place, output: Path) -> None:
    _, event, _ = read_evidence(output)
    asked: list[str] = []

    class Counted:
        def ledger_file(self, path: str) -> bytes:
            asked.append(path)
            return place.ledger_file(path)

    found = find_event(Counted(), parse_event(event))
    assert found is not None
    assert {name.partition("/")[0] for name in found} == {"checkpoint", "leaves", "proofs.json"}
    assert len(asked) < 10


def test_the_offline_verifier_checks_a_row_by_its_files(
    place: Place, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof, root, given = tmp_path / "row.json", tmp_path / "root.json", tmp_path / "input.jsonl"
    proof.write_bytes(place.prove(output, 3))
    root.write_bytes(place.world.pin)
    given.write_bytes(ROWS)
    assert main(["--row", str(proof), "--root", str(root), "--input", str(given)]) == 0
    assert "PROVEN  row 3 of scoring" in capsys.readouterr().out
    assert main(["--row", str(proof), "--root", str(root), "--input", str(output)]) == 5
    assert CliRunner().invoke(make_app(), ["verify", "--row", str(proof), "--root", str(root)]).exit_code == 0
    assert CliRunner().invoke(make_app(), ["verify", "--row", str(proof)]).exit_code == 4
    proof.write_bytes(proof.read_bytes().replace(b"0.25", b"0.75"))
    assert main(["--row", str(proof), "--root", str(root)]) == 5


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    double = ApiDouble()
    for name, value in {
        "ATTESTRY_API_URL": double.url,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield double
    double.close()


def test_the_command_line_uploads_waits_and_keeps_output_and_evidence(place: Place, output: Path, api: ApiDouble, tmp_path: Path) -> None:
    envelope, event, facts = read_evidence(output)
    given, to = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    given.write_bytes(ROWS)
    base = {"scoring": facts.scoring, "model": facts.model, "version": None, "rows": None, "error": None, "upload": None, "output": None}
    checksum = base64.b64encode(bytes.fromhex(_sha256(ROWS))).decode()
    headers = {"If-None-Match": "*", "x-amz-checksum-sha256": checksum, "Content-Length": str(len(ROWS))}
    upload = {"url": f"{api.url}/store/scoring/input.jsonl", "headers": headers}
    route = f"POST /v1/models/{facts.model}/scorings"
    api.answer(route, {**base, "state": "WAITING", "upload": upload}, 202)
    api.answer(route, {**base, "state": "RUNNING"}, 202)
    entry = api.serve_file("scores.jsonl", output.read_bytes())
    done = {"url": entry["url"], "sha256": entry["sha256"], "size": entry["size"]}
    api.answer(route, {**base, "state": "DONE", "output": done, "attestation": envelope.decode(), "event": event.decode()})
    ran = CliRunner().invoke(make_app(), ["score", facts.model, "--input", str(given), "--output", str(to), "--json"])
    assert ran.exit_code == 0, ran.output
    assert api.stored == {"scoring/input.jsonl": ROWS}
    assert to.read_bytes() == output.read_bytes()
    assert read_evidence(to) == (envelope, event, facts)
    assert api.asked[0].body["input"] == {"sha256": _sha256(ROWS), "size": len(ROWS), "format": "jsonl"}
    assert len({asked.body["request"] for asked in api.asked if asked.method == "POST"}) == 1


def test_the_command_line_tells_why_a_file_was_not_scored(api: ApiDouble, tmp_path: Path) -> None:
    given = tmp_path / "rows.csv"
    given.write_bytes(b"a,b\n1,x\n")
    told = {"scoring": "ab" * 16, "state": "FAILED", "error": "rows[0].b: must be a number", "upload": None, "output": None}
    api.answer("POST /v1/models/m/scorings", told, 202)
    ran = CliRunner().invoke(make_app(), ["score", "m", "--input", str(given), "--output", str(tmp_path / "out.jsonl"), "--json"])
    assert ran.exit_code == 1
    assert "rows[0].b: must be a number" in ran.output
    assert [asked.body.get("retry", False) for asked in api.asked] == [False, True, False]


def test_the_command_line_names_a_file_that_is_not_there_or_of_no_known_form(tmp_path: Path) -> None:
    other = tmp_path / "rows.parquet"
    other.write_bytes(b"x")
    for given, named in ((tmp_path / "none.csv", "there is no file"), (other, "say --format")):
        ran = CliRunner().invoke(make_app(), ["score", "m", "--input", str(given), "--output", str(tmp_path / "o"), "--json"])
        assert ran.exit_code == 1
        assert named in ran.output


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_reconciliation_finds_nothing_odd_about_a_scored_file(place: Place, output: Path) -> None:
    world = place.world
    gateway: Any = SimpleNamespace(answered=lambda day: None)
    done = Reconciler(world.meta, world.store, gateway, world.clock, verifiers=[world.log_key]).run()
    assert done.errors == []
    assert [dict(row) for key, row in world.meta.rows.items() if key.partition.startswith("FINDINGS")] == []


def test_the_index_that_is_rebuilt_from_the_ledger_passes_over_scored_files(place: Place, output: Path) -> None:
    _, event, facts = read_evidence(output)
    index = Index()
    index.apply(parse_event(event))
    assert (index.events, index.transitions, index.pointers) == (1, {}, {})
    assert facts.rows == 5
