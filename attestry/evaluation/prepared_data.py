"""Reads the data sets that a processing script wrote, checks them, and parts the hold-out into features and labels.

Rules:

1. `train/*.parquet` and `holdout/*.parquet` are there, with the same columns of the same types in the same order, and at least one
   row each.
2. The label column is there, and no label is null, NaN or infinite. There is at least one feature. No column is a pandas index.
3. Column types are truth values, numbers, texts, dates and times: no nested or binary ones.

What is passed on: the training files byte for byte, the hold-out's features without labels, the labels alone, and a summary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet as parquet

from attestry.domain.archive import ArchiveLimits, iterate_archive
from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.evaluation.describe_data import count_overlap, describe_columns, describe_labels
from attestry.ports import ObjectStore

LIMITS = ArchiveLimits(max_files=2000, max_bytes=4 << 30, max_file_bytes=4 << 30)
MAX_COLUMNS = 10_000
MAX_CELLS = 400_000_000
"""Rows times columns of one set: what the function's memory can hold, whatever a file says about its own size."""

_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True)
class PreparedSet:
    """One data set: its channel, its files in order of their names, and its table."""

    name: str
    files: tuple[Path, ...]
    tables: tuple[pyarrow.Table, ...]

    @property
    def table(self) -> pyarrow.Table:
        """Return all rows."""
        return pyarrow.concat_tables(self.tables)


def evaluate_processing(event: Mapping[str, Any], _store: ObjectStore, scratch: ObjectStore, folder: Path) -> str:
    """Check and part the prepared data and return the key of the summary; see `evaluate.evaluate`.

    Raises:
        InvalidInputError: a rule is broken; the message names file and column.
    """
    prefix, label = str(event["prefix"]), str(event["label_column"])
    channels = event.get("channels") or {}
    train_name, holdout_name = str(channels.get("training", "train")), str(channels.get("holdout", "holdout"))
    channels_there = (train_name, holdout_name)
    if event.get("output_prefix"):
        ignored = _collect(scratch, str(event["output_prefix"]), folder, channels_there)
    else:
        ignored = _unpack(scratch, str(event["output_key"]), folder, channels_there)
    train, holdout = _read_set(folder, train_name), _read_set(folder, holdout_name)
    _check_same_columns(train, holdout)
    _check_columns(train, label)
    for part in (train, holdout):
        _check_label(part, label)
    _write(scratch, prefix, train, holdout, label, folder)
    summary = summarise(train, holdout, label) | {"ignored_files": ignored[:50]}
    body = json.dumps(summary, allow_nan=False, ensure_ascii=False).encode()
    scratch.put_new(f"{prefix}summary.json", body, content_type="application/json")
    return f"{prefix}summary.json"


def summarise(train: PreparedSet, holdout: PreparedSet, label: str) -> dict[str, Any]:
    """Return what is recorded about the prepared data: JSON-ready, without NaN and infinities."""
    schema = train.tables[0].schema
    features = [name for name in schema.names if name != label]
    tables = {"train": train.table, "holdout": holdout.table}
    return {
        "schema": [{"name": field.name, "type": str(field.type)} for field in schema],
        "rows": {name: table.num_rows for name, table in tables.items()},
        "feature_columns": features,
        "label_column": label,
        "overlap_rows": count_overlap(tables["train"].select(features), tables["holdout"].select(features)),
        "labels": {name: describe_labels(table.column(label)) for name, table in tables.items()},
        "features": {name: describe_columns(table.select(features)) for name, table in tables.items()},
    }


def _collect(scratch: ObjectStore, prefix: str, folder: Path, channels: Sequence[str]) -> list[str]:
    """Write the Parquet files that Spark left as objects below a folder, and return the paths of all other objects.

    Raises:
        InvalidInputError: they are too many, or too large together.
    """
    ignored, left = [], LIMITS.max_bytes
    listed = [v for v in scratch.list_versions(prefix) if v.is_latest and not v.is_delete_marker]
    if len(listed) > LIMITS.max_files:
        raise InvalidInputError.of("SM_OUTPUT_DATA_DIR", "entries", f"the output has more than {LIMITS.max_files} files")
    for entry in sorted(listed, key=lambda v: v.key):
        path = entry.key.removeprefix(prefix)
        if not _is_data(path, channels):
            ignored.append(path)
            continue
        left -= entry.size
        if left < 0:
            raise InvalidInputError.of("SM_OUTPUT_DATA_DIR", "unpacked_size", f"the prepared data are larger than {LIMITS.max_bytes} bytes")
        with scratch.open(entry.key, entry.version_id) as stream:
            _save(stream, folder / path)
    return ignored


def _is_data(path: str, channels: Sequence[str]) -> bool:
    channel, _, name = path.partition("/")
    return channel in channels and "/" not in name and name.endswith(".parquet")


def _save(stream: IO[bytes], target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with target.open("xb") as sink:
        while chunk := stream.read(1 << 20):
            sink.write(chunk)


def _unpack(scratch: ObjectStore, key: str, folder: Path, channels: Sequence[str]) -> list[str]:
    """Write the Parquet files of the channels below a folder and return the paths of all other files."""
    ignored = []
    try:
        stream = scratch.open(key)
    except NotFoundError as error:
        raise InvalidInputError.of("SM_OUTPUT_DATA_DIR", "present", "the processing script left no output") from error
    with stream:
        for member in iterate_archive(stream, LIMITS, field="SM_OUTPUT_DATA_DIR"):
            if _is_data(member.path, channels):
                _save(member.stream, folder / member.path)
            else:
                ignored.append(member.path)
    return ignored


def _read_set(folder: Path, name: str) -> PreparedSet:
    files = tuple(sorted((folder / name).glob("*.parquet"))) if (folder / name).is_dir() else ()
    if not files:
        raise _broken(f"{name}/", "present", f"the processing script wrote no {name}/*.parquet to SM_OUTPUT_DATA_DIR")
    cells = 0
    tables = []
    for file in files:
        where = f"{name}/{file.name}"
        try:
            with parquet.ParquetFile(file) as opened:
                columns = len(opened.schema_arrow.names)
                if columns > MAX_COLUMNS:
                    raise _broken(where, "max_columns", f"{columns} columns; at most {MAX_COLUMNS}")
                cells += opened.metadata.num_rows * columns
                if cells > MAX_CELLS:
                    raise _broken(where, "max_cells", f"more than {MAX_CELLS} values in {name}")
                tables.append(opened.read(use_threads=False))
        except (pyarrow.ArrowException, OSError) as error:
            raise _broken(where, "parquet", f"not a Parquet file that can be read: {str(error)[:300]}") from error
    if not any(table.num_rows for table in tables):
        raise _broken(f"{name}/", "rows", f"{name} has no rows")
    return PreparedSet(name, files, tuple(tables))


def _check_same_columns(train: PreparedSet, holdout: PreparedSet) -> None:
    first = train.tables[0].schema.remove_metadata()
    for part in (train, holdout):
        for file, table in zip(part.files, part.tables, strict=True):
            schema = table.schema.remove_metadata()
            if _columns(schema) != _columns(first):
                difference = next(
                    (f"{a} where {b} is expected" for a, b in zip(_columns(schema), _columns(first), strict=False) if a != b),
                    f"{len(schema)} columns where {len(first)} are expected",
                )
                message = f"its columns differ from {train.name}/{train.files[0].name}: {difference}"
                raise _broken(f"{part.name}/{file.name}", "same_columns", message)


def _columns(schema: pyarrow.Schema) -> list[str]:
    return [f"{field.name!r} ({field.type})" for field in schema]


def _check_columns(train: PreparedSet, label: str) -> None:
    schema = train.tables[0].schema
    where = f"{train.name}/{train.files[0].name}"
    names = schema.names
    if len(set(names)) != len(names):
        raise _broken(where, "unique", "two columns have one name")
    if label not in names:
        raise _broken(where, "label_present", f"the label column {label!r} is missing")
    if len(names) < 2:
        raise _broken(where, "features", "there is no column besides the label")
    for field in schema:
        if _INDEX.fullmatch(field.name):
            raise _broken(where, "no_index", f"column {field.name!r} is a pandas index, not a feature; write with index=False")
        if not field.name or len(field.name) > 256:
            raise _broken(where, "column_name", f"a column's name has {len(field.name)} characters; 1 to 256 are allowed")
        if not _is_plain(field.type):
            raise _broken(
                where, "column_type", f"column {field.name!r} has type {str(field.type)[:80]}; nested and binary types are not taken"
            )


def _is_plain(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    tests = (
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_decimal,
        types.is_string,
        types.is_large_string,
        types.is_date,
        types.is_timestamp,
        types.is_time,
    )
    return any(test(kind) for test in tests)


def _check_label(part: PreparedSet, label: str) -> None:
    for file, table in zip(part.files, part.tables, strict=True):
        column = table.column(label)
        where = f"{part.name}/{file.name}"
        if column.null_count:
            raise _broken(where, "label_null", f"the label column {label!r} has {column.null_count} nulls")
        if pyarrow.types.is_floating(column.type):
            wrong = pyarrow.compute.sum(pyarrow.compute.invert(pyarrow.compute.is_finite(column))).as_py() or 0
            if wrong:
                raise _broken(where, "label_finite", f"the label column {label!r} has {wrong} values that are NaN or infinite")


def _write(scratch: ObjectStore, prefix: str, train: PreparedSet, holdout: PreparedSet, label: str, folder: Path) -> None:
    for file in train.files:
        _put(scratch, f"{prefix}train/{file.name}", file)
    made = folder / "made.parquet"
    for file, table in zip(holdout.files, holdout.tables, strict=True):
        features = table.drop_columns([label])
        parquet.write_table(features.replace_schema_metadata(_metadata_without(table.schema.metadata, label)), made)
        _put(scratch, f"{prefix}holdout/{file.name}", made)
    labels = holdout.table.select([label]).replace_schema_metadata(None)
    parquet.write_table(labels, made)
    _put(scratch, f"{prefix}holdout-labels/labels.parquet", made)


def _put(scratch: ObjectStore, key: str, file: Path) -> None:
    with file.open("rb") as body:
        scratch.put_new(key, body, content_type="application/vnd.apache.parquet")


def _metadata_without(metadata: Mapping[bytes, bytes] | None, label: str) -> dict[bytes, bytes] | None:
    """Return pandas' notes on the columns less those on the label, so that features read as they do in training."""
    try:
        notes = json.loads((metadata or {})[b"pandas"])
        notes["columns"] = [column for column in notes["columns"] if column["name"] != label]
        return {b"pandas": json.dumps(notes).encode()}
    except (KeyError, ValueError, TypeError):
        return None


def _broken(where: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(where, rule, message)
