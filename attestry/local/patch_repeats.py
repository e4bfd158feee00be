"""Patch: work that the emulator does anew with every call, though nothing of what it depends on has changed.

Nothing of AWS is at stake, only time: a policy is read from its JSON twice for each call, a row is copied member by member, in Python,
for each update, and once more for each condition, and for each request the template of every route is made a regular expression, twice.
"""

from __future__ import annotations

import copy
import functools
import marshal
import re
from collections.abc import Callable
from typing import Any

from attestry.local.patching import PatchError, load, replace

_POLICIES = 1024
_ROUTES = 4096
_PARAMETER = re.compile(r"(\{[^}]+\})")


class Copies:
    """The module `copy` as the emulator's tables see it: what came as JSON is copied in C."""

    def __getattr__(self, name: str) -> Any:
        return getattr(copy, name)

    @staticmethod
    def deepcopy(value: Any) -> Any:
        """Return a copy that shares nothing that can be changed."""
        try:
            return marshal.loads(marshal.dumps(value, 2))  # noqa: S302 (written a moment ago, here)
        except ValueError:  # it holds something that JSON has not
            return copy.deepcopy(value)


def apply() -> None:
    """Patch copies of rows and the reading of policies.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    tables = load("ministack.services.dynamodb")
    if tables.copy is not copy:
        raise PatchError("the emulator's tables do not import copy")
    tables.copy = Copies()
    replace(load("ministack.core.iam_evaluator"), "parse_policy_document", "622a4f98a3ecd766", parse_once)
    replace(load("ministack.services.apigateway"), "_extract_path_params", "d3aaa9aa2c53a65e", lambda _: parameters_of)


def parse_once(original: Callable[[str | dict[str, Any]], list[Any]]) -> Callable[[str | dict[str, Any]], list[Any]]:
    """Return a reader of policies that reads the same text once; its statements are evaluated and never changed."""
    kept = functools.lru_cache(_POLICIES)(lambda text: tuple(original(text)))
    return lambda document: list(kept(document)) if isinstance(document, str) else original(document)


def parameters_of(template: str, path: str) -> dict[str, str] | None:
    """Return the parameters of a path by the template of a route, None where the path is not the route's."""
    pattern, names = _compiled(template)
    found = pattern.fullmatch(path)
    return dict(zip(names, found.groups(), strict=True)) if found else None


@functools.lru_cache(_ROUTES)
def _compiled(template: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return a route's template as a regular expression: `{name}` is one segment of the path, `{name+}` is one or more."""
    parts = _PARAMETER.split(template)
    names = tuple(part[1:-1] for part in parts[1::2])
    patterns = [re.escape(part) for part in parts]
    patterns[1::2] = ["(.+)" if name.endswith("+") else "([^/]+)" for name in names]
    return re.compile("".join(patterns)), tuple(name.removesuffix("+") for name in names)
