"""Filter strings: `name = 'iris' AND tags.team LIKE 'risk%'`.

The grammar, which is the part of MLflow's that its documentation states:

    filter      = [ condition { AND condition } ]
    condition   = key comparator value
    key         = attribute | ( "attribute" | "tag" | "tags" ) "." name
    name        = word { "." word } | `...` | "..."
    comparator  = "=" | "!=" | "<" | "<=" | ">" | ">=" | LIKE | ILIKE | IN | NOT IN
    value       = '...' | "..." | number | "(" string { "," string } ")"

Words are read in whatever case; what stands between quotes is taken as it is. There is no OR, and no second statement behind a semicolon.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from attestry.domain.like import is_like
from attestry.mlflow.errors import MlflowError, invalid
from attestry.mlflow.rules import PROMPT_TAG

MAX_FILTER: Final = 6000
MAX_CONDITIONS: Final = 20
MAX_LIST: Final = 100

Kind = Literal["attribute", "tag"]

_COMPARE = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_TEXT = frozenset({"=", "!=", "LIKE", "ILIKE"})
_LISTED = _TEXT | {"IN", "NOT IN"}
_NUMERIC = frozenset(_COMPARE)

OF_MODELS: Final[Mapping[str, frozenset[str]]] = {"name": _LISTED}
OF_VERSIONS: Final[Mapping[str, frozenset[str]]] = {"name": _LISTED, "run_id": _LISTED, "source_path": _TEXT, "version_number": _NUMERIC}
"""Attribute to the comparators that it takes."""

_TOKENS = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<single>'(?:''|\\'|[^'])*')
    | (?P<double>"(?:""|\\"|[^"])*")
    | (?P<backticks>`(?:``|[^`])*`)
    | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.]))
    | (?P<sign><=|>=|!=|=|<|>)
    | (?P<word>\w+)
    | (?P<mark>[.,()])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        kind: whether `key` is an attribute or a tag.
        key: the attribute or the tag's key.
        comparator: in upper case.
        value: a text; a whole number for `version_number`; texts for a list.
    """

    kind: Kind
    key: str
    comparator: str
    value: str | int | tuple[str, ...]


@dataclass(frozen=True)
class Filter:
    """The conditions of a filter, all of which must hold.

    Attributes:
        conditions: those that ask for something of a model or version.
        nothing: one of them asks for prompts, of which there are none here.
    """

    conditions: tuple[Condition, ...] = ()
    nothing: bool = False


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str

    @property
    def inside(self) -> str:
        """Return what stands between the quotes."""
        return self.text[1:-1]


def parse_filter(text: str, attributes: Mapping[str, frozenset[str]]) -> Filter:
    """Return the conditions of a filter string.

    Args:
        text: the filter; empty for none.
        attributes: `OF_MODELS` or `OF_VERSIONS`.

    Raises:
        MlflowError: the text breaks the grammar, or names an attribute or comparator that is not there; code INVALID_PARAMETER_VALUE.
    """
    if len(text) > MAX_FILTER:
        raise invalid(f"'filter' exceeds the maximum length of {MAX_FILTER} characters")
    reader = _Reader(_tokens(text), text)
    found: list[Condition] = []
    while not reader.ended:
        if found:
            reader.expect_and()
        found.append(_condition(reader, attributes))
    if len(found) > MAX_CONDITIONS:
        raise invalid(f"Invalid filter '{text:.200}': more than {MAX_CONDITIONS} conditions")
    prompts = [c for c in found if c.kind == "tag" and c.key == PROMPT_TAG]
    return Filter(tuple(c for c in found if c not in prompts), nothing=any(_asks_for_prompts(c) for c in prompts))


def matches_text(text: str, comparator: str, value: str | int | tuple[str, ...]) -> bool:
    """Return whether a text meets a condition."""
    if isinstance(value, tuple):
        return (text in value) == (comparator == "IN")
    if comparator in ("LIKE", "ILIKE"):
        return is_like(text, str(value), fold=comparator == "ILIKE")
    return (text == value) == (comparator == "=")


def matches_number(number: int, comparator: str, value: str | int | tuple[str, ...]) -> bool:
    """Return whether a number meets a condition."""
    return bool(_COMPARE[comparator](number, value))


class _Reader:
    """The tokens, one after the other."""

    def __init__(self, tokens: list[_Token], text: str) -> None:
        self._tokens = tokens
        self._at = 0
        self._text = text

    @property
    def ended(self) -> bool:
        """Return whether all is read."""
        return self._at == len(self._tokens)

    def next(self) -> _Token:
        """Return the next token."""
        if self.ended:
            raise self.broken("it ends in the middle of a condition")
        self._at += 1
        return self._tokens[self._at - 1]

    def take(self, text: str) -> bool:
        """Pass over a word or mark if it is next."""
        if not self.ended and self._tokens[self._at].kind in ("word", "mark") and self._tokens[self._at].text.upper() == text:
            self._at += 1
            return True
        return False

    def expect_and(self) -> None:
        """Pass over AND."""
        if not self.take("AND"):
            raise self.broken(f"'{self._tokens[self._at].text:.80}' stands where AND is needed")
        if self.ended:
            raise self.broken("nothing follows AND")

    def broken(self, why: str) -> MlflowError:
        """Return the refusal of the filter."""
        return invalid(f"Invalid clause(s) in filter string: '{self._text:.200}': {why}")


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKENS.match(text, at)
        if found is None:
            if text[at] == ";":
                raise invalid(f"Search filter contained multiple expression {text[:200]!r}. Provide AND-ed expression list.")
            raise invalid(f"Invalid clause(s) in filter string: '{text[at : at + 80]}'")
        at = found.end()
        if found.lastgroup != "space":
            tokens.append(_Token(str(found.lastgroup), found.group()))
    return tokens


def _condition(reader: _Reader, attributes: Mapping[str, frozenset[str]]) -> Condition:
    kind, key = _key(reader)
    comparator = _comparator(reader)
    if kind == "tag":
        allowed = _TEXT
    elif key in attributes:
        allowed = attributes[key]
    else:
        raise invalid(f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(attributes)}'")
    if comparator not in allowed:
        raise invalid(f"Invalid comparator for {kind} {key}: {comparator}")
    return Condition(kind, key, comparator, _value(reader, kind, key, comparator, numeric=allowed is _NUMERIC))


def _key(reader: _Reader) -> tuple[Kind, str]:
    first = reader.next()
    if first.kind != "word":
        raise invalid(f"Invalid comparison clause. Expected 'Identifier' found '{first.text:.80}'")
    if not reader.take("."):
        return "attribute", first.text
    if first.text not in ("attribute", "tag", "tags"):
        raise invalid(f"Invalid entity type '{first.text}'. Valid entity types are ('attribute', 'tag', 'tags')")
    second = reader.next()
    if second.kind in ("backticks", "double") and second.inside:
        key = second.inside
    elif second.kind == "word":
        key = second.text
        while reader.take("."):
            key = f"{key}.{reader.next().text}"
    else:
        raise reader.broken(f"'{second.text:.80}' is no key; a key of other characters than letters, digits and _ is put in backticks")
    return ("attribute" if first.text == "attribute" else "tag"), key


def _comparator(reader: _Reader) -> str:
    token = reader.next()
    comparator = token.text.upper()
    if token.kind == "word" and comparator == "NOT" and reader.take("IN"):
        return "NOT IN"
    if token.kind == "sign" or (token.kind == "word" and comparator in ("LIKE", "ILIKE", "IN")):
        return comparator
    raise reader.broken(f"'{token.text:.80}' is no comparator")


def _value(reader: _Reader, kind: Kind, key: str, comparator: str, *, numeric: bool) -> str | int | tuple[str, ...]:
    if comparator in ("IN", "NOT IN"):
        return _list(reader)
    token = reader.next()
    if numeric:
        digits = token.inside if token.kind in ("single", "double") else token.text
        if not re.fullmatch(r"-?[0-9]{1,18}", digits):
            raise invalid(f"Invalid value for numeric attribute '{key}': {token.text[:80]!r}")
        return int(digits)
    if token.kind not in ("single", "double"):
        what = "attributes" if kind == "attribute" else "tag"
        raise invalid(f"Expected a quoted string value for {what} (e.g. 'my-value'). Got value {token.text:.80}")
    return token.inside


def _list(reader: _Reader) -> tuple[str, ...]:
    wanted = "While parsing a list in the query, expected a non-empty list of string values, but got"
    if not reader.take("("):
        raise invalid(f"{wanted} '{reader.next().text:.80}'")
    values: list[str] = []
    while not reader.take(")"):
        token = reader.next()
        if token.kind not in ("single", "double"):
            raise invalid(f"{wanted} '{token.text:.80}' in it")
        values.append(token.inside)
        if not reader.take(","):
            if not reader.take(")"):
                raise invalid(f"{wanted} an ill-formed list")
            break
    if not values:
        raise invalid(f"{wanted} an empty list")
    if len(values) > MAX_LIST:
        raise invalid(f"{wanted} one of more than {MAX_LIST}")
    return tuple(values)


def _asks_for_prompts(condition: Condition) -> bool:
    """Return whether a condition on the mark of prompts leaves out everything that is none."""
    wants = str(condition.value).lower()
    return not ((condition.comparator == "=" and wants == "false") or (condition.comparator == "!=" and wants == "true"))
