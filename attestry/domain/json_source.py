r"""JSON (RFC 8259) as the events of PyYAML's parser, with lines.

YAML 1.2 contains JSON, but PyYAML does not: it refuses tabs between tokens and splits `\ud83d\ude00` into two lone
surrogates. The standard library reads JSON well but tells no lines. This reader uses the standard library's string
scanner and adds the positions; values go the same way as YAML's afterwards, so both formats keep the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder

from yaml import events
from yaml.error import Mark

_STRINGS = JSONDecoder(strict=True)
_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|NaN|-?Infinity")


class JsonSyntaxError(ValueError):
    """The text is not JSON; `line` says where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read_json_events(text: str) -> Iterator[events.Event]:
    """Yield the events of the JSON text, whose root is an object.

    Raises:
        JsonSyntaxError: while iterating, where the text is not JSON.
    """
    return _Reader(text).read()


class _Reader:
    """Reads token by token; `closers` holds the bracket that closes each open object or array."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 0
        self.closers: list[str] = []

    def read(self) -> Iterator[events.Event]:
        self._skip_space()
        yield events.DocumentStartEvent(self._mark(), self._mark(), explicit=False)
        yield from self._value()
        while self.closers:
            yield from self._rest_of_container()
        if self.at < len(self.text):
            raise self._error("more text after the end of the object")

    def _value(self) -> Iterator[events.Event]:
        mark = self._mark()
        character = self._peek()
        if character in "{[":
            self._advance(1)
            is_object = character == "{"
            start = events.MappingStartEvent if is_object else events.SequenceStartEvent
            yield start(None, None, True, mark, mark)
            self.closers.append("}" if is_object else "]")
            if self._peek() == self.closers[-1]:
                yield self._close()
            else:
                yield from self._member()
        elif character == '"':
            yield self._string()
        else:
            word = _WORD.match(self.text, self.at)
            if word is None:
                raise self._error("a value was expected")
            self._advance(word.end() - self.at)
            yield events.ScalarEvent(None, None, (True, False), word.group(), mark, mark)

    def _member(self) -> Iterator[events.Event]:
        """Read a key, if in an object, and the value. A value that opens a container leaves it open."""
        if self.closers[-1] == "}":
            if self._peek() != '"':
                raise self._error("a key in double quotes was expected")
            yield self._string()
            if self._peek() != ":":
                raise self._error("':' was expected")
            self._advance(1)
        yield from self._value()

    def _rest_of_container(self) -> Iterator[events.Event]:
        character = self._peek()
        if character == self.closers[-1]:
            yield self._close()
        elif character == ",":
            self._advance(1)
            yield from self._member()
        else:
            raise self._error(f"',' or '{self.closers[-1]}' was expected")

    def _close(self) -> events.Event:
        mark = self._mark()
        self._advance(1)
        end = events.MappingEndEvent if self.closers.pop() == "}" else events.SequenceEndEvent
        return end(mark, mark)

    def _string(self) -> events.Event:
        mark = self._mark()
        try:
            value, end = _STRINGS.raw_decode(self.text, self.at)
        except JSONDecodeError as error:
            raise JsonSyntaxError(error.msg, error.lineno) from error
        self._advance(end - self.at)
        return events.ScalarEvent(None, None, (False, True), value, mark, mark, style='"')

    def _peek(self) -> str:
        if self.at >= len(self.text):
            raise self._error("the text ends too early")
        return self.text[self.at]

    def _advance(self, characters: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + characters)
        self.at += characters
        self._skip_space()

    def _skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        end = found.end() if found else self.at
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def _mark(self) -> Mark:
        return Mark("<json>", self.at, self.line, 0, None, 0)

    def _error(self, message: str) -> JsonSyntaxError:
        return JsonSyntaxError(message, self.line + 1)
