"""Paths of the API, and bodies without what was not given."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote


def model_path(model: str) -> str:
    """Return the path of a model."""
    return f"/v1/models/{path_part(model)}"


def version_path(model: str, number: int) -> str:
    """Return the path of a version."""
    return f"{model_path(model)}/versions/{number}"


def subject_path(model: str, number: int | None) -> str:
    """Return the path of a version or, without a number, of its model."""
    return model_path(model) if number is None else version_path(model, number)


def path_part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")


def given(**values: Any) -> dict[str, Any]:
    """Return those values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
