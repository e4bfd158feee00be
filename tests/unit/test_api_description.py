"""The table of operations, and what is made of it: one entry per route, schemas that are schemas, documents that are current."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from attestry.api.acts import WANTED
from attestry.api.components import COMPONENTS
from attestry.api.openapi import document, document_text, served_text
from attestry.api.operation import ALL, Operation
from attestry.api.operations import BY_ID, BY_ROUTE, OPERATIONS
from attestry.api.reference import page
from attestry.cli.main import make_app
from attestry.domain.principal import ROLES
from attestry.usecases import request_transition
from tests.api_world import MODULES
from tests.api_world import ROUTES as SERVED

ROOT = Path(__file__).resolve().parents[2]
IDS = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)


def references(schema: Any) -> set[str]:
    """Names of the components that a schema leans on."""
    return set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))


def test_every_operation_has_an_id_and_a_route_of_its_own() -> None:
    assert len(OPERATIONS) == len(BY_ID) == len(BY_ROUTE)
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+", id_) for id_ in BY_ID)


def test_each_route_that_is_described_is_served_by_one_function_and_the_other_way_round() -> None:
    assert set(SERVED) == set(BY_ROUTE)
    assert len(SERVED) == sum(len(module.ROUTES) for module in MODULES.values())


@IDS
def test_roles_are_the_registry_s_and_somebody_may(operation: Operation) -> None:
    assert operation.roles
    assert set(operation.roles) <= set(ROLES)
    assert set(ALL) == set(ROLES)


@IDS
def test_schemas_are_json_schema_and_name_components_that_there_are(operation: Operation) -> None:
    schemas = [operation.answer, *(p.schema for p in operation.query), *operation.path_parameters.values(), *filter(None, [operation.body])]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
        assert references(schema) <= COMPONENTS.keys()


@IDS
def test_a_body_is_closed_so_that_no_field_is_set_by_guessing(operation: Operation) -> None:
    assert operation.body is None or operation.body["additionalProperties"] is False
    assert operation.body is None or operation.method in ("POST", "PUT", "PATCH")


def test_what_a_transition_may_be_asked_for_is_what_the_use_case_knows() -> None:
    assert WANTED == request_transition.WANTED


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_is_json_schema_and_is_used(name: str) -> None:
    Draft202012Validator.check_schema(COMPONENTS[name])
    assert name in references(document())


def test_the_kept_document_is_current() -> None:
    kept = (ROOT / "docs" / "api" / "openapi.json").read_text(encoding="utf-8")
    assert kept == document_text(), "run: attestry api openapi > docs/api/openapi.json"
    assert json.loads(served_text()) == json.loads(kept)


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == page(), "run: attestry api reference > docs/api.md"


def test_the_command_line_prints_both() -> None:
    run = CliRunner()
    assert run.invoke(make_app(), ["api", "openapi"]).output == document_text()
    assert run.invoke(make_app(), ["api", "reference"]).output == page()
