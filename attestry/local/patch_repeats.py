"""Patch: work that the emulator does anew with every call, though nothing of what it depends on has changed.

Nothing of AWS is at stake, only time: a policy is read from its JSON twice for each call, and a row is copied member by member, in Python,
for each update, and once more for each condition.
"""

from __future__ import annotations

import copy
import functools
import marshal
from collections.abc import Callable
from typing import Any

from attestry.local.patching import PatchError, load, replace

_POLICIES = 1024


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


def parse_once(original: Callable[[str | dict[str, Any]], list[Any]]) -> Callable[[str | dict[str, Any]], list[Any]]:
    """Return a reader of policies that reads the same text once; its statements are evaluated and never changed."""
    kept = functools.lru_cache(_POLICIES)(lambda text: tuple(original(text)))
    return lambda document: list(kept(document)) if isinstance(document, str) else original(document)
