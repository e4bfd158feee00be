"""The gate for what does not come through the API: acts in the AWS console, and manifests that are registered.

They are decided by the same policies on rows as they are now, so that a scope narrows every way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from attestry.access.actions import REGISTER, Action, Resource
from attestry.access.reader import AccessReader
from attestry.access.standing import Caller
from attestry.access.warrant import Warrant
from attestry.domain.errors import ForbiddenError
from attestry.domain.operations import Operation
from attestry.domain.principal import Principal
from attestry.ports import MetaStore

ACTION_OF: Final[Mapping[Operation, str]] = {
    Operation.APPROVE: "versions.decide",
    Operation.REJECT: "versions.decide",
    Operation.HOLD: "versions.hold",
    Operation.RELEASE: "versions.release",
    Operation.REDO: "versions.redo",
    Operation.RETRY: "versions.retry",
    Operation.DEPLOY: "versions.deploy",
    Operation.ROLLBACK: "models.rollback",
    Operation.KILL: "versions.kill",
    Operation.RETIRE: "versions.retire",
}
"""Operation of the console to the action that the API knows it by."""


def require_operation(meta: MetaStore, operation: Operation, model: str, *, by: Principal, at: datetime) -> Principal:
    """Decide on an act in the AWS console, and return the caller with the roles that count on the model.

    Args:
        meta: the table.
        operation: the act.
        model: the model's name.
        by: who acts, with the role of their session.
        at: the time.

    Raises:
        ForbiddenError: policies deny it.
        UnavailableError: the table did not answer.
    """
    admitted = _admit(meta, ACTION_OF[operation], model, by, at)
    return replace(by, roles=admitted.roles)


def require_registration(meta: MetaStore, model: str, *, by: Principal, at: datetime) -> None:
    """Decide whether who uploaded a manifest may make versions of the model that it names.

    Of an upload by hand the platform says the identity and no role. The bucket lets scientists alone upload, so that counts as their role
    where nothing was ever granted to them.

    Raises:
        ForbiddenError: policies deny it.
        UnavailableError: the table did not answer.
    """
    _admit(meta, REGISTER, model, by if by.roles else replace(by, roles=("scientist",)), at)


def may_do(meta: MetaStore, action: str, model: str, *, by: Principal, at: datetime) -> bool:
    """Return whether policies let a caller do this to a model, on rows as they are now.

    Raises:
        UnavailableError: the table did not answer.
    """
    try:
        _admit(meta, action, model, by, at)
    except ForbiddenError:
        return False
    return True


def _admit(meta: MetaStore, action: str, model: str, by: Principal, at: datetime) -> Principal:
    warrant = Warrant(AccessReader(meta), Caller(by), Action(action, Resource.MODEL, fresh=True), at)
    return warrant.admit(model)
