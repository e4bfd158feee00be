"""Patch: a page of a Query takes the rows of the page, and not all of its partition.

Nothing of AWS is at stake, only time. The emulator takes all rows of a partition, orders them, holds each against the condition and then
cuts out a page. Here it gets a table that has only the rows of the page, and does the same with those: it remains the judge of every row,
of filter, projection and cursor. What is not understood (`read_request`, `_page`) goes to the emulator as it came:
legacy conditions, keys that are no strings, indices with several keys of a kind, a cursor from elsewhere.

Texts of expressions are taken apart once and not for every row.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from attestry.local.packed import CHANGING, Partition, Row, size_of, size_of_row, unpack
from attestry.local.patching import PatchError, applied_to_tables, expect, replace

__all__ = ["Asked", "NotUnderstoodError", "Range", "apply", "range_of"]

_PAGE_BYTES = 1_048_576
_EXPRESSIONS = 1024
_PAIR = 2


class NotUnderstoodError(Exception):
    """A query goes to the emulator as it came."""


@dataclass(frozen=True)
class Range:
    """Sort keys from `low` on and below `high`; None is no bound."""

    low: str | None = None
    high: str | None = None


@dataclass(frozen=True)
class Asked:
    """A query as far as it says which rows it reads.

    Attributes:
        partition: value of the partition key.
        sort_keys: those that the condition lets through.
        index: name of the index, None for the table itself.
        hash_name: partition key's attribute.
        range_name: sort key's attribute, None where the table or the index has none.
        forward: whether the smallest comes first.
        limit: how many rows a page has at most, None for as many as are in a megabyte.
        cursor: place in the order after which the page begins, None at the beginning.
    """

    partition: str
    sort_keys: Range
    index: str | None
    hash_name: str
    range_name: str | None
    forward: bool
    limit: int | None
    cursor: tuple[str, ...] | None


@dataclass(frozen=True)
class _Page:
    """The rows of a page, and the table that has them only.

    Attributes:
        table: the narrowed table.
        count: how many rows the page has; the table has one when the page has none, so that faults of an expression are found.
        stopped: whether the page ends at its limit or its megabyte.
    """

    table: Row
    count: int
    stopped: bool


class _Reading(threading.local):
    """What the emulator reads in this thread."""

    name: Any = None
    page: _Page | None = None


_reading = _Reading()


def patch(tables: Any) -> None:
    """Patch Query in the emulator's module of DynamoDB.

    Raises:
        PatchError: it is not what this was written for.
    """
    for name, digest in _RELIED_ON.items():
        expect(tables, name, digest)
    if type(tables._tables) is not tables.AccountRegionScopedDict:
        raise PatchError(f"{tables.__name__}._tables is of another kind")
    known, tables._tables = tables._tables, _tables_of(tables)()
    tables._tables.update(known)
    replace(tables, "_query", "50c2e7ec69e93ea3", lambda original: _query(tables, original))
    replace(tables, "_paginate_evaluated_items", "d70cfb58e3a279c9", _paginate)
    replace(tables, "_item_size_bytes", "9be41cc11f947cde", lambda _: size_of_row)
    replace(tables, "_tokenize", "6abb13395c3ee7b6", _tokenize_once)
    for name, digest in (("_check_redundant_parens", "9d6df76cfe8735ab"), ("_check_reserved_keyword_usage", "5b08c4cc141cc49a")):
        replace(tables, name, digest, _check_once)
    replace(tables, "_condition_syntax_error", "5213f1ffac34e6cb", functools.lru_cache(_EXPRESSIONS))


apply = applied_to_tables(patch)


_RELIED_ON = {
    "_apply_exclusive_start_key": "080cc305f30345ff",
    "_evaluate_condition": "94561811e28c4326",
    "_extract_pk_from_condition": "ccfbde309b059f99",
    "_index_key_lists": "6d24ff6d0b389fc3",
    "_index_order_keys": "4428816c83c94eed",
    "_index_order_value": "abc461692ef9678e",
    "_sort_key_value": "b88bd5d90e1fb12c",
}
"""What the order and the extent of a page follow from, and the digests of their sources."""


def _tables_of(tables: Any) -> type[Any]:
    class Tables(tables.AccountRegionScopedDict):  # type: ignore[misc] # the emulator's, loaded when it is patched
        """All tables. To the thread in which a query is answered, its table has the rows of the page and no others."""

        __slots__ = ()

        def get(self, key: Any, default: Any = None) -> Any:
            if _reading.page is not None and key == _reading.name:
                return _reading.page.table
            return super().get(key, default)

    return Tables


def _query(tables: Any, original: Callable[[Row], Any]) -> Callable[[Row], Any]:
    def query(request: Row) -> Any:
        name = tables._normalize_table_name(request.get("TableName"))
        table = tables._tables.get(name)
        try:
            if not table:
                raise NotUnderstoodError
            page = _page(tables, table, read_request(tables, table, request))
            _reading.name, _reading.page = name, page
            try:
                return original(request)
            finally:
                _reading.page = None
        except NotUnderstoodError:
            return original(request)

    return query


def _paginate(original: Callable[..., Any]) -> Callable[..., Any]:
    def paginate(items: list[Row], limit: Any, table: Row, index_name: str | None = None) -> tuple[list[Row], bool]:
        page = _reading.page
        if page is None:
            paginated: tuple[list[Row], bool] = original(items, limit, table, index_name)
            return paginated
        if len(items) != page.count:  # the emulator does not see a row as it was seen here
            raise NotUnderstoodError
        return items, page.stopped

    return paginate


def read_request(tables: Any, table: Row, request: Row) -> Asked:
    """Read which rows a query asks for.

    Args:
        tables: the emulator's module.
        table: the table, as the emulator has it.
        request: the query.

    Raises:
        NotUnderstoodError: it is faulty, or of a kind that goes to the emulator as it came.
    """
    condition, names, values = (
        request.get(part) for part in ("KeyConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues")
    )
    index, cursor, limit = request.get("IndexName"), request.get("ExclusiveStartKey"), request.get("Limit")
    if not isinstance(condition, str) or not isinstance(values, dict) or not isinstance(names or {}, dict) or request.get("KeyConditions"):
        raise NotUnderstoodError
    if (limit is not None and (type(limit) is not int or limit < 1)) or not isinstance(cursor or {}, dict):
        raise NotUnderstoodError
    hashes, ranges = [table["pk_name"]], [table["sk_name"]] if table["sk_name"] else []
    if index:
        definition = tables._index_def(table, index)
        hashes, ranges = tables._index_key_lists(definition) if definition else ([], [])
    elif not ranges:
        raise NotUnderstoodError  # there is one row at most
    order = [name for name, _ in tables._index_order_keys(table, ranges)]
    if len(hashes) != 1 or len(ranges) > 1 or any(tables._get_attr_type(table, name) != "S" for name in (*hashes, *order)):
        raise NotUnderstoodError
    range_name = ranges[0] if ranges else None
    partition, sort_keys = range_of(tables._tokenize(condition), names or {}, values, hashes[0], range_name)
    if tables._extract_pk_from_condition(condition, values, names or {}, hashes[0]) != partition:
        raise NotUnderstoodError
    place = _place(cursor, [*ranges, table["pk_name"], *([table["sk_name"]] if table["sk_name"] else [])]) if cursor else None
    if place and not index and place[1] != partition:
        raise NotUnderstoodError
    return Asked(partition, sort_keys, index, hashes[0], range_name, bool(request.get("ScanIndexForward", True)), limit, place)


def _place(cursor: Row, names: list[str]) -> tuple[str, ...]:
    return tuple(_text(cursor.get(name)) for name in names)


def _text(value: Any) -> str:
    if isinstance(value, dict) and len(value) == 1 and isinstance(text := value.get("S"), str):
        return text
    raise NotUnderstoodError


def range_of(tokens: list[tuple[str, str]], names: Row, values: Row, hash_name: str, range_name: str | None) -> tuple[str, Range]:
    """Read a key condition: the partition key's value, and the range of sort keys.

    Args:
        tokens: the condition as the emulator takes it apart.
        names: attribute names by their placeholders.
        values: attribute values by their placeholders.
        hash_name: partition key's attribute.
        range_name: sort key's attribute, or None.

    Raises:
        NotUnderstoodError: it is anything else than the partition key's equality, alone or with one plain condition on the sort key.
    """
    clauses = _clauses(tokens)
    read = [_read_clause(clause, names, values) for clause in clauses]
    partitions = [(low, high) for name, kind, low, high in read if name == hash_name and kind == "EQ"]
    others = [(kind, low, high) for name, kind, low, high in read if name == range_name and name != hash_name]
    if len(partitions) != 1 or len(partitions) + len(others) != len(read) or len(others) > 1:
        raise NotUnderstoodError
    return partitions[0][0], _range(*others[0]) if others else Range()


def _range(kind: str, value: str, upper: str) -> Range:
    if kind == "begins_with":
        return Range(value, _above_all_with(value))
    if kind == "BETWEEN":
        return Range(value, _next(upper))
    low = {"EQ": value, "GE": value, "GT": _next(value)}.get(kind)
    high = {"EQ": _next(value), "LE": _next(value), "LT": value}.get(kind)
    return Range(low, high)


def _next(text: str) -> str:
    """Return the smallest text that is greater."""
    return text + "\0"


def _above_all_with(prefix: str) -> str | None:
    """Return the smallest text that is greater than all that begin so, None where there is none."""
    kept = prefix.rstrip("\U0010ffff")
    return kept[:-1] + chr(ord(kept[-1]) + 1) if kept else None


def _clauses(tokens: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Split a condition at each AND that is none of a BETWEEN."""
    clauses: list[list[tuple[str, str]]] = [[]]
    between = False
    for kind, text in tokens:
        word = text.upper() if kind == "IDENT" else ""
        if kind == "EOF":
            break
        if word == "AND" and not between:
            clauses.append([])
            continue
        between = word == "BETWEEN" or (between and word != "AND")
        clauses[-1].append((kind, text))
    return clauses


def _read_clause(clause: list[tuple[str, str]], names: Row, values: Row) -> tuple[str, str, str, str]:
    """Return attribute, kind and one value or two of a clause."""
    match clause:
        case [attribute, (("EQ" | "LT" | "LE" | "GT" | "GE") as kind, _), ("VALUE_REF", value)]:
            return _attribute(attribute, names), kind, _text(values.get(value)), ""
        case [("IDENT", "begins_with"), ("LPAREN", _), attribute, ("COMMA", _), ("VALUE_REF", value), ("RPAREN", _)]:
            return _attribute(attribute, names), "begins_with", _text(values.get(value)), ""
        case [attribute, ("IDENT", "BETWEEN"), ("VALUE_REF", low), ("IDENT", "AND"), ("VALUE_REF", high)]:
            return _attribute(attribute, names), "BETWEEN", _text(values.get(low)), _text(values.get(high))
    raise NotUnderstoodError


def _attribute(token: tuple[str, str], names: Row) -> str:
    kind, text = token
    name = names.get(text) if kind == "NAME_REF" else text if kind == "IDENT" else None
    if not isinstance(name, str):
        raise NotUnderstoodError
    return name


def _page(tables: Any, table: Row, asked: Asked) -> _Page:
    """Return the rows of a page."""
    with CHANGING:
        keys = _keys_in_index(tables, table, asked) if asked.index else _keys_in_table(table, asked)
        items: dict[str, dict[str, Row]] = {}
        members: list[tuple[str, str]] = []
        size, stopped = 0, False
        for partition_key, sort_key in keys:
            packed = _partition(table, partition_key).packed(sort_key)
            if packed is None:
                raise NotUnderstoodError
            row = unpack(packed)
            for name in (asked.hash_name, asked.range_name):
                if name:
                    _text(row.get(name))  # a row whose key is no string is held otherwise against the condition
            entry = tables._apply_index_projection(row, table, asked.index)
            added = size_of(packed) if entry is row else size_of_row(entry)
            if members and size + added > _PAGE_BYTES:
                stopped = True
                break
            items.setdefault(partition_key, {})[sort_key] = row
            members.append((partition_key, sort_key))
            size += added
            if len(members) == asked.limit or size >= _PAGE_BYTES:
                stopped = True
                break
        count = len(members)
        if not count and (found := next(_any_key(tables, table, asked), None)):
            items = {found[0]: {found[1]: _partition(table, found[0])[found[1]]}}
            members = [found]
    narrowed = {**table, "items": items, tables._INDEX_MEMBERS: {asked.index: {asked.partition: members}}}
    return _Page(narrowed, count, stopped)


def _partition(table: Row, partition_key: str) -> Partition:
    partition = table["items"].get(partition_key)
    if type(partition) is not Partition:
        raise NotUnderstoodError
    return partition


def _keys_in_table(table: Row, asked: Asked) -> Iterator[tuple[str, str]]:
    if asked.partition not in table["items"]:
        return iter(())
    low, high = asked.sort_keys.low, asked.sort_keys.high
    if asked.cursor:
        low, high = _beyond(asked, low or "", high, asked.cursor[0], _next(asked.cursor[0]))
    order = _partition(table, asked.partition).order()
    return ((asked.partition, sort_key) for sort_key in (order.ascending(low, high) if asked.forward else order.descending(low, high)))


def _keys_in_index(tables: Any, table: Row, asked: Asked) -> Iterator[tuple[str, str]]:
    members = tables._index_members(table).get(asked.index, {}).get(asked.partition)
    if members is None:
        return iter(())
    low, high = ((bound,) if bound is not None else None for bound in (asked.sort_keys.low, asked.sort_keys.high))
    if asked.cursor:
        low, high = _beyond(asked, low or (), high, asked.cursor, (*asked.cursor[:-1], _next(asked.cursor[-1])))
    order = members.order
    return (place[-_PAIR:] for place in (order.ascending(low, high) if asked.forward else order.descending(low, high)))


def _beyond(asked: Asked, low: Any, high: Any, cursor: Any, after: Any) -> tuple[Any, Any]:
    """Return the bounds of what comes behind a cursor."""
    if asked.forward:
        return max(low, after), high
    return low, cursor if high is None else min(high, cursor)


def _any_key(tables: Any, table: Row, asked: Asked) -> Iterator[tuple[str, str]]:
    """Yield keys of the partition, whatever its sort keys."""
    if asked.index:
        yield from tables._index_members(table).get(asked.index, {}).get(asked.partition, ())
    elif asked.partition in table["items"]:
        yield from ((asked.partition, sort_key) for sort_key in _partition(table, asked.partition))


def _tokenize_once(original: Callable[[str], list[Any]]) -> Callable[[str], list[Any]]:
    kept = functools.lru_cache(_EXPRESSIONS)(lambda expression: tuple(original(expression)))
    return lambda expression: list(kept(expression)) if type(expression) is str else original(expression)


def _check_once(original: Callable[..., Any]) -> Callable[..., Any]:
    kept = functools.lru_cache(_EXPRESSIONS)(lambda tokens, *slot: original(list(tokens), *slot))
    return lambda tokens, *slot: kept(tuple(tokens), *slot)
