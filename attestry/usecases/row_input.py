"""Rows of an input file: JSON lines, or CSV with a header; taken a chunk at a time.

    reader = RowReader(stream, "csv")
    for chunk in reader.chunks(): ...
    reader.sha256, reader.size, reader.rows, reader.header        # of the whole file, at its end

Rules:
- A row is one line, in UTF-8; its end (LF or CR LF) is no part of it. A line without content is refused, but for the file's end.
- In JSON lines a row is an object of feature names and values. In CSV the first line names the columns, a comma parts the fields, and a
  field has no line break; a value is read by the type of its column in the version's schema.
- At most `MAX_ROWS` rows and `MAX_INPUT_BYTES` bytes; an error names row (from 0), field and rule, for example `rows[17].age`.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import parse_strict
from attestry.usecases.prediction_request import MAX_INSTANCES, order_by_schema

FORMATS: Final = ("csv", "jsonl")
MAX_ROWS: Final = 1_000_000
MAX_INPUT_BYTES: Final = 256 << 20
MAX_LINE_BYTES: Final = 256 << 10
MAX_CHUNK_BYTES: Final = 512 << 10
"""A chunk is closed at this many bytes, or at as many rows as a request may have."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FLAGS: Final = {"true": True, "false": False}
_INSTANCE = re.compile(r"instances\[([0-9]+)\]")


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows.

    Attributes:
        first: index of the first.
        lines: their lines, without ends.
    """

    first: int
    lines: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Return the lines, each with a newline."""
        return b"".join(line + b"\n" for line in self.lines)


def lines_in(data: bytes) -> tuple[bytes, ...]:
    """Return the lines that `Chunk.to_bytes` wrote."""
    return tuple(data.removesuffix(b"\n").split(b"\n"))


class RowReader:
    """Reads an input file once, from beginning to end.

    Attributes:
        header: the first line of a CSV file, without its end; empty for JSON lines.
        rows: how many rows were read.
        size: how many bytes.
    """

    def __init__(self, stream: IO[bytes], form: str) -> None:
        """Take a stream over a file of a form of `FORMATS`; nothing is read yet."""
        self._stream = stream
        self._with_header = form == "csv"
        self._hash = hashlib.sha256()
        self.header = b""
        self.rows = 0
        self.size = 0

    @property
    def sha256(self) -> str:
        """Return the digest of what was read, hex."""
        return self._hash.hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows.

        Raises:
            InvalidInputError: the file breaks a rule of the module, or has no row.
        """
        if self._with_header:
            self.header = self._line("header") or b""
            if not self.header:
                raise InvalidInputError.of("header", "required", "the first line of a CSV file names its columns")
        lines: list[bytes] = []
        size = 0
        while (line := self._line(f"rows[{self.rows}]")) is not None:
            if lines and (len(lines) == MAX_INSTANCES or size + len(line) > MAX_CHUNK_BYTES):
                yield Chunk(self.rows - len(lines), tuple(lines))
                lines, size = [], 0
            lines.append(line)
            size += len(line)
            self.rows += 1
            if self.rows > MAX_ROWS:
                raise InvalidInputError.of("rows", "count", f"a file has at most {MAX_ROWS} rows")
        if not lines:
            raise InvalidInputError.of("rows", "count", "the file has no row")
        yield Chunk(self.rows - len(lines), tuple(lines))

    def _line(self, where: str) -> bytes | None:
        """Return the next line without its end, or None at the end of the file."""
        raw = self._stream.readline(MAX_LINE_BYTES + 2)
        self._hash.update(raw)
        self.size += len(raw)
        if self.size > MAX_INPUT_BYTES:
            raise InvalidInputError.of("", "max_bytes", f"the file has more than {MAX_INPUT_BYTES} bytes")
        if not raw:
            return None
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > MAX_LINE_BYTES:
            raise InvalidInputError.of(where, "max_bytes", f"the line has more than {MAX_LINE_BYTES} bytes")
        if not line.strip():
            raise InvalidInputError.of(where, "required", "the line is empty")
        return line


def read_rows(chunk: Chunk, form: str, header: bytes, schema: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the instances of rows, in the order and with the types of a version's columns.

    Args:
        chunk: the rows.
        form: `jsonl` or `csv`.
        header: the first line of a CSV file.
        schema: the version's feature columns in order, each `{"name", "type"}`.

    Raises:
        InvalidInputError: naming rows and fields that break a rule.
    """
    try:
        instances: list[Mapping[str, Any]]
        if form == "csv":
            instances = _of_csv(chunk, header, {str(column["name"]): str(column["type"]) for column in schema})
        else:
            instances = [_of_json(line, chunk.first + place) for place, line in enumerate(chunk.lines)]
        return order_by_schema(instances, schema)
    except InvalidInputError as error:
        raise InvalidInputError([replace(p, field=_row_of(p.field, chunk.first)) for p in error.problems]) from error


def _of_json(line: bytes, index: int) -> Mapping[str, Any]:
    try:
        value = parse_strict(line)
    except InvalidInputError as error:
        raise InvalidInputError.of(f"rows[{index}]", "json", error.problems[0].message) from error
    if not isinstance(value, dict):
        raise InvalidInputError.of(f"rows[{index}]", "type", "a row is an object of feature names and values")
    return value


def _of_csv(chunk: Chunk, header: bytes, types: Mapping[str, str]) -> list[Mapping[str, Any]]:
    columns = _fields(header, "header")
    if len(set(columns)) != len(columns):
        raise InvalidInputError.of("header", "unique", "a column is named twice")
    instances: list[Mapping[str, Any]] = []
    for place, line in enumerate(chunk.lines):
        where = f"rows[{chunk.first + place}]"
        texts = _fields(line, where)
        if len(texts) != len(columns):
            raise InvalidInputError.of(where, "fields", f"the row has {len(texts)} fields, the header {len(columns)}")
        instances.append({name: _value(text, types.get(name, "")) for name, text in zip(columns, texts, strict=True)})
    return instances


def _fields(line: bytes, where: str) -> list[str]:
    try:
        (fields,) = csv.reader([line.decode("utf-8")], strict=True)
    except (ValueError, csv.Error) as error:
        raise InvalidInputError.of(where, "csv", f"no line of CSV in UTF-8: {error}") from error
    return fields


def _value(text: str, kind: str) -> Any:
    """Return the value of a field by its column's type; what is none of it stays a text, which the schema then refuses by name."""
    if kind.startswith("bool"):
        return _FLAGS.get(text, text)
    if kind.startswith(("int", "uint")):
        return int(text) if _INTEGER.fullmatch(text) else text
    if kind.startswith(("float", "double", "halffloat", "decimal")):
        try:
            # As in JSON: no infinity, no NaN, no underscores.
            return parse_strict(text)
        except InvalidInputError:
            return text
    return text


def _row_of(field: str, first: int) -> str:
    return _INSTANCE.sub(lambda match: f"rows[{first + int(match[1])}]", field, count=1)
