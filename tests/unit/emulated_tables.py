"""The emulator's module of DynamoDB twice: as it is, and patched as the embedded AWS patches it."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from typing import Any

from ministack.services import dynamodb

from attestry.local import patch_projections, patch_queries, patch_streams, patch_tables, patch_writes
from attestry.local.patch_repeats import Copies

TABLE = "Table"
INDEX_OF_ALL, INDEX_OF_SOME, INDEX_OF_KEYS, INDEX_OF_NUMBERS = "all", "some", "keys", "numbers"


def copy_of_module(name: str) -> Any:
    """Return another module made from the emulator's source, unpatched, with tables of its own."""
    specification = importlib.util.spec_from_file_location(name, dynamodb.__file__)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where the source of its functions is looked for
    specification.loader.exec_module(module)
    return module


@functools.cache
def plain() -> Any:
    """Return the emulator's module as it is."""
    return copy_of_module("tests.unit.plain_tables")


@functools.cache
def patched() -> Any:
    """Return the emulator's module as the embedded AWS has it."""
    module = copy_of_module("tests.unit.patched_tables")
    module.copy = Copies()
    patch_tables.patch(module)
    patch_queries.patch(module)
    patch_projections.patch(module)
    patch_streams.patch(module)
    patch_writes.patch(module)
    return module


def create(tables: Any, *, sort_key: bool = True, stream: bool = False) -> None:
    """Create the table anew, with indices of several kinds."""
    tables.reset()
    names = ["pk", "sk", "ipk", "isk"] if sort_key else ["pk", "ipk", "isk"]
    keys = [("pk", "HASH"), *([("sk", "RANGE")] if sort_key else [])]
    request = {
        "TableName": TABLE,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": schema(*keys),
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names]
        + [{"AttributeName": "number", "AttributeType": "N"}],
        "GlobalSecondaryIndexes": [
            index(INDEX_OF_ALL, "ALL", ("ipk", "HASH"), ("isk", "RANGE")),
            index(INDEX_OF_SOME, "INCLUDE", ("ipk", "HASH"), ("pk", "RANGE")),
            index(INDEX_OF_KEYS, "KEYS_ONLY", ("ipk", "HASH")),
            index(INDEX_OF_NUMBERS, "ALL", ("ipk", "HASH"), ("number", "RANGE")),
        ],
    }
    if stream:
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert call(tables, "_create_table", request)[0] == 200


def schema(*keys: tuple[str, str]) -> list[dict[str, str]]:
    """Return a key schema."""
    return [{"AttributeName": name, "KeyType": kind} for name, kind in keys]


def index(name: str, projection: str, *keys: tuple[str, str]) -> dict[str, Any]:
    """Return an index; one that includes attributes has `text`."""
    projected: dict[str, Any] = {"ProjectionType": projection}
    if projection == "INCLUDE":
        projected["NonKeyAttributes"] = ["text"]
    return {"IndexName": name, "KeySchema": schema(*keys), "Projection": projected}


def call(tables: Any, action: str, request: dict[str, Any]) -> tuple[int, Any]:
    """Call an action with a request of its own, and return status and answer."""
    status, _, body = getattr(tables, action)(json.loads(json.dumps(request)))
    return status, json.loads(body)
