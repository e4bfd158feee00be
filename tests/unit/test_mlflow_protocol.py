"""MLflow's REST protocol: filters, orders, tokens, names, sources, requests, entities and errors, without a registry behind them."""

from __future__ import annotations

import base64
import json
import re
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import (
    AttestryError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnprovenIdentityError,
)
from attestry.domain.stages import Standing
from attestry.mlflow import filters, ordering
from attestry.mlflow.entities import ShownModel, ShownVersion, milliseconds
from attestry.mlflow.errors import STATUS, MlflowError, error_body, error_code
from attestry.mlflow.fields import Fields
from attestry.mlflow.filters import Condition, Filter, matches_text, parse_filter
from attestry.mlflow.ordering import Order, parse_order
from attestry.mlflow.pages import MAX_PAGE, question, read_token, write_token
from attestry.mlflow.requests import read_create_model, read_create_version, read_move, read_search, stages_of, tag_of, version_of
from attestry.mlflow.rules import check_alias, check_name, check_tag, check_version
from attestry.mlflow.sources import Source, own_submission
from attestry.mlflow.stages import OF_STANDING, STAGE_TAG, STAGES, check_stage, shown_stage

STORE = "attestry-store"
PREFIX = "candidates/AROAEXAMPLE:dana/"
SUBMISSION = "0123456789abcdef01234567"
RETRIED_BY_CLIENTS = (408, 429, 500, 502, 503, 504)


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(MlflowError) as caught:
        call(*arguments, **named)
    assert caught.value.code == "INVALID_PARAMETER_VALUE"
    assert caught.value.status == 400
    return caught.value.message


def models(text: str) -> tuple[Condition, ...]:
    return parse_filter(text, filters.OF_MODELS).conditions


def versions(text: str) -> tuple[Condition, ...]:
    return parse_filter(text, filters.OF_VERSIONS).conditions


def test_a_filter_is_read_into_typed_conditions() -> None:
    found = versions("name='iris' AND version_number >= 3 and tags.`team name` LIKE 'risk%' AND run_id IN ('a', \"b\")")
    assert found == (
        Condition("attribute", "name", "=", "iris"),
        Condition("attribute", "version_number", ">=", 3),
        Condition("tag", "team name", "LIKE", "risk%"),
        Condition("attribute", "run_id", "IN", ("a", "b")),
    )


def test_an_empty_filter_asks_for_nothing() -> None:
    assert parse_filter("", filters.OF_MODELS) == Filter()


def test_what_stands_between_quotes_is_taken_as_it_is() -> None:
    assert models("name = 'x'' OR name = ''y'") == (Condition("attribute", "name", "=", "x'' OR name = ''y"),)


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "name =",
        "name = x",
        "name = 5",
        "name = 'x' OR name = 'y'",
        "name = 'x' AND",
        "AND name = 'x'",
        "name = 'x' name = 'y'",
        "name = 'x'; DROP TABLE models",
        "name > 'x'",
        "name IN ()",
        "name IN ('a' 'b')",
        "name IN (1)",
        "name IN 'a'",
        "tags.a IN ('b')",
        "tags.a-b = 'c'",
        "tags. = 'c'",
        "params.a = 'b'",
        "owner = 'dana'",
        "(name = 'x')",
        "name = 'unclosed",
        "\x00",
        "name = 'x' AND " * 30 + "name = 'x'",
        f"name = '{'x' * 7000}'",
    ],
)
def test_a_filter_that_breaks_the_grammar_is_refused_as_a_parameter(text: str) -> None:
    refused(parse_filter, text, filters.OF_MODELS)


@pytest.mark.parametrize("value", ["'three'", "3.5", "()", "''"])
def test_a_number_is_compared_with_a_whole_number_alone(value: str) -> None:
    refused(parse_filter, f"version_number = {value}", filters.OF_VERSIONS)


@given(st.text(max_size=200))
def test_whatever_is_sent_as_a_filter_is_read_or_refused(text: str) -> None:
    try:
        found = parse_filter(text, filters.OF_VERSIONS)
    except MlflowError:
        return
    assert not text.strip() or found.conditions or found.nothing or "is_prompt" in text


@given(
    key=st.text(st.characters(blacklist_characters="`", blacklist_categories=("Cs",)), min_size=1, max_size=30), value=st.text(max_size=50)
)
def test_a_condition_says_what_was_written_into_it(key: str, value: str) -> None:
    if "'" in value or value.endswith("\\"):
        return
    found = parse_filter(f"tags.`{key}` = '{value}'", filters.OF_MODELS)
    assert found.nothing or found.conditions in ((Condition("tag", key, "=", value),), ())


@pytest.mark.parametrize(
    ("text", "nothing"),
    [
        ("tags.`mlflow.prompt.is_prompt` != 'true'", False),
        ("tags.`mlflow.prompt.is_prompt` = 'false'", False),
        ("tags.`mlflow.prompt.is_prompt` = 'true'", True),
        ("tags.`mlflow.prompt.is_prompt` != 'false'", True),
    ],
)
def test_prompts_are_asked_for_or_left_out_and_no_model_is_one(text: str, nothing: bool) -> None:
    assert parse_filter(f"{text} AND name = 'x'", filters.OF_MODELS) == Filter((Condition("attribute", "name", "=", "x"),), nothing)


def test_patterns_stand_for_characters_and_nothing_else_does() -> None:
    assert matches_text("risk-2", "LIKE", "risk_%")
    assert not matches_text("Risk-2", "LIKE", "risk%")
    assert matches_text("Risk-2", "ILIKE", "risk%")
    assert not matches_text("riskier", "LIKE", "risk.*")
    assert matches_text("b", "NOT IN", ("a",))
    assert not matches_text("a", "!=", "a")


@given(st.text("abA%_.\n", max_size=8), st.text("abA.\n", max_size=8), st.booleans())
def test_a_pattern_stands_for_what_the_same_regular_expression_does(pattern: str, text: str, fold: bool) -> None:
    expression = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
    expected = re.fullmatch(expression, text, re.DOTALL | (re.IGNORECASE if fold else 0)) is not None
    assert matches_text(text, "ILIKE" if fold else "LIKE", pattern) == expected


@pytest.mark.parametrize(
    "pattern", ["%a" * 2900 + "%b", "%a%" * 1900 + "b", "%_" * 2900 + "b", "%" * 5900 + "b"], ids=["letters", "loops", "any", "none"]
)
def test_no_pattern_takes_longer_than_text_and_pattern_are_long(pattern: str) -> None:
    # As a regular expression the first one would be tried for longer than the world is old.
    before = process_time()
    assert not matches_text("a" * 5000, "LIKE", pattern)
    assert process_time() - before < 2


def test_orders_are_read_in_the_order_of_their_weight() -> None:
    found = parse_order(["name DESC", "last_updated_timestamp"], ordering.OF_VERSIONS)
    assert found == (Order("name", ascending=False), Order("last_updated_timestamp"))
    assert parse_order(["timestamp desc"], ordering.OF_MODELS) == (Order("last_updated_timestamp", ascending=False),)


@pytest.mark.parametrize("clauses", [["owner"], ["name sideways"], ["name, timestamp"], [""], ["name", "name DESC"], ["name;"]])
def test_an_order_that_is_none_is_refused(clauses: list[str]) -> None:
    refused(parse_order, clauses, ordering.OF_MODELS)


def test_a_token_goes_on_with_its_own_search_and_with_no_other() -> None:
    mine, other = question("models", "name = 'x'", ["name"]), question("models", "name = 'x'", ["name DESC"])
    token = write_token(mine, "cursor-1")
    assert read_token(token, mine) == "cursor-1"
    assert "another filter or order" in refused(read_token, token, other)
    assert write_token(mine, "") == ""
    assert read_token("", mine) == ""


@pytest.mark.parametrize("held", [{"offset": 100}, {"question": 1, "cursor": 2}, [], "x", None, {"question": question("models", "", [])}])
def test_a_token_of_another_server_is_refused(held: Any) -> None:
    token = base64.b64encode(json.dumps(held).encode()).decode()
    refused(read_token, token, question("models", "", []))
    refused(read_token, "%%%", "")
    refused(read_token, "A" * 10_000, "")
    refused(read_token, base64.b64encode(b"[" * 6000).decode(), "")


@given(st.text(max_size=60))
def test_whatever_is_sent_as_a_token_is_refused(token: str) -> None:
    if token:
        refused(read_token, token, question("models", "", []))


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", ".", "..", "x" * 300, "a\nb"])
def test_a_name_that_mlflow_would_refuse_is_refused(name: str) -> None:
    refused(check_name, name)


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "ä", "x" * 256, "latest", "LATEST", "v3", "V12"])
def test_an_alias_that_is_none_or_mlflows_own_cannot_be_set(alias: str) -> None:
    refused(check_alias, alias, settable=True)


def test_an_alias_of_mlflows_own_can_be_asked_for() -> None:
    assert check_alias("latest") == "latest"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "one", "", "99999999999", "\u0663"])
def test_a_version_is_a_whole_number_from_one(text: str) -> None:
    refused(check_version, text)


@pytest.mark.parametrize("key", ["", "attestry.mlflow.name", "attestry.mlflow.stage", "../up", "/top", "a//b", "a\tb", "k" * 251])
def test_a_tag_of_the_registry_or_of_no_plain_name_is_refused(key: str) -> None:
    refused(check_tag, key, "value")


def test_a_stage_is_known_in_whatever_case() -> None:
    assert [check_stage(s.upper()) for s in STAGES] == list(STAGES)
    assert "must be one of None, Staging, Production, Archived" in refused(check_stage, "Deleted_Internal")


def test_a_governed_version_shows_the_stage_of_its_standing_whatever_its_tags_say() -> None:
    assert OF_STANDING.keys() == set(Standing)
    assert shown_stage(Standing.CANDIDATE, {STAGE_TAG: "Production"}, open_model=False) == "None"
    assert shown_stage(Standing.DEPLOYED, {}, open_model=False) == "Production"
    assert shown_stage(Standing.CANDIDATE, {STAGE_TAG: "Production"}, open_model=True) == "Production"
    assert shown_stage(Standing.CANDIDATE, {STAGE_TAG: "Deleted_Internal"}, open_model=True) == "None"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (f"attestry://uploads/{SUBMISSION}", ""),
        (f"attestry://uploads/{SUBMISSION}/", ""),
        (f"attestry://uploads/{SUBMISSION}?from=runs%3A/abc/model", "runs:/abc/model"),
        (f"attestry://uploads/{SUBMISSION}?from=a%00b", ""),
        (f"s3://{STORE}/{PREFIX}{SUBMISSION}/import", ""),
        (f"s3://{STORE}/{PREFIX}{SUBMISSION}/import/", ""),
    ],
)
def test_a_source_that_is_a_submission_of_the_callers_own_is_taken(source: str, told: str) -> None:
    assert own_submission(source, store=STORE, prefix=PREFIX) == Source(SUBMISSION, told)


@pytest.mark.parametrize(
    "source",
    [
        "runs:/abc/model",
        "models:/m-abc",
        "models:/iris/3",
        "/home/dana/mlruns/0/model",
        "file:///etc/passwd",
        "C:/models",
        "https://elsewhere.example/model",
        "dbfs:/models",
        "s3://other-bucket/model",
        f"s3://{STORE}/models/iris/1-abc/frozen/model",
        f"s3://{STORE}/candidates/AROAEXAMPLE:erin/{SUBMISSION}",
        f"s3://{STORE}/{PREFIX}",
        f"s3://{STORE}/{PREFIX.removesuffix('/')}",
        f"s3://{STORE}/candidates/AROAEXAMPLE:dana-2/x",
        f"s3://{STORE}/{PREFIX}../AROAEXAMPLE:erin/{SUBMISSION}",
        f"s3://{STORE}/{PREFIX}{SUBMISSION}",
        f"s3://{STORE}/{PREFIX}{SUBMISSION}/import/model",
        f"s3://{STORE}/{PREFIX}{SUBMISSION}/import/../../x",
        f"s3://{STORE}/candidates/AROAEXAMPLE:erin/{SUBMISSION}/import",
        f"s3://other-bucket/{PREFIX}{SUBMISSION}/import",
        f"S3://{STORE}/{PREFIX}{SUBMISSION}/import",
        f"s3://{STORE}/{PREFIX}%2e%2e/x",
        f"s3://{STORE}/{PREFIX}{SUBMISSION}//model",
        f"s3://{STORE}/{PREFIX}{SUBMISSION}/.",
        f"s3://{STORE}/{PREFIX}a\\b",
        f"s3://{STORE}/{PREFIX}a\x00b",
        f"s3://{STORE}/{PREFIX}a?versionId=1",
        f"s3://{STORE}@other/{PREFIX}a",
        "s3://[",
        "attestry://uploads",
        "attestry://uploads/../x",
        f"attestry://uploads/{SUBMISSION}/../{SUBMISSION}",
        "attestry://uploads/short",
        f"attestry://models/{SUBMISSION}",
        "",
        "x" * 3000,
    ],
)
def test_a_source_that_is_not_the_callers_own_is_refused(source: str) -> None:
    assert refused(own_submission, source, store=STORE, prefix=PREFIX).startswith("Invalid model version source")


@given(st.text(max_size=80))
def test_no_source_names_anything_but_a_submission_by_its_digits(tail: str) -> None:
    for start in (f"s3://{STORE}/", f"s3://{STORE}/{PREFIX}", "attestry://uploads/", f"attestry://uploads/{SUBMISSION}"):
        try:
            found = own_submission(start + tail, store=STORE, prefix=PREFIX)
        except MlflowError:
            continue
        assert 16 <= len(found.submission) <= 64
        assert set(found.submission) <= set("0123456789abcdef")
        assert found.told.isprintable()


def test_a_query_keeps_lists_whose_elements_hold_commas() -> None:
    fields = Fields.of_query("order_by=name+ASC&order_by=a%2Cb&filter=name%20%3D%20%27x%27")
    assert fields.texts("order_by") == ("name ASC", "a,b")
    assert fields.text("filter") == "name = 'x'"


def test_what_a_message_does_not_know_is_passed_over() -> None:
    made = read_create_model(
        Fields.of_body(b'{"name":"iris","deployment_job_id":"7","tags":[{"key":"a","value":"1"},{"key":"a","value":"2"}]}')
    )
    assert (made.name, made.description, dict(made.tags)) == ("iris", "", {"a": "2"})


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b"\xff",
        b"{}",
        b'{"name":7}',
        b'{"name":{"a":1}}',
        b'{"name":"a","tags":{"k":"v"}}',
        b'{"name":"a","tags":["k"]}',
        b'{"name":"a","tags":[{"key":"k","value":1}]}',
        b'{"name":"a","description":"\\u0000"}',
        b'{"name":"a\\ud800"}',
        b'{"name":"a","tags":[{"key":"mlflow.prompt.is_prompt","value":"true"}]}',
        b'{"name":"a","description":"' + b"x" * 6000 + b'"}',
    ],
)
def test_a_body_that_makes_no_model_is_refused_by_the_name_of_the_parameter(body: bytes) -> None:
    assert refused(lambda: read_create_model(Fields.of_body(body)))


def test_requests_are_read_into_values() -> None:
    body = {"name": "iris", "source": "s", "run_id": "r", "model_id": "m-1", "tags": [{"key": "k", "value": ""}]}
    made = read_create_version(Fields.of_body(json.dumps(body).encode()))
    assert (made.source, made.run_id, made.model_id, made.run_link, dict(made.tags)) == ("s", "r", "m-1", "", {"k": ""})
    moved = read_move(Fields.of_body(b'{"name":"iris","version":"3","stage":"production","archive_existing_versions":true}'))
    assert (moved.number, moved.stage, moved.archive) == (3, "Production", True)
    assert stages_of(Fields.of_query("stages=staging&stages=Staging&stages=none")) == ("Staging", "None")
    assert version_of(Fields.of_query("name=iris&version=12")) == ("iris", 12)
    assert tag_of(Fields.of_body(b'{"key":"a","value":"b"}')) == ("a", "b")


def test_versions_are_archived_only_on_the_way_to_an_active_stage() -> None:
    body = b'{"name":"iris","version":"3","stage":"Archived","archive_existing_versions":true}'
    assert "is not an Active stage" in refused(lambda: read_move(Fields.of_body(body)))


def test_a_page_is_never_larger_than_an_answer_can_be() -> None:
    assert read_search(Fields({"max_results": "200000"}), "versions").limit == MAX_PAGE
    assert read_search(Fields({"max_results": "5"}), "models").limit == 5
    assert read_search(Fields({}), "models").limit == 100
    for wrong in ("0", "-1", "1001", "many", "1.5"):
        refused(read_search, Fields({"max_results": wrong}), "models")


def test_a_search_goes_on_with_the_token_of_its_page() -> None:
    first = read_search(Fields({"filter": "name = 'x'", "order_by": ["name"]}), "models")
    token = write_token(first.question, "after-x")
    assert read_search(Fields({"filter": "name = 'x'", "order_by": ["name"], "page_token": token}), "models").cursor == "after-x"
    refused(read_search, Fields({"filter": "name = 'x'", "order_by": ["name"], "page_token": token}), "versions")


def test_entities_are_shown_without_what_is_empty_and_without_the_registrys_own_tags() -> None:
    at = "2026-01-01T00:00:00.123456Z"
    tags = {"team": "risk", "attestry.mlflow.stage": "Staging"}
    version = ShownVersion("Iris", 3, at, at, "dana", "Staging", run_id="r", tags=tags, aliases=("b", "a"))
    assert version.to_dict() == {
        "name": "Iris",
        "version": "3",
        "user_id": "dana",
        "current_stage": "Staging",
        "run_id": "r",
        "status": "READY",
        "creation_timestamp": 1767225600123,
        "last_updated_timestamp": 1767225600123,
        "tags": [{"key": "team", "value": "risk"}],
        "aliases": ["a", "b"],
    }
    model = ShownModel("Iris", at, at, aliases={"champion": 3}, latest=(version,)).to_dict()
    assert model["aliases"] == [{"alias": "champion", "version": "3"}]
    assert model["latest_versions"] == [version.to_dict()]
    assert "description" not in model


def test_a_time_is_in_whole_milliseconds() -> None:
    assert milliseconds("1970-01-01T00:00:01.999999Z") == 1999


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (InvalidInputError.of("name", "rule", "no"), "INVALID_PARAMETER_VALUE", 400),
        (NotFoundError("no"), "RESOURCE_DOES_NOT_EXIST", 404),
        (ForbiddenError("no"), "PERMISSION_DENIED", 403),
        (UnprovenIdentityError("no"), "PERMISSION_DENIED", 403),
        (ConflictError("no"), "RESOURCE_CONFLICT", 409),
        (UnavailableError("no"), "TEMPORARILY_UNAVAILABLE", 503),
        (AttestryError("a secret"), "INTERNAL_ERROR", 500),
    ],
)
def test_an_error_of_the_registry_has_the_code_that_mlflows_clients_act_on(error: AttestryError, code: str, status: int) -> None:
    told, body = error_body(error)
    assert (error_code(error), told, body["error_code"]) == (code, status, code)
    assert "secret" not in str(body["message"])


def test_a_model_that_is_there_already_has_the_code_by_which_register_model_goes_on() -> None:
    error = ConflictError("it is there")
    error.code = "model_exists"
    assert error_body(error) == (400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "it is there"})


def test_no_refusal_has_a_status_that_clients_try_again() -> None:
    retried = {code for code, status in STATUS.items() if status in RETRIED_BY_CLIENTS}
    assert retried == {"INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "TEMPORARILY_UNAVAILABLE"}
