"""The differences between two versions, field by field.

A version is described by sections (metrics, hyperparameters, data, code, dependencies, schema), each a mapping of plain
values. Mappings are compared key by key and lists of named things by name, so that one changed setting is one row, and
a step that moved is told as moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MISSING = object()


@dataclass(frozen=True)
class Difference:
    """One field that differs.

    Attributes:
        section: the section that the field is in.
        field: dotted path within the section; an item of a list of named things is `steps[scale]`.
        before: its value in the first version; None where it is not there.
        after: its value in the second version; None where it is not there.
        change: `added`, `removed` or `changed`.
    """

    section: str
    field: str
    before: Any
    after: Any
    change: str

    def to_item(self) -> dict[str, Any]:
        """Return the difference as JSON-ready mapping."""
        return {"section": self.section, "field": self.field, "before": self.before, "after": self.after, "change": self.change}


def compare_sections(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """Return the fields that differ: sections in the order of `before`, then those only in `after`; fields sorted by name.

    Numbers are equal by value, and a truth value is no number. The result is empty exactly when the two are equal.

    Args:
        before: section to its fields, of the first version.
        after: the same of the second version.
    """
    sections = list(before) + [name for name in after if name not in before]
    return [difference for section in sections for difference in _compare(section, (), before.get(section, {}), after.get(section, {}))]


def _compare(section: str, path: tuple[str, ...], before: Any, after: Any) -> Iterator[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and (before or after or not path):
        for key in sorted({*before, *after}):
            yield from _compare(section, (*path, key), before.get(key, _MISSING), after.get(key, _MISSING))
    elif _are_named(before) and _are_named(after):
        yield from _compare_named(section, path, before, after)
    elif before is _MISSING:
        yield Difference(section, _join(path), None, after, "added")
    elif after is _MISSING:
        yield Difference(section, _join(path), before, None, "removed")
    elif not _equal(before, after):
        yield Difference(section, _join(path), before, after, "changed")


def _compare_named(section: str, path: tuple[str, ...], before: Any, after: Any) -> Iterator[Difference]:
    old = {item["name"]: item for item in before}
    new = {item["name"]: item for item in after}
    for name in [*old, *(n for n in new if n not in old)]:
        item_path = (*path[:-1], f"{path[-1] if path else ''}[{name}]")
        yield from _compare(section, item_path, old.get(name, _MISSING), new.get(name, _MISSING))
    stayed = [name for name in old if name in new]
    moved = [name for name in new if name in old]
    if stayed != moved:
        yield Difference(section, f"{_join(path)} (order)", stayed, moved, "changed")


def _are_named(value: Any) -> bool:
    """Return whether the value is a list of mappings with different names."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return False
    names = [item.get("name") if isinstance(item, Mapping) else None for item in value]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _join(path: tuple[str, ...]) -> str:
    return ".".join(path)
