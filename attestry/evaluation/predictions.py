"""Reads the predictions that the sandbox left: `predictions.json`, `{"columns": {name: [value, ...]}, "rows": n}`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from attestry.domain.archive import read_archive_file
from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.ports import ObjectStore

MAX_BYTES = 512 << 20
FIELD = "predictions.json"


@dataclass(frozen=True)
class Predictions:
    """Columns of equal length, all values finite numbers, texts or truth values.

    Attributes:
        columns: name to values.
        rows: length of each.
        document: the bytes they were read from.
    """

    columns: Mapping[str, list[Any]]
    rows: int
    document: bytes


def read_predictions(scratch: ObjectStore, key: str) -> Predictions:
    """Return the predictions in an output archive.

    Raises:
        InvalidInputError: there are none, or they break the format; NaN and infinities are refused.
    """
    try:
        with scratch.open(key) as stream:
            document = read_archive_file(stream, FIELD, max_bytes=MAX_BYTES, field="SM_OUTPUT_DATA_DIR")
    except NotFoundError as error:
        raise InvalidInputError.of(FIELD, "present", "validation left no output") from error
    if document is None:
        raise InvalidInputError.of(FIELD, "present", "validation left no predictions")
    return parse_predictions(document)


def parse_predictions(document: bytes) -> Predictions:
    """Return the predictions of a document.

    Raises:
        InvalidInputError: they break the format.
    """
    try:
        body = json.loads(document, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError.of(FIELD, "json", f"the predictions are not JSON: {str(error)[:200]}") from error
    if not isinstance(body, dict) or not isinstance(body.get("columns"), dict) or not isinstance(body.get("rows"), int):
        raise InvalidInputError.of(FIELD, "format", "the predictions have no columns and rows")
    columns, rows = body["columns"], body["rows"]
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != rows:
            raise InvalidInputError.of(f"{FIELD}: {name}", "rows", f"the column has not {rows} rows")
        for row, value in enumerate(values):
            if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
                message = f"row {row}: {str(value)[:40]} is no finite number, text or truth value"
                raise InvalidInputError.of(f"{FIELD}: {name}", "finite", message)
    return Predictions(columns, rows, document)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")
