"""Rows of a scored file: each stands under the file's root at its place, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError
from attestry.evidence.digests import sha256_hex
from attestry.evidence.scored_rows import KIND, Row, ScoredFile, check_scored, make_row, read_scored, row_salt, state_scored, verify_row
from attestry.evidence.statement import Statement, Subject
from attestry.evidence.tlog import audit_path, leaf_hash, tree_root

SECRET = b"s" * 32
AT = "2026-01-02T03:04:05.000000Z"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OUTPUTS = st.lists(VALUES, min_size=1, max_size=40)


def lines_of(outputs: list[Any], secret: bytes = SECRET) -> list[bytes]:
    return [make_row(secret, n, f"input {n}".encode(), output).to_bytes() for n, output in enumerate(outputs)]


def facts_of(lines: list[bytes], **changes: Any) -> ScoredFile:
    data = b"".join(line + b"\n" for line in lines)
    facts = ScoredFile(
        scoring="ab" * 16,
        model="credit-risk",
        number=3,
        version_digest="1" * 64,
        environment="production",
        format="jsonl",
        input_sha256="2" * 64,
        input_size=100,
        output_sha256=sha256_hex(data),
        output_size=len(data),
        rows=len(lines),
        root=tree_root([leaf_hash(line) for line in lines]).hex(),
        at=AT,
    )
    return replace(facts, **changes)


def proof_of(lines: list[bytes], index: int) -> list[bytes]:
    return audit_path([leaf_hash(line) for line in lines], index)


@given(OUTPUTS, st.data())
@settings(max_examples=60, deadline=None)
def test_every_row_is_proven_and_keeps_its_output(outputs: list[Any], data: st.DataObject) -> None:
    lines = lines_of(outputs)
    index = data.draw(st.integers(0, len(lines) - 1))
    row = verify_row(lines[index], proof_of(lines, index), facts_of(lines))
    assert row.index == index
    assert json.dumps(row.value) == json.dumps(outputs[index])
    assert row.is_of_input(f"input {index}".encode())
    assert not row.is_of_input(f"input {index} ".encode())


@given(OUTPUTS, VALUES, st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_row_does_not_verify(outputs: list[Any], other: Any, data: st.DataObject) -> None:
    lines = lines_of(outputs)
    index = data.draw(st.integers(0, len(lines) - 1))
    row = Row.parse(lines[index])
    changed = data.draw(
        st.sampled_from(
            [
                replace(row, output=json.dumps(other)),
                replace(row, input_sha256=sha256_hex(b"other")),
                replace(row, salt="0" * 32),
                replace(row, index=row.index + 1),
                replace(row, index=max(0, row.index - 1)),
            ]
        )
    )
    if changed != row:
        with pytest.raises(IntegrityError):
            verify_row(changed.to_bytes(), proof_of(lines, index), facts_of(lines))


@given(st.lists(VALUES, min_size=2, max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_proof_root_or_count_does_not_verify(outputs: list[Any], data: st.DataObject) -> None:
    lines = lines_of(outputs)
    index = data.draw(st.integers(0, len(lines) - 1))
    proof, facts = proof_of(lines, index), facts_of(lines)
    place = data.draw(st.integers(0, len(proof) - 1))
    for wrong in ([*proof[:place], bytes(32), *proof[place + 1 :]], proof[:-1], [*proof, bytes(32)], []):
        with pytest.raises(IntegrityError):
            verify_row(lines[index], wrong, facts)
    with pytest.raises(IntegrityError):
        verify_row(lines[index], proof, replace(facts, root="0" * 64))
    with pytest.raises(IntegrityError):
        verify_row(lines[index], proof, replace(facts, rows=index or len(lines) + 4096))


def test_a_row_of_another_file_does_not_verify_here() -> None:
    mine, theirs = lines_of([1, 2, 3, 4]), lines_of([1, 2, 3, 4], secret=b"t" * 32)
    with pytest.raises(IntegrityError):
        verify_row(theirs[2], proof_of(theirs, 2), facts_of(mine))
    with pytest.raises(IntegrityError):
        verify_row(theirs[2], proof_of(mine, 2), facts_of(mine))


def test_an_inner_node_does_not_pass_for_a_row() -> None:
    lines = lines_of([1, 2, 3, 4])
    left = leaf_hash(lines[0]) + leaf_hash(lines[1])
    with pytest.raises(InvalidInputError):
        verify_row(left, proof_of(lines, 0)[1:], facts_of(lines, rows=2))


def test_the_leaf_is_the_line_of_the_file_and_the_tree_is_that_of_rfc_6962() -> None:
    lines = lines_of([0.5, {"label": "no"}])
    digest = hashlib.sha256(row_salt(SECRET, 0) + b"input 0").hexdigest()
    assert lines[0] == f'{{"index":0,"input_sha256":"{digest}","salt":"{row_salt(SECRET, 0).hex()}","output":0.5}}'.encode()
    leaves = [hashlib.sha256(b"\x00" + line).digest() for line in lines]
    assert facts_of(lines).root == hashlib.sha256(b"\x01" + leaves[0] + leaves[1]).hexdigest()


def test_numbers_keep_the_digits_that_a_model_gave() -> None:
    for text in ("1.0", "1e+22", "0.30000000000000004", "-0.0", "123456789012345678901234567890"):
        row = make_row(SECRET, 0, b"x", json.loads(text))
        assert Row.parse(row.to_bytes()).output == text


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"index":0,"input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":}',
        b'{"index":0,"input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":1}\n',
        b'{"index":0,"input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":NaN}',
        b'{"index":0,"input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":1,"output":2}',
        b'{"index":00,"input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":1}',
        b'{"index":-1,"input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":1}',
        b'{"index":0,"input_sha256":"' + b"A" * 64 + b'","salt":"' + b"b" * 32 + b'","output":1}',
        b'{"input_sha256":"' + b"a" * 64 + b'","index":0,"salt":"' + b"b" * 32 + b'","output":1}',
        b'{"index":0, "input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":1}',
        b'{"index":0,"input_sha256":"' + b"a" * 64 + b'","salt":"' + b"b" * 32 + b'","output":"\xff"}',
    ],
)
def test_what_the_writer_would_not_write_is_no_row(line: bytes) -> None:
    with pytest.raises(InvalidInputError):
        Row.parse(line)


@pytest.mark.parametrize("output", [math.nan, math.inf, {1, 2}, b"x"])
def test_an_output_that_is_no_json_makes_no_row(output: Any) -> None:
    with pytest.raises(InvalidInputError, match="row 7"):
        make_row(SECRET, 7, b"x", output)


def test_salts_differ_by_row_and_by_file_and_are_the_same_for_each_try() -> None:
    salts = {row_salt(secret, n) for secret in (SECRET, b"t" * 32) for n in range(100)}
    assert len(salts) == 200
    assert row_salt(SECRET, 5) == row_salt(SECRET, 5)


def event_of(facts: ScoredFile, attestation: str = "9" * 64, **changes: Any) -> dict[str, Any]:
    return {"kind": KIND, "subject": facts.subject, "sequence": 1, "data": facts.event_data(attestation), **changes}


def test_the_statement_says_the_facts_and_names_output_and_version() -> None:
    facts = facts_of(lines_of([1, 2]))
    statement = Statement.parse(state_scored(facts).to_bytes())
    assert read_scored(statement) == facts
    assert statement.subjects == (
        Subject("output", facts.output_sha256),
        Subject(f"urn:attestry:credit-risk:3:sha256:{'1' * 64}", "1" * 64),
    )
    assert check_scored(statement, event_of(facts), "9" * 64) == facts


@pytest.mark.parametrize("name", [f.name for f in fields(ScoredFile)])
def test_an_event_that_says_another_fact_than_the_statement_is_refused(name: str) -> None:
    facts = facts_of(lines_of([1, 2]))
    data = {**facts.event_data("9" * 64), name: "other"}
    with pytest.raises(IntegrityError, match=f"differ in {name}"):
        check_scored(state_scored(facts), event_of(facts, data=data), "9" * 64)


@pytest.mark.parametrize("changes", [{"kind": "version.deployed"}, {"subject": f"scoring/{'cd' * 16}"}, {"sequence": 2}], ids=str)
def test_an_event_about_something_else_is_refused(changes: dict[str, Any]) -> None:
    facts = facts_of(lines_of([1, 2]))
    with pytest.raises(IntegrityError):
        check_scored(state_scored(facts), event_of(facts, **changes), "9" * 64)


def test_an_event_that_names_another_attestation_is_refused() -> None:
    facts = facts_of(lines_of([1]))
    with pytest.raises(IntegrityError, match="attestation"):
        check_scored(state_scored(facts), event_of(facts), "8" * 64)


def test_a_statement_about_something_else_is_no_scored_file() -> None:
    facts = facts_of(lines_of([1]))
    statement = state_scored(facts)
    wrong = [
        replace(statement, predicate_type="urn:attestry:predicate:transition:v1"),
        replace(statement, predicate={**statement.predicate, "more": 1}),
        replace(statement, subjects=statement.subjects[:1]),
        replace(statement, subjects=(Subject("output", "0" * 64), statement.subjects[1])),
        replace(statement, predicate={**statement.predicate, "rows": "1"}),
        replace(statement, predicate={**statement.predicate, "rows": True}),
    ]
    for one in wrong:
        with pytest.raises(AttestryError):
            read_scored(one)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rows", 0), ("rows", 1.0), ("root", "x"), ("scoring", "../x"), ("version_digest", ""), ("input_size", "1"), ("model", None)],
)
def test_facts_out_of_form_are_refused_with_their_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        facts_of(lines_of([1]), **{name: value})
    assert refused.value.problems[0].field == name
