"""Patch: what a read in part shows of a row is worked out once for the read, and not for each of its rows.

Nothing of AWS is at stake, only time: for every row the emulator takes the expression apart, character by character, and holds each of its
paths against each other one. Here that is done once where the paths are plain names, as they are in most reads; what they lead to is the
row's own attributes. Any other expression, and one that AWS refuses, goes to the emulator as it came.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container
from typing import Any

from attestry.local.patching import applied_to_tables, replace

__all__ = ["apply", "patch", "plain_names"]

Row = dict[str, Any]

_EXPRESSIONS = 1024
_PATH_SIGNS = frozenset(".[] \t\n\r")


def patch(tables: Any) -> None:
    """Patch projections in the emulator's module of DynamoDB.

    Raises:
        PatchError: it is not what this was written for.
    """
    keywords = tables.AWS_KEYWORDS
    read = functools.lru_cache(_EXPRESSIONS)(lambda expression, names: plain_names(expression, dict(names), keywords))

    def project(original: Callable[[Row, Any, Any], Row]) -> Callable[[Row, Any, Any], Row]:
        def shown(row: Row, expression: Any, names: Any) -> Row:
            try:
                wanted = read(expression, tuple(names.items())) if names else read(expression, ())
            except (AttributeError, TypeError):  # no mapping, or of something else than texts
                wanted = None
            if wanted is None:
                return original(row, expression, names)
            return {name: row[name] for name in wanted if name in row}

        return shown

    replace(tables, "_project_item", "d83ba049530b0ee3", project)


apply = applied_to_tables(patch)


def plain_names(expression: Any, names: dict[Any, Any], keywords: Container[str]) -> tuple[str, ...] | None:
    """Return the attributes that an expression names, None where it is not a list of different names.

    Args:
        expression: a ProjectionExpression.
        names: attribute names by their placeholders.
        keywords: names that may not stand there without a placeholder, in upper case.
    """
    if not isinstance(expression, str):
        return None
    wanted = []
    for path in filter(None, (part.strip() for part in expression.split(","))):
        name = names.get(path, path) if path.startswith("#") else path
        if not isinstance(name, str) or not name or not _PATH_SIGNS.isdisjoint(path + name) or path.upper() in keywords:
            return None
        wanted.append(name)
    return tuple(wanted) if wanted and len(set(wanted)) == len(wanted) else None
