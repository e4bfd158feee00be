"""From bytes to plain values with line numbers: a strict subset of YAML 1.2 and JSON.

Rules, each reported with its line; reading goes on after a problem wherever the rest still has a meaning:

1. UTF-8, at most 256 KiB, one document, at most 20 levels deep and 20,000 keys and values long.
2. No anchors, aliases, tags, directives or duplicate keys; keys are text.
3. Plain scalars resolve by the YAML 1.2 core schema (yaml.org/spec/1.2.2, section 10.3.2): `no` and `2024-01-01` are
   text, and only `true` and `false` are booleans. What YAML 1.1 and 1.2 read as different numbers (`0123`) is refused.
4. Numbers are finite and lie within ±(2^53-1), so that every JSON reader agrees on them (RFC 7493); one without a
   fraction is an integer.
5. Text holds no control characters but line feed and tab, and no lone surrogates.

The value is built from the parser's events with a stack of its own, so no input can exhaust the interpreter's stack,
and nothing that PyYAML would construct is ever constructed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import events

from attestry.domain.errors import Problem
from attestry.domain.json_source import JsonSyntaxError, read_json_events

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_PROBLEMS = 100
"""Reading stops after so many: a hostile text could have a hundred thousand."""

MAX_SAFE_INTEGER = 2**53 - 1

Path = tuple[str | int, ...]
"""Keys and list indexes from the root to a value."""

_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_NULL = frozenset({"", "null", "Null", "NULL", "~"})
_INTEGER = re.compile(r"[-+]?[0-9]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(?:\.?inf|\.?nan|infinity)", re.IGNORECASE)
_FIELD_SEGMENT = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")
_MAX_DIGITS = 400


@dataclass(frozen=True)
class SourceText:
    """What a text says, and where.

    Attributes:
        value: the root value; meaningless where `problems` is not empty.
        lines: path of each value to its line, from 1; for a value in a mapping the line of its key.
        problems: what is wrong with the text itself.
        complete: whether the text was read to its end.
        unquoted: paths of plain scalars (no quotes) to their text as written, so that a message can say "put it in
            quotes".
    """

    value: Any
    lines: dict[Path, int]
    problems: tuple[Problem, ...] = ()
    complete: bool = True
    unquoted: dict[Path, str] = field(default_factory=dict)

    def line_of(self, path: Path) -> int | None:
        """Return the line of the value, or of the nearest one around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def line_of_field(self, name: str) -> int | None:
        """Return the line of a field given as dotted path, for example `data.source[0].uri`."""
        return self.line_of(tuple(key or int(index) for key, index in _FIELD_SEGMENT.findall(name)))


def join_path(path: Path) -> str:
    """Return the path as people write it: `data.source[0].uri`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse_source(raw: bytes) -> SourceText:
    """Return the value in the bytes with its lines and with every problem of the text; never raises.

    A text that begins with `{` is read as JSON; if it is no JSON it may still be a YAML flow mapping.
    """
    if len(raw) > MAX_BYTES:
        return _refuse("size", f"the manifest has {len(raw)} bytes; at most {MAX_BYTES} (256 KiB) are allowed", None)
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return _refuse("utf8", f"the manifest is not UTF-8 (byte {error.start})", raw.count(b"\n", 0, error.start) + 1)
    if not text.strip():
        return _refuse("empty", "the manifest is empty", None)
    if not text.lstrip().startswith("{"):
        return _Builder().build(_yaml_events(text))
    try:
        return _Builder().build(read_json_events(text))
    except JsonSyntaxError as error:
        as_yaml = _Builder().build(_yaml_events(text))
        if any(problem.rule == "syntax" for problem in as_yaml.problems):
            return _refuse("syntax", f"neither JSON nor YAML: {error}", error.line)
        return as_yaml


def _refuse(rule: str, message: str, line: int | None) -> SourceText:
    return SourceText(None, {}, (Problem("", rule, message, line),), complete=False)


def _yaml_events(text: str) -> Iterator[events.Event]:
    yield from yaml.parse(text, Loader=yaml.SafeLoader)


@dataclass
class _Open:
    """A mapping or list that is being filled."""

    value: Any
    path: Path
    key: str | None = None
    key_line: int = 0


class _Builder:
    """Turns events into a value; keeps the problems that it meets."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[Path, int] = {}
        self.unquoted: dict[Path, str] = {}
        self.stack: list[_Open] = []
        self.root: Any = None
        self.documents = 0
        self.nodes = 0

    def build(self, stream: Iterator[events.Event]) -> SourceText:
        complete = False
        try:
            complete = all(self._take(event) and self._has_room(event) for event in stream)
        except yaml.YAMLError as error:
            self._add_syntax_error(error)
        return SourceText(self.root, self.lines, tuple(self.problems), complete, self.unquoted)

    def _take(self, event: events.Event) -> bool:
        """Apply an event; False when the rest has no meaning."""
        line = _line_of(event)
        match event:
            case events.DocumentStartEvent():
                return self._start_document(event, line)
            case events.AliasEvent():
                self._report("no_aliases", f"the alias *{event.anchor} is not allowed; write the value out", line)
                self._place(None, line, None)
            case events.MappingStartEvent() | events.SequenceStartEvent():
                return self._open(event, line)
            case events.MappingEndEvent() | events.SequenceEndEvent():
                self.stack.pop()
            case events.ScalarEvent():
                self._check_node(event, line)
                self._take_scalar(event, line)
        return True

    def _has_room(self, event: events.Event) -> bool:
        self.nodes += isinstance(event, events.NodeEvent)
        if self.nodes > MAX_NODES and len(self.problems) < MAX_PROBLEMS:
            self._report("length", f"more than {MAX_NODES} keys and values", _line_of(event))
        return self.nodes <= MAX_NODES and len(self.problems) < MAX_PROBLEMS

    def _start_document(self, event: events.DocumentStartEvent, line: int) -> bool:
        self.documents += 1
        if self.documents > 1:
            self._report("one_document", "the text holds more than one document", line)
            return False
        if event.version or event.tags:
            self._report("no_directives", "YAML directives (%YAML, %TAG) are not allowed", line)
        return True

    def _open(self, event: events.MappingStartEvent | events.SequenceStartEvent, line: int) -> bool:
        self._check_node(event, line)
        is_mapping = isinstance(event, events.MappingStartEvent)
        if self._expects_key():
            self._report("text_key", "a key must be text, not a mapping or list", line)
            return False
        if len(self.stack) >= MAX_DEPTH:
            self._report("nesting", f"more than {MAX_DEPTH} levels deep", line)
            return False
        value: Any = {} if is_mapping else []
        path = self._place(value, line, None)
        self.stack.append(_Open(value, path))
        return True

    def _take_scalar(self, event: events.ScalarEvent, line: int) -> None:
        plain = event.implicit[0] and event.style is None
        if self._expects_key():
            self._take_key(event.value, plain, line)
            return
        value, problem = resolve_plain(event.value) if plain else (event.value, None)
        problem = problem or (find_text_problem(value) if isinstance(value, str) else None)
        if problem is not None:
            self._report(*problem, line)
            value = None
        self._place(value, line, event.value if plain else None)

    def _take_key(self, key: str, plain: bool, line: int) -> None:
        mapping = self.stack[-1]
        value, problem = resolve_plain(key) if plain else (key, None)
        problem = problem or find_text_problem(key)
        if problem is None and not isinstance(value, str):
            problem = ("text_key", f"the key {key or 'of nothing'} is not text; put it in quotes")
        if problem is None and key in mapping.value:
            first = self.lines.get((*mapping.path, key))
            problem = ("duplicate_key", f"the key {key!r} stands here for the second time; the first is on line {first}")
        mapping.key, mapping.key_line = key, line
        if problem is not None:
            self._report(*problem, line)

    def _place(self, value: Any, line: int, plain: str | None) -> Path:
        """Put a value where the stack says and return its path."""
        path: Path = ()
        if not self.stack:
            self.root = value
        else:
            top = self.stack[-1]
            if isinstance(top.value, list):
                path = (*top.path, len(top.value))
                top.value.append(value)
            elif top.key is None:
                return top.path
            else:
                path, line = (*top.path, top.key), top.key_line
                if top.key in top.value:
                    path = (*top.path, f"{top.key} (again)")
                else:
                    top.value[top.key] = value
                top.key = None
        self.lines.setdefault(path, line)
        if plain is not None:
            self.unquoted[path] = plain
        return path

    def _expects_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def _check_node(self, event: events.NodeEvent, line: int) -> None:
        if event.anchor is not None:
            self._report("no_anchors", f"the anchor &{event.anchor} is not allowed", line)
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._report("no_tags", f"the tag {tag} is not allowed", line)

    def _report(self, rule: str, message: str, line: int) -> None:
        top = self.stack[-1] if self.stack else None
        if top is None:
            path: Path = ()
        elif isinstance(top.value, list):
            path = (*top.path, len(top.value))
        else:
            path = top.path if top.key is None else (*top.path, top.key)
        self.problems.append(Problem(join_path(path), rule, message, line))

    def _add_syntax_error(self, error: yaml.YAMLError) -> None:
        if isinstance(error, yaml.MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
            said = " ".join(part for part in (error.context, error.problem) if part)
            line = mark.line + 1 if mark else None
        else:
            said, line = str(error).splitlines()[0], None
        rule = "text" if isinstance(error, yaml.reader.ReaderError) else "syntax"
        self.problems.append(Problem("", rule, f"not readable as YAML: {said}", line))


def _line_of(event: events.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def resolve_plain(text: str) -> tuple[Any, tuple[str, str] | None]:
    """Return the value of a plain scalar by the YAML 1.2 core schema, and rule and message where it is refused."""
    if text in _NULL:
        return None, None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE, None
    if _NOT_FINITE.fullmatch(text):
        return None, ("finite", f"{text} is not a finite number; put it in quotes if it is text")
    if _LEADING_ZERO.fullmatch(text):
        return None, ("ambiguous_number", f"{text} is octal in YAML 1.1 and decimal in 1.2; drop the zero, or put it in quotes")
    if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return normalise_number(int(text, 0) if len(text) < _MAX_DIGITS else math.inf)
    if _INTEGER.fullmatch(text):
        return normalise_number(int(text) if len(text) < _MAX_DIGITS else math.inf)
    if _FLOAT.fullmatch(text):
        return normalise_number(float(text))
    return text, None


def normalise_number(number: int | float) -> tuple[float | None, tuple[str, str] | None]:
    """Return the number in its one form (rule 4), and rule and message where it is refused."""
    if not math.isfinite(number):
        return None, ("finite", "the number is too large to be finite")
    if isinstance(number, float) and not number.is_integer():
        return number, None
    if abs(number) > MAX_SAFE_INTEGER:
        return None, ("number_range", "a whole number must lie within ±9007199254740991 (2^53-1); write larger ones as text in quotes")
    return int(number), None


def find_text_problem(text: str) -> tuple[str, str] | None:
    """Return rule and message where a text breaks rule 5."""
    for character in text:
        code = ord(character)
        if (code < 0x20 and character not in "\n\t") or 0x7F <= code <= 0x9F:
            return "text", f"the text {json.dumps(text[:40])} holds the control character U+{code:04X}"
        if 0xD800 <= code <= 0xDFFF:
            return "text", "the text holds half of a surrogate pair"
    return None
