"""Ask for an import: who serves callers has the function that makes versions make it, for the caller that was authenticated.

The function that makes versions holds the rights and the key that it takes, so who serves callers (the API, other protocols) needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import UnavailableError
from attestry.domain.imports import read_import
from attestry.domain.principal import Principal
from attestry.ports import Functions

ACTION: Final = "import"


def ask_import(functions: Functions, register_function: str, model: str, body: Mapping[str, Any], *, by: Principal) -> tuple[int, Any]:
    """Have a version imported, and return HTTP status and body of the answer: 202 with the version, or an error.

    The files are frozen and the approval is opened right afterwards, by others; the version's stage and status tell when.

    Args:
        functions: calls the function that makes versions.
        register_function: its name.
        model: the model's name.
        body: what `attestry.domain.imports.read_import` reads.
        by: the authenticated caller, with its person where it is known.

    Raises:
        InvalidInputError: the request breaks a rule, named by its field.
        UnavailableError: the function failed; ask again with the same submission.
    """
    read_import(model, body)
    answer = functions.call(register_function, {"action": ACTION, "model": model, "body": dict(body), "principal": by.to_item()})
    if not isinstance(answer, dict) or "status" not in answer:
        raise UnavailableError(f"the function {register_function} answered nothing that tells of an import")
    return int(answer["status"]), answer["body"]
