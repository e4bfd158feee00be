"""Gateway and roles against the table of operations, which infra does not import."""

from __future__ import annotations

import pytest

from attestry.api.operation import ALL
from attestry.api.operations import BY_ROUTE, OPERATIONS
from infra.api import ROUTES
from infra.identity import routes_of
from tests.api_world import ROUTES as SERVED


def test_the_gateway_has_exactly_the_operations_and_sends_each_to_the_function_that_serves_it() -> None:
    assert {f"{route.method} {route.path}": route.function for route in ROUTES} == SERVED
    assert {f"{route.method} {route.path}" for route in ROUTES} == set(BY_ROUTE)


@pytest.mark.parametrize("role", ALL)
def test_a_role_may_call_exactly_the_operations_that_name_it(role: str) -> None:
    assert {f"{r.method} {r.path}" for r in routes_of(role)} == {o.route for o in OPERATIONS if role in o.roles}
