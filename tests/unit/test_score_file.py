"""Scoring a file: every row by the version in place, each chunk once, and one signed root; crashes, and what attackers try."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from attestry.domain.conditions import Conditions
from attestry.domain.errors import IntegrityError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.principal import Principal
from attestry.domain.stages import Standing
from attestry.evidence.attestor import Attestor
from attestry.evidence.digests import sha256_hex
from attestry.evidence.dsse import verify_envelope
from attestry.evidence.leaf import parse_event
from attestry.evidence.scored_rows import Row, ScoredFile, check_scored, verify_row
from attestry.evidence.statement import Statement
from attestry.evidence.tlog import audit_path, leaf_hash
from attestry.ports import Put, When
from attestry.usecases import row_input
from attestry.usecases.ask import Versions
from attestry.usecases.conditions import volume_key
from attestry.usecases.score_file import Scorer
from attestry.usecases.scorings import ScoringRequest, ask_scoring, chunk_key, read_scoring_request, scoring_key
from tests.deployed import ENVIRONMENT, MODEL, Scene, make_version, principal, recorded_approval
from tests.fakes import Faults, LocalSigner, MemoryObjectStore, MemoryPipeline

ROWS = 2300
DIGEST = make_version(1).version_digest


def jsonl(count: int = ROWS) -> bytes:
    return b"".join(json.dumps({"age": n % 90, "income": n / 2}).encode() + b"\n" for n in range(count))


def request_for(data: bytes, form: str = "jsonl", **changes: Any) -> ScoringRequest:
    return ScoringRequest(sha256_hex(data), len(data), form, ENVIRONMENT, **changes)


class Desk:
    """A deployed version, a caller, and the state machine, which the desk plays."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.faults: Faults = self.scene.faults
        self.scratch = MemoryObjectStore(self.faults)
        self.pipeline = MemoryPipeline(self.faults)
        self.signer = LocalSigner("deploy", self.faults)
        self.consumer = principal("frank")
        self.scene.inference = self.infer

    def infer(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"status": "OK", "output": json.dumps([i["income"] * 2 for i in event["instances"]])}

    def scorer(self) -> Scorer:
        """A fresh process."""
        scene = self.scene
        versions = Versions(scene.meta, scene.store, scene.functions, inference="inference", clock=lambda: scene.seconds)
        return Scorer(
            meta=scene.meta,
            store=scene.store,
            scratch=self.scratch,
            attestor=Attestor(self.signer, scene.store),
            versions=versions,
            clock=scene.clock,
            monotonic=lambda: scene.seconds,
            sleep=self.wait,
        )

    def wait(self, seconds: float) -> None:
        self.scene.seconds += seconds

    def ask(self, request: ScoringRequest, by: Principal | None = None) -> dict[str, Any]:
        scene = self.scene
        at = scene.clock.now()
        return ask_scoring(scene.meta, self.scratch, scene.store, self.pipeline, request, model=MODEL, by=by or self.consumer, at=at)

    def upload(self, answer: Mapping[str, Any], data: bytes) -> None:
        self.scratch.upload(answer["upload"]["url"], data)

    def begin(self, data: bytes, form: str = "jsonl", **changes: Any) -> str:
        """Ask, put the input there, ask again: the execution has begun."""
        request = request_for(data, form, **changes)
        self.upload(self.ask(request), data)
        return str(self.ask(request)["scoring"])

    def run(self, scoring: str) -> str:
        """What one execution does."""
        scorer = self.scorer()
        for number in scorer.plan(scoring):
            scorer.score_chunk(scoring, number)
        return scorer.finish(scoring)

    def score(self, data: bytes, form: str = "jsonl") -> dict[str, Any]:
        self.run(self.begin(data, form))
        return self.ask(request_for(data, form))

    def output(self, answer: Mapping[str, Any]) -> list[bytes]:
        data = self.scene.store.fetch(answer["output"]["url"])
        assert sha256_hex(data) == answer["output"]["sha256"]
        return data.splitlines()

    def facts(self, answer: Mapping[str, Any]) -> ScoredFile:
        """What is signed, checked against the event in the outbox."""
        envelope = answer["attestation"].encode()
        statement = Statement.parse(verify_envelope(envelope, self.signer.public_key_der()))
        (event,) = self.events()
        assert parse_event(answer["event"].encode()) == event
        return check_scored(statement, event, sha256_hex(envelope))

    def events(self) -> list[Any]:
        told = [json.loads(row["event"]) for row in self.scene.meta.query("OUTBOX")]
        return [event for event in told if event["kind"] == "file.scored"]

    def error(self, scoring: str) -> str:
        row = self.scene.meta.rows[scoring_key(scoring)]
        assert row["state"] == "FAILED"
        return str(row["error"])


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_every_row_is_answered_in_order_and_provable_under_the_one_signed_root(desk: Desk) -> None:
    data = jsonl()
    answer = desk.score(data)
    assert (answer["state"], answer["version"], answer["rows"]) == ("DONE", 1, ROWS)
    lines, facts, asked = desk.output(answer), desk.facts(answer), data.splitlines()
    hashes = [leaf_hash(line) for line in lines]
    assert (facts.rows, facts.input_sha256, facts.output_sha256) == (ROWS, sha256_hex(data), answer["output"]["sha256"])
    assert (facts.version_digest, facts.environment, facts.number) == (DIGEST, ENVIRONMENT, 1)
    for index in (0, 999, 1000, 2047, ROWS - 1):
        row = verify_row(lines[index], audit_path(hashes, index), facts)
        assert (row.index, row.value) == (index, float(index))
        assert row.is_of_input(asked[index])


def test_the_version_is_asked_in_chunks_that_a_request_may_have(desk: Desk) -> None:
    desk.score(jsonl())
    sizes = [len(payload["instances"]) for name, payload, _ in desk.scene.functions.called if name == "inference"]
    assert sizes == [1000, 1000, 300]


def test_who_asked_stands_in_the_event_and_not_in_the_file(desk: Desk) -> None:
    answer = desk.score(jsonl(3))
    (event,) = desk.events()
    assert event["principal"]["login"] == "frank"
    assert b"frank" not in b"".join(desk.output(answer))


def test_a_csv_file_is_read_by_the_types_of_the_columns(desk: Desk) -> None:
    answer = desk.score(b"income,age\r\n10,41\r\n2.5,7\r\n", "csv")
    assert [Row.parse(line).value for line in desk.output(answer)] == [20.0, 5.0]
    assert Row.parse(desk.output(answer)[1]).is_of_input(b"2.5,7")


def test_asking_again_is_the_same_scoring_and_answers_what_came_of_it(desk: Desk) -> None:
    first, again = desk.score(jsonl(5)), desk.ask(request_for(jsonl(5)))
    assert {**first, "output": first["output"]["sha256"]} == {**again, "output": again["output"]["sha256"]}
    assert len(desk.events()) == 1
    assert desk.ask(request_for(jsonl(5), request="another"))["state"] == "WAITING"


def test_nothing_is_begun_before_the_input_is_there(desk: Desk) -> None:
    answer = desk.ask(request_for(jsonl(5)))
    assert answer["state"] == "WAITING"
    assert desk.pipeline.executions == {}


def test_the_input_is_put_below_the_callers_own_id_and_has_the_announced_bytes(desk: Desk) -> None:
    answer = desk.ask(request_for(jsonl(5)))
    assert f"scoring/AROA%3Afrank/{answer['scoring']}/" in answer["upload"]["url"]
    with pytest.raises(IntegrityError):
        desk.upload(answer, jsonl(6))


def test_a_model_without_a_deployed_version_scores_nothing(desk: Desk) -> None:
    request = replace(request_for(jsonl(5)), environment="staging")
    with pytest.raises(NotFoundError, match="staging"):
        desk.ask(request)


# Crashes.


def test_a_crash_before_or_after_any_call_leaves_a_scoring_that_a_retry_finishes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_input, "MAX_INSTANCES", 2)
    data = jsonl(3)
    plain = Desk()
    scoring = plain.begin(data)
    plain.faults.clear()
    plain.run(scoring)
    calls = len(plain.faults.calls)
    expected = [Row.parse(line).value for line in plain.output(plain.ask(request_for(data)))]
    assert expected == [0.0, 1.0, 2.0]
    assert 40 < calls < 120
    for n in range(1, calls + 1):
        for plan in (Faults.fail_before, Faults.fail_after):
            desk = Desk()
            scoring = desk.begin(data)
            desk.faults.clear()
            plan(desk.faults, n)
            with pytest.raises(UnavailableError):
                desk.run(scoring)
            assert desk.run(scoring) == "DONE"
            answer = desk.ask(request_for(data))
            assert [Row.parse(line).value for line in desk.output(answer)] == expected
            assert desk.facts(answer).rows == 3


def test_an_answer_that_was_lost_while_asking_leaves_a_request_that_goes_on() -> None:
    data = jsonl(3)
    for plan in (Faults.fail_before, Faults.fail_after):
        for n in range(1, 20):
            desk = Desk()
            desk.upload(desk.ask(request_for(data)), data)
            desk.faults.clear()
            plan(desk.faults, n)
            try:
                desk.ask(request_for(data))
            except UnavailableError:
                assert desk.ask(request_for(data))["state"] == "WAITING"
            assert len(desk.pipeline.executions) == 1


def test_a_chunk_that_two_processes_answer_differently_counts_once(desk: Desk) -> None:
    scoring = desk.begin(jsonl(3))
    scorer = desk.scorer()
    scorer.plan(scoring)
    other = desk.scorer()

    def meanwhile(event: Mapping[str, Any]) -> Mapping[str, Any]:
        desk.scene.inference = lambda _: {"status": "OK", "output": "[7, 7, 7]"}
        other.score_chunk(scoring, 0)
        return {"status": "OK", "output": "[1, 2, 3]"}

    desk.scene.inference = meanwhile
    scorer.score_chunk(scoring, 0)
    assert scorer.finish(scoring) == "DONE"
    assert [Row.parse(line).value for line in desk.output(desk.ask(request_for(jsonl(3))))] == [7, 7, 7]


def test_a_version_that_is_loading_is_waited_for(desk: Desk) -> None:
    answers = iter([{"status": "LOADING"}, {"status": "LOADING"}])
    desk.scene.inference = lambda event: next(answers, desk.infer(event))
    assert desk.score(jsonl(3))["state"] == "DONE"


def test_a_version_that_does_not_load_in_time_is_tried_again_later(desk: Desk) -> None:
    scoring = desk.begin(jsonl(3))
    desk.scorer().plan(scoring)
    desk.scene.inference = lambda _: {"status": "LOADING"}
    with pytest.raises(UnavailableError, match="not loaded"):
        desk.scorer().score_chunk(scoring, 0)
    desk.scene.inference = desk.infer
    assert desk.run(scoring) == "DONE"


def test_an_execution_that_was_lost_fails_the_scoring_and_a_retry_goes_on_where_it_was(desk: Desk) -> None:
    data = jsonl(1500)
    scoring = desk.begin(data)
    scorer = desk.scorer()
    scorer.plan(scoring)
    scorer.score_chunk(scoring, 0)
    (execution,) = desk.pipeline.executions
    desk.pipeline.end(execution, "ABORTED")
    assert desk.ask(request_for(data))["state"] == "FAILED"
    assert desk.ask(request_for(data))["error"] == "its execution ended before the file was finished"
    assert desk.ask(request_for(data, retry=True))["state"] == "RUNNING"
    assert len(desk.pipeline.executions) == 2
    desk.scene.functions.called.clear()
    assert desk.run(scoring) == "DONE"
    assert [len(p["instances"]) for n, p, _ in desk.scene.functions.called if n == "inference"] == [500]


# What does not stand in place answers nothing.


def kill(desk: Desk) -> None:
    desk.scene.change_version(1, standing=Standing.RETIRED)


def replace_version(desk: Desk) -> None:
    desk.scene.deploy(2)


def take_approval(desk: Desk) -> None:
    desk.scene.change_version(1, approved=False)


def end_approval(desk: Desk) -> None:
    desk.scene.change_version(1, terms={"until": "2026-01-02T00:00:00.000000Z"})


@pytest.mark.parametrize("change", [kill, replace_version, take_approval, end_approval])
@pytest.mark.parametrize("step", ["plan", "score", "finish"])
def test_a_version_that_may_not_answer_any_more_ends_the_scoring_at_every_step(
    desk: Desk, change: Callable[[Desk], None], step: str
) -> None:
    scoring = desk.begin(jsonl(3))
    scorer = desk.scorer()
    if step != "plan":
        scorer.plan(scoring)
    if step == "finish":
        scorer.score_chunk(scoring, 0)
    change(desk)
    if step == "plan" and change is replace_version:
        assert desk.run(scoring) == "DONE"  # nothing was answered yet: the version that stands there now answers all
        return
    assert desk.run(scoring) == "FAILED"
    assert desk.error(scoring)
    assert desk.events() == []
    assert not [key for key in desk.scene.store.versions if "payloads" in key]


def test_an_answer_during_which_the_version_was_killed_is_not_kept(desk: Desk) -> None:
    scoring = desk.begin(jsonl(3))
    scorer = desk.scorer()
    scorer.plan(scoring)

    def killed(event: Mapping[str, Any]) -> Mapping[str, Any]:
        desk.scene.change_version(1, standing=Standing.RETIRED)
        return desk.infer(event)

    desk.scene.inference = killed
    with pytest.raises(UnavailableError):
        scorer.score_chunk(scoring, 0)
    assert chunk_key(scoring, 0) not in desk.scene.meta.rows
    assert scorer.score_chunk(scoring, 0) == "FAILED"


def test_a_file_whose_version_is_killed_while_it_is_finished_is_never_recorded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    scoring = desk.begin(jsonl(3))
    scorer = desk.scorer()
    scorer.plan(scoring)
    scorer.score_chunk(scoring, 0)
    sign = desk.signer.sign_es256

    def killed(message: bytes) -> bytes:
        desk.scene.change_version(1, standing=Standing.RETIRED, rev=99)
        return sign(message)

    monkeypatch.setattr(desk.signer, "sign_es256", killed)
    with pytest.raises(UnavailableError):
        scorer.finish(scoring)
    assert desk.run(scoring) == "FAILED"
    assert desk.events() == []


# Conditions of the approval.


def limited(desk: Desk, most: int) -> Any:
    version = make_version(1)
    conditions = Conditions(max_predictions=most)
    desk.scene.meta._apply(recorded_approval(version, conditions=conditions.to_item()))
    desk.scene.change_version(1, terms={"max_predictions": most})
    key = volume_key(MODEL, 1, version.opening)
    desk.scene.meta._apply([Put(key, {"max": most, "given": 0, "used": 0}, When())])
    return key


def test_the_rows_of_a_file_count_as_predictions_that_the_approval_allows(desk: Desk) -> None:
    key = limited(desk, 5)
    assert desk.score(jsonl(3))["state"] == "DONE"
    assert {name: desk.scene.meta.rows[key][name] for name in ("given", "used")} == {"given": 3, "used": 3}
    scoring = desk.begin(jsonl(4))
    assert desk.run(scoring) == "FAILED"
    assert "allows 2 predictions more, and the file has 4 rows" in desk.error(scoring)
    assert desk.score(jsonl(2))["state"] == "DONE"
    assert [row["what"] for row in desk.scene.meta.query("LAPSES")] == ["lapse"]


def test_a_row_outside_of_the_approved_segment_fails_the_file_and_is_named(desk: Desk) -> None:
    conditions = Conditions(segments={"age": ("41",)})
    desk.scene.meta._apply(recorded_approval(make_version(1), conditions=conditions.to_item()))
    desk.scene.change_version(1, terms={"segments": {"age": ["41"]}})
    scoring = desk.begin(b'{"age":41,"income":1}\n{"age":42,"income":1}\n')
    assert desk.run(scoring) == "FAILED"
    assert "rows[1].age" in desk.error(scoring)


# What attackers try.


def test_somebody_elses_input_is_out_of_reach(desk: Desk) -> None:
    data = jsonl(3)
    desk.begin(data)
    theirs = desk.ask(request_for(data), by=principal("mallory"))
    assert theirs["state"] == "WAITING"
    assert "AROA%3Amallory" in theirs["upload"]["url"]


def test_an_output_is_told_to_who_asked_alone(desk: Desk) -> None:
    data = jsonl(3)
    done = desk.score(data)
    theirs = desk.ask(request_for(data), by=principal("mallory"))
    assert (theirs["state"], theirs["output"]) == ("WAITING", None)
    assert theirs["scoring"] != done["scoring"]


@pytest.mark.parametrize("folder", ["input", "in/", "out/", "plan-"])
def test_bytes_in_the_scratch_bucket_that_somebody_changed_are_found_out(desk: Desk, folder: str) -> None:
    scoring = desk.begin(jsonl(3))
    scorer = desk.scorer()
    if folder != "input":
        scorer.plan(scoring)
    if folder == "out/":
        scorer.score_chunk(scoring, 0)
    (key,) = [key for key in desk.scratch.versions if f"{scoring}/{folder}" in key]
    data = desk.scratch.versions[key][-1].body
    desk.scratch.tamper(key, data.replace(b"1", b"2"))
    assert desk.run(scoring) == "FAILED"
    assert desk.events() == []


def test_a_truncated_file_is_not_scored(desk: Desk) -> None:
    data = jsonl(3)
    scoring = desk.begin(data)
    (key,) = desk.scratch.versions
    desk.scratch.tamper(key, data[: data.index(b"\n") + 1])
    assert desk.run(scoring) == "FAILED"
    assert "the input has SHA-256" in desk.error(scoring)


@pytest.mark.parametrize("output", ["[1, 2]", "[1, 2, 3, 4]", "[1, 2, NaN]", "7", '{"a": 1}', "nonsense"])
def test_an_answer_of_another_form_fails_the_file(desk: Desk, output: str) -> None:
    desk.scene.inference = lambda _: {"status": "OK", "output": output}
    scoring = desk.begin(jsonl(3))
    assert desk.run(scoring) == "FAILED"
    assert desk.events() == []


def test_a_chunk_of_another_scoring_does_not_pass_for_one_of_this(desk: Desk) -> None:
    first, second = desk.begin(jsonl(3)), desk.begin(jsonl(4))
    scorer = desk.scorer()
    for scoring in (first, second):
        scorer.plan(scoring)
        scorer.score_chunk(scoring, 0)
    foreign = {k: v for k, v in desk.scene.meta.rows[chunk_key(first, 0)].items() if k not in ("pk", "sk")}
    desk.scene.meta._apply([Put(chunk_key(second, 0), foreign, When())])
    assert scorer.finish(second) == "FAILED"


def test_a_file_without_answers_to_all_of_its_rows_is_not_finished(desk: Desk) -> None:
    scoring = desk.begin(jsonl(1500))
    scorer = desk.scorer()
    scorer.plan(scoring)
    scorer.score_chunk(scoring, 1)
    assert scorer.finish(scoring) == "FAILED"
    assert desk.error(scoring) == "the rows from 0 on are not answered"


@pytest.mark.parametrize(
    ("data", "form", "named"),
    [
        (b'{"age":1}\n', "jsonl", "rows[0].income"),
        (b'{"age":1,"income":2}\n{"age":"x","income":2}\n', "jsonl", "rows[1].age"),
        (b'{"age":1,"income":2,"more":1}\n', "jsonl", "rows[0].more"),
        (b'{"age":1,"income":NaN}\n', "jsonl", "rows[0]"),
        (b"[1]\n", "jsonl", "rows[0]"),
        (b'{"age":1,"income":2}\n\n{"age":1,"income":2}\n', "jsonl", "rows[1]"),
        (b"\n", "jsonl", "rows[0]"),
        (b"\xff\n", "jsonl", "rows[0]"),
        (b"age,income\n1\n", "csv", "rows[0]"),
        (b"age,income\n1,2,3\n", "csv", "rows[0]"),
        (b"age,income\nx,2\n", "csv", "rows[0].age"),
        (b"age,income\n1,inf\n", "csv", "rows[0].income"),
        (b'age,income\n1,"2\n', "csv", "rows[0]"),
        (b"age,age\n1,2\n", "csv", "header"),
        (b"age,income\n", "csv", "rows"),
        (b"age\n1\n", "csv", "rows[0].income"),
    ],
    ids=str,
)
def test_input_that_breaks_a_rule_ends_the_scoring_and_is_named(desk: Desk, data: bytes, form: str, named: str) -> None:
    scoring = desk.begin(data, form)
    assert desk.run(scoring) == "FAILED"
    assert named in desk.error(scoring)
    assert desk.events() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": {"sha256": "0" * 64, "size": 1}}, "input"),
        ({"input": {"sha256": "x", "size": 1, "format": "csv"}}, "input.sha256"),
        ({"input": {"sha256": "0" * 64, "size": 0, "format": "csv"}}, "input.size"),
        ({"input": {"sha256": "0" * 64, "size": 1 << 40, "format": "csv"}}, "input.size"),
        ({"input": {"sha256": "0" * 64, "size": True, "format": "csv"}}, "input.size"),
        ({"input": {"sha256": "0" * 64, "size": 1, "format": "parquet"}}, "input.format"),
        ({"input": {"sha256": "0" * 64, "size": 1, "format": "csv", "key": "candidates/x"}}, "input"),
        ({"input": {"sha256": "0" * 64, "size": 1, "format": "csv"}, "user_id": "x"}, "user_id"),
        ({"input": {"sha256": "0" * 64, "size": 1, "format": "csv"}, "request": "../x"}, "request"),
        ({"input": {"sha256": "0" * 64, "size": 1, "format": "csv"}, "retry": "yes"}, "retry"),
        ({"input": {"sha256": "0" * 64, "size": 1, "format": "csv"}, "environment": 7}, "environment"),
    ],
    ids=str,
)
def test_a_request_that_breaks_a_rule_is_refused_with_its_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_scoring_request(body)
    assert refused.value.problems[0].field == field
