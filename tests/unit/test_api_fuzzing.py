"""The API under requests that a generator makes of its own description: schemathesis, in process, on the handlers.

Valid and invalid requests both; whatever comes, the answer is one that the description has, in its form, and never a 5xx.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from attestry.api.operation import Operation
from attestry.api.operations import OPERATIONS
from tests.api_world import ApiWorld
from tests.fuzzing import description, kinds_of

EXAMPLES = 4
"""Requests per operation and kind."""

THOUSAND = 1000
"""Requests per operation of the long test, half of them invalid; another of `make test-long` sends as many to the embedded API."""

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        yield ApiWorld.install(patch)


@pytest.fixture(scope="module")
def described(api: ApiWorld) -> Any:
    return description(api.application)


CASES = [pytest.param(o, kind, id=f"{o.id}-{kind.value}") for o in OPERATIONS for kind in kinds_of(o)]


@pytest.mark.parametrize(("operation", "kind"), CASES)
def test_no_request_is_answered_otherwise_than_described(api: ApiWorld, described: Any, operation: Operation, kind: GenerationMode) -> None:
    fuzz(api, described, operation, kind, settings(max_examples=EXAMPLES, derandomize=True))


@pytest.mark.long
@pytest.mark.parametrize(("operation", "kind"), CASES)
def test_none_of_a_thousand_requests_is_answered_otherwise_than_described(
    api: ApiWorld, described: Any, operation: Operation, kind: GenerationMode
) -> None:
    fuzz(api, described, operation, kind, settings(max_examples=THOUSAND // len(kinds_of(operation))))


def fuzz(api: ApiWorld, described: Any, operation: Operation, kind: GenerationMode, how: settings) -> None:
    """Ask, and put the rows back as they were."""
    before = dict(api.meta.rows)
    known = {"model": api.model, "number": "1", "id": api.prediction}
    role = operation.roles[0]
    who = {"scientist": "scientist/dana", "consumer": "consumer/frank", "deployer": "deployer/frank"}.get(role, f"{role}/grace")

    @settings(how, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=described[operation.path][operation.method].as_strategy(generation_mode=kind), there=st.booleans())
    def ask(case: Case, there: bool) -> None:
        if there:
            case.path_parameters.update({name: value for name, value in known.items() if name in operation.path_parameters})
        case.headers["x-who"] = who
        case.validate_response(case.call(), checks=CHECKS)

    try:
        ask()
    finally:
        api.meta.rows.clear()
        api.meta.rows.update(before)
