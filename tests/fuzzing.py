"""The API's description as schemathesis reads it, to make requests of."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from attestry.api.openapi import document
from attestry.api.operation import Operation

_DESCRIBED = document()
_ANY_TEXT = frozenset({"type", "minLength", "description"})
"""What is said of a part of a path that may be any text: it has a character at least, or it were no part."""

_CONFIG = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
"""Who asks is the tests' own matter: it makes no tokens."""


def description(application: Any) -> Any:
    """Return the description, whose cases call an application in this process."""
    schema = schemathesis.openapi.from_dict(_DESCRIBED, config=_CONFIG)
    schema.app = application
    return schema


def kinds_of(operation: Operation) -> tuple[GenerationMode, ...]:
    """Return which kinds of requests an operation has.

    One without any input has no invalid ones, and neither has one that takes nothing but any text in its path.
    """
    parameters = _DESCRIBED["paths"][operation.path][operation.method.lower()].get("parameters", ())
    can_be_wrong = operation.body or any(p["in"] != "path" or set(p["schema"]) - _ANY_TEXT for p in parameters)
    return (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if can_be_wrong else (GenerationMode.POSITIVE,)
