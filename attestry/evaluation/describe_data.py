"""Facts about columns that are recorded with a data set: extremes, missing values, distribution of labels, overlap of two sets."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pyarrow
import pyarrow.compute as compute

MAX_CLASSES = 100


def describe_columns(table: pyarrow.Table) -> dict[str, dict[str, Any]]:
    """Return for each column its number of nulls (NaN counts), and least and greatest value where the type has an order."""
    return {name: _describe(table.column(name)) for name in table.column_names}


def describe_labels(column: pyarrow.ChunkedArray) -> dict[str, Any]:
    """Return how often each label occurs, or, with more than 100 different ones, least, greatest, mean and deviation.

    Classes are named by their text and sorted by it; the deviation is that of the population.
    """
    column = _plain(column)
    distinct = compute.count_distinct(column).as_py()
    if distinct <= MAX_CLASSES:
        counts = {str(entry["values"]): entry["counts"] for entry in compute.value_counts(column).to_pylist()}
        return {"distinct": distinct, "counts": dict(sorted(counts.items()))}
    facts: dict[str, Any] = {"distinct": distinct}
    if pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type):
        extremes = compute.min_max(column).as_py()
        facts |= {name: _number(extremes[name]) for name in ("min", "max")}
        facts |= {"mean": _number(compute.mean(column).as_py()), "deviation": _number(compute.stddev(column, ddof=0).as_py())}
    return facts


def count_overlap(train: pyarrow.Table, holdout: pyarrow.Table) -> int:
    """Return how many rows of the hold-out stand in the training set too, all columns compared.

    Values are numbered column by column and the numbers mixed into 64 bits a row, so a pair of different rows is taken for
    equal with a chance of about 2^-64; nulls and NaN equal themselves.
    """
    rows = train.num_rows
    mixed = numpy.zeros(rows + holdout.num_rows, dtype=numpy.uint64)
    for name in train.column_names:
        both = pyarrow.chunked_array([*_plain(train.column(name)).chunks, *_plain(holdout.column(name)).chunks])
        codes = both.combine_chunks().dictionary_encode(null_encoding="encode")
        mixed = _mix(mixed + codes.indices.to_numpy(zero_copy_only=False).astype(numpy.uint64))
    return int(numpy.isin(mixed[rows:], mixed[:rows]).sum())


def _mix(state: Any) -> Any:
    """Return the next state, by the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    with numpy.errstate(over="ignore"):
        state = state + numpy.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        return state ^ (state >> numpy.uint64(31))


def _describe(column: pyarrow.ChunkedArray) -> dict[str, Any]:
    column = _plain(column)
    nulls = column.null_count
    if pyarrow.types.is_floating(column.type):
        nulls += compute.sum(compute.is_nan(column)).as_py() or 0
    facts: dict[str, Any] = {"nulls": nulls}
    if pyarrow.types.is_boolean(column.type) or pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        facts["distinct"] = compute.count_distinct(column, mode="only_valid").as_py()
        return facts
    extremes = compute.min_max(column).as_py()
    return facts | {name: _number(extremes[name]) for name in ("min", "max")}


def _plain(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    return column.cast(column.type.value_type) if pyarrow.types.is_dictionary(column.type) else column


def _number(value: Any) -> Any:
    """Return a value that JSON can hold: what is no finite number becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)
