"""Scopes: where a role counts, and where a model lies.

    registry                 everywhere
    model/tumour-diagnosis   one model
    tag/tier=low             models with the tag
    project/onco             models of the project
    unit/diagnostics         models of the business unit

Rules:
- A model's tags, project and unit are what an admin has said of it (its placement), and nothing else: not what a manifest or a tag of the
  catalogue says, since those are written by the people whose access they would widen.
- Names are of 1 to 63 letters, digits, `.`, `_` and `-`, so that none passes for another kind of scope.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.domain.catalogue import identity_of
from attestry.domain.errors import InvalidInputError

REGISTRY: Final = "registry"
MAX_TAGS: Final = 20
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_KINDS = ("model", "project", "unit")


def placed_as(name: str) -> str:
    """Return the identity of the model that a name stands for: what is placed, granted and acted on. What is no name leads to no model."""
    try:
        return identity_of(name)
    except InvalidInputError:
        return name


def is_name_of_model(text: str) -> bool:
    """Return whether a model may have the name."""
    try:
        identity_of(text)
    except InvalidInputError:
        return False
    return True


def read_scope(value: object) -> str:
    """Return a checked scope; that of a model names it by its identity, whichever of its names was said.

    Raises:
        InvalidInputError: it is none of the forms above.
    """
    kind, _, name = value.partition("/") if isinstance(value, str) else ("", "", "")
    key, equals, text = name.partition("=")
    known = (
        value == REGISTRY or (kind in _KINDS and _is_name(name)) or (kind == "tag" and bool(equals) and _is_name(key) and _is_name(text))
    )
    if not known:
        raise InvalidInputError.of("scope", "scope", "a scope is registry, model/NAME, tag/KEY=VALUE, project/NAME or unit/NAME")
    return f"model/{placed_as(name)}" if kind == "model" else str(value)


@dataclass(frozen=True)
class Placement:
    """Where an admin has placed a model.

    Attributes:
        tags: key to value.
        project: name, or empty.
        unit: name of the business unit, or empty.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    unit: str = ""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Placement:
        """Return the placement that a request asks for.

        Raises:
            InvalidInputError: naming the field.
        """
        tags = body.get("tags") or {}
        if not isinstance(tags, dict) or len(tags) > MAX_TAGS or not all(_is_name(k) and _is_name(v) for k, v in tags.items()):
            raise InvalidInputError.of(
                "tags", "tags", f"an object of at most {MAX_TAGS} names and values, of 1 to 63 letters, digits, . _ -"
            )
        for name in ("project", "unit"):
            if body.get(name) and not _is_name(body[name]):
                raise InvalidInputError.of(name, "name", f"a {name} has 1 to 63 letters, digits, . _ -")
        return cls(dict(sorted(tags.items())), body.get("project") or "", body.get("unit") or "")

    @classmethod
    def from_item(cls, row: Mapping[str, Any] | None) -> Placement:
        """Return the placement that a row tells of; without a row a model is placed nowhere."""
        return cls(dict(row["tags"]), str(row["project"]), str(row["unit"])) if row else cls()

    def to_item(self) -> dict[str, Any]:
        """Return the placement as rows and events have it."""
        return {"tags": dict(self.tags), "project": self.project, "unit": self.unit}

    def scopes_of(self, model: str) -> tuple[str, ...]:
        """Return every scope in which the model lies."""
        places = [f"tag/{key}={value}" for key, value in sorted(self.tags.items())]
        places += [f"{kind}/{name}" for kind, name in (("project", self.project), ("unit", self.unit)) if name]
        return (REGISTRY, f"model/{model}", *places)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
