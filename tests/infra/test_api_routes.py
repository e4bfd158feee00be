"""Gateway and roles against the table of operations, which infra does not import. MLflow's surface is not ours to describe."""

from __future__ import annotations

import pytest

from attestry.api.operation import ALL
from attestry.api.operations import BY_ROUTE, OPERATIONS
from infra.api import ROUTES
from infra.identity import routes_of
from lambdas import mlflow
from tests.api_world import ROUTES as SERVED


def test_the_gateway_has_exactly_the_operations_and_sends_each_to_the_function_that_serves_it() -> None:
    native = [route for route in ROUTES if route.function != "mlflow"]
    assert {f"{route.method} {route.path}": route.function for route in native} == SERVED
    assert {f"{route.method} {route.path}" for route in native} == set(BY_ROUTE)


def test_the_gateway_has_exactly_the_routes_of_mlflow_that_are_served() -> None:
    assert sorted(f"{route.method} {route.path}" for route in ROUTES if route.function == "mlflow") == sorted(mlflow.ROUTES)


@pytest.mark.parametrize("role", ALL)
def test_a_role_may_call_exactly_the_operations_that_name_it(role: str) -> None:
    assert {f"{r.method} {r.path}" for r in routes_of(role) if r.function != "mlflow"} == {o.route for o in OPERATIONS if role in o.roles}
