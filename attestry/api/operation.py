"""What an operation of the API is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from attestry.api.schema import Schema, maybe, text, told, whole

ALL = ("scientist", "validator", "approver", "deployer", "consumer", "auditor", "admin")
READERS = tuple(role for role in ALL if role != "consumer")
"""The roles of who works with the registry; a consumer asks for predictions and sees what they rest on."""

_PARAMETER = re.compile(r"\{([a-z_]+)\}")


def listed(name: str, row: Schema) -> Schema:
    """Return the schema of a page of a list."""
    following = maybe(text("The `cursor` of the next page; null on the last one."))
    return told({name: {"type": "array", "items": row}, "next": following})


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query.

    Attributes:
        name: its name.
        schema: what it may be.
        required: whether it has to be there.
    """

    name: str
    schema: Schema
    required: bool = False


PAGE = (
    Parameter("limit", whole("How many at most; 100 unless it is said.", least=1, most=200)),
    Parameter("cursor", text("Where to go on: what the page before answered in `next`, with the same other parameters.", least=1)),
)
"""The parameters of every list."""


@dataclass(frozen=True)
class Operation:
    """One native operation of the API.

    Attributes:
        id: stable name, `<group>.<verb>`; access rules name operations by it.
        method: HTTP method.
        path: path template.
        summary: what it does, in a sentence.
        answer: schema of the answer's body.
        roles: who may call it by default, of `attestry.domain.principal.ROLES`.
        body: schema of the request's body; None where it has none.
        query: parameters of the query.
        status: HTTP statuses of success.
        errors: HTTP statuses of errors besides those that every operation has.
        note: what a caller should know besides.
    """

    id: str
    method: str
    path: str
    summary: str
    answer: Schema
    roles: tuple[str, ...] = READERS
    body: Schema | None = None
    query: tuple[Parameter, ...] = ()
    status: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ()
    note: str = ""

    @property
    def route(self) -> str:
        """Return method and path, as the gateway and the handlers name the route."""
        return f"{self.method} {self.path}"

    @property
    def group(self) -> str:
        """Return the part of the ID before the dot."""
        return self.id.partition(".")[0]

    @property
    def path_parameters(self) -> Mapping[str, Schema]:
        """Return the path's parameters by name."""
        return {name: PATH_PARAMETERS.get(name) or text() for name in _PARAMETER.findall(self.path)}


PATH_PARAMETERS: Mapping[str, Schema] = {
    "model": text("Name of a model.", least=1),
    "number": {
        "type": "integer",
        "minimum": 1,
        "maximum": 999_999_999,
        "description": "Number of a version, or of a batch of audited acts, counted from 1.",
    },
    "id": text("ID of a prediction: `<key ID>-<sequence>`.", least=1),
    "submission": text("ID that an announcement of files was answered with.", least=1),
    "policy": text("Name of a policy.", least=1),
    "key": text("Key of a tag.", least=1, most=250),
    "alias": text("An alias.", least=1, most=255),
    "webhook": text("Name of a webhook.", least=1),
    "run": text("ID of a development run.", least=1),
}
"""A name that nobody has is answered 404, so the schemas of the path say no more than that."""
