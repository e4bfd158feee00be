"""Operations: what people do to a version by hand, and the roles in which they may.

The gateway admits a role to a route, and `infra/identity.py` says which; a way in that several roles share (`request_transition`, the
AWS console) asks this table, so that one operation has the same roles whichever way it is asked for. What more an operation asks for,
persons, own candidates, standings, lies with its use case.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from attestry.domain.errors import ForbiddenError
from attestry.domain.principal import Principal


class Operation(StrEnum):
    """An act by hand; the words of the API, the command line and the console."""

    APPROVE = "approve"
    REJECT = "reject"
    HOLD = "hold"
    RELEASE = "release"
    REDO = "redo"
    RETRY = "retry"
    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    KILL = "kill"
    RETIRE = "retire"


_GUARDS = ("approver", "validator", "deployer", "admin")

ROLES_OF: Mapping[Operation, tuple[str, ...]] = {
    Operation.APPROVE: ("approver", "validator"),
    Operation.REJECT: ("approver", "validator"),
    Operation.HOLD: _GUARDS,
    Operation.RELEASE: _GUARDS,
    Operation.REDO: ("scientist", "validator", "admin"),
    Operation.RETRY: ("scientist", "deployer"),
    Operation.DEPLOY: ("deployer",),
    Operation.ROLLBACK: ("deployer",),
    Operation.KILL: ("approver", "deployer", "admin"),
    Operation.RETIRE: ("deployer", "admin"),
}
"""Operation to the roles in one of which somebody has to act. Which of them count for an approval, the version's policy says."""


def require_role(operation: Operation, by: Principal, reference: str) -> None:
    """Refuse who acts in none of the operation's roles.

    Args:
        operation: what is asked for.
        by: the authenticated principal.
        reference: what it is asked for, for the sentence.

    Raises:
        ForbiddenError: naming the roles that may.
    """
    roles = ROLES_OF[operation]
    if not set(by.roles) & set(roles):
        acts = f"acts as {' and '.join(by.roles)}" if by.roles else "acts in no role of the registry"
        raise ForbiddenError(
            f"{operation.value} of {reference} takes the role {' or '.join(roles)}; {by.login} {acts}",
            details={"roles": list(roles), "login": by.login, "acts_as": list(by.roles)},
        )
