"""Operations and roles: the table is complete, agrees with the routes that the gateway opens, and lets nobody past."""

from __future__ import annotations

import pytest

from attestry.domain.errors import ForbiddenError
from attestry.domain.operations import ROLES_OF, Operation, require_role
from attestry.domain.principal import identify
from infra.identity import routes_of
from tests.versions import session

ROUTES = {
    Operation.APPROVE: "/v1/models/{model}/versions/{number}/decision",
    Operation.RETRY: "/v1/models/{model}/versions/{number}/retry",
    Operation.DEPLOY: "/v1/models/{model}/versions/{number}/deployment",
    Operation.ROLLBACK: "/v1/models/{model}/rollback",
    Operation.KILL: "/v1/models/{model}/versions/{number}/kill",
    Operation.RETIRE: "/v1/models/{model}/versions/{number}/retirement",
}
DEPLOYED_ROLES = ("scientist", "validator", "approver", "deployer", "consumer", "auditor", "admin")


def test_every_operation_has_its_roles() -> None:
    assert set(ROLES_OF) == set(Operation)
    assert all(ROLES_OF.values())


@pytest.mark.parametrize("operation", ROUTES, ids=str)
def test_the_gateway_admits_the_same_roles_as_the_table(operation: Operation) -> None:
    admitted = {r for r in DEPLOYED_ROLES if any(route.path == ROUTES[operation] for route in routes_of(r))}
    assert admitted == set(ROLES_OF[operation]) & set(DEPLOYED_ROLES)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("role", DEPLOYED_ROLES)
def test_a_role_does_what_the_table_says_and_nothing_else(operation: Operation, role: str) -> None:
    by = session(role, "erin", person="erin")
    if role in ROLES_OF[operation]:
        require_role(operation, by, "m@1")
    else:
        with pytest.raises(ForbiddenError, match=f"erin acts as {role}"):
            require_role(operation, by, "m@1")


def test_an_identity_that_only_looks_like_a_role_does_nothing() -> None:
    arn = "arn:aws:sts::999999999999:assumed-role/attestry-admin/erin"
    stranger = identify(arn, "AROA:erin", account="123456789012", prefix="attestry", method="AWS_IAM SigV4", address="")
    for operation in Operation:
        with pytest.raises(ForbiddenError, match="in no role of the registry"):
            require_role(operation, stranger, "m@1")
